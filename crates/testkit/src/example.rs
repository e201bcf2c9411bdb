//! One of `examples/`, installed as its README says, as a mesh of its own.

use std::fs;
use std::path::Path;

use tokio::process::Command;

use crate::mesh::{Mesh, User};
use crate::readme::{self, Block};
use crate::shell::Shell;
use crate::{binaries, settings};

/// A copy of an example that belongs to one user.
#[derive(Debug)]
pub struct Example {
    /// Its mesh.
    pub mesh: Mesh,
    /// The blocks of its README.
    pub blocks: Vec<Block>,
}

impl Example {
    /// The example with everything its installation adds. The programs under test stand in its own folder, because the one they
    /// were built in may be closed to others.
    pub fn new(name: &str, user: User) -> Self {
        let mesh = Mesh::example_of(name, user);
        add(&binaries::installed_example(name), mesh.project());
        let programs = mesh.root().join("bin");
        fs::create_dir(&programs).unwrap();
        for program in [binaries::hms(), binaries::hms_proxy(), binaries::hms_api()] {
            link(&program, &programs.join(program.file_name().unwrap()));
        }
        let page = fs::read_to_string(mesh.project().join("README.md")).unwrap();
        mesh.hand_over();
        Self { mesh, blocks: readme::blocks(&page) }
    }

    /// A command as the mesh's user types it: our programs and the system's, nothing of the caller's.
    pub fn command(&self, program: &str) -> Command {
        let programs = self.mesh.root().join("bin");
        let system = settings::search_path();
        let mut command = self.mesh.command(program);
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin:{system}", programs.display()));
        command.env_remove("VIRTUAL_ENV");
        command
    }

    /// A shell of that user in the example's folder.
    pub async fn shell(&self) -> Shell {
        let mut command = self.command("bash");
        command.args(["--norc", "--noprofile"]);
        Shell::start(command, &self.mesh.root().join("shell.log")).await
    }

    /// The same in a network of its own, where every port is free.
    pub async fn shell_alone(&self) -> Shell {
        let mut command = self.command("unshare");
        if !self.mesh.is_typed_by_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(["--net", "sh", "-c", "ip link set lo up && exec bash --norc --noprofile"]);
        Shell::start(command, &self.mesh.root().join("shell-alone.log")).await
    }
}

/// Adds what is not there yet. Files that are there already are newer.
fn add(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            add(&entry.path(), &target);
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else if !target.exists() {
            link(&entry.path(), &target);
        }
    }
}

/// A second name for a file; a copy where the file system has none.
fn link(from: &Path, to: &Path) {
    fs::hard_link(from, to).or_else(|_elsewhere| fs::copy(from, to).map(drop)).unwrap();
}
