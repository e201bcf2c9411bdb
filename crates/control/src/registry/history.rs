//! Configuration as a history of immutable objects: every resource, every list of resources and every commit is stored under the
//! hash of its content, and one key, `head`, names the commit that holds.
//!
//! A commit first writes the objects that are new, which nobody sees yet, then moves `head` with one compare-and-swap. So a
//! change of any size is atomic within the store's bound of operations per commit, going back is the same move, and a damaged
//! object does not go unnoticed, because its name no longer fits it. The list of resources is cut into pieces where the resources
//! themselves say so ([`is_last`]), so that one change writes and reads one small piece, however many resources there are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hms_model::mesh::{Resources, changed};
use hms_model::resource::ResourceKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::store::{COMMIT_LIMIT, Entry, Keyspace, Precondition, Revision, Store, StoreError, Write};

/// The key of the present commit's hash.
pub(super) const HEAD: &str = "head";
const OBJECT: &str = "object/";
/// Commits that can be gone back to.
const KEPT: usize = 50;
/// Every so many commits what nobody refers to is removed.
const SWEEP: u64 = 16;

/// Configuration as one commit left it.
#[derive(Debug, Clone, Default)]
pub(super) struct Head {
    /// The store's revision that made it the present one; 0 before the first.
    pub(super) revision: Revision,
    /// Hash of the commit; empty before the first.
    hash: String,
    /// Counts commits from 1.
    number: u64,
    /// Hash of every resource.
    hashes: BTreeMap<ResourceKey, Hash>,
    /// The same list, in the pieces of [`Commit::tree`].
    pieces: Vec<Arc<Piece>>,
    /// The resources.
    pub(super) resources: Arc<Resources>,
}

/// The name of an object, shared by the lists that have it.
type Hash = Arc<str>;

/// A part of the list of resources.
#[derive(Debug, PartialEq)]
struct Piece {
    hash: String,
    entries: Vec<(ResourceKey, Hash)>,
}

/// One commit of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommitRecord {
    /// The revision that it made; what [`at`](super::Registry::at) takes.
    pub revision: Revision,
    /// Who made it.
    pub actor: String,
    /// When, in Unix seconds.
    pub time: u64,
    /// What it changed, in the order of the keys; `None` where the commit before it is not kept any more.
    pub changes: Option<Differences>,
}

/// What became of a resource from one commit to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// It was not there before.
    Added,
    /// It was another one.
    Changed,
    /// It is not there any more.
    Removed,
}

/// What a commit changed.
type Differences = Vec<(ResourceKey, Difference)>;

/// What became of each key from one map to another.
fn differences(before: &Tree, after: &Tree) -> Result<Differences, StoreError> {
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let mut found = Vec::new();
    for name in keys {
        let difference = match (before.get(name), after.get(name)) {
            (None, _) => Difference::Added,
            (_, None) => Difference::Removed,
            (old, new) if old != new => Difference::Changed,
            _ => continue,
        };
        found.push((key_of(name)?, difference));
    }
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(found)
}

fn key_of(name: &str) -> Result<ResourceKey, StoreError> {
    ResourceKey::parse(name).ok_or_else(|| damaged(&format!("`{name}` is no resource")))
}

/// A commit as it is stored.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Commit {
    number: u64,
    parent: String,
    /// The list of resources, in pieces.
    tree: Vec<String>,
    actor: String,
    time: u64,
}

/// A piece of the list of resources as it is stored: key to hash.
type Tree = BTreeMap<String, String>;
/// Resources that a piece has at most, so that it stays well below the store's bound.
const PIECE: usize = 2000;

/// Whether a piece ends with the resource of this hash: one in 64 does. It is the resources that say where the list is cut, so one
/// more or less moves no other cut.
fn is_last(hash: &str) -> bool {
    hash.get(..2).and_then(|byte| u8::from_str_radix(byte, 16).ok()).is_some_and(|byte| byte < 4)
}

