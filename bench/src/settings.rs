//! The only reader of the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// This program, to start its other tools.
pub(crate) fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|error| format!("cannot find our own program: {error}"))
}

/// Where programs are found.
pub(crate) fn search_path() -> OsString {
    // Debian keeps nginx and haproxy where only root looks.
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":/usr/local/sbin:/usr/sbin:/sbin");
    path
}

/// A program by its path, or by its name where programs are found.
pub(crate) fn found(program: &Path) -> Result<PathBuf, String> {
    let path = search_path();
    let mut candidates = std::env::split_paths(&path).map(|folder| folder.join(program));
    candidates.find(|path| path.is_file()).ok_or_else(|| format!("{} is not installed", program.display()))
}
