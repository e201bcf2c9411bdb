//! Which share of a split a call goes to, and how calls are divided anew.

use std::fmt;

use hms_model::names::ServiceName;
use hms_model::split::{MOST_WEIGHT, Share};

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

/// Why calls cannot be divided so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoDivision {
    /// What is wanted is more than all.
    TooMuch,
    /// So much, of a million, is left and nobody is there for it.
    TooLittle(u32),
    /// An instance has no version, so it could not be told from the others.
    Unversioned,
}

impl fmt::Display for NoDivision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooMuch => "these shares are more than 100 %",
            Self::TooLittle(_) => "these shares are less than 100 %",
            Self::Unversioned => "an instance without a version runs",
        })
    }
}

impl std::error::Error for NoDivision {}

/// The whole division of the calls to `service`: what is wanted (versions, each once, with weights of a million) as it is, and what
/// is left among the others in the proportions they have in `now`; without a split, among the other versions that are known, evenly.
pub fn divide(
    service: &ServiceName,
    now: &[Share],
    known: &[String],
    wanted: &[(String, u32)],
) -> Result<Vec<Share>, NoDivision> {
    let total: u64 = wanted.iter().map(|(_, weight)| u64::from(*weight)).sum();
    let left = u32::try_from(total).ok().and_then(|total| MOST_WEIGHT.checked_sub(total)).ok_or(NoDivision::TooMuch)?;
    if now.is_empty() && known.iter().any(String::is_empty) {
        return Err(NoDivision::Unversioned);
    }
    let share = |version: &str, weight: u32| Share { service: service.clone(), version: version.to_owned(), weight };
    let mut others: Vec<Share> =
        if now.is_empty() { known.iter().map(|version| share(version, 1)).collect() } else { now.to_vec() };
    others.retain(|other| other.service != *service || !wanted.iter().any(|(own, _)| *own == other.version));
    let before: u64 = others.iter().map(|other| u64::from(other.weight)).sum();
    if left > 0 && others.is_empty() {
        return Err(NoDivision::TooLittle(left));
    }
    let count = u64::try_from(others.len()).unwrap_or(1).max(1);
    let mut given = 0;
    for other in &mut others {
        let part =
            (u64::from(left) * u64::from(other.weight)).checked_div(before).unwrap_or_else(|| u64::from(left) / count);
        other.weight = u32::try_from(part).unwrap_or(left);
        given += other.weight;
    }
    // What rounding has left over.
    if let Some(first) = others.iter_mut().max_by_key(|other| other.weight) {
        first.weight += left - given;
    }
    let mut shares: Vec<Share> = wanted.iter().map(|(version, weight)| share(version, *weight)).collect();
    shares.append(&mut others);
    shares.sort_by(|one, other| (&one.service, &one.version).cmp(&(&other.service, &other.version)));
    Ok(shares)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
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

    type Pairs = Vec<(String, u32)>;

    fn divided(now: &[(&str, u32)], known: &[&str], wanted: &[(&str, u32)]) -> Result<Pairs, NoDivision> {
        let service = ServiceName::new("a").unwrap();
        let share = |(version, weight): &(&str, u32)| Share {
            service: service.clone(),
            version: (*version).to_owned(),
            weight: *weight,
        };
        let now: Vec<Share> = now.iter().map(share).collect();
        let known: Vec<String> = known.iter().map(|&version| version.to_owned()).collect();
        let wanted: Pairs = wanted.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect();
        let shares = divide(&service, &now, &known, &wanted)?;
        Ok(shares.into_iter().map(|share| (share.version, share.weight)).collect())
    }

    fn pairs(of: &[(&str, u32)]) -> Pairs {
        of.iter().map(|(version, weight)| ((*version).to_owned(), *weight)).collect()
    }

    #[test]
    fn what_is_left_goes_to_the_others_in_their_proportions() {
        const ALL: u32 = MOST_WEIGHT;
        let of = |now: &[_], known: &[_], wanted: &[_]| divided(now, known, wanted).unwrap();
        assert_eq!(of(&[], &["v1", "v2"], &[("v2", 100_000)]), pairs(&[("v1", 900_000), ("v2", 100_000)]));
        assert_eq!(of(&[], &["v1"], &[("v1", ALL)]), pairs(&[("v1", ALL)]));
        assert_eq!(
            of(&[("v1", 90), ("v2", 10)], &["v1", "v2", "v3"], &[("v3", 500_000)]),
            pairs(&[("v1", 450_000), ("v2", 50_000), ("v3", 500_000)])
        );
        // All of it: the other stays known, and gets nothing.
        assert_eq!(of(&[("v1", 90), ("v2", 10)], &[], &[("v2", ALL)]), pairs(&[("v1", 0), ("v2", ALL)]));
        assert_eq!(of(&[("v1", 0), ("v2", ALL)], &[], &[("v2", 400_000)]), pairs(&[("v1", 600_000), ("v2", 400_000)]));
        let thirds = of(&[("a", 1), ("b", 1), ("c", 1)], &[], &[("d", 0)]);
        assert_eq!(
            thirds.iter().map(|(_, weight)| weight).sum::<u32>(),
            ALL,
            "nothing is lost by rounding: {thirds:?}"
        );
    }

    #[test]
    fn shares_that_cannot_be_are_refused() {
        assert_eq!(divided(&[], &["v1"], &[("v1", 600_000), ("v2", 500_000)]), Err(NoDivision::TooMuch));
        assert_eq!(divided(&[], &["v1"], &[("v1", u32::MAX), ("v2", u32::MAX)]), Err(NoDivision::TooMuch));
        assert_eq!(divided(&[], &[], &[("v2", 400_000)]), Err(NoDivision::TooLittle(600_000)));
        assert_eq!(divided(&[], &["", "v2"], &[("v2", 500_000)]), Err(NoDivision::Unversioned));
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
