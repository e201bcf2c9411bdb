//! The typed resources over the store: what people configured, which workloads live, and the mesh that follows from both.
//!
//! There is one way for data: a change is written to the store, the registry follows the store, and
//! `publish` makes a new [`View`] of what the registry then holds. Writing answers when the view shows the
//! change, so whoever reads after writing sees it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use hms_identity::clock::Clock;
use hms_model::finding::Finding;
use hms_model::mesh::{Assembler, Mesh, Resources};
use hms_model::names::ServiceName;
use hms_model::policy::egress::Unlisted;
use hms_model::resource::{Declaration, Kind, Resource, ResourceKey};
use hms_model::spiffe::TrustDomain;
use parking_lot::Mutex;
use rand::TryRngCore as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::{Notify, watch};

use crate::compile::Compiled;
use crate::store::{Keyspace, Precondition, Revision, Store, StoreError, Write};
use crate::tasks::Tasks;

mod admission;
mod config;
mod endpoints;
mod follow;
mod history;
pub mod leases;
mod looked;
mod numbers;
mod probe;
mod state;
#[cfg(test)]
mod tests;

pub use config::{Altered, Change, Changed};
pub use endpoints::{Desired, Peer};
pub use history::{CommitRecord, Difference};
pub use leases::LeaseId;
pub(crate) use looked::Age;

use self::leases::Leases;
use self::looked::Looked;
use self::state::{Gathered, State};

/// The mesh as it was at one revision; never changes.
#[derive(Debug, Default)]
pub struct View {
    /// The newest commit it shows, of either keyspace.
    pub revision: Revision,
    /// The newest commit of configuration it shows; what [`Registry::commit`] takes as `expected`.
    pub config: Revision,
    /// The newest commit of endpoints it shows.
    pub live: Revision,
    /// Everything, resolved.
    pub mesh: Mesh,
    /// What could not be resolved, and what else people should know.
    pub findings: Vec<Finding>,
    /// Configuration as it is stored.
    pub resources: Arc<Resources>,
    /// Services that somebody stopped; their endpoints are shown unhealthy.
    pub stopped: BTreeSet<ServiceName>,
    /// What is sent to proxies.
    pub compiled: Compiled,
}

impl View {
    /// The declaration of a service, as stored.
    pub fn declaration(&self, service: &ServiceName) -> Option<&Declaration> {
        match self.resources.get(&ResourceKey::of(Kind::Declaration, service)).map(AsRef::as_ref) {
            Some(Resource::Declaration(declaration)) => Some(declaration),
            _ => None,
        }
    }
}

/// Why the registry did not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Somebody else changed the configuration since it was read.
    #[error("the configuration was changed meanwhile; it is at revision {current} now")]
    Conflict {
        /// The present revision of the configuration.
        current: Revision,
    },
    /// The input is wrong; every error, and warnings among them.
    #[error("{}", first(.0))]
    Invalid(Vec<Finding>),
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// The caller may not do this, or would exceed its share.
    #[error("{0}")]
    Refused(Box<Finding>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is stored belongs to another mesh.
    #[error("HMS-2305: the store belongs to the trust domain `{found}`, the certificate authority to `{wanted}`")]
    ForeignTrustDomain {
        /// The store's.
        found: String,
        /// The authority's.
        wanted: String,
    },
}

fn first(findings: &[Finding]) -> String {
    findings
        .iter()
        .find(|finding| finding.is_error())
        .map_or_else(|| "the input is wrong".to_owned(), ToString::to_string)
}

/// A handle on the registry; clones share it.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

