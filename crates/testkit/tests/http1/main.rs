//! HTTP/1.1 from outside, byte by byte: what reaches an application, what never does, and what a hostile one can do to its callers.
#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail by panicking, as the test does")]

#[path = "../../../http1/tests/differential/corpus.rs"]
mod corpus;
mod cuts;
mod hostile;
mod idle;
mod requests;
mod slow;
mod smuggling;
mod stack;
mod strictness;
mod wire;
