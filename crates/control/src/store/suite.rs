//! The contract of a store, as tests that run on every implementation. Public, so that a store elsewhere can be held to it.

use std::time::Duration;

use bytes::Bytes;

use super::{COMMIT_LIMIT, Keyspace, Precondition, Revision, Store, StoreError, VALUE_LIMIT, WatchEnd, Write};

use Keyspace::{Config, Live};

/// Runs the whole contract; `make` gives a new empty store each time. To be run under tokio's paused clock. Panics on the first
/// breach.
pub async fn run<S, F, M>(make: M)
where
    S: Store,
    F: Future<Output = S>,
    M: Fn() -> F,
{
    what_was_written_is_read(&make().await).await;
    a_commit_is_all_or_nothing(&make().await).await;
    preconditions_compare_the_last_write(&make().await).await;
    the_keyspaces_do_not_see_each_other(&make().await).await;
    a_list_has_exactly_its_prefix_in_order(&make().await).await;
    a_watch_continues_a_list_without_gap(&make().await).await;
    a_watch_tells_each_commit_whole(&make().await).await;
    a_removal_is_told_once(&make().await).await;
    a_compacted_past_is_refused_and_values_stay(&make().await).await;
    a_reader_that_never_reads_is_told_to_list_again(&make().await).await;
    a_lease_has_one_holder_and_ends(&make().await).await;
    what_is_too_large_is_refused(&make().await).await;
    a_closed_store_says_so(&make().await).await;
}

fn put(key: &str, value: &str) -> Write {
    Write::Put(key.to_owned(), Bytes::copy_from_slice(value.as_bytes()))
}

fn delete(key: &str) -> Write {
    Write::Delete(key.to_owned())
}

#[track_caller]
fn sure<T>(result: Result<T, StoreError>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => violated(&error.to_string()),
    }
}

#[track_caller]
#[expect(clippy::panic, reason = "this is how a contract test fails")]
fn violated(what: &str) -> ! {
    panic!("{what}")
}

async fn commit(store: &impl Store, space: Keyspace, writes: Vec<Write>) -> Revision {
    sure(store.commit(space, Vec::new(), writes).await)
}

async fn value(store: &impl Store, space: Keyspace, key: &str) -> Option<Vec<u8>> {
    sure(store.get(space, key).await).map(|entry| entry.value.to_vec())
}

async fn what_was_written_is_read(store: &impl Store) {
    assert_eq!(value(store, Config, "a").await, None);
    let first = commit(store, Config, vec![put("a", "1")]).await;
    let second = commit(store, Config, vec![put("a", "2"), put("b", "")]).await;
    assert!(first > Revision(0) && second > first);
    let entry = sure(store.get(Config, "a").await);
    assert_eq!(entry.map(|e| (e.value, e.revision)), Some((Bytes::from_static(b"2"), second)));
    assert_eq!(value(store, Config, "b").await, Some(Vec::new()), "an empty value is a value");
    commit(store, Config, vec![delete("a")]).await;
    assert_eq!(value(store, Config, "a").await, None);
    let before = sure(store.list(Config, "").await).revision;
    assert_eq!(commit(store, Config, vec![delete("a")]).await, before, "removing nothing changes nothing");
}

async fn a_commit_is_all_or_nothing(store: &impl Store) {
    commit(store, Config, vec![put("a", "1")]).await;
    let preconditions = vec![Precondition::Absent("b".to_owned()), Precondition::Absent("a".to_owned())];
    let refused = store.commit(Config, preconditions, vec![put("b", "1"), put("c", "1")]).await;
    assert_eq!(refused, Err(StoreError::Conflict("a".to_owned())));
    assert_eq!(sure(store.list(Config, "").await).entries.len(), 1);
}

async fn preconditions_compare_the_last_write(store: &impl Store) {
    let first = commit(store, Config, vec![put("a", "1")]).await;
    let at = |revision| vec![Precondition::At("a".to_owned(), revision)];
    let second = sure(store.commit(Config, at(first), vec![put("a", "2")]).await);
    let stale = store.commit(Config, at(first), vec![put("a", "3")]).await;
    assert_eq!(stale, Err(StoreError::Conflict("a".to_owned())));
    commit(store, Config, vec![put("other", "1")]).await;
    sure(store.commit(Config, at(second), vec![delete("a")]).await);
    assert!(store.commit(Config, at(second), vec![put("a", "4")]).await.is_err(), "a removed key has no revision");
    sure(store.commit(Config, vec![Precondition::Absent("a".to_owned())], vec![put("a", "5")]).await);
    assert_eq!(value(store, Config, "a").await.as_deref(), Some(b"5".as_slice()));
}

async fn the_keyspaces_do_not_see_each_other(store: &impl Store) {
    commit(store, Config, vec![put("a", "config")]).await;
    commit(store, Live, vec![put("a", "live")]).await;
    commit(store, Live, vec![delete("a")]).await;
    assert_eq!(value(store, Config, "a").await.as_deref(), Some(b"config".as_slice()));
    assert_eq!(sure(store.list(Live, "").await).entries.len(), 0);
}

