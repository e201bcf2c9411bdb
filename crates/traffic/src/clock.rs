//! The present, as an argument.

use std::time::Duration;

/// A point on the process's monotonic clock, in microseconds since a start the process chose.
///
/// Arithmetic saturates: nothing lies before [`Moment::ZERO`], and 584 000 years after it time stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Moment(u64);

impl Moment {
    /// The start of the clock.
    pub const ZERO: Self = Self(0);

    /// The moment so many microseconds after the start.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this moment; nothing if `earlier` is the later one, as happens between two workers.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `duration` later, in whole microseconds.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }
}

/// A duration in whole microseconds.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn time_never_runs_below_zero_or_over_the_top() {
        let late = Moment::from_micros(u64::MAX);
        assert_eq!(Moment::ZERO.saturating_since(late), Duration::ZERO);
        assert_eq!(late.plus(Duration::from_secs(1)), late);
        assert_eq!(Moment::ZERO.plus(Duration::MAX), late);
    }

    #[test]
    fn what_is_added_is_what_has_passed() {
        let start = Moment::from_micros(5);
        let later = start.plus(Duration::from_millis(3));
        assert_eq!(later.as_micros(), 3005);
        assert_eq!(later.saturating_since(start), Duration::from_millis(3));
    }
}