/// Cuts a list into pieces, taking those that did not change from `old`. What has to be written is added to `fresh`.
fn cut(
    hashes: &BTreeMap<ResourceKey, Hash>,
    old: &[Arc<Piece>],
    fresh: &mut BTreeMap<String, Bytes>,
) -> Result<Vec<Arc<Piece>>, StoreError> {
    let known: BTreeMap<&ResourceKey, &Arc<Piece>> =
        old.iter().filter_map(|piece| Some((&piece.entries.first()?.0, piece))).collect();
    let entries: Vec<(&ResourceKey, &Hash)> = hashes.iter().collect();
    let mut pieces = Vec::new();
    for piece in entries.chunk_by(|(_, hash), _| !is_last(hash)).flat_map(|piece| piece.chunks(PIECE)) {
        let Some((first, _)) = piece.first() else { continue };
        let same = |old: &&&Arc<Piece>| old.entries.iter().map(|(key, hash)| (key, hash)).eq(piece.iter().copied());
        if let Some(unchanged) = known.get(first).filter(same) {
            pieces.push(Arc::clone(unchanged));
            continue;
        }
        let stored: Tree = piece.iter().map(|(key, hash)| (key.to_string(), hash.to_string())).collect();
        let bytes = serialise(&stored)?;
        let hash = hash_of(&bytes);
        fresh.insert(hash.clone(), bytes);
        let entries = piece.iter().map(|(key, hash)| (ResourceKey::clone(key), Hash::clone(hash))).collect();
        pieces.push(Arc::new(Piece { hash, entries }));
    }
    Ok(pieces)
}

fn hash_of(bytes: &[u8]) -> String {
    super::hex(&Sha256::digest(bytes))
}

fn damaged(what: &str) -> StoreError {
    StoreError::Corrupt { path: "configuration".to_owned(), detail: what.to_owned() }
}

fn serialise(value: &impl Serialize) -> Result<Bytes, StoreError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|error| damaged(&error.to_string()))
}

async fn object(store: &dyn Store, hash: &str) -> Result<Bytes, StoreError> {
    let found = store.get(Keyspace::Config, &format!("{OBJECT}{hash}")).await?;
    let value = found.ok_or_else(|| damaged(&format!("the object {hash} is missing")))?.value;
    if hash_of(&value) != hash {
        return Err(damaged(&format!("the object {hash} holds something else")));
    }
    Ok(value)
}

async fn read<T: for<'de> Deserialize<'de>>(store: &dyn Store, hash: &str) -> Result<T, StoreError> {
    let bytes = object(store, hash).await?;
    serde_json::from_slice(&bytes).map_err(|error| damaged(&format!("the object {hash}: {error}")))
}

/// The present configuration. Resources that `known` already holds are not read again.
pub(super) async fn load(store: &dyn Store, known: &Head) -> Result<Head, StoreError> {
    match store.get(Keyspace::Config, HEAD).await? {
        Some(entry) => load_at(store, &entry, known).await,
        None => Ok(Head::default()),
    }
}

async fn load_at(store: &dyn Store, entry: &Entry, known: &Head) -> Result<Head, StoreError> {
    let hash = String::from_utf8_lossy(&entry.value).into_owned();
    let commit: Commit = read(store, &hash).await?;
    let lists = lists(store, &commit.tree, known).await?;
    Ok(Head { revision: entry.revision, hash, number: commit.number, ..lists })
}

async fn tree(store: &dyn Store, pieces: &[String]) -> Result<Tree, StoreError> {
    let mut whole = Tree::new();
    for piece in pieces {
        whole.append(&mut read(store, piece).await?);
    }
    Ok(whole)
}

async fn read_piece(store: &dyn Store, hash: &str) -> Result<Piece, StoreError> {
    let stored: Tree = read(store, hash).await?;
    let entries = stored.into_iter().map(|(name, hash)| Ok((key_of(&name)?, Hash::from(hash))));
    let mut entries = entries.collect::<Result<Vec<_>, StoreError>>()?;
    entries.sort();
    Ok(Piece { hash: hash.to_owned(), entries })
}

/// The lists that a tree's pieces make, with everything that `known` has taken from there; a head without a commit.
async fn lists(store: &dyn Store, tree: &[String], known: &Head) -> Result<Head, StoreError> {
    let mut old: BTreeMap<&str, &Arc<Piece>> = known.pieces.iter().map(|piece| (piece.hash.as_str(), piece)).collect();
    let (mut pieces, mut fresh) = (Vec::new(), Vec::new());
    for hash in tree {
        if let Some(piece) = old.remove(hash.as_str()) {
            pieces.push(Arc::clone(piece));
            continue;
        }
        let piece = Arc::new(read_piece(store, hash).await?);
        fresh.push(Arc::clone(&piece));
        pieces.push(piece);
    }
    let (mut hashes, mut resources) = (known.hashes.clone(), Resources::clone(&known.resources));
    for (key, _) in old.values().flat_map(|piece| &piece.entries) {
        hashes.remove(key);
        resources.remove(key);
    }
    for (key, hash) in fresh.iter().flat_map(|piece| &piece.entries) {
        let resource = match known.resources.get(key) {
            Some(resource) if known.hashes.get(key) == Some(hash) => Arc::clone(resource),
            _ => {
                let bytes = object(store, hash).await?;
                let resource = hms_wire::decode(&bytes).map_err(|error| damaged(&format!("`{key}`: {error}")))?;
                Arc::new(resource)
            }
        };
        resources.insert(key.clone(), resource);
        hashes.insert(key.clone(), Hash::clone(hash));
    }
    Ok(Head { hashes, pieces, resources: Arc::new(resources), ..Head::default() })
}

