//! Where things are. The only reader of the environment.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// Where cargo builds, and where everything that a command needs besides is kept.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// The cargo that runs us.
pub(crate) fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// `PATH` with these folders before everything else.
pub(crate) fn path_after(folders: &[PathBuf]) -> Result<OsString, String> {
    let inherited = std::env::var_os("PATH").unwrap_or_default();
    std::env::join_paths(folders.iter().cloned().chain(std::env::split_paths(&inherited)))
        .map_err(|error| format!("PATH cannot hold the build folder: {error}"))
}
