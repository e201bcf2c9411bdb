//! An endpoint that is new gets its share little by little: caches are cold, code is not compiled yet, pools are empty.

use std::time::Duration;

use super::Candidate;
use crate::cell::{AtomicU64, Ordering};
use crate::clock::{Moment, micros};
use crate::dice::Dice;

/// A whole share, in thousandths.
pub const WHOLE: u32 = 1000;
/// What an endpoint gets at first, in thousandths: with nothing it would learn nothing.
const LEAST: u32 = 100;

/// When an endpoint began to be used, or began anew.
#[derive(Debug)]
pub struct Since(AtomicU64);

impl Default for Since {
    fn default() -> Self {
        Self::always()
    }
}

impl Since {
    /// It has always been used.
    pub fn always() -> Self {
        Self(AtomicU64::new(0))
    }

    /// It begins now.
    pub fn begin(&self, now: Moment) {
        // 0 is for always.
        self.0.store(now.as_micros().max(1), Ordering::Relaxed);
    }

    /// The thousandths of its share that it gets now: from a tenth, in a straight line, to all of it at the end of `window`.
    pub fn share(&self, window: Duration, now: Moment) -> u32 {
        let since = self.0.load(Ordering::Relaxed);
        let (passed, window) = (now.as_micros().saturating_sub(since), micros(window));
        if since == 0 || passed >= window {
            return WHOLE;
        }
        let risen = u64::from(WHOLE - LEAST).saturating_mul(passed).checked_div(window).unwrap_or_default();
        LEAST + u32::try_from(risen).unwrap_or(WHOLE - LEAST).min(WHOLE - LEAST)
    }
}

/// Leaves each candidate in with the probability of its share, so that whatever chooses among those who are left gives it that
/// much of what it would get. If nobody is left all are: somebody must take the request.
pub fn thin(candidates: &mut Vec<Candidate>, share: impl Fn(&Candidate) -> u32, dice: &mut Dice) {
    let is_in = |candidate: &Candidate, dice: &mut Dice| {
        let share = share(candidate);
        share >= WHOLE
            || dice.below(usize::try_from(WHOLE).unwrap_or_default()) < usize::try_from(share).unwrap_or_default()
    };
    // Sorted to the back instead of removed, so that the list can be had again without memory for a second one.
    let mut kept = 0;
    for place in 0..candidates.len() {
        if candidates.get(place).is_some_and(|candidate| is_in(candidate, dice)) {
            candidates.swap(kept, place);
            kept += 1;
        }
    }
    if kept > 0 {
        candidates.truncate(kept);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use hms_model::policy::Algorithm;
    use proptest::prelude::*;

    use super::*;
    use crate::balance::choose;

    const WINDOW: Duration = Duration::from_secs(30);

    fn at(seconds: u64) -> Moment {
        Moment::from_micros(seconds * 1_000_000)
    }

    #[test]
    fn a_share_rises_in_a_straight_line_from_a_tenth() {
        let since = Since::always();
        assert_eq!(since.share(WINDOW, at(0)), WHOLE);
        since.begin(at(100));
        let shares = [100, 110, 115, 129, 130, 999].map(|second| since.share(WINDOW, at(second)));
        assert_eq!(shares, [100, 400, 550, 970, 1000, 1000]);
        // Another worker's clock reading may be a little behind.
        assert_eq!(since.share(WINDOW, at(99)), 100);
        assert_eq!(since.share(Duration::ZERO, at(100)), WHOLE);
    }

    /// Of 20 000 requests, the share that the last of `count` endpoints gets while it has `share` thousandths.
    fn part_of_the_new_one(algorithm: &Algorithm, count: usize, share: u32) -> f64 {
        let (rotor, mut dice, mut hits) = (AtomicUsize::new(0), Dice::seeded(3), 0_u32);
        for _ in 0..20_000 {
            let mut candidates: Vec<_> =
                (0..count).map(|index| Candidate { index, in_flight: 1, latency: Duration::from_millis(5) }).collect();
            thin(&mut candidates, |own| if own.index == count - 1 { share } else { WHOLE }, &mut dice);
            hits += u32::from(choose(algorithm, &candidates, &rotor, &mut dice) == Some(count - 1));
        }
        f64::from(hits) / 20_000.0
    }

    #[test]
    fn a_new_endpoint_gets_as_much_of_its_share_as_it_should() {
        for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
            for (share, expected) in [(100, 0.025), (500, 0.125), (900, 0.225), (WHOLE, 0.25)] {
                let part = part_of_the_new_one(&algorithm, 4, share);
                assert!((part - expected).abs() < 0.01, "{algorithm:?} at {share}: {part}");
            }
        }
    }

    #[test]
    fn where_all_are_new_somebody_takes_the_request() {
        let candidate = |index| Candidate { index, in_flight: 0, latency: Duration::ZERO };
        let mut dice = Dice::seeded(1);
        for _ in 0..1000 {
            let mut candidates = vec![candidate(0), candidate(1)];
            thin(&mut candidates, |_own| LEAST, &mut dice);
            assert!(!candidates.is_empty());
        }
    }

    proptest! {
        #[test]
        fn whoever_has_a_whole_share_always_stays_in(shares in prop::collection::vec(100_u32..=1000, 1..20), seed: u64) {
            let mut candidates: Vec<_> = (0..shares.len())
                .map(|index| Candidate { index, in_flight: 0, latency: Duration::ZERO })
                .collect();
            thin(&mut candidates, |own| shares[own.index], &mut Dice::seeded(seed));
            let mut left: Vec<_> = candidates.iter().map(|own| own.index).collect();
            left.sort_unstable();
            let count = left.len();
            left.dedup();
            prop_assert_eq!(left.len(), count, "nobody twice");
            prop_assert!(shares.iter().enumerate().all(|(index, share)| *share < WHOLE || left.contains(&index)));
        }
    }
}
