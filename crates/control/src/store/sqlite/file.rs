//! The file behind the SQLite store: its tables, its checksums, and every statement that touches it.
//!
//! There is one table, the log of changes: a row per key and commit, a `NULL` value for a removal. What a key is now is its
//! latest row; compaction drops the rows that later ones cover. SQLite's own checks find a broken structure but not a flipped
//! bit inside a value, so every row carries a checksum, and one row of state carries the combination of all of them: a row that
//! is changed, added or lost is found when the file is opened (reliability F8).

#![expect(clippy::result_large_err, reason = "closures given to rusqlite return its own error")]

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};
use sha2::{Digest as _, Sha256};

use super::super::feed::{Batch, Change};
use super::super::{Entry, Keyspace, Listing, Precondition, Revision, StoreError, Write, check_bounds};

/// Version of the tables below, in SQLite's `user_version`.
const FORMAT: i64 = 1;
/// Marks the file as ours, in SQLite's `application_id`: `HMSh`.
const APPLICATION: i64 = 0x484d_5368;
/// Commits kept for watchers that come late; the log is compacted when it holds twice as many.
const HISTORY: u64 = 10_000;
/// Bytes of a checksum (SHA-256, cut).
const SUM: usize = 16;

const LOG: &str = "CREATE TABLE change (space INTEGER NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, \
                   value BLOB, sum BLOB NOT NULL, PRIMARY KEY (space, key, revision)) STRICT, WITHOUT ROWID";
const ORDER: &str = "CREATE INDEX change_order ON change (revision)";
const STATE: &str = "CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), revision INTEGER NOT NULL, \
                     compacted INTEGER NOT NULL, rows INTEGER NOT NULL, sum BLOB NOT NULL) STRICT";

/// An open file.
#[derive(Debug)]
pub(super) struct File {
    connection: Connection,
    path: String,
    state: State,
    durable: Option<Keyspace>,
    /// Set when the kernel could not say whether data reached the disk; nothing is written from then on (reliability F9).
    broken: Option<String>,
}

/// The one row of `state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct State {
    revision: u64,
    compacted: u64,
    rows: u64,
    sum: [u8; SUM],
}

impl State {
    fn count(&mut self, sum: [u8; SUM], added: bool) {
        self.rows = if added { self.rows + 1 } else { self.rows.saturating_sub(1) };
        for (whole, part) in self.sum.iter_mut().zip(sum) {
            *whole ^= part;
        }
    }
}

fn number(space: Keyspace) -> i64 {
    match space {
        Keyspace::Config => 1,
        Keyspace::Live => 2,
    }
}

fn row_sum(space: i64, key: &str, revision: u64, value: Option<&[u8]>) -> [u8; SUM] {
    let mut hash = Sha256::new();
    hash.update(space.to_be_bytes());
    hash.update(revision.to_be_bytes());
    hash.update(key.len().to_be_bytes());
    hash.update(key);
    hash.update([u8::from(value.is_some())]);
    hash.update(value.unwrap_or_default());
    let mut sum = [0; SUM];
    for (to, from) in sum.iter_mut().zip(hash.finalize()) {
        *to = from;
    }
    sum
}

