//! The parts of a measurement, each a process of its own: what answers, and what asks.

pub(crate) mod backend;
pub(crate) mod exchange;
mod grpc;
pub(crate) mod handshake;
pub(crate) mod hold;
mod identity;
pub(crate) mod open_loop;
mod poller;
pub(crate) mod pump;
mod sink;

pub(crate) use identity::{Identity, Offer};
