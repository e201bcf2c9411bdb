//! Which share of a split a call goes to.

use hms_model::split::Share;

use crate::dice::Dice;

/// The place of the share that takes a call, by weight, among those of which `usable` holds. Where it holds of none, among all with
/// a weight, so that the refusal speaks of whom was meant. `None` only where nothing has a weight.
pub fn choose(shares: &[Share], usable: impl Fn(usize) -> bool, dice: &mut Dice) -> Option<usize> {
    weighted(shares, &usable, dice).or_else(|| weighted(shares, &|_| true, dice))
}

fn weighted(shares: &[Share], usable: &dyn Fn(usize) -> bool, dice: &mut Dice) -> Option<usize> {
    let taken = |(place, share): &(usize, &Share)| share.weight > 0 && usable(*place);
    let total: u64 = shares.iter().enumerate().filter(taken).map(|(_, share)| u64::from(share.weight)).sum();
    if total == 0 {
        return None;
    }
    let mut left = u64::try_from(dice.below(usize::try_from(total).unwrap_or(usize::MAX))).unwrap_or_default();
    shares.iter().enumerate().filter(taken).find_map(|(place, share)| {
        let weight = u64::from(share.weight);
        if left < weight {
            return Some(place);
        }
        left -= weight;
        None
    })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use hms_model::names::ServiceName;
    use proptest::prelude::*;

    use super::*;

    fn shares(weights: &[u32]) -> Vec<Share> {
        let share = |(number, weight): (usize, &u32)| Share {
            service: ServiceName::new("a").unwrap(),
            version: format!("v{number}"),
            weight: *weight,
        };
        weights.iter().enumerate().map(share).collect()
    }

    fn counts(weights: &[u32], calls: u32, seed: u64) -> Vec<u32> {
        let (shares, mut dice) = (shares(weights), Dice::seeded(seed));
        let mut counts = vec![0; weights.len()];
        for _ in 0..calls {
            counts[choose(&shares, |_| true, &mut dice).unwrap()] += 1;
        }
        counts
    }

    /// The seeds' weights, each within five standard deviations of the binomial distribution: once in 1.7 million by chance, and the
    /// dice are the same in each run.
    #[test]
    fn the_weights_of_the_seeds_are_kept_within_the_binomial_bound() {
        const CALLS: u32 = 100_000;
        for weights in [[90, 10], [50, 50], [100, 0], [1, 99], [9_999, 1]] {
            for seed in 1..=5 {
                let part = f64::from(weights[0]) / f64::from(weights[0] + weights[1]);
                let deviation = (f64::from(CALLS) * part * (1.0 - part)).sqrt();
                let found = f64::from(counts(&weights, CALLS, seed)[0]);
                let off = (found - f64::from(CALLS) * part).abs();
                assert!(off <= 5.0 * deviation, "{weights:?}, seed {seed}: {found} of {CALLS}");
            }
        }
    }

    #[test]
    fn a_share_that_cannot_take_calls_leaves_them_to_the_others_by_weight() {
        let (shares, mut dice) = (shares(&[60, 30, 10]), Dice::seeded(7));
        let mut counts = [0_u32; 3];
        for _ in 0..40_000 {
            counts[choose(&shares, |place| place != 0, &mut dice).unwrap()] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1].abs_diff(30_000) < 500 && counts[2].abs_diff(10_000) < 500, "{counts:?}");
        assert!(choose(&shares, |_| false, &mut dice).is_some(), "somebody is meant, even if nobody can");
    }

    proptest! {
        #[test]
        fn nobody_without_a_weight_is_ever_chosen(weights in proptest::collection::vec(0_u32..5, 1..8), seed: u64) {
            let (shares, mut dice) = (shares(&weights), Dice::seeded(seed));
            for _ in 0..50 {
                match choose(&shares, |place| place % 2 == 0, &mut dice) {
                    Some(place) => prop_assert!(weights[place] > 0),
                    None => prop_assert!(weights.iter().all(|weight| *weight == 0)),
                }
            }
        }
    }
}
