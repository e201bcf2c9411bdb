//! Following the store: every commit, whoever made it, comes in here and nowhere else.

use std::sync::Arc;
use std::time::Duration;

use super::Registry;
use super::history::{self, HEAD};
use super::state::State;
use crate::store::{Keyspace, StoreError, WatchEnd};

/// Pause before a store that failed is asked again.
const AGAIN: Duration = Duration::from_millis(500);

/// Follows until the store is closed.
pub(super) async fn run(registry: Registry) {
    loop {
        match follow(&registry).await {
            Err(StoreError::Closed) => return,
            Err(error) => {
                tracing::error!(%error, "cannot follow the store, trying again");
                tokio::time::sleep(AGAIN).await;
            }
            // Compacted: begin again with a list. The state is replaced as a whole, so nothing disappears in between.
            Ok(()) => {}
        }
        if let Err(error) = resynchronise(&registry).await {
            tracing::error!(%error, "cannot read the store");
        }
    }
}

async fn follow(registry: &Registry) -> Result<(), StoreError> {
    let store = &registry.0.store;
    // The head may have been moved long ago, before what the store still remembers: the watch begins now, then we look.
    let now = store.list(Keyspace::Config, HEAD).await?.revision;
    let mut heads = store.watch(Keyspace::Config, HEAD, now).await?;
    take_config(registry).await?;
    let (_, live) = *registry.0.applied.borrow();
    let mut changes = store.watch(Keyspace::Live, "", live).await?;
    loop {
        tokio::select! {
            head = heads.next() => match head {
                Ok(_moved) => take_config(registry).await?,
                Err(end) => return ended(end),
            },
            batch = changes.next() => match batch {
                Ok(batch) => {
                    let revision = batch.revision;
                    registry.0.state.lock().apply(batch);
                    registry.0.applied.send_modify(|applied| applied.1 = revision);
                    registry.0.changed.notify_one();
                }
                Err(end) => return ended(end),
            },
        }
    }
}

fn ended(end: WatchEnd) -> Result<(), StoreError> {
    match end {
        WatchEnd::Compacted => Ok(()),
        WatchEnd::Closed => Err(StoreError::Closed),
    }
}

/// Reads the configuration that holds now. Several moves of the head are one to us.
async fn take_config(registry: &Registry) -> Result<(), StoreError> {
    let known = Arc::clone(&registry.0.state.lock().config);
    let head = history::load(&*registry.0.store, &known).await?;
    let revision = head.revision;
    registry.0.state.lock().config = Arc::new(head);
    registry.0.applied.send_modify(|applied| applied.0 = revision);
    registry.0.changed.notify_one();
    Ok(())
}

async fn resynchronise(registry: &Registry) -> Result<(), StoreError> {
    let fresh = State::load(&*registry.0.store).await?;
    let applied = (fresh.config.revision, fresh.live);
    *registry.0.state.lock() = fresh;
    registry.0.applied.send_replace(applied);
    registry.0.changed.notify_one();
    Ok(())
}
