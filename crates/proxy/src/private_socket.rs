//! Sockets in a private directory: found whatever the length of its path, and spoken to by nobody else.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use rustix::net::sockopt::socket_peercred;

/// The directory lets only us in; the kernel's word for who came costs nothing more.
pub(crate) fn same_user(socket: impl AsFd) -> io::Result<()> {
    if socket_peercred(socket)?.uid == rustix::process::geteuid() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, "the other process belongs to another user"))
}

/// A socket's place, by way of the open directory: a socket's path has at most 108 bytes (unix(7)), a directory's may have more.
pub(crate) struct Place {
    directory: File,
    name: &'static str,
}

impl Place {
    /// The place of the socket `name` in `directory`.
    pub(crate) fn of(directory: &Path, name: &'static str) -> io::Result<Self> {
        Ok(Self { directory: File::open(directory)?, name })
    }

    /// A path that holds as long as this value.
    pub(crate) fn path(&self) -> PathBuf {
        Path::new("/proc/self/fd").join(self.directory.as_raw_fd().to_string()).join(self.name)
    }
}
