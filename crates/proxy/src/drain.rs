//! Finishing politely: stop accepting, let what is under way end, then leave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

/// Held by everything that must be told when the process drains, and counted by those it waits for.
#[derive(Debug, Clone)]
pub struct Drain {
    signal: watch::Receiver<bool>,
    open: Arc<AtomicUsize>,
}

/// Starts the drain and waits for its end.
#[derive(Debug)]
pub struct Drainer {
    signal: watch::Sender<bool>,
    open: Arc<AtomicUsize>,
}

/// A pair that belongs together.
pub fn channel() -> (Drainer, Drain) {
    let (sender, signal) = watch::channel(false);
    let open = Arc::new(AtomicUsize::new(0));
    (Drainer { signal: sender, open: Arc::clone(&open) }, Drain { signal, open })
}

/// As long as it lives, the drain waits.
#[derive(Debug)]
pub struct Open(Arc<AtomicUsize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drain {
    /// Resolves once draining began.
    pub async fn begun(&self) {
        let mut signal = self.signal.clone();
        // An error means that the drainer is gone, and then everything is over anyway.
        let _ended = signal.wait_for(|draining| *draining).await.is_err();
    }

    /// Whether draining began.
    pub fn is_draining(&self) -> bool {
        *self.signal.borrow()
    }

    /// Counts one connection as under way.
    pub fn open(&self) -> Open {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(Arc::clone(&self.open))
    }
}

impl Drainer {
    /// Tells everybody, and waits until nothing is under way or `deadline` has passed. Answers what was still open.
    pub async fn drain(&self, deadline: Duration) -> usize {
        self.signal.send_replace(true);
        let emptied = async {
            while self.open.load(Ordering::Acquire) > 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let _in_time = tokio::time::timeout(deadline, emptied).await.is_ok();
        self.open.load(Ordering::Acquire)
    }
}
