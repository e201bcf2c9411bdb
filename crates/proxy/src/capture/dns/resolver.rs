//! Names that are not the mesh's: asked of the host's resolvers, and kept for as long as the answers hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use hms_dns::cache::Cache;
use hms_dns::forward::Forwarded;
use hms_dns::host::HostResolver;
use hms_dns::{Key, Query, Reply};
use parking_lot::Mutex;
use rustls::crypto::SecureRandom;
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep_until, timeout};

use super::exchange;

/// How long all tries may take together: less than the 5 s after which programs ask again.
const PATIENCE: Duration = Duration::from_secs(4);
/// The same for a bare name, which only a resolver nearby can know; without an answer it is nobody's.
const BARE_PATIENCE: Duration = Duration::from_secs(1);
/// How long one resolver has before the next is asked beside it.
const TURN: Duration = Duration::from_millis(700);
/// Tries for one question.
const MOST_TRIES: usize = 4;
/// How long a resolver that did not answer comes last.
const ASIDE: Duration = Duration::from_secs(10);
/// Questions under way at the same time.
const MOST_QUESTIONS: usize = 128;
/// How often the host's file is looked at, and how much of it is read.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const MOST_FILE_BYTES: u64 = 64 * 1024;

/// Where resolvers are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In a file of the form of `/etc/resolv.conf`, looked at again when it changes.
    File(PathBuf),
    /// Here.
    Servers(Vec<SocketAddr>),
}

/// Asks the host's resolvers.
#[derive(Debug)]
pub struct Resolver {
    source: Source,
    start: Instant,
    random: &'static dyn SecureRandom,
    state: Mutex<State>,
}

/// A question under way, and how it ended.
type UnderWay = Arc<OnceCell<Option<Arc<Forwarded>>>>;

#[derive(Debug, Default)]
struct State {
    host: Arc<HostResolver>,
    looked: Option<Duration>,
    changed: Option<(SystemTime, u64)>,
    cache: Cache,
    questions: BTreeMap<Key, UnderWay>,
    aside: BTreeMap<SocketAddr, Duration>,
}

impl Resolver {
    /// Finds resolvers there.
    pub fn new(source: Source) -> Self {
        let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
        Self { source, start: Instant::now(), random, state: Mutex::default() }
    }

    /// How the host resolves names now.
    pub fn host(&self) -> Arc<HostResolver> {
        let now = self.start.elapsed();
        let mut state = self.state.lock();
        if state.looked.is_some_and(|looked| now.saturating_sub(looked) < LOOK_EVERY) {
            return Arc::clone(&state.host);
        }
        let first = state.looked.replace(now).is_none();
        match &self.source {
            Source::Servers(servers) if first => {
                state.host = Arc::new(HostResolver { servers: servers.clone(), search: Vec::new() });
            }
            Source::Servers(_) => {}
            Source::File(path) => {
                let changed = std::fs::metadata(path).and_then(|file| Ok((file.modified()?, file.len()))).ok();
                if first || changed != state.changed {
                    state.changed = changed;
                    state.take(HostResolver::read(&read(path)));
                }
            }
        }
        Arc::clone(&state.host)
    }

    /// The answer to a question that is somebody else's. There always is one; without any resolver's, it says that.
    pub async fn ask(&self, query: &Query) -> Reply {
        match self.find(query).await {
            Some((answer, age)) => answer.reply_to(query, age),
            None if query.is_bare() => hms_dns::no_name(query),
            None => hms_dns::server_failure(query),
        }
    }

