//! The only source of wall time. Certificates are about calendar time, so a monotonic clock will not do.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Tells the wall time.
pub trait Clock: Debug + Send + Sync {
    /// The time now. It may leap backwards, as wall clocks do.
    fn now(&self) -> SystemTime;
}

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the one place where the machine's clock is read")]
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// A clock that stands still until it is told otherwise; for tests and for questions about another time.
#[derive(Debug)]
pub struct FixedClock {
    now: Mutex<SystemTime>,
}

impl FixedClock {
    /// A clock that stands at `now`.
    pub fn new(now: SystemTime) -> Self {
        Self { now: Mutex::new(now) }
    }

    /// Puts the hands to `now`.
    pub fn set(&self, now: SystemTime) {
        *self.now.lock() = now;
    }

    /// Moves the hands forward by `step`.
    pub fn advance(&self, step: Duration) {
        let mut now = self.now.lock();
        *now = now.checked_add(step).unwrap_or(*now);
    }
}

impl Clock for FixedClock {
    fn now(&self) -> SystemTime {
        *self.now.lock()
    }
}

/// Lets rustls read the time from a [`Clock`], so that a handshake and a verification agree on it.
#[derive(Debug)]
pub(crate) struct ClockTime(pub(crate) Arc<dyn Clock>);

impl TimeProvider for ClockTime {
    fn current_time(&self) -> Option<UnixTime> {
        self.0.now().duration_since(SystemTime::UNIX_EPOCH).ok().map(UnixTime::since_unix_epoch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_clock_moves_only_when_told() {
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let clock = FixedClock::new(start);
        assert_eq!(clock.now(), start);
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.now(), start + Duration::from_secs(5));
        clock.set(start);
        assert_eq!(clock.now(), start);
    }

    #[test]
    fn a_time_before_the_epoch_is_no_time_for_tls() {
        let clock = FixedClock::new(SystemTime::UNIX_EPOCH - Duration::from_secs(1));
        assert!(ClockTime(Arc::new(clock)).current_time().is_none());
    }

    #[test]
    fn the_system_clock_is_past_the_year_2020() {
        assert!(SystemClock.now() > SystemTime::UNIX_EPOCH + Duration::from_hours(438_288));
    }
}
