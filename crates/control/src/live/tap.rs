//! Showing requests as they end. Proxies report while anybody looks; who looks gets what fits and learns what was lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hms_model::names::ServiceName;
use hms_wire::proto::hms::v1;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{Live, message};

/// Events that may wait for a reader.
const QUEUE: usize = 1024;
/// Readers at the same time.
const READERS: usize = 64;
/// Events a proxy may report per second.
const PER_SECOND: u32 = 200;
/// The one tap that all readers share; proxies know only on and off.
const TAP: u64 = 1;

/// What a reader gets.
#[derive(Debug, Clone, PartialEq)]
pub struct TapItem {
    /// The proxy that saw it.
    pub proxy: String,
    /// The request.
    pub event: v1::TapEvent,
    /// Requests lost so far: proxies had too many, or the reader was too slow.
    pub dropped: u64,
}

/// A reader's view of requests; reporting stops with the last one dropped.
#[derive(Debug)]
pub struct Tap {
    live: Live,
    id: u64,
    items: mpsc::Receiver<TapItem>,
}

impl Tap {
    /// The next request; `None` if there are too many readers already.
    pub async fn next(&mut self) -> Option<TapItem> {
        self.items.recv().await
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        if self.live.0.taps.end(self.id) {
            self.live.tell_all(&message(v1::control_message::Kind::TapStop(v1::TapStop { tap_id: TAP })));
        }
    }
}

#[derive(Debug)]
struct Reader {
    service: Option<Names>,
    items: mpsc::Sender<TapItem>,
    dropped: Arc<AtomicU64>,
}

/// The ways a proxy may write a service's name.
#[derive(Debug)]
struct Names([String; 2]);

impl Names {
    fn of(service: &ServiceName) -> Self {
        Self([service.to_string(), format!("{}.{}", service.name(), service.namespace())])
    }

    fn fit(&self, event: &v1::TapEvent) -> bool {
        self.0.iter().any(|name| event.source == *name || event.destination == *name)
    }
}

/// Everybody who looks.
#[derive(Debug, Default)]
pub(super) struct Taps {
    readers: Mutex<BTreeMap<u64, Reader>>,
    next: AtomicU64,
}

fn start() -> v1::ControlMessage {
    message(v1::control_message::Kind::TapStart(v1::TapStart { tap_id: TAP, max_per_second: PER_SECOND }))
}

impl Taps {
    /// A new reader, and what proxies have to be told if it is the first.
    pub(super) fn begin(&self, live: Live, service: Option<&ServiceName>) -> (Tap, Option<v1::ControlMessage>) {
        let (sender, items) = mpsc::channel(QUEUE);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut readers = self.readers.lock();
        let first = readers.is_empty();
        if readers.len() < READERS {
            let service = service.map(Names::of);
            readers.insert(id, Reader { service, items: sender, dropped: Arc::default() });
        }
        (Tap { live, id, items }, first.then(start))
    }

    /// A reader went; whether it was the last.
    fn end(&self, id: u64) -> bool {
        let mut readers = self.readers.lock();
        readers.remove(&id).is_some() && readers.is_empty()
    }

    /// What a proxy that just came has to be told.
    pub(super) fn start_message(&self) -> Option<v1::ControlMessage> {
        (!self.readers.lock().is_empty()).then(start)
    }

    /// Passes a proxy's report on.
    pub(super) fn publish(&self, proxy: &str, report: &v1::TapEvents) {
        let readers = self.readers.lock();
        for reader in readers.values() {
            let mut dropped =
                reader.dropped.fetch_add(report.dropped, Ordering::Relaxed).saturating_add(report.dropped);
            for event in &report.events {
                if reader.service.as_ref().is_some_and(|names| !names.fit(event)) {
                    continue;
                }
                let item = TapItem { proxy: proxy.to_owned(), event: event.clone(), dropped };
                if reader.items.try_send(item).is_err() {
                    dropped = reader.dropped.fetch_add(1, Ordering::Relaxed).saturating_add(1);
                }
            }
        }
    }
}
