//! The nouns of the mesh: what it *is*, as plain values.
//!
//! Nothing here does I/O, waits, or knows a serialisation. Bounds live in constructors, so a value that exists is valid.
//! Words follow the glossary in `ARCHITECTURE.md`; a policy has the same file name on every floor.

pub mod address;
pub mod finding;
pub mod http_route;
pub mod listener;
pub mod mesh;
pub mod message;
pub mod names;
pub mod policy;
pub mod port;
pub mod resource;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod spiffe;
pub mod split;
pub mod standalone;
pub mod trust;
pub mod workload;
