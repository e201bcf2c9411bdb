//! Tokens: so many requests per time (ruling R15), by the generic cell rate algorithm (ITU-T I.371, "virtual scheduling").

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use hms_model::policy::RateLimit;

use crate::cell::{AtomicU64, Ordering};
use crate::clock::Moment;

/// No burst reaches further than this ahead, in nanoseconds (73 years), so that sums cannot overflow; a larger one is cut.
const HORIZON: u64 = u64::MAX / 8;

/// One bucket of tokens in one atomic: the moment, in nanoseconds, at which it will be full again.
///
/// A new bucket is full. A refusal writes nothing. The limit is an argument, but a bucket belongs to one limit: when the
/// limit changes, start a new bucket, or an emptied one refuses until the old debt is paid.
#[derive(Debug)]
pub struct Bucket(AtomicU64);

/// The answer of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A token was taken.
    Granted {
        /// Tokens left.
        remaining: u32,
        /// Time until the bucket is full again, if nobody takes more.
        reset: Duration,
    },
    /// There was none.
    Refused {
        /// Time until there is one.
        retry_after: Duration,
    },
}

impl Default for Bucket {
    fn default() -> Self {
        Self::new()
    }
}

impl Bucket {
    /// A full bucket.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Whether nothing is missing in it.
    pub fn is_full(&self, now: Moment) -> bool {
        self.0.load(Ordering::Relaxed) <= now.as_micros().saturating_mul(1000).min(HORIZON)
    }

    /// Takes a request's tokens, if there are as many.
    pub fn take(&self, limit: &RateLimit, now: Moment) -> Verdict {
        let now = now.as_micros().saturating_mul(1000).min(HORIZON);
        // Rounded up, so that rounding never grants more than was asked; at least 1 ns, so that it grants a finite number.
        let period = u64::try_from(limit.period().as_nanos()).unwrap_or(HORIZON).min(HORIZON);
        let interval = period.div_ceil(u64::from(limit.count()).max(1)).max(1);
        let burst = interval.saturating_mul(u64::from(limit.burst())).min(HORIZON);
        let cost = interval.saturating_mul(u64::from(limit.cost())).min(HORIZON);
        let mut full_at = self.0.load(Ordering::Relaxed);
        loop {
            let then = full_at.max(now).saturating_add(cost);
            let debt = then.saturating_sub(now);
            if debt > burst {
                return Verdict::Refused { retry_after: Duration::from_nanos(debt.saturating_sub(burst)) };
            }
            match self.0.compare_exchange_weak(full_at, then, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => {
                    let remaining = u32::try_from((burst - debt) / interval).unwrap_or(u32::MAX);
                    return Verdict::Granted { remaining, reset: Duration::from_nanos(debt) };
                }
                Err(changed) => full_at = changed,
            }
        }
    }
}

/// Buckets of one limit, one for each key, bounded.
///
/// Keys are known by a hash under a secret of the process, so that nobody can make many share one bucket. A bucket that is full
/// again says nothing and is given up when room is needed; when there is none, new keys share one bucket.
#[derive(Debug)]
pub struct Buckets {
    keyed: HashMap<u64, Bucket>,
    shared: Bucket,
    /// When full ones were last looked for.
    swept: Option<Moment>,
    secret: RandomState,
}

/// Time between two looks for buckets that are full again.
const SWEEP: Duration = Duration::from_millis(500);
/// Buckets that one limit may have.
pub const MOST_BUCKETS: usize = 10_000;

impl Default for Buckets {
    fn default() -> Self {
        Self { keyed: HashMap::new(), shared: Bucket::new(), swept: None, secret: RandomState::new() }
    }
}

