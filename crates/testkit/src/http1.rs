//! HTTP/1.1 byte by byte: a client that sends whatever it is told to ([`raw`]), an application that answers whatever it is told to
//! ([`liar`]), and just enough of a reader to see what arrived ([`message`]).

pub mod liar;
pub mod message;
pub mod raw;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// In order: `FIN`, over TLS behind a `close_notify`.
    Clean,
    /// Broken off.
    Broken,
}
