//! HTTP/2 from outside, byte by byte: what it costs to be attacked (reliability §2 B), what is refused, and what is never lost.

mod calls;
mod conformance;
mod floods;
mod goaway;
mod grpc;
mod heads;
mod memory;
mod stack;
