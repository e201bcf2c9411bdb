//! A store that ends with the process: for tests and `hms control --store memory`.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use super::feed::{Batch, Change, Feed, Watch};
use super::{
    Answer, Entry, Keyspace, Listing, LocalLeases, Precondition, Revision, Store, StoreError, Write, check_bounds,
};

/// Commits kept for watchers that come late.
const HISTORY: usize = 10_000;

/// A store in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    leases: LocalLeases,
}

#[derive(Debug, Default)]
struct Inner {
    closed: bool,
    revision: Revision,
    compacted: Revision,
    current: BTreeMap<(Keyspace, String), Value>,
    history: VecDeque<(Keyspace, Batch)>,
    feed: Feed,
}

/// A value and the commit that wrote it.
type Value = (Bytes, Revision);

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn open(&self) -> Result<MutexGuard<'_, Inner>, StoreError> {
        let inner = self.inner.lock();
        if inner.closed { Err(StoreError::Closed) } else { Ok(inner) }
    }
}

impl Inner {
    fn commit(
        &mut self,
        space: Keyspace,
        preconditions: &[Precondition],
        writes: Vec<Write>,
    ) -> Result<Revision, StoreError> {
        check_bounds(preconditions, &writes)?;
        for precondition in preconditions {
            let (key, wanted) = match precondition {
                Precondition::Absent(key) => (key, None),
                Precondition::At(key, revision) => (key, Some(*revision)),
            };
            let found = self.current.get(&(space, key.clone())).map(|(_, revision)| *revision);
            if found != wanted {
                return Err(StoreError::Conflict(key.clone()));
            }
        }
        let mut changes = Vec::with_capacity(writes.len());
        let revision = Revision(self.revision.0 + 1);
        for write in writes {
            match write {
                Write::Put(key, value) => {
                    self.current.insert((space, key.clone()), (value.clone(), revision));
                    changes.push(Change { key, value: Some(value) });
                }
                Write::Delete(key) => {
                    if self.current.remove(&(space, key.clone())).is_some() {
                        changes.push(Change { key, value: None });
                    }
                }
            }
        }
        if changes.is_empty() {
            return Ok(self.revision);
        }
        changes.sort_by(|a, b| a.key.cmp(&b.key));
        self.revision = revision;
        self.feed.publish(space, revision, &changes);
        self.history.push_back((space, Batch { revision, changes }));
        while self.history.len() > HISTORY {
            if let Some((_, batch)) = self.history.pop_front() {
                self.compacted = batch.revision;
            }
        }
        Ok(revision)
    }

    fn watch(&mut self, space: Keyspace, prefix: &str, since: Revision) -> Watch {
        if since < self.compacted {
            return Feed::compacted();
        }
        let past = self.history.iter().filter(|(of, batch)| *of == space && batch.revision > since);
        let past = past.filter_map(|(_, batch)| {
            let changes: Vec<Change> = batch.changes.iter().filter(|c| c.key.starts_with(prefix)).cloned().collect();
            (!changes.is_empty()).then_some(Batch { revision: batch.revision, changes })
        });
        let past = past.collect();
        self.feed.watch(space, prefix, past)
    }

    fn list(&self, space: Keyspace, prefix: &str) -> Listing {
        let entries = self
            .current
            .range((space, prefix.to_owned())..)
            .take_while(|((of, key), _)| *of == space && key.starts_with(prefix))
            .map(|((_, key), (value, revision))| Entry { key: key.clone(), value: value.clone(), revision: *revision })
            .collect();
        Listing { revision: self.revision, entries }
    }

    fn compact(&mut self, until: Revision) {
        self.compacted = self.compacted.max(until.min(self.revision));
        let compacted = self.compacted;
        self.history.retain(|(_, batch)| batch.revision > compacted);
    }
}

impl Store for MemoryStore {
    fn get(&self, space: Keyspace, key: &str) -> Answer<'_, Option<Entry>> {
        let key = key.to_owned();
        Box::pin(async move {
            let found = self.open()?.current.get(&(space, key.clone())).cloned();
            Ok(found.map(|(value, revision)| Entry { key, value, revision }))
        })
    }

    fn list(&self, space: Keyspace, prefix: &str) -> Answer<'_, Listing> {
        let prefix = prefix.to_owned();
        Box::pin(async move { Ok(self.open()?.list(space, &prefix)) })
    }

    fn commit(&self, space: Keyspace, preconditions: Vec<Precondition>, writes: Vec<Write>) -> Answer<'_, Revision> {
        Box::pin(async move { self.open()?.commit(space, &preconditions, writes) })
    }

    fn watch(&self, space: Keyspace, prefix: &str, since: Revision) -> Answer<'_, Watch> {
        let prefix = prefix.to_owned();
        Box::pin(async move { Ok(self.open()?.watch(space, &prefix, since)) })
    }

    fn compact(&self, until: Revision) -> Answer<'_, ()> {
        Box::pin(async move {
            self.open()?.compact(until);
            Ok(())
        })
    }

    fn close(&self) -> Answer<'_, ()> {
        Box::pin(async move {
            let mut inner = self.inner.lock();
            inner.closed = true;
            inner.feed.close();
            Ok(())
        })
    }

    fn lease(&self, name: &str, holder: &str, time_to_live: Duration) -> Answer<'_, bool> {
        let (name, holder) = (name.to_owned(), holder.to_owned());
        Box::pin(async move { Ok(self.leases.take(&name, &holder, time_to_live)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_memory_store_keeps_the_contract() {
        super::super::suite::run(|| async { MemoryStore::new() }).await;
    }
}
