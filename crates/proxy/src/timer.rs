//! Time limits that almost never strike.
//!
//! Nearly every limit of a proxy is lifted long before it is reached, and is set again with the next request. To schedule and
//! cancel a wake-up each time would cost more than the check. So a [`Timer`] that was scheduled for an earlier limit is left as it
//! is: when it strikes too early it looks at the clock and sleeps on. Timers are kept for reuse, still scheduled, per thread.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Timers kept per thread.
const KEPT: usize = 256;
/// What a limit beyond the end of time is taken for.
const FAR: Duration = Duration::from_hours(1);

thread_local! {
    static FREE: RefCell<Vec<Scheduled>> = const { RefCell::new(Vec::new()) };
}

/// A wake-up, and when it comes.
struct Scheduled {
    sleep: Pin<Box<Sleep>>,
    at: Instant,
}

/// A limit in time.
pub struct Timer {
    limit: Instant,
    scheduled: Option<Scheduled>,
}

impl fmt::Debug for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timer").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl Timer {
    /// Strikes `after` from now.
    pub fn after(after: Duration) -> Self {
        Self::at(limit(Instant::now(), after))
    }

    /// What strikes `after` from now.
    pub fn end_of(after: Duration) -> Instant {
        limit(Instant::now(), after)
    }

    /// What strikes `after` from then.
    pub fn end_from(then: Instant, after: Duration) -> Instant {
        limit(then, after)
    }

    /// Strikes at `limit`, or at `end` if that is earlier.
    pub fn before(limit: Instant, end: Option<Instant>) -> Self {
        Self::at(end.map_or(limit, |end| end.min(limit)))
    }

    /// Whether it strikes at `end`.
    pub fn is_at(&self, end: Option<Instant>) -> bool {
        end == Some(self.limit)
    }

    /// Strikes at `limit`. Nothing is scheduled before it is first polled.
    pub fn at(limit: Instant) -> Self {
        Self { limit, scheduled: None }
    }

    /// Strikes `after` from now instead.
    pub fn reset(&mut self, after: Duration) {
        self.limit = limit(Instant::now(), after);
    }

    /// Whether the limit is reached.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let scheduled = self.scheduled.get_or_insert_with(|| Scheduled::take(limit));
        if scheduled.at > limit {
            scheduled.schedule(limit);
        }
        while scheduled.sleep.as_mut().poll(context).is_ready() {
            if Instant::now() >= limit {
                return Poll::Ready(());
            }
            scheduled.schedule(limit);
        }
        Poll::Pending
    }

    /// Resolves at the limit.
    pub async fn struck(&mut self) {
        std::future::poll_fn(|context| self.poll(context)).await;
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        let Some(scheduled) = self.scheduled.take() else { return };
        // Without the list the thread is ending, and the timer with it.
        let _kept = FREE.try_with(|free| {
            let mut free = free.borrow_mut();
            if free.len() < KEPT {
                free.push(scheduled);
            }
        });
    }
}

impl Scheduled {
    fn take(limit: Instant) -> Self {
        let kept = FREE.with_borrow_mut(Vec::pop);
        kept.unwrap_or_else(|| Self { sleep: Box::pin(tokio::time::sleep_until(limit)), at: limit })
    }

    fn schedule(&mut self, at: Instant) {
        self.sleep.as_mut().reset(at);
        self.at = at;
    }
}

/// Waits for `future` at most `after`.
pub async fn within<T>(after: Duration, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut timer = Timer::after(after);
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.poll(context).map(|()| None),
    })
    .await
}

fn limit(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or_else(|| now + FAR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_limit_strikes_when_it_should_also_after_a_longer_and_a_shorter_one() {
        for seconds in [10, 30, 5, 30] {
            let begun = Instant::now();
            Timer::after(Duration::from_secs(seconds)).struck().await;
            assert_eq!(begun.elapsed(), Duration::from_secs(seconds));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_moved_strikes_at_its_new_time() {
        let begun = Instant::now();
        let mut timer = Timer::after(Duration::from_secs(10));
        assert_eq!(within(Duration::from_secs(4), timer.struck()).await, None);
        timer.reset(Duration::from_secs(10));
        timer.struck().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(14));
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_in_time_is_returned() {
        let slow = tokio::time::sleep(Duration::from_secs(3));
        assert_eq!(within(Duration::from_secs(4), slow).await, Some(()));
    }
}
