//! How an application's traffic reaches this proxy without the application's knowledge.

pub mod dns;
