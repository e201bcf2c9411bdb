//! When a certificate is renewed and when a failed renewal is tried again.
//!
//! Renewal is due at one third of the certificate's life, give or take a tenth of that third, so at least 63 % of the
//! life always remains for a control plane that is away (R4: 24 h, renewed after about 8 h, more than 15 h left).

use std::time::{Duration, SystemTime};

/// The pause before the first repeated attempt, at most.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// The longest pause between two attempts.
const LONGEST_RETRY: Duration = Duration::from_mins(5);
/// The shortest pause between two attempts.
const SHORTEST_RETRY: Duration = Duration::from_secs(1);

/// Keeps dice within 0 to 1; anything that is not a number counts as the middle.
fn unit(dice: f64) -> f64 {
    if dice.is_nan() { 0.5 } else { dice.clamp(0.0, 1.0) }
}

/// When a certificate valid from `not_before` to `not_after` is to be renewed: one third of its life ± 10 %.
///
/// `unit_dice` is a uniform random number from 0 (earliest) to 1 (latest); it spreads a fleet that started together.
/// A certificate that ends before it begins is due at once, at `not_before`.
pub fn renew_at(not_before: SystemTime, not_after: SystemTime, unit_dice: f64) -> SystemTime {
    let life = not_after.duration_since(not_before).unwrap_or(Duration::ZERO);
    let share = unit(unit_dice).mul_add(0.2, 0.9);
    let wait = (life / 3).mul_f64(share);
    not_before.checked_add(wait).unwrap_or(not_after)
}

/// The pause after `failures` failed attempts in a row: it doubles from 1–2 s up to 150–300 s.
///
/// `unit_dice` from 0 to 1 picks within the upper half of the step. Never less than 1 s nor more than 5 min.
pub fn retry_after(failures: u32, unit_dice: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let step = FIRST_RETRY.saturating_mul(1 << doublings).min(LONGEST_RETRY);
    step.mul_f64(unit(unit_dice).mul_add(0.5, 0.5)).clamp(SHORTEST_RETRY, LONGEST_RETRY)
}

/// When to try again after `failures` failed attempts for a certificate that lives until `not_after`.
///
/// Like [`retry_after`], but never further away than a quarter of what is left, so that a short-lived certificate gets
/// several more attempts before it ends; still at least 1 s away.
pub fn retry_at(now: SystemTime, not_after: SystemTime, failures: u32, unit_dice: f64) -> SystemTime {
    let left = not_after.duration_since(now).unwrap_or(Duration::ZERO);
    let pause = if left.is_zero() {
        retry_after(failures, unit_dice)
    } else {
        retry_after(failures, unit_dice).min((left / 4).max(SHORTEST_RETRY))
    };
    now.checked_add(pause).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: Duration = Duration::from_hours(24);

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn a_day_is_renewed_after_about_eight_hours_and_leaves_fifteen() {
        let hour = Duration::from_hours(1);
        let (start, end) = (at(1_000_000), at(1_000_000) + DAY);
        assert_eq!(renew_at(start, end, 0.5), start + 8 * hour);
        for dice in [0.0, 0.25, 0.75, 1.0, f64::NAN, f64::INFINITY, -3.0] {
            let due = renew_at(start, end, dice);
            assert!(due >= start + 7 * hour && due <= start + 9 * hour);
            assert!(end.duration_since(due).unwrap() >= 15 * hour, "{dice}");
        }
    }

    #[test]
    fn a_certificate_that_ends_before_it_begins_is_due_at_once() {
        assert_eq!(renew_at(at(100), at(50), 0.7), at(100));
    }

    #[test]
    fn pauses_start_at_a_second_and_end_at_five_minutes() {
        assert_eq!(retry_after(0, 0.0), Duration::from_secs(1));
        assert_eq!(retry_after(1, 0.0), Duration::from_secs(1));
        assert_eq!(retry_after(1, 1.0), Duration::from_secs(2));
        assert_eq!(retry_after(4, 1.0), Duration::from_secs(16));
        assert_eq!(retry_after(u32::MAX, 1.0), Duration::from_mins(5));
    }

    proptest! {
        #[test]
        fn renewal_falls_within_a_tenth_of_a_third_of_life(start in 0_u64..1 << 40, life in 1_u64..1 << 32, dice in 0.0_f64..=1.0) {
            let (not_before, not_after) = (at(start), at(start) + Duration::from_secs(life));
            let waited = renew_at(not_before, not_after, dice).duration_since(not_before).unwrap();
            let third = Duration::from_secs(life) / 3;
            prop_assert!(waited >= third.mul_f64(0.899_999_999));
            prop_assert!(waited <= third.mul_f64(1.100_000_001));
        }

        #[test]
        fn later_dice_never_renew_earlier(life in 1_u64..1 << 32, one in 0.0_f64..=1.0, other in 0.0_f64..=1.0) {
            let (low, high) = if one <= other { (one, other) } else { (other, one) };
            let end = at(life);
            prop_assert!(renew_at(at(0), end, low) <= renew_at(at(0), end, high));
        }

        #[test]
        fn pauses_stay_between_a_second_and_five_minutes(failures in any::<u32>(), dice in any::<f64>()) {
            let pause = retry_after(failures, dice);
            prop_assert!((SHORTEST_RETRY..=LONGEST_RETRY).contains(&pause));
        }

        #[test]
        fn more_failures_never_shorten_the_pause(failures in 0_u32..40, dice in 0.0_f64..=1.0) {
            prop_assert!(retry_after(failures, dice) <= retry_after(failures + 1, dice));
        }

        #[test]
        fn a_living_certificate_gets_another_attempt_before_it_ends(left in 2_u64..1 << 20, failures in any::<u32>(), dice in 0.0_f64..=1.0) {
            let now = at(1_000_000);
            let end = now + Duration::from_secs(left);
            let next = retry_at(now, end, failures, dice);
            prop_assert!(next > now && next < end);
        }
    }
}