impl Buckets {
    /// Takes a request's tokens from the bucket of its key.
    pub fn take(&mut self, key: &[u8], limit: &RateLimit, now: Moment) -> Verdict {
        let hash = self.secret.hash_one(key);
        if !self.keyed.contains_key(&hash) && self.keyed.len() >= MOST_BUCKETS {
            // Looking through all of them for each stranger would be work that strangers make.
            if self.swept.is_none_or(|swept| now.saturating_since(swept) >= SWEEP) {
                self.swept = Some(now);
                self.keyed.retain(|_, bucket| !bucket.is_full(now));
            }
            if self.keyed.len() >= MOST_BUCKETS {
                return self.shared.take(limit, now);
            }
        }
        self.keyed.entry(hash).or_default().take(limit, now)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use proptest::prelude::*;

    use super::*;

    fn granted(bucket: &Bucket, limit: &RateLimit, now: Moment) -> bool {
        matches!(bucket.take(limit, now), Verdict::Granted { .. })
    }

    #[test]
    fn the_twenty_first_of_twenty_one_within_three_seconds_is_refused() {
        let limit = RateLimit::parse("20 req/min").unwrap();
        let bucket = Bucket::new();
        for call in 0..20_u64 {
            let now = Moment::from_micros(call * 140_000);
            assert!(granted(&bucket, &limit, now), "call {call}");
        }
        let now = Moment::from_micros(2_900_000);
        let Verdict::Refused { retry_after } = bucket.take(&limit, now) else { panic!("granted") };
        assert_eq!(retry_after, Duration::from_millis(100));
        assert!(granted(&bucket, &limit, now.plus(retry_after)), "a token is there when it was promised");
        assert!(!granted(&bucket, &limit, now.plus(retry_after)));
    }

    #[test]
    fn a_new_bucket_is_full_and_tells_what_is_left() {
        let limit = RateLimit::new(20, Duration::from_mins(1), None).unwrap();
        let bucket = Bucket::new();
        let now = Moment::from_micros(77);
        assert_eq!(bucket.take(&limit, now), Verdict::Granted { remaining: 19, reset: Duration::from_secs(3) });
        assert_eq!(bucket.take(&limit, now), Verdict::Granted { remaining: 18, reset: Duration::from_secs(6) });
    }

    #[test]
    fn a_dear_request_takes_several_tokens_and_each_key_has_its_own() {
        let limit = RateLimit::new(10, Duration::from_secs(10), None).unwrap().costing(4).unwrap();
        let mut buckets = Buckets::default();
        let mut granted = |key: &[u8]| matches!(buckets.take(key, &limit, Moment::ZERO), Verdict::Granted { .. });
        assert_eq!([granted(b"a"), granted(b"a"), granted(b"a")], [true, true, false]);
        assert!(granted(b"b"));
        assert!(RateLimit::parse("10/s").unwrap().costing(11).is_err());
    }

    #[test]
    fn strangers_beyond_the_bound_share_a_bucket_until_others_are_full_again() {
        let limit = RateLimit::new(1, Duration::from_secs(1), None).unwrap();
        let mut buckets = Buckets::default();
        let take = |buckets: &mut Buckets, key: usize, now| {
            matches!(buckets.take(&key.to_le_bytes(), &limit, now), Verdict::Granted { .. })
        };
        assert!((0..=MOST_BUCKETS).all(|key| take(&mut buckets, key, Moment::ZERO)));
        assert!(!take(&mut buckets, MOST_BUCKETS + 1, Moment::ZERO), "the shared one is empty");
        assert!(!take(&mut buckets, 7, Moment::ZERO), "those who were known keep theirs");
        let later = Moment::from_micros(1_000_000);
        assert!((0..MOST_BUCKETS).all(|key| take(&mut buckets, MOST_BUCKETS * 2 + key, later)));
        assert!(buckets.keyed.len() <= MOST_BUCKETS);
    }

    #[test]
    fn a_refusal_costs_nothing() {
        let limit = RateLimit::new(1, Duration::from_secs(1), None).unwrap();
        let bucket = Bucket::new();
        assert!(granted(&bucket, &limit, Moment::ZERO));
        assert!((0..1_000).all(|micros| !granted(&bucket, &limit, Moment::from_micros(micros))));
        assert!(granted(&bucket, &limit, Moment::from_micros(1_000_000)));
    }

    #[test]
    fn four_workers_take_no_more_than_the_burst() {
        let limit = RateLimit::parse("20 req/min").unwrap();
        let (bucket, taken) = (Bucket::new(), AtomicUsize::new(0));
        let take_many = || {
            let own = (0..1000).filter(|_| granted(&bucket, &limit, Moment::from_micros(5))).count();
            taken.fetch_add(own, Ordering::Relaxed);
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(take_many);
            }
        });
        assert_eq!(taken.into_inner(), 20);
    }

    #[test]
    fn the_extremes_neither_overflow_nor_grant_without_end() {
        for limit in [
            RateLimit::new(1, Duration::from_hours(24), Some(1_000_000)).unwrap(),
            RateLimit::new(1_000_000, Duration::from_nanos(1), Some(3)).unwrap(),
        ] {
            for now in [Moment::ZERO, Moment::from_micros(u64::MAX)] {
                let bucket = Bucket::new();
                let count = (0..1_000_001).take_while(|_| granted(&bucket, &limit, now)).count();
                assert!(count <= usize::try_from(limit.burst()).unwrap(), "{limit} granted {count}");
                assert!(count > 0);
            }
        }
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_refill_whatever_the_order_of_times(
            count in 1_u32..50, period_ms in 1_u64..10_000, burst in 1_u32..30,
            times in proptest::collection::vec(0_u64..20_000_000, 1..300)
        ) {
            let limit = RateLimit::new(count, Duration::from_millis(period_ms), Some(burst)).unwrap();
            let bucket = Bucket::new();
            let granted = times.iter().filter(|now| granted(&bucket, &limit, Moment::from_micros(**now))).count();
            let (first, last) = (times.iter().min().unwrap(), times.iter().max().unwrap());
            let refilled = u128::from(last - first) * u128::from(count) / (u128::from(period_ms) * 1000);
            prop_assert!(u128::try_from(granted).unwrap() <= u128::from(burst) + refilled + 1);
        }

        #[test]
        fn whoever_waits_as_told_gets_a_token(
            count in 1_u32..50, period_ms in 1_u64..10_000, burst in 1_u32..30, gaps in proptest::collection::vec(0_u64..100_000, 1..200)
        ) {
            let limit = RateLimit::new(count, Duration::from_millis(period_ms), Some(burst)).unwrap();
            let bucket = Bucket::new();
            let mut now = Moment::ZERO;
            for gap in gaps {
                now = now.plus(Duration::from_micros(gap));
                if let Verdict::Refused { retry_after } = bucket.take(&limit, now) {
                    // A moment is whole microseconds; the rest of the last one has to pass as well.
                    now = now.plus(retry_after + Duration::from_micros(1));
                    prop_assert!(granted(&bucket, &limit, now));
                }
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn loom_two_workers_share_the_last_token() {
        loom::model(|| {
            let limit = RateLimit::new(1, Duration::from_secs(1), None).unwrap();
            let bucket = Arc::new(Bucket::new());
            let other = Arc::clone(&bucket);
            let now = Moment::from_micros(5);
            let theirs = limit.clone();
            let thread = loom::thread::spawn(move || matches!(other.take(&theirs, now), Verdict::Granted { .. }));
            let mine = matches!(bucket.take(&limit, now), Verdict::Granted { .. });
            assert_ne!(mine, thread.join().unwrap());
        });
    }
}