impl File {
    /// Opens a store, or makes a new one where there is no file. A damaged file is refused whole.
    pub(super) fn open(path: &Path) -> Result<Self, StoreError> {
        let name = path.display().to_string();
        if !path.exists() {
            create(path).map_err(|error| classify(&error, &name))?;
        }
        guard(path, &name)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags).map_err(|error| classify(&error, &name))?;
        let mut file = Self { connection, path: name, state: State::default(), durable: None, broken: None };
        file.prepare()?;
        file.verify()?;
        Ok(file)
    }

    fn prepare(&self) -> Result<(), StoreError> {
        // Exclusive: a second control plane is refused, and the index of the log needs no shared memory file.
        self.connection.busy_timeout(Duration::from_millis(500)).map_err(|e| self.classify(&e))?;
        let settings = [
            ("locking_mode", "EXCLUSIVE"),
            ("journal_mode", "WAL"),
            ("cell_size_check", "ON"),
            ("trusted_schema", "OFF"),
        ];
        for (name, value) in settings {
            self.connection.pragma_update(None, name, value).map_err(|e| self.classify(&e))?;
        }
        Ok(())
    }

    /// Checks everything there is to check. Nothing is served of a file that does not pass.
    fn verify(&mut self) -> Result<(), StoreError> {
        let pragma = |name: &str| {
            self.connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).map_err(|e| self.classify(&e))
        };
        let (application, format) = (pragma("application_id")?, pragma("user_version")?);
        if application != APPLICATION {
            return Err(self.corrupt("it is not a store of the mesh"));
        }
        if format != FORMAT {
            return Err(StoreError::Format { path: self.path.clone(), found: format, wanted: FORMAT });
        }
        let verdict: String = self
            .connection
            .pragma_query_value(None, "integrity_check", |row| row.get(0))
            .map_err(|e| self.classify(&e))?;
        if verdict != "ok" {
            return Err(self.corrupt(verdict.lines().next().unwrap_or("integrity check failed")));
        }
        self.verify_rows()
    }

    fn verify_rows(&mut self) -> Result<(), StoreError> {
        let mut schema = self
            .connection
            .prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")
            .map_err(|e| self.classify(&e))?;
        let tables: Result<Vec<String>, _> =
            schema.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(|e| self.classify(&e));
        if tables? != [LOG, ORDER, STATE] {
            return Err(self.corrupt("its tables are not those of a store"));
        }
        let stored = self.connection.query_row("SELECT revision, compacted, rows, sum FROM state", [], |row| {
            Ok(State { revision: row.get(0)?, compacted: row.get(1)?, rows: row.get(2)?, sum: row.get(3)? })
        });
        let stored = stored.map_err(|e| self.classify(&e))?;
        let mut found = State { revision: stored.revision, compacted: stored.compacted, ..State::default() };
        let mut log = self
            .connection
            .prepare("SELECT space, key, revision, value, sum FROM change")
            .map_err(|e| self.classify(&e))?;
        let mut rows = log.query([]).map_err(|e| self.classify(&e))?;
        while let Some(row) = rows.next().map_err(|e| self.classify(&e))? {
            let record = Record::read(row).map_err(|e| self.classify(&e))?;
            if !record.holds() || record.revision > stored.revision {
                return Err(self.corrupt(&format!("the record `{}` fails its checksum", record.key)));
            }
            found.count(record.sum, true);
        }
        if found != stored {
            return Err(self.corrupt("records are missing or were added"));
        }
        drop(rows);
        drop(log);
        drop(schema);
        self.state = stored;
        Ok(())
    }

    fn corrupt(&self, detail: &str) -> StoreError {
        StoreError::Corrupt { path: self.path.clone(), detail: detail.to_owned() }
    }

    fn classify(&self, error: &rusqlite::Error) -> StoreError {
        classify(error, &self.path)
    }

    /// The store's revision.
    pub(super) fn revision(&self) -> Revision {
        Revision(self.state.revision)
    }

    /// Commits up to this one are forgotten.
    pub(super) fn compacted(&self) -> Revision {
        Revision(self.state.compacted)
    }

    pub(super) fn get(&self, space: Keyspace, key: &str) -> Result<Option<Entry>, StoreError> {
        Ok(self.records(LATEST_OF_KEY, params![number(space), key])?.pop().and_then(Record::into_entry))
    }

    pub(super) fn list(&self, space: Keyspace, prefix: &str) -> Result<Listing, StoreError> {
        let records = self.records(LATEST_OF_PREFIX, params![number(space), prefix, end_of(prefix)])?;
        let entries = records.into_iter().filter_map(Record::into_entry).collect();
        Ok(Listing { revision: self.revision(), entries })
    }

    /// The commits after `since`; `None` if some of them are forgotten.
    pub(super) fn past(
        &self,
        space: Keyspace,
        prefix: &str,
        since: Revision,
    ) -> Result<Option<Vec<Batch>>, StoreError> {
        if since < self.compacted() {
            return Ok(None);
        }
        let records = self.records(LOG_OF_PREFIX, params![number(space), prefix, end_of(prefix), since.0])?;
        let mut past: Vec<Batch> = Vec::new();
        for record in records {
            let revision = Revision(record.revision);
            let change = Change { key: record.key, value: record.value.map(Bytes::from) };
            match past.last_mut() {
                Some(batch) if batch.revision == revision => batch.changes.push(change),
                _ => past.push(Batch { revision, changes: vec![change] }),
            }
        }
        Ok(Some(past))
    }

    fn records(&self, sql: &str, parameters: &[&dyn rusqlite::ToSql]) -> Result<Vec<Record>, StoreError> {
        let mut statement = self.connection.prepare_cached(sql).map_err(|e| self.classify(&e))?;
        let records: Result<Vec<Record>, _> =
            statement.query_map(parameters, Record::read).and_then(Iterator::collect).map_err(|e| self.classify(&e));
        let records = records?;
        match records.iter().find(|record| !record.holds()) {
            Some(bad) => Err(self.corrupt(&format!("the record `{}` fails its checksum", bad.key))),
            None => Ok(records),
        }
    }

    /// Does a commit; answers the revision and what changed, in order of the keys.
    pub(super) fn commit(
        &mut self,
        space: Keyspace,
        preconditions: &[Precondition],
        writes: Vec<Write>,
    ) -> Result<(Revision, Vec<Change>), StoreError> {
        check_bounds(preconditions, &writes)?;
        if let Some(reason) = &self.broken {
            return Err(StoreError::Unavailable(reason.clone()));
        }
        self.make_durable(space)?;
        let done = commit(&mut self.connection, self.state, number(space), preconditions, writes);
        match done {
            Ok((state, changes)) => {
                self.state = state;
                Ok((Revision(state.revision), changes))
            }
            Err(Failure::Conflict(key)) => Err(StoreError::Conflict(key)),
            Err(Failure::Sql(error)) => {
                // SQLITE_IOERR_FSYNC: after it nobody knows what the disk holds, and a second attempt may lie.
                if error.sqlite_error().is_some_and(|e| e.extended_code == rusqlite::ffi::SQLITE_IOERR_FSYNC) {
                    self.broken =
                        Some(format!("{} could not be brought to disk; restart the control plane", self.path));
                }
                Err(self.classify(&error))
            }
        }
    }

    /// How far a commit must get before it is acknowledged differs between the keyspaces.
    fn make_durable(&mut self, space: Keyspace) -> Result<(), StoreError> {
        if self.durable != Some(space) {
            let level = match space {
                Keyspace::Config => "FULL",
                Keyspace::Live => "NORMAL",
            };
            self.connection.pragma_update(None, "synchronous", level).map_err(|e| self.classify(&e))?;
            self.durable = Some(space);
        }
        Ok(())
    }

    /// Compacts when the log has grown to twice what late watchers need.
    pub(super) fn tidy(&mut self) -> Result<(), StoreError> {
        if self.state.revision - self.state.compacted < 2 * HISTORY {
            return Ok(());
        }
        self.compact(Revision(self.state.revision - HISTORY))
    }

    pub(super) fn compact(&mut self, until: Revision) -> Result<(), StoreError> {
        let until = until.0.min(self.state.revision);
        if until <= self.state.compacted {
            return Ok(());
        }
        let state = compact(&mut self.connection, self.state, until).map_err(|e| classify(&e, &self.path))?;
        self.state = state;
        Ok(())
    }
}

