//! Protocols that nobody reads pass both proxies as they pass a wire: whoever speaks first, however it ends.
#![expect(clippy::unwrap_used, reason = "a stack that does not start fails its test")]

mod ports;
mod refusals;
mod stack;
mod streams;
mod tls;
mod who_speaks;
