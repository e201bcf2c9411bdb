//! An allowance that comes back with time.

use std::time::Duration;

use hms_traffic::clock::Moment;

use super::limits::Rate;

/// Into how many parts one unit can be split.
pub const PARTS: u32 = 8;

/// An allowance, kept as the moment when it would be whole again (the generic cell rate algorithm, ITU-T I.371).
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    whole_at: Moment,
    part: Duration,
    most: Duration,
}

impl Budget {
    /// A whole one.
    pub fn new(rate: Rate) -> Self {
        let part = Duration::from_secs(1) / rate.per_second.max(1) / PARTS;
        Self { whole_at: Moment::ZERO, part, most: part * PARTS * rate.burst }
    }

    /// Takes so many parts; `false` when there are not that many. They are owed all the same.
    pub fn spend(&mut self, parts: u32, now: Moment) -> bool {
        self.whole_at = self.whole_at.max(now).plus(self.part * parts);
        self.whole_at.saturating_since(now) <= self.most
    }

    /// Gives so many parts back, never more than were spent.
    pub fn give_back(&mut self, parts: u32, now: Moment) {
        let owed = self.whole_at.saturating_since(now).saturating_sub(self.part * parts);
        self.whole_at = now.plus(owed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { burst: 1000, per_second: 200 };

    fn at(milliseconds: u64) -> Moment {
        Moment::from_micros(1_000_000_000 + milliseconds * 1000)
    }

    #[test]
    fn a_burst_is_allowed_once_and_comes_back_with_time() {
        let mut budget = Budget::new(RATE);
        let spent = (0..5000).take_while(|_| budget.spend(PARTS, at(0))).count();
        assert_eq!(spent, 1000);
        let mut budget = Budget::new(RATE);
        assert!((0..1000).all(|_| budget.spend(PARTS, at(0))));
        let spent = (0..5000).take_while(|_| budget.spend(PARTS, at(1000))).count();
        assert_eq!(spent, 200, "one second later");
    }

    #[test]
    fn what_is_given_back_never_saves_up() {
        let mut budget = Budget::new(RATE);
        budget.give_back(1_000_000, at(0));
        assert_eq!((0..5000).take_while(|_| budget.spend(PARTS, at(0))).count(), 1000);
    }

    proptest! {
        #[test]
        fn no_sequence_gets_more_than_the_burst_and_the_rate(waits in prop::collection::vec(0_u64..50, 1..3000)) {
            let mut budget = Budget::new(RATE);
            let mut now = 0;
            let mut passed = 0_u64;
            for wait in waits {
                now += wait;
                if !budget.spend(PARTS, at(now)) {
                    break;
                }
                passed += 1;
            }
            prop_assert!(passed <= 1000 + now / 5);
        }
    }
}
