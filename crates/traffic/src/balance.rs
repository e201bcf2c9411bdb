//! Choosing one endpoint of several.

pub mod hashed;
pub mod key;
pub mod maglev;
pub mod ring;
pub mod slow_start;
pub mod zones;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hms_model::policy::Algorithm;

use crate::clock::micros;
use crate::dice::Dice;

/// Latencies below this are alike: between neighbours on a fast network the number of requests decides, not noise.
const INDIFFERENCE: Duration = Duration::from_millis(1);

/// An endpoint that may be chosen: healthy, admitted, and not yet tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// What the caller knows it by.
    pub index: usize,
    /// Requests under way to it.
    pub in_flight: u32,
    /// Its moving average of latency ([`crate::ewma::Ewma::value`]); zero when nothing is known.
    pub latency: Duration,
}

/// The `index` of the candidate to take; `None` only when there is none. `rotor` is the service's turn for round robin. What
/// chooses by a key ([`hashed`]) chooses as by default where a request has none.
pub fn choose(algorithm: &Algorithm, candidates: &[Candidate], rotor: &AtomicUsize, dice: &mut Dice) -> Option<usize> {
    let chosen = match (algorithm, candidates) {
        (_, [] | [_]) => candidates.first(),
        (Algorithm::LeastRequest | Algorithm::RingHash(_) | Algorithm::Maglev(_), _) => better_of_two(candidates, dice),
        (Algorithm::RoundRobin, _) => candidates.get(rotor.fetch_add(1, Ordering::Relaxed) % candidates.len()),
        (Algorithm::Random, _) => candidates.get(dice.below(candidates.len())),
    };
    chosen.map(|candidate| candidate.index)
}

/// Two different ones at random, and of them the less loaded: nearly as even as looking at all, without the herd that
/// follows the one best endpoint (Mitzenmacher, "The Power of Two Choices", 2001).
fn better_of_two<'a>(candidates: &'a [Candidate], dice: &mut Dice) -> Option<&'a Candidate> {
    let first = dice.below(candidates.len());
    // One fewer, and stepping over the first, makes the second a different one without rolling again.
    let second = dice.below(candidates.len().saturating_sub(1));
    let second = if second >= first { second.saturating_add(1) } else { second };
    let (one, other) = (candidates.get(first)?, candidates.get(second)?);
    Some(if less_loaded(other, one) { other } else { one })
}

