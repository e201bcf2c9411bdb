use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};

use super::super::{
    Batch, Keyspace, MemoryStore, Precondition, Revision, Store, StoreError, Watch, WatchEnd, Write, suite,
};
use super::SqliteStore;

fn put(key: impl Into<String>, value: impl Into<String>) -> Write {
    Write::Put(key.into(), Bytes::from(value.into()))
}

async fn text(store: &SqliteStore, space: Keyspace, key: &str) -> Option<String> {
    let entry = store.get(space, key).await.unwrap()?;
    Some(String::from_utf8(entry.value.to_vec()).unwrap())
}

/// The thread closes the file after the last handle is gone; opening waits for the lock, so nothing has to be waited for here.
fn open(path: &Path) -> SqliteStore {
    SqliteStore::open(path).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_sqlite_store_keeps_the_contract() {
    let directory = tempfile::tempdir().unwrap();
    let count = std::sync::atomic::AtomicUsize::new(0);
    suite::run(|| async {
        let number = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        open(&directory.path().join(format!("{number}.db")))
    })
    .await;
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.db");
    let revision = {
        let store = open(&path);
        store.commit(Keyspace::Config, Vec::new(), vec![put("a", "1")]).await.unwrap();
        store.commit(Keyspace::Live, Vec::new(), vec![put("a", "2")]).await.unwrap()
    };
    let store = open(&path);
    assert_eq!(text(&store, Keyspace::Config, "a").await.as_deref(), Some("1"));
    assert_eq!(store.list(Keyspace::Live, "").await.unwrap().revision, revision);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_second_control_plane_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.db");
    let _first = open(&path);
    assert!(matches!(SqliteStore::open(&path), Err(StoreError::InUse(_))));
}

#[test]
fn a_file_that_is_no_store_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let private = |name: &str, content: &[u8], mode: u32| {
        let path = directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        path
    };
    for (name, content) in [("empty", b"".as_slice()), ("text", &[b'x'; 8192])] {
        let found = SqliteStore::open(&private(name, content, 0o600)).map(drop);
        assert!(matches!(found, Err(StoreError::Corrupt { .. })), "{name}: {found:?}");
    }
    let found = SqliteStore::open(&private("shared", b"x", 0o644)).map(drop);
    assert!(matches!(found, Err(StoreError::Unavailable(_))), "{found:?}");
    std::os::unix::fs::symlink(directory.path().join("text"), directory.path().join("link")).unwrap();
    assert!(SqliteStore::open(&directory.path().join("link")).is_err());
}

/// Everything the store says, in both keyspaces.
async fn all(store: &SqliteStore) -> Result<Vec<(String, Bytes)>, StoreError> {
    let mut found = Vec::new();
    for space in [Keyspace::Config, Keyspace::Live] {
        found.extend(store.list(space, "").await?.entries.into_iter().map(|entry| (entry.key, entry.value)));
    }
    Ok(found)
}

async fn written(path: &Path) -> Vec<(String, Bytes)> {
    let store = open(path);
    for n in 0..60 {
        let value = format!("{n:0>60}");
        store.commit(Keyspace::Config, Vec::new(), vec![put(format!("key/{}", n % 20), value.clone())]).await.unwrap();
        store.commit(Keyspace::Live, Vec::new(), vec![put(format!("endpoint/{n}"), value)]).await.unwrap();
    }
    let all = all(&store).await.unwrap();
    // This writes the log back, so that the file alone is the whole store.
    store.close().await.unwrap();
    all
}

/// Opens a damaged copy: the answer is a refusal or exactly what was written, never anything else.
async fn never_wrong(path: &Path, content: &[u8], expected: &[(String, Bytes)], what: &str) -> bool {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let Ok(store) = SqliteStore::open(path) else { return false };
    let found = all(&store).await;
    store.close().await.unwrap();
    if let Ok(found) = &found {
        assert_eq!(found, expected, "{what}: wrong data");
    }
    found.is_ok()
}

#[tokio::test]
async fn a_damaged_file_is_refused_or_reads_as_written() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.db");
    let expected = written(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let copy = directory.path().join("copy.db");
    let mut dice = rand::rngs::SmallRng::seed_from_u64(8);
    let mut refused = 0;
    for _ in 0..150 {
        let mut content = whole.clone();
        let position = dice.random_range(0..content.len());
        content[position] ^= 1 << dice.random_range(0..8);
        refused += u32::from(!never_wrong(&copy, &content, &expected, &format!("bit flipped at {position}")).await);
    }
    assert!(refused > 50, "most bytes matter, only {refused} flips were refused");
    for length in (0..whole.len()).step_by(1536) {
        let served = never_wrong(&copy, &whole[..length], &expected, &format!("cut at {length}")).await;
        assert!(!served, "a file cut at {length} was served");
    }
    for start in (0..whole.len()).step_by(4096) {
        let mut content = whole.clone();
        content[start..(start + 4096).min(whole.len())].fill(0);
        assert!(!never_wrong(&copy, &content, &expected, &format!("page at {start} zeroed")).await);
    }
}

/// Names the store that the child process of the next test writes to.
const CHILD: &str = "HMS_TEST_STORE";