/// Who commits, and when (Unix seconds).
#[derive(Debug, Clone, Copy)]
pub(super) struct Author<'a> {
    pub(super) actor: &'a str,
    pub(super) time: u64,
}

/// Makes `resources` the present configuration if `head` still is. Nothing happens if they are the same already.
pub(super) async fn commit(
    store: &dyn Store,
    head: &Head,
    author: Author<'_>,
    resources: Arc<Resources>,
) -> Result<Head, StoreError> {
    let mut hashes = head.hashes.clone();
    let mut fresh: BTreeMap<String, Bytes> = BTreeMap::new();
    for (key, _, resource) in changed(&head.resources, &resources) {
        let Some(resource) = resource else {
            hashes.remove(key);
            continue;
        };
        let bytes = Bytes::from(hms_wire::encode(resource));
        let hash = Hash::from(hash_of(&bytes));
        if hashes.get(key) != Some(&hash) {
            fresh.insert(hash.to_string(), bytes);
            hashes.insert(key.clone(), hash);
        }
    }
    if hashes == head.hashes && !head.hash.is_empty() {
        return Ok(head.clone());
    }
    let pieces = cut(&hashes, &head.pieces, &mut fresh)?;
    let record = Commit {
        number: head.number + 1,
        parent: head.hash.clone(),
        tree: pieces.iter().map(|piece| piece.hash.clone()).collect(),
        actor: author.actor.to_owned(),
        time: author.time,
    };
    let number = record.number;
    let record = serialise(&record)?;
    let hash = hash_of(&record);
    let revision = flip(store, head, fresh, (&hash, record)).await?;
    if number.is_multiple_of(SWEEP)
        && let Err(error) = sweep(store, &hash).await
    {
        // The commit holds, whatever became of what nobody needs.
        tracing::warn!(%error, "old configuration could not be removed");
    }
    Ok(Head { revision, hash, number, hashes, pieces, resources })
}

/// Writes the objects in as many steps as the store wants; the last one writes the commit and moves the head, so that the store
/// remembers for each commit the revision that it made.
async fn flip(
    store: &dyn Store,
    head: &Head,
    fresh: BTreeMap<String, Bytes>,
    (hash, record): (&str, Bytes),
) -> Result<Revision, StoreError> {
    let writes: Vec<Write> =
        fresh.into_iter().map(|(hash, bytes)| Write::Put(format!("{OBJECT}{hash}"), bytes)).collect();
    // The last step also carries the commit, the head and its precondition.
    let step = COMMIT_LIMIT - 3;
    let mut rest = writes;
    while rest.len() > step {
        let later = rest.split_off(step);
        store.commit(Keyspace::Config, Vec::new(), rest).await?;
        rest = later;
    }
    let still = if head.hash.is_empty() {
        Precondition::Absent(HEAD.to_owned())
    } else {
        Precondition::At(HEAD.to_owned(), head.revision)
    };
    rest.push(Write::Put(format!("{OBJECT}{hash}"), record));
    rest.push(Write::Put(HEAD.to_owned(), Bytes::copy_from_slice(hash.as_bytes())));
    store.commit(Keyspace::Config, vec![still], rest).await
}

/// The latest commits, newest first.
pub(super) async fn log(store: &dyn Store, head: &Head, limit: usize) -> Result<Vec<CommitRecord>, StoreError> {
    let limit = limit.min(KEPT);
    // One more, to say what the oldest one changed.
    let mut commits = walk(store, &head.hash, limit + 1).await?.into_iter().peekable();
    let mut records = Vec::new();
    while let Some(Kept { revision, commit, .. }) = commits.next() {
        if records.len() == limit {
            break;
        }
        let before: Option<&[String]> = match commits.peek() {
            Some(parent) => Some(&parent.commit.tree),
            None if commit.parent.is_empty() => Some(&[]),
            None => None,
        };
        let changes = match before {
            Some(before) => Some(between(store, before, &commit.tree).await?),
            None => None,
        };
        records.push(CommitRecord { revision, actor: commit.actor, time: commit.time, changes });
    }
    Ok(records)
}

