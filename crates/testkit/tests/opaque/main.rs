//! Protocols that nobody reads pass both proxies as they pass a wire: whoever speaks first, however it ends.

mod ports;
mod refusals;
mod stack;
mod streams;
mod tls;
mod who_speaks;
