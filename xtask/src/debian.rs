//! Programs that come from the system's packages.

use std::process::Command;

use nix::unistd::geteuid;

use crate::Outcome;
use crate::process::{capture, run, say};

/// Makes sure that a program is there, from the package of the same name.
pub(crate) fn program(name: &str, version_flag: &str) -> Outcome {
    tool(name, name, version_flag)
}

/// Makes sure that a program is there, from a package of another name.
pub(crate) fn tool(program: &str, package: &str, version_flag: &str) -> Outcome {
    if capture(Command::new(program).arg(version_flag)).is_ok() {
        return Ok(());
    }
    install(package)
}

/// Installs a package by its name.
pub(crate) fn install(package: &str) -> Outcome {
    say(&format!("installing the system package {package}"));
    let apt = |arguments: &[&str]| {
        let mut command = if geteuid().is_root() {
            Command::new("apt-get")
        } else {
            let mut command = Command::new("sudo");
            // Never a question that nobody is there to answer.
            command.args(["--non-interactive", "apt-get"]);
            command
        };
        run(command.args(["-qq"]).args(arguments).env("DEBIAN_FRONTEND", "noninteractive"))
    };
    apt(&["update"]).and_then(|()| apt(&["install", "--yes", "--no-install-recommends", package])).map_err(|why| {
        format!("{why}\nfix: install `{package}` with your system's package manager, then run this again")
    })
}
