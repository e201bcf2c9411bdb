//! Istio's series of connections that nobody reads.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;

use super::{Labels, MOST_SERIES, Registry, line};

/// What is counted under one set of labels.
#[derive(Debug, Default)]
pub struct TcpCell {
    opened: AtomicU64,
    closed: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl TcpCell {
    /// Counts a connection that begins.
    pub fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    /// Counts a connection that ended.
    pub fn closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    /// Counts bytes towards the caller.
    pub fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Relaxed);
    }

    /// Counts bytes of the caller.
    pub fn received(&self, bytes: u64) {
        self.received.fetch_add(bytes, Relaxed);
    }
}

/// Every cell. Found once per connection, so that one lock is enough for all workers.
#[derive(Debug, Default)]
pub(super) struct TcpCells(Mutex<BTreeMap<Labels, Arc<TcpCell>>>);

/// A series: its name, what it means, and what it shows of a cell.
type Family = (&'static str, &'static str, fn(&TcpCell) -> &AtomicU64);

const FAMILIES: [Family; 4] = [
    ("istio_tcp_connections_opened_total", "Connections that nobody reads, by both ends.", |cell| &cell.opened),
    ("istio_tcp_connections_closed_total", "Such connections that have ended.", |cell| &cell.closed),
    ("istio_tcp_sent_bytes_total", "Bytes on them towards the caller.", |cell| &cell.sent),
    ("istio_tcp_received_bytes_total", "Bytes of the caller on them.", |cell| &cell.received),
];

impl TcpCells {
    /// The exposition of all four series.
    pub(super) fn expose(&self, out: &mut String) {
        let cells = self.0.lock();
        for (name, help, value) in FAMILIES {
            let _infallible = writeln!(out, "# HELP {name} {help}\n# TYPE {name} counter").is_ok();
            for (labels, cell) in cells.iter() {
                let count = value(cell).load(Relaxed);
                if count > 0 {
                    line(out, &format!("{name}{{{labels}}}"), count);
                }
            }
        }
    }
}

impl Registry {
    /// The cell of these labels.
    pub fn tcp(&self, labels: Labels) -> Arc<TcpCell> {
        let mut cells = self.tcp.0.lock();
        let own = if cells.len() < MOST_SERIES || cells.contains_key(&labels) { labels } else { labels.other() };
        Arc::clone(cells.entry(own).or_default())
    }
}
