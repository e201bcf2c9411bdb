//! A ring of points (Karger et al., "Consistent Hashing and Random Trees", 1997; ketama): each endpoint has some, and a key
//! belongs to the endpoint of the first point at or after its own.
//!
//! The points of an endpoint depend on nothing but its id, so one that comes takes keys from the others and one that leaves
//! gives its own away; no other key moves.

use crate::stable_hash::{SEED, hash, mix};

/// Points of each endpoint. With these its share is within about a tenth (one deviation) of an even one; each costs 8 bytes.
const POINTS: u32 = 128;
/// Bits of a point that name its endpoint; the others are its place on the ring.
const INDEX_BITS: u32 = 20;

/// A ring of the endpoints of a service.
#[derive(Debug, PartialEq, Eq)]
pub struct Ring {
    /// Place and endpoint, ordered.
    points: Vec<u64>,
}

impl Ring {
    /// The ring of the endpoints with these ids, in this order; those beyond a million have no point.
    pub fn build(ids: &[&str]) -> Self {
        let mut points: Vec<u64> = (0..1_u64 << INDEX_BITS)
            .zip(ids)
            .flat_map(|(index, id)| {
                let seed = hash(SEED, id.as_bytes());
                (0..POINTS).map(move |point| place(mix(hash(seed, &point.to_le_bytes()))) | index)
            })
            .collect();
        points.sort_unstable();
        Self { points }
    }

    /// The endpoints from `key` on, as the ring has them; each as often as it has points.
    pub fn walk(&self, key: u64) -> impl Iterator<Item = usize> {
        let first = self.points.partition_point(|point| *point < place(mix(key)));
        let (before, after) = self.points.split_at(first);
        let index = |point: &u64| usize::try_from(point & ((1 << INDEX_BITS) - 1)).unwrap_or(usize::MAX);
        after.iter().chain(before).map(index)
    }
}

fn place(hash: u64) -> u64 {
    hash & !((1 << INDEX_BITS) - 1)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ids(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("calc-svc/{n}")).collect()
    }

    fn ring(ids: &[String]) -> Ring {
        Ring::build(&ids.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The id that a key belongs to.
    fn owner<'a>(ring: &Ring, ids: &'a [String], key: u64) -> &'a str {
        &ids[ring.walk(key).next().unwrap()]
    }

    #[test]
    fn a_ring_of_nobody_has_nobody() {
        assert_eq!(ring(&[]).walk(7).next(), None);
    }

    #[test]
    fn the_owners_of_keys_stay_over_releases() {
        let (ids, keys) = (ids(5), [0, 1, 2, 3, u64::MAX]);
        let ring = ring(&ids);
        assert_eq!(keys.map(|key| ring.walk(key).next().unwrap()), [0, 4, 3, 3, 2]);
    }

    #[test]
    fn every_endpoint_gets_about_its_share() {
        let ids = ids(20);
        let ring = ring(&ids);
        let mut counts = vec![0_u32; ids.len()];
        for key in 0..100_000_u64 {
            counts[ring.walk(key).next().unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (3_500..7_000).contains(count)), "the average is 5 000: {counts:?}");
    }

    proptest! {
        #[test]
        fn when_an_endpoint_leaves_only_its_keys_move(count in 2_usize..40, who: prop::sample::Index, keys in prop::collection::vec(any::<u64>(), 200)) {
            let before = ids(count);
            let gone = who.index(count);
            let mut after = before.clone();
            let left = after.remove(gone);
            let (full, smaller) = (ring(&before), ring(&after));
            for key in keys {
                let (old, new) = (owner(&full, &before, key), owner(&smaller, &after, key));
                if old == left {
                    // And they go where a caller that still has the full ring goes when it finds the endpoint unusable.
                    let next = full.walk(key).find(|index| *index != gone).unwrap();
                    prop_assert_eq!(&before[next], new);
                } else {
                    prop_assert_eq!(old, new);
                }
            }
        }

        #[test]
        fn from_any_key_everybody_is_found(count in 1_usize..20, key: u64) {
            let ids = ids(count);
            let mut found: Vec<_> = ring(&ids).walk(key).collect();
            found.sort_unstable();
            found.dedup();
            prop_assert_eq!(found, (0..count).collect::<Vec<_>>());
        }
    }
}
