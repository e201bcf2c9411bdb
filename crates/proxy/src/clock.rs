//! The process's monotonic clock, as the decisions of `hms-traffic` count it.

use hms_traffic::clock::Moment;
use tokio::time::Instant;

/// Turns tokio's instants into moments since the process began. Copies share the same beginning, also across threads.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    start: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Now.
    pub fn now(self) -> Moment {
        Moment::from_micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}