/// Whether `one` costs less than `other`. An endpoint of unknown latency is compared by its requests alone: counted as fast
/// it would draw everything before its first answer.
fn less_loaded(one: &Candidate, other: &Candidate) -> bool {
    let waiting = |candidate: &Candidate| u128::from(candidate.in_flight) + 1;
    if one.latency.is_zero() || other.latency.is_zero() {
        return waiting(one) < waiting(other);
    }
    let cost = |candidate: &Candidate| waiting(candidate) * u128::from(micros(candidate.latency.max(INDIFFERENCE)));
    cost(one) < cost(other)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(index: usize, in_flight: u32, millis: u64) -> Candidate {
        Candidate { index, in_flight, latency: Duration::from_millis(millis) }
    }

    /// How often each of `candidates` is chosen in `rounds`, without the load changing.
    fn counts(algorithm: &Algorithm, candidates: &[Candidate], rounds: usize) -> Vec<usize> {
        let (rotor, mut dice) = (AtomicUsize::new(0), Dice::seeded(42));
        let mut counts = vec![0; candidates.len()];
        for _ in 0..rounds {
            let chosen = choose(algorithm, candidates, &rotor, &mut dice).unwrap();
            counts[chosen] += 1;
        }
        counts
    }

    #[test]
    fn nobody_is_chosen_of_none_and_the_only_one_of_one() {
        let (rotor, mut dice) = (AtomicUsize::new(7), Dice::seeded(1));
        for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
            assert_eq!(choose(&algorithm, &[], &rotor, &mut dice), None);
            assert_eq!(choose(&algorithm, &[candidate(9, 5, 1)], &rotor, &mut dice), Some(9));
        }
    }

    #[test]
    fn of_two_the_less_loaded_is_always_taken() {
        assert_eq!(counts(&Algorithm::LeastRequest, &[candidate(0, 3, 10), candidate(1, 0, 10)], 100), [0, 100]);
        assert_eq!(counts(&Algorithm::LeastRequest, &[candidate(0, 1, 10), candidate(1, 1, 50)], 100), [100, 0]);
    }

    #[test]
    fn an_endpoint_of_unknown_latency_is_not_flooded() {
        let known = candidate(0, 0, 10);
        assert_eq!(counts(&Algorithm::LeastRequest, &[known, candidate(1, 1, 0)], 100), [100, 0]);
        let both_idle = counts(&Algorithm::LeastRequest, &[known, candidate(1, 0, 0)], 1000);
        assert!(both_idle.iter().all(|count| *count > 400), "{both_idle:?}");
    }

    #[test]
    fn latencies_below_a_millisecond_are_alike() {
        let fast = Candidate { index: 0, in_flight: 0, latency: Duration::from_micros(100) };
        let slower = Candidate { index: 1, in_flight: 0, latency: Duration::from_micros(900) };
        let counts = counts(&Algorithm::LeastRequest, &[fast, slower], 1000);
        assert!(counts.iter().all(|count| *count > 400), "{counts:?}");
    }

    #[test]
    fn round_robin_takes_turns_and_survives_its_rotors_end() {
        let candidates = [candidate(0, 0, 0), candidate(1, 9, 9), candidate(2, 0, 0)];
        assert_eq!(counts(&Algorithm::RoundRobin, &candidates, 300), [100, 100, 100]);
        let rotor = AtomicUsize::new(usize::MAX);
        let mut dice = Dice::seeded(1);
        assert!((0..3).all(|_| choose(&Algorithm::RoundRobin, &candidates, &rotor, &mut dice).is_some()));
    }

    #[test]
    fn equals_are_chosen_evenly() {
        let equals: Vec<_> = (0..10).map(|index| candidate(index, 1, 5)).collect();
        for algorithm in [Algorithm::LeastRequest, Algorithm::Random] {
            let counts = counts(&algorithm, &equals, 10_000);
            assert!(counts.iter().all(|count| (800..1200).contains(count)), "{algorithm:?} {counts:?}");
        }
    }

    #[test]
    fn two_choices_keep_the_fullest_endpoint_near_the_average() {
        let mut load = vec![0_u32; 20];
        let (rotor, mut dice) = (AtomicUsize::new(0), Dice::seeded(11));
        for _ in 0..2000 {
            let candidates: Vec<_> =
                load.iter().enumerate().map(|(index, in_flight)| candidate(index, *in_flight, 5)).collect();
            load[choose(&Algorithm::LeastRequest, &candidates, &rotor, &mut dice).unwrap()] += 1;
        }
        assert!(load.iter().all(|count| (96..=104).contains(count)), "the average is 100: {load:?}");
    }

    proptest! {
        #[test]
        fn only_candidates_are_chosen(
            loads in proptest::collection::vec((any::<u32>(), any::<u32>()), 1..30), seed: u64, turn: usize, which in 0..3_usize
        ) {
            let candidates: Vec<_> = loads
                .iter()
                .enumerate()
                .map(|(index, (in_flight, millis))| candidate(index * 3 + 1, *in_flight, u64::from(*millis)))
                .collect();
            let algorithm = [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random][which].clone();
            let chosen = choose(&algorithm, &candidates, &AtomicUsize::new(turn), &mut Dice::seeded(seed));
            prop_assert!(candidates.iter().any(|candidate| Some(candidate.index) == chosen));
        }

        #[test]
        fn the_most_loaded_is_never_chosen_while_there_is_another(seed: u64, others in 1_usize..20) {
            let mut candidates: Vec<_> = (0..others).map(|index| candidate(index, 1, 5)).collect();
            candidates.push(candidate(others, 100, 5));
            let chosen = choose(&Algorithm::LeastRequest, &candidates, &AtomicUsize::new(0), &mut Dice::seeded(seed));
            prop_assert!(chosen.is_some_and(|index| index != others));
        }
    }
}