const LATEST_OF_KEY: &str = "SELECT space, key, revision, value, sum FROM change WHERE space = ?1 AND key = ?2 \
                             ORDER BY revision DESC LIMIT 1";
const LATEST_OF_PREFIX: &str = "SELECT space, key, revision, value, sum FROM change AS c WHERE space = ?1 AND key >= ?2 \
                                AND key < ?3 AND NOT EXISTS (SELECT 1 FROM change AS n WHERE n.space = c.space AND \
                                n.key = c.key AND n.revision > c.revision) ORDER BY key";
const LOG_OF_PREFIX: &str = "SELECT space, key, revision, value, sum FROM change WHERE space = ?1 AND key >= ?2 AND \
                             key < ?3 AND revision > ?4 ORDER BY revision, key";
const COVERED: &str = "SELECT space, key, revision, value, sum FROM change AS c WHERE revision <= ?1 AND (value IS NULL OR \
                       EXISTS (SELECT 1 FROM change AS n WHERE n.space = c.space AND n.key = c.key AND \
                       n.revision > c.revision AND n.revision <= ?1))";

/// The first text after everything that begins with `prefix`.
fn end_of(prefix: &str) -> String {
    format!("{prefix}{}", char::MAX)
}

/// A row of the log.
struct Record {
    space: i64,
    key: String,
    revision: u64,
    value: Option<Vec<u8>>,
    sum: [u8; SUM],
}

impl Record {
    fn read(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { space: row.get(0)?, key: row.get(1)?, revision: row.get(2)?, value: row.get(3)?, sum: row.get(4)? })
    }

    fn holds(&self) -> bool {
        self.sum == row_sum(self.space, &self.key, self.revision, self.value.as_deref())
    }

    fn into_entry(self) -> Option<Entry> {
        let value = Bytes::from(self.value?);
        Some(Entry { key: self.key, value, revision: Revision(self.revision) })
    }
}

enum Failure {
    Conflict(String),
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sql(error)
    }
}

