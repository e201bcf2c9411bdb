//! The endpoint that a key leads to, the same for every caller.

use hms_model::policy::Algorithm;

use super::maglev::Maglev;
use super::ring::Ring;
use crate::stable_hash::{SEED, hash};

/// The table of a service whose requests are led by a key. Built when its endpoints change, never for a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Hashed {
    table: Table,
    endpoints: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Table {
    Ring(Ring),
    Maglev(Maglev),
}

impl Hashed {
    /// The table of the endpoints with these ids; `None` if `algorithm` needs none.
    pub fn build(algorithm: &Algorithm, ids: &[&str]) -> Option<Self> {
        let table = match algorithm {
            Algorithm::RingHash(_) => Table::Ring(Ring::build(ids)),
            Algorithm::Maglev(_) => Table::Maglev(Maglev::build(ids)),
            Algorithm::LeastRequest | Algorithm::RoundRobin | Algorithm::Random => return None,
        };
        Some(Self { table, endpoints: ids.len() })
    }

    /// The endpoint that `key` leads to among those that are `usable`: the next one in the table stands in for one that is not.
    pub fn find(&self, key: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        match &self.table {
            Table::Ring(ring) => self.first(ring.walk(key), usable),
            Table::Maglev(table) => self.first(table.walk(key), usable),
        }
    }

    /// The first that is usable. When as many in a row were not as there are endpoints, it is asked once whether any is, so
    /// that a service that is down costs as little as it can.
    fn first(&self, mut order: impl Iterator<Item = usize>, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let near = order.by_ref().take(self.endpoints).find(|index| usable(*index));
        near.or_else(|| if (0..self.endpoints).any(&usable) { order.find(|index| usable(*index)) } else { None })
    }
}

/// The key of what was read from a request.
pub fn key(bytes: &[u8]) -> u64 {
    hash(SEED, bytes)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::cell::Cell;

    use hms_model::policy::HashKey;
    use proptest::prelude::*;

    use super::*;

    fn tables(count: usize) -> [Hashed; 2] {
        let ids: Vec<String> = (0..count).map(|n| format!("calc-svc/{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        [Algorithm::RingHash(HashKey::Source), Algorithm::Maglev(HashKey::Source)]
            .map(|algorithm| Hashed::build(&algorithm, &ids).unwrap())
    }

    #[test]
    fn only_what_hashes_has_a_table() {
        for algorithm in [Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random] {
            assert_eq!(Hashed::build(&algorithm, &["a"]), None);
        }
    }

    #[test]
    fn a_service_that_is_down_is_found_so_by_looking_at_each_endpoint_twice() {
        for table in tables(50) {
            let looks = Cell::new(0);
            let found = table.find(key(b"ann"), |_index| {
                looks.set(looks.get() + 1);
                false
            });
            assert_eq!((found, looks.get()), (None, 100));
        }
    }

    #[test]
    fn the_keys_of_an_unusable_endpoint_are_shared_by_the_others() {
        for table in tables(10) {
            let mut heirs = [0_u32; 10];
            for number in 0..20_000_u32 {
                let key = key(number.to_string().as_bytes());
                if table.find(key, |_any| true) == Some(3) {
                    heirs[table.find(key, |index| index != 3).unwrap()] += 1;
                }
            }
            let heirs = heirs.iter().enumerate().filter(|(index, _)| *index != 3).map(|(_, count)| *count);
            let (least, most) = (heirs.clone().min().unwrap(), heirs.max().unwrap());
            assert!(least > 80 && most < 600, "of some 2 000 each of nine has {least} to {most}");
        }
    }

    proptest! {
        #[test]
        fn one_that_is_usable_is_found_if_there_is_one_and_others_keep_their_keys(
            usable in prop::collection::vec(any::<bool>(), 1..30), key: u64
        ) {
            for table in tables(usable.len()) {
                let found = table.find(key, |index| usable[index]);
                prop_assert_eq!(found.is_some(), usable.contains(&true));
                prop_assert!(found.is_none_or(|index| usable[index]));
                let meant = table.find(key, |_any| true).unwrap();
                prop_assert!(!usable[meant] || found == Some(meant));
            }
        }
    }
}