pub(crate) struct Inner {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    trust_domain: TrustDomain,
    sni_key: [u8; 32],
    state: Mutex<State>,
    /// Held while a view is made, so that views come in the order of the states they show.
    assembler: Mutex<Assembler>,
    leases: Mutex<Leases>,
    /// Revisions that were taken over from the store into `state`: configuration, endpoints.
    applied: watch::Sender<(Revision, Revision)>,
    view: watch::Sender<Arc<View>>,
    /// What was worked out of it for people.
    looked: Mutex<Looked>,
    /// Something changed that the next view has to show.
    changed: Notify,
    /// Leases changed, so somebody may have to leave sooner.
    lapsed: Notify,
    /// One change of configuration at a time, and one of endpoints.
    configuring: tokio::sync::Mutex<()>,
    registering: tokio::sync::Mutex<()>,
    reserved: Mutex<BTreeSet<std::net::SocketAddr>>,
    next_lease: std::sync::atomic::AtomicU64,
    /// What becomes of hosts outside that are not listed, where the configuration does not say it.
    unlisted: OnceLock<Unlisted>,
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").field("trust_domain", &self.0.trust_domain).finish_non_exhaustive()
    }
}

/// Keys of the configuration keyspace beside the history.
const TRUST_DOMAIN: &str = "trust-domain";
const SNI_KEY: &str = "sni-key";

/// How long a write waits until the view shows it. Longer means that a task of ours died.
const SHOWN_WITHIN: Duration = Duration::from_secs(5);

impl Registry {
    /// Reads everything from the store. State of another trust domain is refused. Nothing moves until [`start`](Self::start).
    pub async fn open(
        store: Arc<dyn Store>,
        trust_domain: TrustDomain,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, RegistryError> {
        let found = singleton(&*store, TRUST_DOMAIN, || Ok(Bytes::from(trust_domain.to_string()))).await?;
        if found != trust_domain.as_str() {
            let found = String::from_utf8_lossy(&found).into_owned();
            return Err(RegistryError::ForeignTrustDomain { found, wanted: trust_domain.to_string() });
        }
        let sni_key = sni_key(&*store).await?;
        let state = State::load(&*store).await?;
        let leases = Leases::after_start(state.leased(), tokio::time::Instant::now());
        let registry = Self(Arc::new(Inner {
            applied: watch::Sender::new((state.config.revision, state.live)),
            store,
            clock,
            trust_domain,
            sni_key,
            state: Mutex::new(state),
            assembler: Mutex::default(),
            leases: Mutex::new(leases),
            view: watch::Sender::new(Arc::default()),
            looked: Mutex::default(),
            changed: Notify::new(),
            lapsed: Notify::new(),
            configuring: tokio::sync::Mutex::default(),
            registering: tokio::sync::Mutex::default(),
            reserved: Mutex::default(),
            next_lease: std::sync::atomic::AtomicU64::new(1),
            unlisted: OnceLock::new(),
        }));
        crate::publish::show(&registry);
        Ok(registry)
    }

    /// Starts everything that moves by itself: following the store, publishing, ending leases, probing. It stops when the
    /// tasks are dropped.
    pub fn start(&self) -> Tasks {
        let mut tasks = Tasks::default();
        tasks.spawn("follow", follow::run(self.clone()));
        tasks.spawn("publish", crate::publish::run(self.clone()));
        tasks.spawn("leases", endpoints::expire(self.clone()));
        tasks.spawn("probe", probe::run(self.clone()));
        tasks
    }

    /// The mesh as it is now.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.0.view.borrow())
    }

    /// Every view from now on; a slow reader skips to the newest.
    pub fn watch(&self) -> watch::Receiver<Arc<View>> {
        self.0.view.subscribe()
    }

