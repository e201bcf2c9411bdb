//! The control plane: decides what every proxy should know.
//!
//! ```text
//! REST, files ─► registry ─► store ─► registry (follows the store) ─► publish: assemble, compile ─► discovery ─► proxies
//! proxies' control streams ─► discovery ─► registry (leases), live (what proxies report)
//! ```

pub mod api;
pub mod app;
pub mod ca;
pub mod canary;
pub mod compile;
mod conditions;
pub mod discovery;
mod inert;
pub mod jwt;
pub mod live;
mod publish;
pub mod registry;
pub mod settings;
mod show;
pub mod store;
pub mod tasks;

pub use show::resources;
