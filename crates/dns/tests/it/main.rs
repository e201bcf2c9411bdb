//! What the mesh says of its names, and what it believes of others.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test that breaks fails")]

mod bad_queries;
mod believing;
mod host;
mod keeping;
mod message;
mod names;
