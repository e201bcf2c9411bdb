//! Maglev's lookup table (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016, §3.4): every
//! endpoint has a permutation of the table's places and takes, by turns, the next one of it that is free.
//!
//! Two endpoints differ by one place at most. When one leaves, its places are shared out, and a few of the others' move.

use crate::stable_hash::{SEED, hash, mix};

/// Places of the table: the largest prime of 16 bits. For 1 000 endpoints it is even within 2 %; it costs 128 KiB.
const PLACES: u16 = 65_521;

/// The table of the endpoints of a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Maglev {
    /// The endpoint at each place; empty without endpoints.
    places: Vec<u16>,
}

/// Where an endpoint is in its permutation.
struct Turn {
    at: u32,
    skip: u32,
}

impl Turn {
    fn of(id: &str) -> Self {
        let places = u64::from(PLACES);
        let own = hash(SEED, id.as_bytes());
        let within = |hash: u64, places: u64| u32::try_from(hash % places).unwrap_or_default();
        Self { at: within(mix(own), places), skip: within(mix(!own), places - 1) + 1 }
    }
}

impl Maglev {
    /// The table of the endpoints with these ids, in this order; those beyond the number of places have none.
    pub fn build(ids: &[&str]) -> Self {
        const FREE: u16 = u16::MAX;
        let mut turns: Vec<(u16, Turn)> = (0..PLACES).zip(ids.iter().map(|id| Turn::of(id))).collect();
        if turns.is_empty() {
            return Self { places: Vec::new() };
        }
        let mut places = vec![FREE; usize::from(PLACES)];
        let mut left = places.len();
        while left > 0 {
            for (index, turn) in &mut turns {
                // A permutation visits every place, so while one is free this ends.
                let taken = loop {
                    let at = usize::try_from(turn.at).unwrap_or_default();
                    turn.at = (turn.at + turn.skip) % u32::from(PLACES);
                    match places.get_mut(at) {
                        Some(place) if *place == FREE => {
                            *place = *index;
                            break 1;
                        }
                        Some(_) => {}
                        None => break 0,
                    }
                };
                left -= taken;
                if left == 0 {
                    break;
                }
            }
        }
        Self { places }
    }

    /// The endpoints from `key` on, as the table has them.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let first = usize::try_from(mix(key) % u64::from(PLACES)).unwrap_or_default().min(self.places.len());
        let (before, after) = self.places.split_at(first);
        after.iter().chain(before).map(|index| usize::from(*index))
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("calc-svc/{n}")).collect()
    }

    fn table(ids: &[String]) -> Maglev {
        Maglev::build(&ids.iter().map(String::as_str).collect::<Vec<_>>())
    }

    #[test]
    fn the_number_of_places_is_prime() {
        assert!((2..256).all(|divisor| !PLACES.is_multiple_of(divisor)));
    }

    #[test]
    fn a_table_of_nobody_has_nobody_and_that_of_one_only_it() {
        assert_eq!(table(&[]).walk(7).next(), None);
        assert!(table(&ids(1)).walk(7).all(|index| index == 0));
    }

    #[test]
    fn endpoints_differ_by_one_place_at_most() {
        for count in [2, 3, 7, 100, 1000] {
            let table = table(&ids(count));
            let mut counts = vec![0_u32; count];
            for index in &table.places {
                counts[usize::from(*index)] += 1;
            }
            let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
            assert!(most - least <= 1, "{count} endpoints have {least} to {most}");
        }
    }

    #[test]
    fn when_an_endpoint_leaves_few_others_move() {
        for count in [3_usize, 10, 100] {
            let before = ids(count);
            let full = table(&before);
            let mut worst = 0.0_f64;
            for gone in [0, count / 2, count - 1] {
                let mut after = before.clone();
                after.remove(gone);
                let smaller = table(&after);
                let kept = full.places.iter().zip(&smaller.places).filter(|(old, _)| usize::from(**old) != gone);
                let (mut all, mut moved) = (0_u32, 0_u32);
                for (old, new) in kept {
                    all += 1;
                    moved += u32::from(before[usize::from(*old)] != after[usize::from(*new)]);
                }
                worst = worst.max(f64::from(moved) / f64::from(all));
            }
            assert!(worst < 0.05, "{count} endpoints: {worst} of the others' places moved");
        }
    }
}
