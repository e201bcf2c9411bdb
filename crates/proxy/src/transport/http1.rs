//! HTTP/1.1 on a connection: `hms-http1` says what the bytes mean, this reads and writes them.
//!
//! Nothing here is a task of its own. A request's body is read by whoever wants it, an answer's body drives what is left of the
//! request's; a connection that waits holds no memory.

mod client;
mod coding;
mod outbox;
mod pace;
mod server;

pub use client::{Connection, Peer, Tunnel};
pub use server::{EDGE, MESH, PEER, Terms, serve};