/// Not a test of its own: the process that the next test kills. It prints each number once it is acknowledged.
#[test]
fn child_that_writes_until_killed() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let store = open(Path::new(&path));
        let first: u64 = text(&store, Keyspace::Live, "last").await.map_or(0, |n| n.parse().unwrap());
        for n in first + 1.. {
            for space in [Keyspace::Config, Keyspace::Live] {
                let writes = vec![put("last", n.to_string()), put(format!("slot/{}", n % 7), n.to_string())];
                store.commit(space, Vec::new(), writes).await.unwrap();
            }
            writeln!(std::io::stdout().lock(), "acknowledged {n}").unwrap();
        }
    });
}

/// Starts the child, reads acknowledgements until `after` of them came, kills it; the last acknowledged number.
fn write_and_kill(path: &Path, after: usize) -> u64 {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::sqlite::tests::child_that_writes_until_killed", "--nocapture"])
        .env(CHILD, path)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let number = |line: String| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<u64>().ok());
    let mut last = lines.by_ref().filter_map(|line| number(line.unwrap())).nth(after).unwrap();
    child.kill().unwrap();
    // What it still managed to acknowledge before the signal counts too. The last line may be cut.
    for n in lines.map_while(Result::ok).filter_map(number) {
        last = last.max(n);
    }
    child.wait().unwrap();
    last
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("mesh.db");
    let mut dice = rand::rngs::SmallRng::seed_from_u64(9);
    for round in 0..8 {
        let acknowledged = write_and_kill(&path, dice.random_range(0..40));
        let store = open(&path);
        for space in [Keyspace::Config, Keyspace::Live] {
            let last: u64 = text(&store, space, "last").await.unwrap().parse().unwrap();
            assert!(last >= acknowledged, "round {round}: {acknowledged} was acknowledged, {last} is there");
            assert!(last <= acknowledged + 1, "round {round}: {last} was never written");
            let slot = text(&store, space, &format!("slot/{}", last % 7)).await.unwrap();
            assert_eq!(slot, last.to_string(), "round {round}: half a commit");
        }
    }
}

/// One random step on both stores; both must answer the same.
async fn step(dice: &mut rand::rngs::SmallRng, memory: &MemoryStore, sqlite: &SqliteStore) {
    let space = if dice.random() { Keyspace::Config } else { Keyspace::Live };
    let key = |dice: &mut rand::rngs::SmallRng| format!("key/{}", dice.random_range(0..6));
    let revision = memory.list(space, "").await.unwrap().revision;
    if dice.random_ratio(1, 25) {
        let until = Revision(dice.random_range(0..=revision.0));
        assert_eq!(memory.compact(until).await, sqlite.compact(until).await);
        return;
    }
    let mut writes = Vec::new();
    for _ in 0..dice.random_range(1..4) {
        let key = key(dice);
        writes.push(if dice.random_ratio(1, 3) {
            Write::Delete(key)
        } else {
            put(key, dice.random::<u32>().to_string())
        });
    }
    let precondition = match dice.random_range(0..4) {
        0 => vec![Precondition::Absent(key(dice))],
        1 => vec![Precondition::At(key(dice), Revision(dice.random_range(0..=revision.0)))],
        _ => Vec::new(),
    };
    let here = memory.commit(space, precondition.clone(), writes.clone()).await;
    let there = sqlite.commit(space, precondition, writes).await;
    match (&here, &there) {
        // Which of the two bounds is named when a key stands twice does not matter.
        (Err(StoreError::TooLarge(_)), Err(StoreError::TooLarge(_))) => {}
        _ => assert_eq!(here, there),
    }
}

/// Everything a watch tells until now, the way it ends included.
async fn told(watch: &mut Watch, until: Revision) -> Vec<Result<Batch, WatchEnd>> {
    let mut told = Vec::new();
    loop {
        let next = watch.next().await;
        let last = next.as_ref().map_or(true, |batch| batch.revision >= until);
        told.push(next);
        if last {
            return told;
        }
    }
}

#[tokio::test]
async fn both_stores_say_the_same_whatever_happens() {
    let directory = tempfile::tempdir().unwrap();
    for seed in 0..8 {
        let mut dice = rand::rngs::SmallRng::seed_from_u64(seed);
        let (memory, sqlite) = (MemoryStore::new(), open(&directory.path().join(format!("{seed}.db"))));
        let mut watches = Vec::new();
        for _ in 0..250 {
            if dice.random_ratio(1, 20) {
                let since = Revision(dice.random_range(0..=memory.list(Keyspace::Live, "").await.unwrap().revision.0));
                let prefix = if dice.random() { "key/" } else { "key/3" };
                watches.push((
                    memory.watch(Keyspace::Live, prefix, since).await.unwrap(),
                    sqlite.watch(Keyspace::Live, prefix, since).await.unwrap(),
                ));
            }
            step(&mut dice, &memory, &sqlite).await;
            for space in [Keyspace::Config, Keyspace::Live] {
                assert_eq!(memory.list(space, "").await, sqlite.list(space, "").await);
            }
        }
        let both: [&dyn Store; 2] = [&memory, &sqlite];
        for store in both {
            store.commit(Keyspace::Live, Vec::new(), vec![put("key/3", "end")]).await.unwrap();
        }
        let end = memory.list(Keyspace::Live, "").await.unwrap().revision;
        for (here, there) in &mut watches {
            assert_eq!(told(here, end).await, told(there, end).await);
        }
    }
}
