//! What the environment says about this test run. The only reader of the environment.
#![expect(clippy::disallowed_methods, reason = "this is the place that reads the environment")]

use std::path::PathBuf;

/// `HMS_TEST_BIN`: the folder of the built binaries, instead of the one this test was built into.
pub fn binaries() -> Option<PathBuf> {
    path("HMS_TEST_BIN")
}

/// `HMS_TEST_PYTHON`: a Python with fastapi, uvicorn, httpx and grpcio, instead of `target/venv`.
pub fn python() -> Option<PathBuf> {
    path("HMS_TEST_PYTHON")
}

/// `HMS_TEST_PROXY_RELEASE`: the release build of `hms-proxy`, instead of `target/release/hms-proxy`.
pub fn release_proxy() -> Option<PathBuf> {
    path("HMS_TEST_PROXY_RELEASE")
}

/// `HMS_TEST_H2SPEC`: the h2spec program, instead of `target/tools/h2spec`.
pub fn h2spec() -> Option<PathBuf> {
    path("HMS_TEST_H2SPEC")
}

/// `HMS_TEST_EXAMPLES`: the examples with what their installation adds, instead of `target/examples`.
pub fn examples() -> Option<PathBuf> {
    path("HMS_TEST_EXAMPLES")
}

/// `HMS_TEST_FULL`: set, the tests that have one run in their full size, which takes longer and wants the machine for itself.
pub fn full_size() -> bool {
    path("HMS_TEST_FULL").is_some()
}

/// `HMS_TEST_ENGINE_IMAGE`: an image with bash, python3 and curl that the engine behind `docker` has, for the test that needs one.
pub fn engine_image() -> Option<String> {
    path("HMS_TEST_ENGINE_IMAGE").map(|image| image.to_string_lossy().into_owned())
}

/// `DOCKER_HOST` and `DOCKER_CONFIG`, by which `docker` finds its engine and its Compose.
pub fn engine() -> Vec<(&'static str, String)> {
    let set = |name| std::env::var(name).ok().map(|value| (name, value));
    ["DOCKER_HOST", "DOCKER_CONFIG"].into_iter().filter_map(set).collect()
}

/// `HMS_BLESS`: set, tests of generated pages write them instead of comparing.
pub fn bless() -> bool {
    path("HMS_BLESS").is_some()
}

/// `PATH`, so that programs find what they need.
pub fn search_path() -> String {
    std::env::var("PATH").unwrap_or_else(|_unset| "/usr/local/bin:/usr/bin:/bin".to_owned())
}

fn path(name: &str) -> Option<PathBuf> {
    std::env::var(name).ok().filter(|value| !value.is_empty()).map(PathBuf::from)
}
