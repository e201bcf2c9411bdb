//! Join tokens: how a workload on another host gets its first certificate. A token is bound to one service, ends by itself, and
//! works for exactly one key, the first that comes with it, which the store's compare-and-swap makes sure of, also when a hundred
//! come in the same moment. Only its hash is kept.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hms_identity::clock::Clock;
use hms_identity::token::JoinToken;
use hms_model::names::ServiceName;

use crate::store::{Entry, Keyspace, Precondition, Store, StoreError, Write};

/// Life of a token when none is asked for. One hour.
pub const DEFAULT_LIFE: Duration = Duration::from_hours(1);
/// Longest life of a token. One day: it is meant for a machine that starts now.
pub const LONGEST_LIFE: Duration = Duration::from_hours(24);
/// Tokens that may be unused at the same time.
pub const MOST: usize = 1024;

const PREFIX: &str = "join-token/";

/// The tokens given out.
pub struct JoinTokens {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
}

impl fmt::Debug for JoinTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinTokens").finish_non_exhaustive()
    }
}

/// Why a token was not made or not taken. It never says more of a token than that it is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoinError {
    /// Unknown, used, or expired; a caller does not learn which.
    #[error("the join token is not known, was used, or has expired")]
    Refused,
    /// [`MOST`] tokens are unused.
    #[error("{MOST} join tokens are unused already")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no randomness.
    #[error("cannot make a join token: {0}")]
    Make(String),
}

impl JoinTokens {
    /// The tokens in `store`.
    pub fn new(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Makes a token that lets one workload become `service`.
    pub async fn create(
        &self,
        service: &ServiceName,
        life: Option<Duration>,
    ) -> Result<(JoinToken, SystemTime), JoinError> {
        let listing = self.store.list(Keyspace::Config, PREFIX).await?;
        let now = self.clock.now();
        let (dead, alive): (Vec<&Entry>, Vec<&Entry>) =
            listing.entries.iter().partition(|entry| Grant::read(&entry.value).is_none_or(|grant| grant.ended(now)));
        let unused = alive.iter().filter(|entry| Grant::read(&entry.value).is_some_and(|grant| grant.owner.is_none()));
        if unused.count() >= MOST {
            return Err(JoinError::TooMany);
        }
        let token = JoinToken::generate().map_err(|error| JoinError::Make(error.to_string()))?;
        let expires_at = now + life.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE);
        let grant = Grant { service: service.clone(), expires_at, owner: None };
        let mut writes = vec![Write::Put(key(&token), grant.write())];
        // What has ended is cleared away a little at a time, within the bounds of a commit.
        writes.extend(dead.iter().take(64).map(|entry| Write::Delete(entry.key.clone())));
        self.store.commit(Keyspace::Config, Vec::new(), writes).await?;
        tracing::info!(target: "audit", %service, "made a join token");
        Ok((token, expires_at))
    }

    /// Takes a token for good, for the key with this fingerprint, and says which service it was for. Of any number of keys that come
    /// with the same token one gets it. That key may ask again until the token ends: an answer may be lost on its way.
    pub async fn redeem(&self, text: &str, fingerprint: &[u8; 32]) -> Result<ServiceName, JoinError> {
        let token = JoinToken::parse(text).map_err(|_malformed| JoinError::Refused)?;
        let (key, owner) = (key(&token), hex(fingerprint));
        let entry = self.store.get(Keyspace::Config, &key).await?.ok_or(JoinError::Refused)?;
        let grant =
            Grant::read(&entry.value).filter(|grant| !grant.ended(self.clock.now())).ok_or(JoinError::Refused)?;
        match &grant.owner {
            Some(known) if *known == owner => return Ok(grant.service),
            Some(_other) => return Err(JoinError::Refused),
            None => {}
        }
        let taken = Grant { owner: Some(owner), ..grant };
        let only_once = vec![Precondition::At(key.clone(), entry.revision)];
        match self.store.commit(Keyspace::Config, only_once, vec![Write::Put(key, taken.write())]).await {
            Ok(_revision) => Ok(taken.service),
            Err(StoreError::Conflict(_)) => Err(JoinError::Refused),
            Err(error) => Err(error.into()),
        }
    }
}

fn hex(bytes: &[u8; 32]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _infallible = write!(text, "{byte:02x}").is_ok();
        text
    })
}

/// The hash finds the entry: who can guess it from how long the search takes has found a preimage of SHA-256.
fn key(token: &JoinToken) -> String {
    format!("{PREFIX}{}", token.hash().to_hex())
}

/// What a token is worth, as stored: `<unix seconds> <namespace> <name>`, then the fingerprint of the key that took it.
struct Grant {
    service: ServiceName,
    expires_at: SystemTime,
    owner: Option<String>,
}

impl Grant {
    fn write(&self) -> Bytes {
        let until = self.expires_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let owner = self.owner.as_ref().map(|owner| format!(" {owner}")).unwrap_or_default();
        Bytes::from(format!("{until} {} {}{owner}", self.service.namespace(), self.service.name()))
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut words = text.split(' ');
        let (until, namespace, name) = (words.next()?, words.next()?, words.next()?);
        Some(Self {
            service: ServiceName::in_namespace(namespace, name).ok()?,
            expires_at: SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(until.parse().ok()?))?,
            owner: words.next().map(str::to_owned),
        })
    }

    fn ended(&self, now: SystemTime) -> bool {
        now >= self.expires_at
    }
}
