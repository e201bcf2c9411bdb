//! Randomness, as an argument: seeded once per worker, and reproducible in a test.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

use crate::clock::micros;

/// A fast random number generator. Not for secrets.
#[derive(Debug, Clone)]
pub struct Dice(SmallRng);

impl Dice {
    /// Dice that fall the same way for the same seed, on one build.
    pub fn seeded(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// Evenly one of `0..n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        if n < 2 { 0 } else { self.0.random_range(0..n) }
    }

    /// Evenly from `0.0` up to, but not including, `1.0`.
    pub fn unit(&mut self) -> f64 {
        self.0.random()
    }

    /// Evenly from nothing to `duration`, both included, in whole microseconds: "full jitter".
    pub fn up_to(&mut self, duration: Duration) -> Duration {
        Duration::from_micros(self.0.random_range(0..=micros(duration)))
    }

    /// Evenly within `duration` ± `percent` per cent, in whole microseconds; more than 100 per cent counts as 100.
    pub fn spread(&mut self, duration: Duration, percent: u8) -> Duration {
        let centre = micros(duration);
        // Divide first, so that no duration overflows; below 100 µs there is nothing to spread.
        let reach = (centre / 100).saturating_mul(u64::from(percent.min(100)));
        Duration::from_micros(self.0.random_range(centre.saturating_sub(reach)..=centre.saturating_add(reach)))
    }

    /// Evenly from half of `duration` to one and a half of it: the mean stays what was asked.
    pub fn jitter(&mut self, duration: Duration) -> Duration {
        self.spread(duration, 50)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_same_seed_falls_the_same_way() {
        let mut one = Dice::seeded(7);
        let mut two = Dice::seeded(7);
        assert!((0..100).all(|_| one.below(1000) == two.below(1000)));
    }

    #[test]
    fn extreme_durations_make_no_trouble() {
        let mut dice = Dice::seeded(1);
        for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX] {
            for percent in [0, 100, 255] {
                dice.spread(duration, percent);
            }
            dice.up_to(duration);
            dice.jitter(duration);
        }
        assert_eq!(dice.below(0), 0);
        assert_eq!(dice.below(1), 0);
    }

    proptest! {
        #[test]
        fn a_spread_stays_within_its_percentage(seed: u64, millis in 1_u64..1_000_000, percent in 0_u8..=100) {
            let duration = Duration::from_millis(millis);
            let reach = duration * u32::from(percent) / 100;
            let fallen = Dice::seeded(seed).spread(duration, percent);
            prop_assert!(fallen + reach >= duration && fallen <= duration + reach, "{fallen:?}");
        }

        #[test]
        fn jitter_is_between_half_and_one_and_a_half(seed: u64, millis in 1_u64..1_000_000) {
            let duration = Duration::from_millis(millis);
            let fallen = Dice::seeded(seed).jitter(duration);
            prop_assert!(fallen >= duration / 2 && fallen <= duration * 3 / 2);
        }
    }
}
