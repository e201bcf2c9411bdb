//! Live taps: while somebody watches, every finished request becomes an event; nobody watching costs one relaxed load.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use hms_wire::proto::hms::v1::TapEvent;
use tokio::sync::mpsc;

/// Events waiting to be sent before further ones are dropped and counted.
const QUEUE: usize = 1024;

/// The workers' side.
#[derive(Debug, Clone)]
pub struct Tap {
    watchers: Arc<AtomicU32>,
    dropped: Arc<AtomicU64>,
    events: mpsc::Sender<TapEvent>,
}

/// The control stream's side.
#[derive(Debug)]
pub struct TapReceiver {
    events: mpsc::Receiver<TapEvent>,
    watchers: Arc<AtomicU32>,
    dropped: Arc<AtomicU64>,
}

/// A pair that belongs together.
pub fn channel() -> (Tap, TapReceiver) {
    let (sender, events) = mpsc::channel(QUEUE);
    let (watchers, dropped) = (Arc::<AtomicU32>::default(), Arc::<AtomicU64>::default());
    let tap = Tap { watchers: Arc::clone(&watchers), dropped: Arc::clone(&dropped), events: sender };
    (tap, TapReceiver { events, watchers, dropped })
}

impl Tap {
    /// Whether anybody watches.
    pub fn is_watched(&self) -> bool {
        self.watchers.load(Relaxed) > 0
    }

    /// Hands over an event; never waits.
    pub fn send(&self, event: TapEvent) {
        if self.events.try_send(event).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl TapReceiver {
    /// The next finished request.
    pub async fn next(&mut self) -> Option<TapEvent> {
        self.events.recv().await
    }

    /// One that has finished already.
    pub fn try_next(&mut self) -> Option<TapEvent> {
        self.events.try_recv().ok()
    }

    /// States how many watch.
    pub fn watched_by(&self, watchers: usize) {
        self.watchers.store(u32::try_from(watchers).unwrap_or(u32::MAX), Relaxed);
    }

    /// How many events were dropped since the last call.
    pub fn take_dropped(&self) -> u64 {
        self.dropped.swap(0, Relaxed)
    }
}
