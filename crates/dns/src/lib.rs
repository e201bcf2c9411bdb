//! The mesh's names as DNS messages, without I/O.
//!
//! [`answer()`] says what becomes of a query: the mesh's own names are answered from the directory, what is no query is dropped, and
//! everything else is somebody else's. Such a [`Query`] is written anew for a resolver, and what comes back is believed only as far
//! as it answers that question ([`forward`]). [`cache`] keeps what was believed, [`host`] reads how the host resolves names.
//!
//! Every message is read by the `domain` crate; nothing here counts octets of its own beyond the fixed fields of a record.
#![forbid(unsafe_code)]

pub mod addresses;
mod answer;
pub mod cache;
pub mod directory;
pub mod forward;
pub mod host;
mod place;
mod query;
mod reply;

pub use answer::{Answer, NEGATIVE_TTL, TTL, Terms, answer, no_name};
pub use directory::Directory;
pub use query::{Key, Query};
pub use reply::{Code, Reply, refused, server_failure};

/// The largest message that goes over UDP: what fits into the smallest IPv6 packet (DNS flag day 2020).
pub const UDP_BYTES: u16 = 1232;
/// What a client takes that does not say more (RFC 1035 §2.3.4).
pub const PLAIN_BYTES: u16 = 512;

/// What a message came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// One datagram.
    Udp,
    /// A stream of messages with their length before them.
    Tcp,
}