/// What became of each key from one list to another. Pieces that both have say nothing of it.
async fn between(store: &dyn Store, before: &[String], after: &[String]) -> Result<Differences, StoreError> {
    let other = |pieces: &[String], others: &[String]| -> Vec<String> {
        let others: BTreeSet<&String> = others.iter().collect();
        pieces.iter().filter(|piece| !others.contains(piece)).cloned().collect()
    };
    let (old, new) = (other(before, after), other(after, before));
    differences(&tree(store, &old).await?, &tree(store, &new).await?)
}

/// The resources as the commit that made `revision` left them; `None` if it is not kept.
pub(super) async fn at(
    store: &dyn Store,
    head: &Head,
    revision: Revision,
) -> Result<Option<Arc<Resources>>, StoreError> {
    let commits = walk(store, &head.hash, KEPT).await?;
    match commits.into_iter().find(|kept| kept.revision == revision) {
        Some(kept) => Ok(Some(lists(store, &kept.commit.tree, head).await?.resources)),
        None => Ok(None),
    }
}

/// A commit that is still there.
struct Kept {
    hash: String,
    revision: Revision,
    commit: Commit,
}

/// A commit and those before it, newest first.
async fn walk(store: &dyn Store, from: &str, limit: usize) -> Result<Vec<Kept>, StoreError> {
    let mut found = Vec::new();
    let mut hash = from.to_owned();
    while !hash.is_empty() && found.len() < limit {
        // The oldest commit kept names a parent that was swept away.
        let Some(entry) = store.get(Keyspace::Config, &format!("{OBJECT}{hash}")).await? else { break };
        let commit: Commit = read(store, &hash).await?;
        let parent = commit.parent.clone();
        found.push(Kept { hash: std::mem::replace(&mut hash, parent), revision: entry.revision, commit });
    }
    Ok(found)
}

