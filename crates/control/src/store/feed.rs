//! The feed of changes that both stores share: who watches what, and what happens to a reader that falls behind.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::{Keyspace, Revision};

/// One key of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The key.
    pub key: String,
    /// Its new value; `None` when it was removed.
    pub value: Option<Bytes>,
}

/// One commit, as far as the watcher asked for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The revision it made.
    pub revision: Revision,
    /// What it changed, in order of the keys.
    pub changes: Vec<Change>,
}

/// Why a watch ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WatchEnd {
    /// Commits that the watcher has not seen are no longer known: list again and compare.
    #[error("changes were compacted")]
    Compacted,
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}

/// Commits a watcher may be behind before it has to list again.
const BACKLOG: usize = 1024;

/// A running watch.
#[derive(Debug)]
pub struct Watch {
    past: VecDeque<Batch>,
    live: mpsc::Receiver<Result<Batch, WatchEnd>>,
    lagged: bool,
}

impl Watch {
    /// The next commit.
    pub async fn next(&mut self) -> Result<Batch, WatchEnd> {
        if let Some(batch) = self.past.pop_front() {
            return Ok(batch);
        }
        if self.lagged {
            return Err(WatchEnd::Compacted);
        }
        match self.live.recv().await {
            Some(Ok(batch)) => Ok(batch),
            Some(Err(end)) => {
                self.lagged = end == WatchEnd::Compacted;
                Err(end)
            }
            // The feed dropped the sender: either the store is gone, or it gave up on this reader.
            None => Err(WatchEnd::Compacted),
        }
    }
}

/// All running watches of a store.
#[derive(Debug, Default)]
pub(super) struct Feed {
    watchers: Vec<Watcher>,
}

#[derive(Debug)]
struct Watcher {
    space: Keyspace,
    prefix: String,
    sender: mpsc::Sender<Result<Batch, WatchEnd>>,
}

impl Feed {
    /// Begins a watch that first tells `past`. To be called at a moment when no commit can slip between.
    pub(super) fn watch(&mut self, space: Keyspace, prefix: &str, past: Vec<Batch>) -> Watch {
        let (sender, live) = mpsc::channel(BACKLOG);
        self.watchers.push(Watcher { space, prefix: prefix.to_owned(), sender });
        Watch { past: past.into(), live, lagged: false }
    }

    /// A watch that can only say that it came too late.
    pub(super) fn compacted() -> Watch {
        let (_sender, live) = mpsc::channel(1);
        Watch { past: VecDeque::new(), live, lagged: true }
    }

    /// Tells every watcher of a commit. One that does not keep up is dropped and will find itself compacted.
    pub(super) fn publish(&mut self, space: Keyspace, revision: Revision, changes: &[Change]) {
        self.watchers.retain(|watcher| {
            if watcher.space != space {
                return !watcher.sender.is_closed();
            }
            let changes: Vec<Change> =
                changes.iter().filter(|change| change.key.starts_with(&watcher.prefix)).cloned().collect();
            changes.is_empty() || watcher.sender.try_send(Ok(Batch { revision, changes })).is_ok()
        });
    }

    /// Tells every watcher that there will be nothing more.
    pub(super) fn close(&mut self) {
        for watcher in self.watchers.drain(..) {
            // A reader whose queue is full learns it as `Compacted`; it has to open the store again either way.
            drop(watcher.sender.try_send(Err(WatchEnd::Closed)));
        }
    }
}