    /// The trust domain everything here belongs to.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.0.trust_domain
    }

    /// Addresses that nobody may register, because they are the control plane's own.
    pub fn reserve(&self, addresses: impl IntoIterator<Item = std::net::SocketAddr>) {
        self.0.reserved.lock().extend(addresses);
    }

    /// The opaque TLS server name of a service: the same for every proxy, telling nothing to others.
    fn sni(&self, service: &ServiceName) -> String {
        let mut hash = Sha256::new();
        hash.update(self.0.sni_key);
        hash.update(format!("{}/{}", service.namespace(), service.name()));
        format!("{}.hms", hex(hash.finalize().get(..16).unwrap_or_default()))
    }

    /// Puts the mesh together from what is held now, with what lies over it and this mesh's opaque names, and hands it on with what
    /// it was made from. Whoever comes later comes with a later state.
    pub(crate) fn assembled<T>(&self, then: impl FnOnce(Gathered, Mesh, Vec<Finding>) -> T) -> T {
        let mut assembler = self.0.assembler.lock();
        let lease_finding = self.0.leases.lock().finding();
        let mut gathered = self.0.state.lock().gather();
        gathered.findings.extend(lease_finding);
        gathered.inputs.unlisted = self.0.unlisted.get().copied();
        let (mesh, findings) = assembler.update(gathered.inputs.clone(), |service| self.sni(service));
        then(gathered, mesh, findings)
    }

    /// Says what becomes of hosts outside that are not listed, where the configuration does not say it. The first word holds.
    pub(crate) fn unlisted_are(&self, unlisted: Unlisted) {
        if self.0.unlisted.set(unlisted).is_ok() {
            crate::publish::show(self);
        }
    }

    /// Makes a view the present one, with what there is to say of it.
    pub(crate) fn show(&self, mut view: View) {
        let mut looked = self.0.looked.lock();
        let found = looked.at(&view, &self.view(), tokio::time::Instant::now());
        view.findings.extend(found);
        self.0.view.send_replace(Arc::new(view));
    }

    /// Since when a resource is as it is; `None` if it is not configured.
    pub(crate) fn age(&self, key: &ResourceKey) -> Option<Age> {
        self.0.looked.lock().age(key)
    }

    /// When a service was declared, declared otherwise or taken away, if that is known.
    pub(crate) fn touched(&self, service: &ServiceName) -> Option<tokio::time::Instant> {
        self.0.looked.lock().touched(service)
    }

    /// Waits for the next change that a view has to show.
    pub(crate) async fn changed(&self) {
        self.0.changed.notified().await;
    }

    /// Waits until the view shows a commit of configuration.
    async fn shown_config(&self, revision: Revision) -> Result<Revision, RegistryError> {
        self.shown(revision, |view| view.config).await
    }

    /// Waits until the view shows a commit of endpoints.
    async fn shown_live(&self, revision: Revision) -> Result<Revision, RegistryError> {
        self.shown(revision, |view| view.live).await
    }

    async fn shown(&self, revision: Revision, of: impl Fn(&View) -> Revision) -> Result<Revision, RegistryError> {
        let mut views = self.0.view.subscribe();
        let shown = views.wait_for(|view| of(view) >= revision);
        match tokio::time::timeout(SHOWN_WITHIN, shown).await {
            Ok(Ok(_view)) => Ok(revision),
            Ok(Err(_)) | Err(_) => Err(RegistryError::Store(StoreError::Closed)),
        }
    }

    /// Waits until the registry has taken a commit over from the store.
    async fn taken_over(
        &self,
        revision: Revision,
        of: impl Fn(&(Revision, Revision)) -> Revision,
    ) -> Result<(), RegistryError> {
        let mut applied = self.0.applied.subscribe();
        let done = applied.wait_for(|applied| of(applied) >= revision);
        match tokio::time::timeout(SHOWN_WITHIN, done).await {
            Ok(Ok(_applied)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(RegistryError::Store(StoreError::Closed)),
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('?');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// A value that is made once in the life of a store.
async fn singleton(
    store: &dyn Store,
    key: &str,
    make: impl Fn() -> Result<Bytes, StoreError>,
) -> Result<Bytes, StoreError> {
    if let Some(entry) = store.get(Keyspace::Config, key).await? {
        return Ok(entry.value);
    }
    let value = make()?;
    let fresh = vec![Precondition::Absent(key.to_owned())];
    store.commit(Keyspace::Config, fresh, vec![Write::Put(key.to_owned(), value.clone())]).await?;
    Ok(value)
}

async fn sni_key(store: &dyn Store) -> Result<[u8; 32], StoreError> {
    let make = || {
        let mut key = [0_u8; 32];
        rand::rngs::OsRng.try_fill_bytes(&mut key).map_err(|error| StoreError::Unavailable(error.to_string()))?;
        Ok(Bytes::copy_from_slice(&key))
    };
    let found = singleton(store, SNI_KEY, make).await?;
    found.as_ref().try_into().map_err(|_wrong_length| StoreError::Corrupt {
        path: SNI_KEY.to_owned(),
        detail: "it has the wrong length".to_owned(),
    })
}
