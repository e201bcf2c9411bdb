//! File descriptors: how many there are, how they are shared out, and what it looks like when there are no more.

use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Kept for administration, the control plane, logs and files.
const RESERVED: u64 = 64;
/// Fewer connections than this are no proxy.
const LEAST: u64 = 16;
/// The kernel's own bound on what a process may ask for (`fs.nr_open`); also the most we take of an unlimited number.
const MOST: u64 = 1 << 20;

/// Takes as many as the hard limit allows, and answers how many that is. The soft limit is an old default for programs that use
/// `select`, which this one does not.
pub fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(MOST);
    let wanted = limit.maximum.unwrap_or(MOST).min(MOST);
    if wanted <= soft {
        return soft.min(MOST);
    }
    match setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum }) {
        Ok(()) => wanted,
        Err(error) => {
            tracing::debug!(%error, soft, "the limit of open files stays as it is");
            soft
        }
    }
}

/// Connections that others may open to a process with so many descriptors: each may need another one upstream (reliability §6).
pub fn most_connections(descriptors: u64) -> usize {
    let each = (descriptors.saturating_sub(RESERVED) / 2).max(LEAST);
    usize::try_from(each).unwrap_or(usize::MAX)
}

/// Whether an error of `accept(2)` says that the process or the machine has run out, so that trying again at once is in vain.
/// All others speak of one connection that broke while it waited.
pub fn is_exhaustion(error: &io::Error) -> bool {
    let errno = Errno::from_io_error(error);
    matches!(errno, Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_is_not_reserved_is_for_connections() {
        assert_eq!([256, 1024, 20_000].map(most_connections), [96, 480, 9968]);
        assert_eq!([0, 10, 64, 80].map(most_connections), [16; 4]);
    }

    #[test]
    fn running_out_is_told_from_a_broken_connection() {
        let of = |errno: Errno| io::Error::from(errno);
        assert!([Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].map(of).iter().all(is_exhaustion));
        assert!(![Errno::CONNABORTED, Errno::PERM, Errno::INTR].map(of).iter().any(is_exhaustion));
        assert!(!is_exhaustion(&io::Error::other("no number")));
    }
}
