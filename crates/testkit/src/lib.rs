//! The whole mesh, seen from outside: starts the built binaries and things nobody here wrote, and watches what happens.
//!
//! Every scenario in `tests/` owns its whole stack: its own folders, its own ports, its own processes. Nothing waits for time
//! to pass; everything waits for a state, with a deadline and a message that says what was seen instead. When a [`mesh::Mesh`]
//! goes out of scope, everything it started must be gone, or the test fails.
#![expect(
    clippy::panic,
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test kit reports by panicking and printing"
)]

pub mod apps;
pub mod binaries;
pub mod capture;
pub mod client;
pub mod control_socket;
pub mod cutter;
pub mod divided;
pub mod example;
pub mod hop;
pub mod http1;
pub mod http2;
pub mod ledger;
pub mod mesh;
pub mod namespace;
pub mod processes;
pub mod readme;
pub mod rest;
pub mod settings;
pub mod shell;
pub mod sidecar;
pub mod tasks;
pub mod tcp;
pub mod tls;
pub mod wait;
pub mod websocket;

use std::time::Duration;

/// Runs one scenario on a runtime of its own, and fails it when `limit` has passed.
pub fn scenario(limit: Duration, body: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let ended = tokio::time::timeout(limit, body).await;
        assert!(ended.is_ok(), "the scenario did not end within {limit:?}");
    });
}

/// Prints one measured figure in a form that a report can collect.
pub fn figure(name: &str, value: impl std::fmt::Display) {
    println!("figure: {name} = {value}");
}

/// Seconds since 1970, for claims of tokens.
pub fn unix_now() -> u64 {
    use hms_identity::clock::Clock as _;
    let now = hms_identity::clock::SystemClock.now();
    now.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
