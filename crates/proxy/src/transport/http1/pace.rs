//! The least rate at which a body must come.

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use crate::timer::Timer;

/// A body may be slow for this long,
const SLOW_START: Duration = Duration::from_secs(10);
/// and must come at this rate afterwards, in bytes per second.
pub(super) const SLOWEST: u64 = 1024;

/// How fast a body comes, counting only the time that was spent waiting for it.
#[derive(Default)]
pub(super) struct Pace {
    bytes: u64,
    waited: Duration,
    waiting: Option<(Instant, Timer)>,
}

impl Pace {
    /// Notes that bytes came.
    pub(super) fn came(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
        if let Some((since, _)) = self.waiting.take() {
            self.waited = self.waited.saturating_add(since.elapsed());
        }
    }

    /// Resolves when too little came for the time that was waited.
    pub(super) fn poll_too_slow(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let allowed = SLOW_START.max(Duration::from_secs(self.bytes / SLOWEST)).saturating_sub(self.waited);
        let waiting = self.waiting.get_or_insert_with(|| (Instant::now(), Timer::after(allowed)));
        waiting.1.poll(context)
    }
}
