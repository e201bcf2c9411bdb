//! Whether an application's error comes of a refusal further on (ruling R3: what an open breaker answered is never counted again).
//!
//! A proxy that refuses a call on purpose, for an open breaker or a limit, or is told that one further on did, notes when. Its application
//! answers an error then, as most do whose own calls fail. If that request was under way at the moment of the refusal, the proxy
//! says so with the answer, and whoever called neither counts the error nor tries again: the endpoint is as well as what is
//! behind it, and another try would meet the same breaker. Otherwise every breaker of a chain would open after the last one, and each of
//! them would go on refusing for a period of its own after the last one has closed.

use crate::cell::{AtomicU64, Ordering};
use crate::clock::Moment;

/// When a proxy last saw one of its application's calls refused on purpose; shared by all workers.
#[derive(Debug)]
pub struct Refusals(AtomicU64);

impl Default for Refusals {
    fn default() -> Self {
        Self::new()
    }
}

impl Refusals {
    /// None so far.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes one in.
    pub fn note(&self, now: Moment) {
        // One more, so that zero says that there was none.
        self.0.fetch_max(now.as_micros().saturating_add(1), Ordering::Relaxed);
    }

    /// Whether there was one at `begun` or later: then an error of a request that began at that moment may come of it.
    pub fn since(&self, begun: Moment) -> bool {
        self.0.load(Ordering::Relaxed) > begun.as_micros()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn only_a_request_that_was_under_way_is_excused() {
        let cell = Refusals::new();
        assert!(!cell.since(Moment::ZERO));
        cell.note(Moment::from_micros(50));
        assert!(cell.since(Moment::from_micros(40)) && cell.since(Moment::from_micros(50)));
        assert!(!cell.since(Moment::from_micros(51)));
        cell.note(Moment::from_micros(10));
        assert!(cell.since(Moment::from_micros(50)), "a worker whose clock is behind takes nothing back");
    }

    #[test]
    fn a_refusal_at_the_very_beginning_counts() {
        let cell = Refusals::new();
        cell.note(Moment::ZERO);
        assert!(cell.since(Moment::ZERO));
    }
}