async fn a_list_has_exactly_its_prefix_in_order(store: &impl Store) {
    let keys = ["endpoint/a/2", "endpoint/a/1", "endpoint/ab/1", "endpoint", "f"];
    commit(store, Live, keys.iter().map(|key| put(key, key)).collect()).await;
    commit(store, Live, vec![put("endpoint/a/1", "new")]).await;
    let listing = sure(store.list(Live, "endpoint/a/").await);
    let found: Vec<&str> = listing.entries.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(found, ["endpoint/a/1", "endpoint/a/2"]);
    assert_eq!(sure(store.list(Live, "").await).entries.len(), 5);
}

async fn a_watch_continues_a_list_without_gap(store: &impl Store) {
    commit(store, Live, vec![put("a", "1")]).await;
    let since = sure(store.list(Live, "").await).revision;
    let missed = commit(store, Live, vec![put("a", "2")]).await;
    let mut watch = sure(store.watch(Live, "", since).await);
    let live = commit(store, Live, vec![put("a", "3")]).await;
    for revision in [missed, live] {
        assert_eq!(watch.next().await.map(|batch| batch.revision), Ok(revision));
    }
}

async fn a_watch_tells_each_commit_whole(store: &impl Store) {
    let mut watch = sure(store.watch(Live, "x/", Revision(0)).await);
    commit(store, Config, vec![put("x/other-keyspace", "1")]).await;
    commit(store, Live, vec![put("y", "1")]).await;
    let revision = commit(store, Live, vec![put("x/b", "1"), put("y", "2"), put("x/a", "1")]).await;
    let batch = watch.next().await;
    let keys = batch.map(|b| (b.revision, b.changes.into_iter().map(|c| c.key).collect::<Vec<_>>()));
    assert_eq!(keys, Ok((revision, vec!["x/a".to_owned(), "x/b".to_owned()])));
}

async fn a_removal_is_told_once(store: &impl Store) {
    commit(store, Live, vec![put("a", "1")]).await;
    let since = sure(store.list(Live, "").await).revision;
    commit(store, Live, vec![delete("a")]).await;
    commit(store, Live, vec![delete("a")]).await;
    let end = commit(store, Live, vec![put("b", "1")]).await;
    let mut watch = sure(store.watch(Live, "", since).await);
    let first = watch.next().await.map(|batch| batch.changes.into_iter().map(|c| c.value).collect::<Vec<_>>());
    assert_eq!(first, Ok(vec![None]));
    assert_eq!(watch.next().await.map(|batch| batch.revision), Ok(end));
}

async fn a_compacted_past_is_refused_and_values_stay(store: &impl Store) {
    let first = commit(store, Live, vec![put("a", "1"), put("gone", "1")]).await;
    commit(store, Live, vec![put("a", "2"), delete("gone")]).await;
    let third = commit(store, Live, vec![put("b", "1")]).await;
    sure(store.compact(third).await);
    let mut late = sure(store.watch(Live, "", first).await);
    assert_eq!(late.next().await, Err(WatchEnd::Compacted));
    assert_eq!(value(store, Live, "a").await.as_deref(), Some(b"2".as_slice()));
    assert_eq!(value(store, Live, "gone").await, None);
    let mut current = sure(store.watch(Live, "", third).await);
    let fourth = commit(store, Live, vec![put("a", "3")]).await;
    assert_eq!(current.next().await.map(|batch| batch.revision), Ok(fourth));
}

async fn a_reader_that_never_reads_is_told_to_list_again(store: &impl Store) {
    let mut watch = sure(store.watch(Live, "", Revision(0)).await);
    for round in 0..1100 {
        commit(store, Live, vec![put("a", &round.to_string())]).await;
    }
    let mut last = Revision(0);
    let end = loop {
        match watch.next().await {
            Ok(batch) => {
                assert_eq!(batch.revision.0, last.0 + 1, "in order and without gap until the end");
                last = batch.revision;
            }
            Err(end) => break end,
        }
    };
    assert_eq!(end, WatchEnd::Compacted);
}

async fn a_lease_has_one_holder_and_ends(store: &impl Store) {
    let ttl = Duration::from_secs(10);
    assert!(sure(store.lease("janitor", "one", ttl).await));
    assert!(!sure(store.lease("janitor", "two", ttl).await));
    assert!(sure(store.lease("other", "two", ttl).await));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(sure(store.lease("janitor", "one", ttl).await), "the holder renews");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!sure(store.lease("janitor", "two", ttl).await));
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(sure(store.lease("janitor", "two", ttl).await));
}

async fn a_closed_store_says_so(store: &impl Store) {
    let mut watch = sure(store.watch(Live, "", Revision(0)).await);
    sure(store.close().await);
    assert_eq!(watch.next().await, Err(WatchEnd::Closed));
    assert_eq!(store.get(Live, "a").await, Err(StoreError::Closed));
    assert_eq!(store.commit(Live, Vec::new(), vec![put("a", "1")]).await, Err(StoreError::Closed));
}

async fn what_is_too_large_is_refused(store: &impl Store) {
    let too_many = (0..=COMMIT_LIMIT).map(|n| put(&n.to_string(), "")).collect();
    let too_long = Write::Put("a".to_owned(), vec![0; VALUE_LIMIT + 1].into());
    for writes in [too_many, vec![too_long], vec![put("", "1")], vec![put("a", "1"), delete("a")]] {
        assert!(matches!(store.commit(Live, Vec::new(), writes).await, Err(StoreError::TooLarge(_))));
    }
    assert_eq!(sure(store.list(Live, "").await).revision, Revision(0));
}
