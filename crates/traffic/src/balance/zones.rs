//! How many calls stay in the caller's zone.

use crate::dice::Dice;

/// Percent of a zone's endpoints that may be unusable before any call leaves it, as Envoy's overprovisioning factor says it: the
/// usable ones are taken to serve 1.4 times their share, so all calls stay while 100 / 1.4 = 71.4 % of the endpoints are usable.
const OVERPROVISIONING_PERCENT: usize = 140;

/// The endpoints of a zone, or of all other zones together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Zone {
    /// Those that may be called.
    pub usable: usize,
    /// All of them.
    pub all: usize,
}

impl Zone {
    /// Percent of all calls that it can take.
    fn capacity(self) -> usize {
        (self.usable * OVERPROVISIONING_PERCENT).checked_div(self.all).unwrap_or(0).min(100)
    }
}

/// Whether a call stays in the caller's `own` zone: all calls while that has the capacity, and below it as many as it can take;
/// the rest goes to the others, as far as those can. Where nobody can take the rest, each takes in proportion to what it can.
pub fn stays(own: Zone, others: Zone, dice: &mut Dice) -> bool {
    let near = own.capacity();
    let far = others.capacity().min(100 - near);
    // No dice for the two that need none: one zone is healthy, or the other is dead.
    near > 0 && (far == 0 || dice.below(near + far) < near)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn zone(usable: usize, all: usize) -> Zone {
        Zone { usable, all }
    }

    /// Of 10 000 calls, how many per cent stay.
    fn percent(own: Zone, others: Zone) -> usize {
        let mut dice = Dice::seeded(5);
        (0..10_000).filter(|_call| stays(own, others, &mut dice)).count().div_ceil(100)
    }

    #[test]
    fn calls_stay_while_seven_of_ten_are_usable_and_spill_over_in_proportion_below() {
        let others = zone(10, 10);
        assert_eq!(percent(zone(10, 10), others), 100);
        assert_eq!(percent(zone(8, 10), others), 100);
        // 98, 70 and 28 per cent by 1.4; the sample is random.
        for (usable, expected) in [(7, 98), (5, 70), (2, 28)] {
            let found = percent(zone(usable, 10), others);
            assert!(found.abs_diff(expected) <= 2, "{usable} of 10: {found}");
        }
        assert_eq!(percent(zone(0, 10), others), 0);
    }

    #[test]
    fn what_nobody_can_take_is_shared_in_proportion() {
        // 14 and 28 of 100.
        let found = percent(zone(1, 10), zone(2, 10));
        assert!(found.abs_diff(33) <= 2, "{found}");
        assert_eq!(percent(zone(1, 10), zone(0, 10)), 100);
    }

    #[test]
    fn nobody_stays_in_a_zone_without_endpoints() {
        assert_eq!(percent(zone(0, 0), zone(3, 3)), 0);
        assert_eq!(percent(zone(0, 0), zone(0, 0)), 0);
    }

    proptest! {
        #[test]
        fn a_call_never_goes_where_nobody_is_while_somebody_is_elsewhere(
            (own, others) in ((0_usize..50, 0_usize..50), (0_usize..50, 0_usize..50)), seed: u64
        ) {
            let [own, others] = [own, others].map(|(usable, more)| zone(usable, usable + more));
            let stays = stays(own, others, &mut Dice::seeded(seed));
            // One of 141 endpoints or more is less than a per cent.
            if own.usable == 0 || others.usable == 0 && own.usable > 0 {
                prop_assert_eq!(stays, own.usable > 0);
            }
        }
    }
}