/// Removes what no kept commit refers to.
async fn sweep(store: &dyn Store, head: &str) -> Result<(), StoreError> {
    let mut used: BTreeSet<String> = BTreeSet::new();
    for Kept { hash, commit, .. } in walk(store, head, KEPT).await? {
        used.insert(hash);
        // Most pieces are those of the commit before.
        for piece in commit.tree {
            if !used.contains(&piece) {
                used.extend(read::<Tree>(store, &piece).await?.into_values());
                used.insert(piece);
            }
        }
    }
    let objects = store.list(Keyspace::Config, OBJECT).await?.entries;
    let dead =
        objects.into_iter().filter(|entry| entry.key.strip_prefix(OBJECT).is_some_and(|hash| !used.contains(hash)));
    let dead: Vec<Write> = dead.map(|entry| Write::Delete(entry.key)).collect();
    for step in dead.chunks(COMMIT_LIMIT) {
        store.commit(Keyspace::Config, Vec::new(), step.to_vec()).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use hms_model::names::ServiceName;
    use hms_model::resource::{Declaration, Resource};

    use super::*;
    use crate::store::MemoryStore;

    fn declarations(names: impl IntoIterator<Item = String>) -> Arc<Resources> {
        let declare = |name: String| {
            let name = ServiceName::new(&name).unwrap();
            let resource = Resource::Declaration(Declaration::new(name));
            (resource.key(), Arc::new(resource))
        };
        Arc::new(names.into_iter().map(declare).collect())
    }

    const AUTHOR: Author<'static> = Author { actor: "test", time: 1 };

    #[tokio::test]
    async fn a_commit_larger_than_the_store_takes_at_once_is_atomic() {
        let store = MemoryStore::new();
        let many = declarations((0..500).map(|n| format!("s{n}")));
        let head = commit(&store, &Head::default(), AUTHOR, Arc::clone(&many)).await.unwrap();
        let loaded = load(&store, &Head::default()).await.unwrap();
        assert_eq!((loaded.revision, &loaded.resources), (head.revision, &many));
        let log = log(&store, &loaded, 1).await.unwrap();
        assert_eq!(log[0].revision, head.revision, "the last of several steps is the one that counts");
        assert_eq!(log[0].changes.as_ref().map(Vec::len), Some(500));
    }

    #[tokio::test]
    async fn of_two_commits_on_the_same_head_one_fails() {
        let store = MemoryStore::new();
        let head = commit(&store, &Head::default(), AUTHOR, declarations(["a".to_owned()])).await.unwrap();
        commit(&store, &head, AUTHOR, declarations(["b".to_owned()])).await.unwrap();
        let late = commit(&store, &head, AUTHOR, declarations(["c".to_owned()])).await.map(|head| head.number);
        assert_eq!(late, Err(StoreError::Conflict(HEAD.to_owned())));
    }

    #[tokio::test]
    async fn the_same_again_is_no_commit() {
        let store = MemoryStore::new();
        let one = || declarations(["a".to_owned()]);
        let head = commit(&store, &Head::default(), AUTHOR, one()).await.unwrap();
        let again = commit(&store, &head, AUTHOR, one()).await.unwrap();
        assert_eq!((again.number, again.revision), (1, head.revision));
    }

    #[tokio::test]
    async fn old_commits_can_be_read_until_they_are_swept() {
        let store = MemoryStore::new();
        let mut head = Head::default();
        let mut revisions = vec![Revision(0)];
        for n in 1..=96 {
            head = commit(&store, &head, AUTHOR, declarations([format!("s{n}")])).await.unwrap();
            revisions.push(head.revision);
        }
        let log = log(&store, &head, 1000).await.unwrap();
        assert_eq!((log.len(), log[0].revision, log[49].revision), (KEPT, revisions[96], revisions[47]));
        assert_eq!(at(&store, &head, revisions[60]).await.unwrap(), Some(declarations(["s60".to_owned()])));
        assert_eq!(at(&store, &head, revisions[46]).await.unwrap(), None);
        let changes = |place: usize| log[place].changes.clone();
        let keys = |n: u32| declarations([format!("s{n}")]).keys().next().unwrap().clone();
        assert_eq!(changes(0), Some(vec![(keys(95), Difference::Removed), (keys(96), Difference::Added)]));
        assert_eq!(changes(49), None, "the one before is not kept");
        let objects = store.list(Keyspace::Config, OBJECT).await.unwrap().entries.len();
        assert_eq!(objects, KEPT * 3, "a commit, a list and a resource each");
    }

    #[tokio::test]
    async fn a_change_among_many_writes_little_and_leaves_what_did_not_change_where_it_was() {
        let store = MemoryStore::new();
        let names = |extra: Option<usize>| declarations((0..5000).chain(extra).map(|n| format!("s{n}")));
        let head = commit(&store, &Head::default(), AUTHOR, names(None)).await.unwrap();
        let written = |listing: crate::store::Listing| -> usize {
            listing.entries.into_iter().map(|entry| entry.value.len()).sum()
        };
        let before = written(store.list(Keyspace::Config, OBJECT).await.unwrap());
        let loaded = load(&store, &Head::default()).await.unwrap();
        assert_eq!((&loaded.hashes, &loaded.pieces), (&head.hashes, &head.pieces));

        let more = commit(&store, &loaded, AUTHOR, names(Some(7000))).await.unwrap();
        let after = written(store.list(Keyspace::Config, OBJECT).await.unwrap());
        assert!((after - before) * 10 < before, "{} of {before} bytes", after - before);
        let again = load(&store, &loaded).await.unwrap();
        assert_eq!((&again.hashes, &again.pieces, &again.resources), (&more.hashes, &more.pieces, &more.resources));
        let moved = changed(&loaded.resources, &again.resources);
        assert_eq!(moved.len(), 1, "the others are the same allocations");
        let back = at(&store, &again, loaded.revision).await.unwrap().unwrap();
        assert_eq!(back, loaded.resources);
    }

    #[tokio::test]
    async fn an_object_that_is_not_what_its_name_says_is_never_served() {
        let store = MemoryStore::new();
        let head = commit(&store, &Head::default(), AUTHOR, declarations(["a".to_owned()])).await.unwrap();
        let hash = head.hashes.values().next().unwrap();
        let forged = Write::Put(format!("{OBJECT}{hash}"), Bytes::from_static(b"x"));
        store.commit(Keyspace::Config, Vec::new(), vec![forged]).await.unwrap();
        assert!(matches!(load(&store, &Head::default()).await, Err(StoreError::Corrupt { .. })));
    }
}
