//! Handshakes that this data thread begins: bounded, and for each endpoint, so that one that never answers delays itself alone.

use std::net::SocketAddr;

use crate::gate::{Gate, Turn};

/// Handshakes in progress with one endpoint.
const ENDPOINT_HANDSHAKES: usize = 8;
/// Handshakes in progress.
const HANDSHAKES: usize = 256;

thread_local! {
    static GATE: Gate<SocketAddr> = Gate::new(ENDPOINT_HANDSHAKES, HANDSHAKES);
}

/// Waits for a turn to begin a handshake with `address`; the turn lasts until the handshake ends.
pub async fn turn(address: SocketAddr) -> Turn<SocketAddr> {
    let gate = GATE.with(Gate::clone);
    gate.enter(address).await
}
