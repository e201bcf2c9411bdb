//! Finishing politely, in stages: say that we leave, stop accepting, let what is under way end, then leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};

/// How far the end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// It has not begun.
    Serving,
    /// Nobody new should come: not ready, and the control plane is told. Who comes is served as before.
    Leaving,
    /// No new connections; each answer is the last on its connection.
    Draining,
    /// Connections without a request are closed.
    Closing,
    /// The time is up: what has no end of its own is broken off, so that nobody takes it for whole.
    Over,
}

/// How long breaking off may take.
const FAREWELL: Duration = Duration::from_millis(250);

/// Why the end came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This workload goes away.
    Told,
    /// Another process of the same workload has the listeners now.
    HandedOver,
}

/// What is under way.
#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    /// No connection is kept for another request, although the process stays.
    tight: AtomicBool,
    emptied: Notify,
}

/// Held by everything that must be told when the process drains, and counted by those it waits for.
#[derive(Debug, Clone)]
pub struct Drain {
    signal: watch::Receiver<(Stage, Cause)>,
    count: Arc<Count>,
}

/// Starts the drain and waits for its end.
#[derive(Debug)]
pub struct Drainer {
    signal: watch::Sender<(Stage, Cause)>,
    count: Arc<Count>,
}

/// A pair that belongs together.
pub fn channel() -> (Drainer, Drain) {
    let (sender, signal) = watch::channel((Stage::Serving, Cause::Told));
    let count = Arc::<Count>::default();
    (Drainer { signal: sender, count: Arc::clone(&count) }, Drain { signal, count })
}

/// As long as it lives, the drain waits.
#[derive(Debug)]
pub struct Open(Arc<Count>);

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.emptied.notify_waiters();
        }
    }
}

impl Drain {
    async fn reached(&self, stage: Stage) {
        let mut signal = self.signal.clone();
        // An error means that the drainer is gone, and then everything is over anyway.
        let _ended = signal.wait_for(|(now, _)| *now >= stage).await.is_err();
    }

    /// Resolves once this process began to leave; it still serves whoever comes.
    pub async fn leaving(&self) {
        self.reached(Stage::Leaving).await;
    }

    /// Resolves once another process of the same workload has taken over; what is ours together is its own from then on.
    pub async fn handed_over(&self) {
        self.leaving().await;
        if self.cause() != Cause::HandedOver {
            std::future::pending::<()>().await;
        }
    }

    /// Whether it has.
    pub fn is_handed_over(&self) -> bool {
        self.is_leaving() && self.cause() == Cause::HandedOver
    }

    /// Whether this process leaves.
    pub fn is_leaving(&self) -> bool {
        self.signal.borrow().0 >= Stage::Leaving
    }

    /// Resolves once draining began: each answer is the last on its connection.
    pub async fn begun(&self) {
        self.reached(Stage::Draining).await;
    }

    /// Whether draining began.
    pub fn is_draining(&self) -> bool {
        self.signal.borrow().0 >= Stage::Draining
    }

    /// Whether an answer given now is the last on its connection: the process drains, or has no memory for idle connections.
    pub fn is_last_answer(&self) -> bool {
        self.is_draining() || self.count.tight.load(Ordering::Relaxed)
    }

    /// Says whether connections are kept for further requests.
    pub fn keep_none(&self, tight: bool) {
        self.count.tight.store(tight, Ordering::Relaxed);
    }

    /// Resolves when connections without a request are to be closed. Until then they wait for one more request: its caller may
    /// have sent it already, and a connection closed at that moment is a failure that nobody could avoid (RFC 9112 §9.3.1).
    pub async fn idle_ends(&self) {
        self.reached(Stage::Closing).await;
    }

    /// Resolves when the time is up.
    pub async fn over(&self) {
        self.reached(Stage::Over).await;
    }

    /// Why; only of meaning once leaving began.
    pub fn cause(&self) -> Cause {
        self.signal.borrow().1
    }

    /// Counts one connection as under way.
    pub fn open(&self) -> Open {
        self.count.open.fetch_add(1, Ordering::AcqRel);
        Open(Arc::clone(&self.count))
    }
}

impl Drainer {
    /// Says that this process leaves.
    pub fn leave(&self, cause: Cause) {
        self.signal.send_replace((Stage::Leaving, cause));
    }

    /// Tells everybody, and waits until nothing is under way or `deadline` has passed; connections without a request may stay
    /// for `idle`. Answers what was still open.
    pub async fn drain(&self, deadline: Duration, idle: Duration) -> usize {
        self.advance(Stage::Draining);
        let ended = async {
            if tokio::time::timeout(idle, self.emptied()).await.is_err() {
                self.advance(Stage::Closing);
                self.emptied().await;
            }
        };
        let _in_time = tokio::time::timeout(deadline, ended).await.is_ok();
        let left = self.count.open.load(Ordering::Acquire);
        self.advance(Stage::Over);
        if left > 0 {
            let _broken_off = tokio::time::timeout(FAREWELL, self.emptied()).await.is_ok();
        }
        left
    }

    fn advance(&self, stage: Stage) {
        self.signal.send_modify(|(now, _)| *now = stage);
    }

    async fn emptied(&self) {
        loop {
            // Listening before looking, so that the last one cannot end in between.
            let emptied = self.count.emptied.notified();
            if self.count.open.load(Ordering::Acquire) == 0 {
                return;
            }
            emptied.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_last_connection_ends_the_drain_at_once() {
        let (drainer, drain) = channel();
        let begun = tokio::time::Instant::now();
        let open = drain.open();
        let work = async {
            drain.begun().await;
            tokio::time::sleep(SECOND / 4).await;
            drop(open);
        };
        let (left, ()) = tokio::join!(drainer.drain(SECOND * 30, SECOND), work);
        assert_eq!((left, begun.elapsed()), (0, SECOND / 4));
    }

    #[tokio::test(start_paused = true)]
    async fn idle_connections_are_closed_later_and_the_deadline_holds() {
        let (drainer, drain) = channel();
        let begun = tokio::time::Instant::now();
        let (idle, _stuck) = (drain.open(), drain.open());
        let work = async {
            drain.idle_ends().await;
            assert_eq!(begun.elapsed(), SECOND * 2);
            drop(idle);
        };
        let (left, ()) = tokio::join!(drainer.drain(SECOND * 5, SECOND * 2), work);
        assert_eq!((left, begun.elapsed()), (1, SECOND * 5 + FAREWELL));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_no_end_is_broken_off_when_the_time_is_up() {
        let (drainer, drain) = channel();
        let begun = tokio::time::Instant::now();
        let tunnel = drain.open();
        let work = async {
            drain.over().await;
            assert_eq!(begun.elapsed(), SECOND * 5);
            drop(tunnel);
        };
        let (left, ()) = tokio::join!(drainer.drain(SECOND * 5, SECOND), work);
        assert_eq!((left, begun.elapsed()), (1, SECOND * 5));
    }

    #[tokio::test]
    async fn who_leaves_does_not_drain_yet() {
        let (drainer, drain) = channel();
        assert!(!drain.is_leaving());
        drainer.leave(Cause::HandedOver);
        assert!(drain.is_leaving() && !drain.is_draining());
        assert_eq!(drain.cause(), Cause::HandedOver);
        assert!(drain.begun().now_or_never().is_none());
        assert_eq!(drainer.drain(SECOND, SECOND).await, 0);
        assert!(drain.is_draining());
        drain.idle_ends().await;
    }
}
