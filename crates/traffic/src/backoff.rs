//! How long to wait before trying again: doubling up to a cap, and jittered so that many who failed together do not come
//! back together.

use std::time::Duration;

use crate::dice::Dice;

/// A wait that doubles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The wait after the first failure, before jitter.
    pub base: Duration,
    /// No wait is longer than this, before jitter.
    pub cap: Duration,
}

impl Backoff {
    /// `base`, doubling until `cap`.
    pub const fn new(base: Duration, cap: Duration) -> Self {
        Self { base, cap }
    }

    /// The wait after `failures` failures in a row, before jitter; nothing for none.
    pub fn ceiling(self, failures: u32) -> Duration {
        let Some(doublings) = failures.checked_sub(1) else { return Duration::ZERO };
        let factor = 2_u32.saturating_pow(doublings);
        self.base.saturating_mul(factor).min(self.cap)
    }

    /// Evenly from nothing up to the ceiling ("full jitter"): for reconnects, where a whole fleet lost the same peer.
    pub fn full(self, failures: u32, dice: &mut Dice) -> Duration {
        dice.up_to(self.ceiling(failures))
    }

    /// Evenly from half to one and a half of the ceiling: for retries, where the wait itself gives the peer its chance.
    pub fn around(self, failures: u32, dice: &mut Dice) -> Duration {
        dice.jitter(self.ceiling(failures))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff::new(Duration::from_millis(25), Duration::from_secs(1));

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        let millis: Vec<u128> = (0..8).map(|failures| BACKOFF.ceiling(failures).as_millis()).collect();
        assert_eq!(millis, [0, 25, 50, 100, 200, 400, 800, 1000]);
        assert_eq!(BACKOFF.ceiling(u32::MAX), BACKOFF.cap);
    }

    #[test]
    fn full_jitter_never_waits_longer_than_the_ceiling() {
        let mut dice = Dice::seeded(3);
        assert!((0..1000).all(|_| BACKOFF.full(3, &mut dice) <= Duration::from_millis(100)));
    }

    #[test]
    fn jitter_around_the_ceiling_always_waits_at_least_half() {
        let mut dice = Dice::seeded(3);
        assert!((0..1000).all(|_| BACKOFF.around(1, &mut dice) >= Duration::from_micros(12_500)));
    }
}
