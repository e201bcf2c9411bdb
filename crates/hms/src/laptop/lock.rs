//! One starter at a time: the lock a command holds from the question "does a control plane serve this project?" until its
//! answer is on record.
//!
//! It is a `flock` (flock(2)), so the kernel releases it however its holder ends. The descriptor is closed on exec: no program
//! that is started meanwhile holds the lock on.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag};
use tokio::time::Instant;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::project::Project;

/// How long commands without a limit of their own wait: as long as `hms up` may take to start.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);
/// How often a held lock is tried again. A blocking flock(2) could be neither limited nor interrupted.
const LOOK: Duration = Duration::from_millis(20);
/// More digits than a process number has.
const LONGEST_HOLDER: u64 = 16;

/// The right to start things in a project; dropped, it passes to the next.
#[derive(Debug)]
pub(crate) struct StartLock {
    #[cfg_attr(not(test), expect(dead_code, reason = "held for its drop"))]
    file: Flock<File>,
}

/// What one attempt found.
#[derive(Debug)]
enum Attempt {
    /// The lock is ours.
    Taken(StartLock),
    /// Another command has it.
    Held { by: String },
    /// `hms down` removed the file between two of our steps.
    Removed,
}

impl StartLock {
    /// Waits until no other command starts this project, at most until `deadline`. `waiting` hears, again and again, what
    /// is waited for.
    pub(crate) async fn take(
        project: &Project,
        deadline: Instant,
        mut waiting: impl FnMut(&str),
    ) -> Result<Self, Failure> {
        let begun = Instant::now();
        let path = project.start_lock();
        let mut holder = "another command".to_owned();
        loop {
            let attempt = attempt(&path).map_err(|error| {
                Failure::new(Exit::Failed, 1009, "the project cannot be locked")
                    .at(path.display().to_string())
                    .because(error.to_string())
            })?;
            match attempt {
                Attempt::Taken(lock) => return Ok(lock),
                Attempt::Held { by } => holder = by,
                Attempt::Removed => project.prepare()?,
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(Failure::new(Exit::Deadline, 1003, format!("{holder} is still starting this project"))
                    .at(path.display().to_string())
                    .because(format!("waited {:.1} s", now.duration_since(begun).as_secs_f64()))
                    .fix("hms status   # or: hms down"));
            }
            waiting(&format!("{holder}, which starts this project"));
            tokio::time::sleep_until(deadline.min(now + LOOK)).await;
        }
    }
}

fn attempt(path: &Path) -> io::Result<Attempt> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC).bits())
        .open(path);
    let file = match opened {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Attempt::Removed),
        Err(error) => return Err(error),
    };
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut file) => {
            // A lock on a file that is no longer there excludes nobody.
            if !is_at(&file, path)? {
                return Ok(Attempt::Removed);
            }
            file.set_len(0)?;
            file.rewind()?;
            write!(file, "{}", std::process::id())?;
            Ok(Attempt::Taken(StartLock { file }))
        }
        Err((file, Errno::EWOULDBLOCK | Errno::EINTR)) => Ok(Attempt::Held { by: holder(file) }),
        Err((_, errno)) => Err(errno.into()),
    }
}

fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let locked = file.metadata()?;
    match std::fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (locked.dev(), locked.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Who has it, in words. The number is a courtesy: the lock does not depend on it.
fn holder(file: File) -> String {
    let mut text = String::new();
    let read = file.take(LONGEST_HOLDER).read_to_string(&mut text);
    match (read, text.parse::<u32>()) {
        (Ok(_), Ok(pid)) => format!("another hms (pid {pid})"),
        _ => "another hms".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    fn taken(path: &Path) -> StartLock {
        match attempt(path).unwrap() {
            Attempt::Taken(lock) => lock,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_second_is_told_who_has_it_until_the_first_lets_go() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let first = taken(&path);
        let own = format!("another hms (pid {})", std::process::id());
        assert!(matches!(attempt(&path).unwrap(), Attempt::Held { by } if by == own));
        drop(first);
        drop(taken(&path));
    }

    #[test]
    fn it_is_private_and_no_program_inherits_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(".lock");
        let lock = taken(&path);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let flags = FdFlag::from_bits_retain(fcntl(&*lock.file, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn a_removed_file_locks_nobody_out_and_a_link_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run/.lock");
        assert!(matches!(attempt(&path).unwrap(), Attempt::Removed), "no folder");
        std::fs::create_dir(folder.path().join("run")).unwrap();
        let old = taken(&path);
        std::fs::remove_file(&path).unwrap();
        drop(taken(&path));
        drop(old);
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(folder.path().join("elsewhere"), &path).unwrap();
        attempt(&path).unwrap_err();
        assert!(!folder.path().join("elsewhere").exists());
    }
}
