//! Where state lives: bytes under keys, in etcd's shape. The store knows no service and the registry no SQL.
//!
//! Every commit is atomic and makes one new [`Revision`]. There are two keyspaces: [`Keyspace::Config`] survives loss of power
//! once acknowledged; [`Keyspace::Live`] (endpoints) survives the death of the process. One contract, [`suite`], runs on every
//! implementation.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

mod feed;
pub mod memory;
pub mod sqlite;
pub mod suite;

pub use feed::{Batch, Change, Watch, WatchEnd};
pub use memory::MemoryStore;
pub use sqlite::SqliteStore;

/// Counts commits of one store, over both keyspaces; 0 is before the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The two halves of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keyspace {
    /// What people decided. An acknowledged commit survives loss of power.
    Config,
    /// What runs at the moment. An acknowledged commit survives the death of the process, not of the machine.
    Live,
}

/// A key with its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: String,
    /// The value.
    pub value: Bytes,
    /// The commit that wrote it.
    pub revision: Revision,
}

/// What [`Store::list`] found, and the moment it looked: a watch since `revision` continues without gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The store's revision.
    pub revision: Revision,
    /// The entries in order of their keys.
    pub entries: Vec<Entry>,
}

/// What must hold for a commit to take place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such key.
    Absent(String),
    /// The key was last written by this commit.
    At(String, Revision),
}

/// One change of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Sets the value of a key.
    Put(String, Bytes),
    /// Removes a key; nothing happens if there is none.
    Delete(String),
}

impl Write {
    /// The key written.
    pub fn key(&self) -> &str {
        match self {
            Self::Put(key, _) | Self::Delete(key) => key,
        }
    }
}

/// Largest number of preconditions and writes of one commit together (etcd's default bound).
pub const COMMIT_LIMIT: usize = 128;
/// Largest value in bytes, below etcd's request limit of 1.5 MiB.
pub const VALUE_LIMIT: usize = 1024 * 1024;
/// Longest key in bytes.
pub const KEY_LIMIT: usize = 512;

/// Why a store did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// A precondition did not hold; nothing was written.
    #[error("the key `{0}` was changed by somebody else")]
    Conflict(String),
    /// The request is larger than the store takes; nothing was written.
    #[error("{0}")]
    TooLarge(String),
    /// The file is damaged. Nothing of it is served.
    #[error("HMS-2301: the store {path} is damaged: {detail}")]
    Corrupt {
        /// The file.
        path: String,
        /// What was found.
        detail: String,
    },
    /// Another process has the store open.
    #[error("HMS-2302: the store {0} is in use by another control plane")]
    InUse(String),
    /// The file was written by another release.
    #[error("HMS-2303: the store {path} has format {found}, this release reads {wanted}")]
    Format {
        /// The file.
        path: String,
        /// The format found.
        found: i64,
        /// The format this release reads.
        wanted: i64,
    },
    /// Disk full, file system read-only, an I/O error: nothing was written.
    #[error("HMS-2304: the store cannot be written: {0}")]
    Unavailable(String),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
}

/// The answer of a store, some time later.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Bytes under keys, with atomic commits and a feed of changes.
pub trait Store: Send + Sync + 'static {
    /// The value of a key.
    fn get(&self, space: Keyspace, key: &str) -> Answer<'_, Option<Entry>>;

    /// Every key that begins with `prefix`.
    fn list(&self, space: Keyspace, prefix: &str) -> Answer<'_, Listing>;

    /// Does all `writes` if all `preconditions` hold, or nothing. A key is written at most once. When it answers, the writes
    /// are as durable as the keyspace promises.
    fn commit(&self, space: Keyspace, preconditions: Vec<Precondition>, writes: Vec<Write>) -> Answer<'_, Revision>;

    /// Every commit after `since` that touched keys beginning with `prefix`, in order, without gap or repetition. It ends with
    /// [`WatchEnd::Compacted`] when commits after `since` are no longer known, or the reader fell too far behind: list again
    /// and compare.
    fn watch(&self, space: Keyspace, prefix: &str, since: Revision) -> Answer<'_, Watch>;

    /// Forgets how keys came to be what they are up to and including `until`; their values stay.
    fn compact(&self, until: Revision) -> Answer<'_, ()>;

    /// Takes or renews the lease `name` for `holder`; `false` while somebody else holds it.
    fn lease(&self, name: &str, holder: &str, time_to_live: Duration) -> Answer<'_, bool>;

    /// Lets go of what lies behind the store; when it answers, another process can have it. Everything else answers
    /// [`StoreError::Closed`] from then on.
    fn close(&self) -> Answer<'_, ()>;
}

/// Leases of a store that only one process can have open.
#[derive(Debug, Default)]
struct LocalLeases(parking_lot::Mutex<BTreeMap<String, Holder>>);

/// Who holds a lease, and until when.
type Holder = (String, Instant);

impl LocalLeases {
    fn take(&self, name: &str, holder: &str, time_to_live: Duration) -> bool {
        let now = Instant::now();
        let mut leases = self.0.lock();
        leases.retain(|_, (_, until)| *until > now);
        let free = leases.get(name).is_none_or(|(current, _)| current == holder);
        if free {
            leases.insert(name.to_owned(), (holder.to_owned(), now + time_to_live));
        }
        free
    }
}

/// Refuses what is larger than any store has to take, and a key written twice.
fn check_bounds(preconditions: &[Precondition], writes: &[Write]) -> Result<(), StoreError> {
    let operations = preconditions.len() + writes.len();
    if operations > COMMIT_LIMIT {
        return Err(StoreError::TooLarge(format!("a commit has at most {COMMIT_LIMIT} operations, not {operations}")));
    }
    let mut seen = std::collections::BTreeSet::new();
    for write in writes {
        let key = write.key();
        if key.is_empty() || key.len() > KEY_LIMIT {
            return Err(StoreError::TooLarge(format!("a key has 1 to {KEY_LIMIT} bytes, not {}", key.len())));
        }
        if let Write::Put(_, value) = write
            && value.len() > VALUE_LIMIT
        {
            let length = value.len();
            return Err(StoreError::TooLarge(format!("a value has at most {VALUE_LIMIT} bytes, `{key}` has {length}")));
        }
        if !seen.insert(key) {
            return Err(StoreError::TooLarge(format!("`{key}` is written twice in one commit")));
        }
    }
    Ok(())
}