fn commit(
    connection: &mut Connection,
    mut state: State,
    space: i64,
    preconditions: &[Precondition],
    writes: Vec<Write>,
) -> Result<(State, Vec<Change>), Failure> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for precondition in preconditions {
        let (key, wanted) = match precondition {
            Precondition::Absent(key) => (key, None),
            Precondition::At(key, revision) => (key, Some(revision.0)),
        };
        if latest(&transaction, space, key)? != wanted {
            return Err(Failure::Conflict(key.clone()));
        }
    }
    let revision = state.revision + 1;
    let mut changes = Vec::with_capacity(writes.len());
    for write in writes {
        let change = match write {
            Write::Put(key, value) => Change { key, value: Some(value) },
            Write::Delete(key) if latest(&transaction, space, &key)?.is_some() => Change { key, value: None },
            Write::Delete(_) => continue,
        };
        let sum = row_sum(space, &change.key, revision, change.value.as_deref());
        transaction
            .prepare_cached("INSERT INTO change (space, key, revision, value, sum) VALUES (?1, ?2, ?3, ?4, ?5)")?
            .execute(params![space, change.key, revision, change.value.as_deref(), sum])?;
        state.count(sum, true);
        changes.push(change);
    }
    if !changes.is_empty() {
        state.revision = revision;
        save(&transaction, state)?;
    }
    transaction.commit()?;
    changes.sort_by(|a, b| a.key.cmp(&b.key));
    Ok((state, changes))
}

/// The commit that last wrote a key, unless it removed it.
fn latest(transaction: &Transaction<'_>, space: i64, key: &str) -> rusqlite::Result<Option<u64>> {
    let mut statement = transaction.prepare_cached(
        "SELECT revision, value IS NULL FROM change WHERE space = ?1 AND key = ?2 ORDER BY revision DESC LIMIT 1",
    )?;
    let mut rows = statement.query(params![space, key])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let removed: bool = row.get(1)?;
    Ok(if removed { None } else { Some(row.get(0)?) })
}

fn save(transaction: &Transaction<'_>, state: State) -> rusqlite::Result<()> {
    let mut statement =
        transaction.prepare_cached("UPDATE state SET revision = ?1, compacted = ?2, rows = ?3, sum = ?4")?;
    statement.execute(params![state.revision, state.compacted, state.rows, state.sum]).map(|_one| ())
}

fn compact(connection: &mut Connection, mut state: State, until: u64) -> rusqlite::Result<State> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    {
        let mut covered = transaction.prepare_cached(COVERED)?;
        let records: rusqlite::Result<Vec<Record>> = covered.query_map([until], Record::read)?.collect();
        let mut remove =
            transaction.prepare_cached("DELETE FROM change WHERE space = ?1 AND key = ?2 AND revision = ?3")?;
        for record in records? {
            remove.execute(params![record.space, record.key, record.revision])?;
            state.count(record.sum, false);
        }
    }
    state.compacted = until;
    save(&transaction, state)?;
    transaction.commit()?;
    Ok(state)
}

/// Makes a new store beside its final place and moves it there whole, so that an empty file is never taken for a new store.
fn create(path: &Path) -> rusqlite::Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let fresh = Path::new(&fresh);
    let io = |error: io::Error| {
        let failure = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CANTOPEN);
        rusqlite::Error::SqliteFailure(failure, Some(error.to_string()))
    };
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io(error)),
        _ => {}
    }
    fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh).map_err(io)?;
    let connection = Connection::open(fresh)?;
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", FORMAT)?;
    for table in [LOG, ORDER, STATE] {
        connection.execute(table, [])?;
    }
    connection.execute("INSERT INTO state VALUES (1, 0, 0, 0, ?1)", [[0_u8; SUM]])?;
    connection.close().map_err(|(_connection, error)| error)?;
    fs::rename(fresh, path).map_err(io)?;
    // The name itself must survive a loss of power.
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    fs::File::open(directory).and_then(|directory| directory.sync_all()).map_err(io)
}

/// Refuses a file that others can write or that is not what it seems.
fn guard(path: &Path, name: &str) -> Result<(), StoreError> {
    let unavailable = |detail: String| StoreError::Unavailable(format!("{name}: {detail}"));
    let found = fs::symlink_metadata(path).map_err(|error| unavailable(error.to_string()))?;
    if !found.is_file() {
        return Err(unavailable("it is not a regular file".to_owned()));
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return Err(unavailable("it belongs to another user".to_owned()));
    }
    if found.mode() & 0o077 != 0 {
        return Err(unavailable(format!("others may use it (mode {:o}); chmod 600 it", found.mode() & 0o777)));
    }
    if found.len() == 0 {
        return Err(StoreError::Corrupt { path: name.to_owned(), detail: "it is empty".to_owned() });
    }
    Ok(())
}

fn classify(error: &rusqlite::Error, path: &str) -> StoreError {
    let corrupt = || StoreError::Corrupt { path: path.to_owned(), detail: error.to_string() };
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => match failure.code {
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown => corrupt(),
            ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => StoreError::InUse(path.to_owned()),
            _ => StoreError::Unavailable(format!("{path}: {error}")),
        },
        // A broken statement, a value of another type than the one written, a missing row: the file is not what we wrote.
        _ => corrupt(),
    }
}
