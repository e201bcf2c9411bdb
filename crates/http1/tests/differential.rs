//! Whole connections: verdicts against a corpus and against hyper, and what must hold for any bytes.

#![expect(clippy::unwrap_used, clippy::panic, reason = "the helpers of a test fail by panicking, as the test does")]

#[path = "differential/connection.rs"]
mod connection;
#[path = "differential/corpus.rs"]
mod corpus;
#[path = "differential/hyper_server.rs"]
mod hyper_server;
#[path = "differential/properties.rs"]
mod properties;
#[path = "differential/verdicts.rs"]
mod verdicts;
