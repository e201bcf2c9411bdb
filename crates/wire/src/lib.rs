//! How the nouns of the mesh travel between a control plane and its proxies, and between two proxies.
//!
//! [`encode`] and [`decode`] carry one resource; every bound is checked on the way in, because what arrives was written by
//! somebody else. [`delta`] holds the two state machines that keep a proxy's resources equal to what the control plane wants
//! it to have; they do no I/O. [`hello`] is the greeting with which one proxy begins a connection to another.

mod balance;
mod bounds;
mod egress;
mod error;
mod gateway;
mod http_route;
mod policy;
mod port;
mod probe;
mod resource;
mod route;
mod service;
mod split;
mod standalone;
mod trust;
mod workload;

pub mod delta;
pub mod hello;
pub mod proto;

pub use bounds::{MESSAGE_BYTES, NAME_BYTES, RESOURCE_BYTES};
pub use error::WireError;
pub use resource::{DESCRIPTORS, LEVEL, TYPE_URL, decode, encode};
pub use standalone::{STANDALONE_BYTES, decode_standalone, encode_standalone};

/// How one noun travels: its protobuf message, and the way there and back.
///
/// `to_wire` takes its value apart completely, so that a new field does not compile until it is sent. `from_wire` checks every
/// bound and invents nothing: a missing message is an error, never a default.
pub trait Wire: Sized {
    /// The generated type; for enumerations the number that stands in a message.
    type Message;

    /// The message that says the same.
    fn to_wire(&self) -> Self::Message;

    /// The value, if the message is within all bounds.
    fn from_wire(message: Self::Message) -> Result<Self, WireError>;
}
