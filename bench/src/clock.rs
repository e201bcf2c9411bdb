//! The one reader of the clock.

use std::time::{Duration, Instant};

/// Now, on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "a benchmark measures the time that really passes")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Whole microseconds, saturating.
pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
