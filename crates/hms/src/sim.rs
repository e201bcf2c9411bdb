//! A mesh on virtual time: the decisions of the proxies are those of [`hms_traffic`], the very code; the network, the
//! applications and the clock are made up. The same scenario and seed give the same bytes.
//!
//! * [`caller`]: a proxy that calls, step by step as `attempt.rs` of the proxy does it
//! * [`world`]: what happens next; applications, the network, what callers are told
//! * [`account`]: what is counted
//! * [`verdict`]: which bounds were crossed, when and why
//! * [`show`]: the report

pub(crate) mod account;
mod caller;
pub(crate) mod show;
pub(crate) mod verdict;
pub(crate) mod world;

#[cfg(test)]
mod tests;

use hms_formats::scenario::Scenario;

use account::Account;

/// Steps of one simulation. A call graph that fans out at every hop multiplies, and this is where it ends.
pub(crate) const MOST_STEPS: u64 = 20_000_000;

/// What came of a simulation.
#[derive(Debug)]
pub(crate) struct Played {
    /// What was counted, by service in the order of their names.
    pub(crate) accounts: Vec<Account>,
    /// Steps it took.
    pub(crate) steps: u64,
}

/// Plays a scenario. `None` when it takes more than [`MOST_STEPS`].
pub(crate) fn play(scenario: &Scenario, seed: u64) -> Option<Played> {
    world::World::new(scenario, seed).run()
}