    async fn find(&self, query: &Query) -> Option<(Arc<Forwarded>, u32)> {
        let host = self.host();
        let question = {
            let (key, mut state) = (query.key(), self.state.lock());
            if let Some(kept) = state.cache.get(&key, self.start.elapsed()) {
                return Some(kept);
            }
            if state.questions.len() >= MOST_QUESTIONS && !state.questions.contains_key(&key) {
                return None;
            }
            let cell = Arc::clone(state.questions.entry(key.clone()).or_default());
            Question { resolver: self, key, cell }
        };
        // Who asks the same meanwhile waits for the same answer.
        let answer = question.cell.get_or_init(|| self.resolve(query, &host)).await;
        answer.as_ref().map(|answer| (Arc::clone(answer), 0))
    }

    /// Asks, and keeps what came.
    async fn resolve(&self, query: &Query, host: &HostResolver) -> Option<Arc<Forwarded>> {
        let patience = if query.is_bare() { BARE_PATIENCE } else { PATIENCE };
        let answer = Arc::new(timeout(patience, self.race(query, &host.servers)).await.ok()??);
        let now = self.start.elapsed();
        let mut state = self.state.lock();
        // What another network's resolver said does not hold here.
        if *state.host == *host {
            state.cache.put(query.key(), Arc::clone(&answer), now);
        }
        Some(answer)
    }

    /// The first answer of any resolver: each has its turn, and those before it may still answer.
    async fn race(&self, query: &Query, servers: &[SocketAddr]) -> Option<Forwarded> {
        let order = self.order(servers);
        let plan: Vec<SocketAddr> = order.iter().copied().cycle().take(MOST_TRIES).collect();
        let mut left = plan.into_iter();
        let mut tries = FuturesUnordered::new();
        let mut turn = Instant::now();
        let mut latest = None;
        loop {
            tokio::select! {
                biased;
                Some((server, heard)) = tries.next() => match heard {
                    Ok(answer) => {
                        self.state.lock().aside.remove(&server);
                        return Some(answer);
                    }
                    Err(error) => {
                        tracing::debug!(%server, name = query.name(), %error, "a resolver did not answer");
                        self.put_aside(server);
                        turn = Instant::now();
                    }
                },
                () = sleep_until(turn), if left.len() > 0 => {
                    if let Some(silent) = latest.take() {
                        self.put_aside(silent);
                    }
                    if let Some(server) = left.next() {
                        tries.push(async move { (server, exchange::ask(server, query, self.random).await) });
                        latest = Some(server);
                        turn = Instant::now() + TURN;
                    }
                }
                else => return None,
            }
        }
    }

    /// Resolvers as they stand, those that did not answer lately behind the others.
    fn order(&self, servers: &[SocketAddr]) -> Vec<SocketAddr> {
        let now = self.start.elapsed();
        let mut state = self.state.lock();
        state.aside.retain(|_, until| now < *until);
        let (last, first): (Vec<_>, Vec<_>) = servers.iter().partition(|server| state.aside.contains_key(server));
        first.into_iter().chain(last).copied().collect()
    }

    fn put_aside(&self, server: SocketAddr) {
        let until = self.start.elapsed() + ASIDE;
        self.state.lock().aside.insert(server, until);
    }
}

impl State {
    /// Uses other resolvers, which may know other names.
    fn take(&mut self, host: HostResolver) {
        if *self.host != host {
            tracing::info!(servers = ?host.servers, "the host's resolvers");
            self.host = Arc::new(host);
            self.cache.clear();
            self.aside.clear();
        }
    }
}

/// A question that is under way while somebody waits for it.
struct Question<'a> {
    resolver: &'a Resolver,
    key: Key,
    cell: UnderWay,
}

impl Drop for Question<'_> {
    fn drop(&mut self) {
        let mut state = self.resolver.state.lock();
        if state.questions.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell)) {
            state.questions.remove(&self.key);
        }
    }
}

/// The file, as far as it can be read; without one there are no resolvers.
fn read(path: &std::path::Path) -> Vec<u8> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MOST_FILE_BYTES).read_to_end(&mut bytes));
    if let Err(error) = read {
        tracing::warn!(file = %path.display(), %error, "the host's resolvers are not known");
    }
    bytes
}
