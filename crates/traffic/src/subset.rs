//! Which of a service's endpoints one caller uses: a part of them, always the same one.
//!
//! With 1 000 callers and 1 000 endpoints, a connection from everybody to everybody is a million. Each caller therefore ranks
//! the endpoints by rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998) and
//! uses the first [`SIZE`] that are usable. The rank of an endpoint depends on nothing but the caller, the endpoint and their
//! zones: one that comes or goes moves nobody else, and different callers rank differently, so the load is even.

use std::cmp::Reverse;

use crate::stable_hash::{SEED, hash, mix};

/// Endpoints of one service that a caller uses while little is under way (architecture §3).
pub const SIZE: usize = 20;
/// Requests under way per endpoint of the subset, beyond which it grows.
pub const COMFORTABLE: usize = 16;

/// Who ranks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Caller {
    /// What tells callers apart; the same after a restart.
    pub id: String,
    /// Its failure domain; empty if it has none.
    pub zone: String,
}

/// What is ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<'a> {
    /// What tells the endpoints of a service apart.
    pub id: &'a str,
    /// Its failure domain; empty if it has none.
    pub zone: &'a str,
}

/// The positions of `members` in the order in which `caller` prefers them: those of its own zone first, each part by rendezvous
/// rank. A caller without a zone prefers none.
pub fn order(caller: &Caller, members: &[Member<'_>]) -> Vec<usize> {
    let seed = hash(SEED, caller.id.as_bytes());
    let ranked = members.iter().enumerate().map(|(position, member)| {
        let far = !caller.zone.is_empty() && member.zone != caller.zone;
        (far, Reverse(mix(hash(seed, member.id.as_bytes()))), position)
    });
    let mut ranked: Vec<_> = ranked.collect();
    ranked.sort_unstable();
    ranked.into_iter().map(|(.., position)| position).collect()
}

/// How many endpoints are used while `under_way` requests are: [`SIZE`], more when each would have more than [`COMFORTABLE`].
/// It may exceed what there is.
pub fn size(under_way: u32) -> usize {
    usize::try_from(under_way).unwrap_or(usize::MAX).div_ceil(COMFORTABLE).max(SIZE)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn caller(id: &str, zone: &str) -> Caller {
        Caller { id: id.to_owned(), zone: zone.to_owned() }
    }

    fn members_of(members: &[(String, String)]) -> Vec<Member<'_>> {
        members.iter().map(|(id, zone)| Member { id, zone }).collect()
    }

    /// The ids in the order `caller` prefers them.
    fn ids(caller: &Caller, members: &[(String, String)]) -> Vec<String> {
        order(caller, &members_of(members)).into_iter().map(|position| members[position].0.clone()).collect()
    }

    fn without_zones(count: usize) -> Vec<(String, String)> {
        (0..count).map(|n| (format!("calc-{n}"), String::new())).collect()
    }

    #[test]
    fn a_known_order_stays_over_releases() {
        let order = ids(&caller("front/1", ""), &without_zones(5));
        assert_eq!(order, ["calc-3", "calc-4", "calc-1", "calc-0", "calc-2"]);
    }

    #[test]
    fn callers_share_the_endpoints_evenly() {
        let members = without_zones(100);
        let mut callers: BTreeMap<String, usize> = BTreeMap::new();
        for n in 0..500 {
            for id in ids(&caller(&format!("front/{n}"), ""), &members).into_iter().take(SIZE) {
                *callers.entry(id).or_default() += 1;
            }
        }
        // Binomial around 100 with a deviation of 9: five deviations to each side.
        assert_eq!(callers.len(), 100);
        assert!(callers.values().all(|count| (55..=145).contains(count)), "{callers:?}");
    }

    #[test]
    fn the_own_zone_comes_first_and_the_others_fill_up() {
        let members: Vec<_> = (0..30).map(|n| (format!("calc-{n}"), format!("z{}", n % 3))).collect();
        let order = ids(&caller("front/1", "z1"), &members);
        let zone_of = |id: &String| members.iter().find(|(other, _)| other == id).unwrap().1.clone();
        assert!(order[..10].iter().all(|id| zone_of(id) == "z1"), "{order:?}");
        assert!(order[10..].iter().all(|id| zone_of(id) != "z1"), "{order:?}");
        let mixed: std::collections::BTreeSet<_> =
            ids(&caller("front/1", ""), &members)[..10].iter().map(zone_of).collect();
        assert!(mixed.len() > 1, "without a zone of its own a caller prefers none");
    }

    #[test]
    fn the_subset_grows_with_what_is_under_way() {
        assert_eq!([0, 1, 320, 321, 640, 1600].map(size), [20, 20, 20, 21, 40, 100]);
        assert!(size(u32::MAX) > 1_000_000);
    }

    proptest! {
        #[test]
        fn everybody_is_ranked_exactly_once(count in 0_usize..200, name: u32) {
            let mut order = order(&caller(&name.to_string(), "z"), &members_of(&without_zones(count)));
            order.sort_unstable();
            prop_assert_eq!(order, (0..count).collect::<Vec<_>>());
        }

        #[test]
        fn one_that_goes_or_comes_moves_nobody_else(count in 2_usize..100, gone: prop::sample::Index, name: u32) {
            let caller = caller(&name.to_string(), "");
            let all = without_zones(count);
            let mut fewer = all.clone();
            let gone = fewer.remove(gone.index(count)).0;
            let mut before = ids(&caller, &all);
            before.retain(|id| *id != gone);
            prop_assert_eq!(before, ids(&caller, &fewer));
        }

        #[test]
        fn the_order_in_which_members_are_listed_does_not_matter(count in 1_usize..60, turn in 0_usize..60, name: u32) {
            let caller = caller(&name.to_string(), "");
            let all = without_zones(count);
            let mut turned = all.clone();
            turned.rotate_left(turn % count);
            prop_assert_eq!(ids(&caller, &all), ids(&caller, &turned));
        }
    }
}
