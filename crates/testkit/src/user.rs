//! As whom a mesh runs.

use std::path::Path;

use nix::unistd::{Gid, Uid, chown, geteuid};
use tokio::process::Command;

/// The first person's number on most machines. It need not have a name.
const ORDINARY: u32 = 1000;

/// As whom a mesh runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum User {
    /// Whoever runs the tests.
    Own,
    /// Somebody without any privilege: uid 1000, or whoever runs the tests if that is not root.
    Ordinary,
}

impl User {
    fn number(self) -> Option<u32> {
        (self == Self::Ordinary && geteuid().is_root()).then_some(ORDINARY)
    }

    /// The command will run as this user, without supplementary groups and without a capability.
    pub(crate) fn become_in(self, command: &mut Command) {
        if let Some(number) = self.number() {
            command.uid(number).gid(number);
        }
    }

    /// Gives the folder and all in it to this user, except for files that have another name elsewhere.
    pub(crate) fn own(self, folder: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        let Some(number) = self.number() else { return };
        let mut open = vec![folder.to_path_buf()];
        while let Some(path) = open.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                open.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            }
            if metadata.is_dir() || (metadata.is_file() && metadata.nlink() == 1) {
                chown(&path, Some(Uid::from_raw(number)), Some(Gid::from_raw(number))).unwrap();
            }
        }
    }
}
