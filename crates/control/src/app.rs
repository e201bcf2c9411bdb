//! The one place where the parts of a control plane meet.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use hms_identity::clock::{Clock, SystemClock};
use hms_identity::svid::Svid;
use hms_model::resource::{Gateway, Kind, Resource, ResourceKey};
use hms_model::spiffe::{SpiffeId, TrustDomain};
use rand::{Rng as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::api;
use crate::ca::attest::Attestations;
use crate::ca::edge::EdgeCa;
use crate::ca::service::{AuthorityService, CONTROL, SYSTEM_NAMESPACE};
use crate::ca::tokens::JoinTokens;
use crate::ca::{Ca, CaError, IssueError};
use crate::canary::Canaries;
use crate::discovery::listen::{self, CurrentTls};
use crate::discovery::{self, Services};
use crate::jwt::DevIssuer;
use crate::live::Live;
use crate::registry::{Change, Registry, RegistryError};
use crate::settings::{Ports, Settings, StoreKind};
use crate::store::{MemoryStore, SqliteStore, Store, StoreError};
use crate::tasks::{self, Tasks};

mod files;
#[cfg(test)]
mod tests;

/// How long requests may take to end at a shutdown.
const DRAIN: Duration = Duration::from_secs(3);
/// Who changes the configuration at a start.
const ACTOR: &str = "control plane";

/// Why a control plane did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A file or directory cannot be used.
    #[error("HMS-1301: {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// An address cannot be listened on.
    #[error("HMS-1302: cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The REST API would be reachable from elsewhere.
    #[error("HMS-1303: the REST API listens on loopback only, not on {0}")]
    NotLoopback(SocketAddr),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The certificate authority cannot be used.
    #[error(transparent)]
    Authority(Box<CaError>),
    /// The control plane cannot have a certificate.
    #[error("HMS-4217: the control plane's own certificate: {0}")]
    OwnCertificate(String),
    /// What is stored cannot be used.
    #[error(transparent)]
    Registry(Box<RegistryError>),
}

impl From<CaError> for StartError {
    fn from(error: CaError) -> Self {
        Self::Authority(Box::new(error))
    }
}

impl From<RegistryError> for StartError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

impl From<IssueError> for StartError {
    fn from(error: IssueError) -> Self {
        Self::OwnCertificate(error.to_string())
    }
}

/// A running control plane. Dropping it stops it at once; [`shutdown`](Self::shutdown) lets requests end.
#[expect(clippy::partial_pub_fields, reason = "what there is to know is plain to read; what runs is nobody's business")]
pub struct ControlPlane {
    /// Where the REST API listens.
    pub rest: SocketAddr,
    /// Where proxies connect over TCP.
    pub grpc: SocketAddr,
    /// The trust domain of the mesh.
    pub trust_domain: TrustDomain,
    /// The mesh.
    pub registry: Registry,
    /// What proxies report.
    pub live: Live,
    /// For a supervisor in the same process: what its children are.
    pub attestations: Arc<Attestations>,
    settings: Settings,
    store: Arc<dyn Store>,
    context: api::Context,
    stop: watch::Sender<bool>,
    servers: Vec<tokio::task::JoinHandle<Option<()>>>,
    tasks: Tasks,
}

impl fmt::Debug for ControlPlane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlPlane").field("rest", &self.rest).field("grpc", &self.grpc).finish_non_exhaustive()
    }
}

/// What proves identities.
struct Authorities {
    ca: Arc<Ca>,
    edge: Arc<EdgeCa>,
    jwt: Arc<DevIssuer>,
    token: api::TokenDigest,
}

/// What listens.
struct Listeners {
    rest: TcpListener,
    grpc: TcpListener,
    local: tokio::net::UnixListener,
}

/// Starts a control plane and answers when it serves.
pub async fn start(settings: Settings) -> Result<ControlPlane, StartError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    for directory in [&settings.state, &settings.data, &settings.runtime] {
        files::private_directory(directory).map_err(|source| file(directory, source))?;
    }
    let listeners = listen(&settings).await?;
    let authorities = authorities(&settings, &clock)?;
    let store = open_store(&settings).await?;
    let trust_domain = authorities.ca.trust_domain().clone();
    let registry = Registry::open(Arc::clone(&store), trust_domain.clone(), Arc::clone(&clock)).await?;
    registry.unlisted_are(settings.unlisted);
    let mut tasks = registry.start();
    let address = |listener: &TcpListener| listener.local_addr().map_err(|source| file(&settings.runtime, source));
    let (rest, grpc) = (address(&listeners.rest)?, address(&listeners.grpc)?);
    registry.reserve([rest, grpc]);
    prepare(&registry, &authorities).await?;

    let live = Live::new();
    let canaries = Canaries::open(registry.clone(), live.clone(), Arc::clone(&store), Arc::clone(&clock)).await?;
    tasks.spawn("canaries", canaries.clone().run());
    let (stop, stopped) = watch::channel(false);
    let attestations = Arc::new(Attestations::default());
    let tokens = Arc::new(JoinTokens::new(Arc::clone(&store), Arc::clone(&clock)));
    let services = Services {
        registry: registry.clone(),
        live: live.clone(),
        attestations: Arc::clone(&attestations),
        authority: authority(&authorities, &tokens, &registry),
        stopped: stopped.clone(),
    };
    let tls = own_tls(&authorities.ca, &clock, &mut tasks)?;
    let context = api::Context::new(api::Parts {
        registry: registry.clone(),
        live: live.clone(),
        canaries,
        ca: authorities.ca,
        edge: authorities.edge,
        tokens,
        attestations: Arc::clone(&attestations),
        jwt: authorities.jwt,
        token: authorities.token,
        clock,
    });
    let servers = serve(listeners, services, tls, &context, stopped);
    announce(&settings, rest, grpc, &trust_domain).map_err(|source| file(&settings.announcement(), source))?;
    context.set_ready(true);
    tracing::info!(%rest, %grpc, %trust_domain, "serving");
    Ok(ControlPlane {
        rest,
        grpc,
        trust_domain,
        registry,
        live,
        attestations,
        settings,
        store,
        context,
        stop,
        servers,
        tasks,
    })
}

impl ControlPlane {
    /// Where the local socket is.
    pub fn socket(&self) -> PathBuf {
        self.settings.socket()
    }

    /// Stops: says that it is not ready, lets requests end, and leaves nothing behind in the runtime directory. Proxies go on
    /// with what they have.
    pub async fn shutdown(mut self) {
        self.context.set_ready(false);
        self.stop.send_replace(true);
        let deadline = tokio::time::Instant::now() + DRAIN;
        for server in &mut self.servers {
            if tokio::time::timeout_at(deadline, &mut *server).await.is_err() {
                // Streams of proxies do not end by themselves.
                server.abort();
            }
        }
        for path in [self.settings.announcement(), self.settings.socket()] {
            if let Err(error) = std::fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "cannot remove");
            }
        }
        drop(self.tasks);
        if let Err(error) = self.store.close().await {
            tracing::warn!(%error, "cannot close the store");
        }
        tracing::info!("stopped");
    }
}

fn file(path: &std::path::Path, source: io::Error) -> StartError {
    StartError::File { path: path.to_owned(), source }
}

async fn listen(settings: &Settings) -> Result<Listeners, StartError> {
    if !settings.rest.ip().is_loopback() {
        return Err(StartError::NotLoopback(settings.rest));
    }
    // The socket first: it also tells whether another control plane runs for this project.
    let socket = settings.socket();
    let local = listen::bind_local(&socket).map_err(|source| file(&socket, source))?;
    let rest = bind(settings.rest, settings.ports).await?;
    let grpc = bind(settings.grpc, settings.ports).await?;
    Ok(Listeners { rest, grpc, local })
}

async fn bind(address: SocketAddr, ports: Ports) -> Result<TcpListener, StartError> {
    match TcpListener::bind(address).await {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse && ports == Ports::Preferred => {
            let any = SocketAddr::new(address.ip(), 0);
            TcpListener::bind(any).await.map_err(|source| StartError::Listen { address: any, source })
        }
        bound => bound.map_err(|source| StartError::Listen { address, source }),
    }
}

fn authorities(settings: &Settings, clock: &Arc<dyn Clock>) -> Result<Authorities, StartError> {
    let ca =
        Ca::open(&settings.state.join("ca"), settings.trust_domain.as_ref(), settings.lifetimes, Arc::clone(clock))?;
    let edge = EdgeCa::open(&settings.data, Arc::clone(clock))?;
    let jwt = DevIssuer::open(&settings.state.join("jwt.key"), Arc::clone(clock))?;
    let path = settings.admin_token();
    let token = files::admin_token(&path).map_err(|source| file(&path, source))?;
    Ok(Authorities { ca: Arc::new(ca), edge: Arc::new(edge), jwt: Arc::new(jwt), token: api::TokenDigest::of(&token) })
}

async fn open_store(settings: &Settings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match settings.store {
        StoreKind::Memory => Arc::new(MemoryStore::new()),
        StoreKind::Sqlite => {
            let path = settings.state.join("mesh.db");
            // Reads and checks the whole file.
            let opening = tokio::task::spawn_blocking(move || SqliteStore::open(&path)).await;
            Arc::new(opening.map_err(|error| StoreError::Unavailable(error.to_string()))??)
        }
    })
}

/// What every mesh has: its roots, and a gateway that takes the built-in issuer's tokens unless somebody named others.
async fn prepare(registry: &Registry, authorities: &Authorities) -> Result<(), StartError> {
    let view = registry.view();
    let mut changes = vec![Change::Put(Resource::Trust(authorities.ca.bundle()))];
    let own = authorities.jwt.as_issuer();
    let gateway = match view.resources.get(&ResourceKey::mesh(Kind::Gateway)).map(AsRef::as_ref) {
        Some(Resource::Gateway(gateway)) => gateway.clone(),
        _ => Gateway { issuers: vec![own.clone()], ..Gateway::default() },
    };
    // The built-in issuer has a new key when its file was removed.
    let refreshed =
        gateway.issuers.into_iter().map(|issuer| if issuer.issuer == own.issuer { own.clone() } else { issuer });
    changes.push(Change::Put(Resource::Gateway(Gateway { issuers: refreshed.collect(), ..gateway })));
    registry.commit(ACTOR, changes, None).await?;
    Ok(())
}

fn authority(authorities: &Authorities, tokens: &Arc<JoinTokens>, registry: &Registry) -> AuthorityService {
    let registry = registry.clone();
    let hosts = move || registry.view().mesh.gateway.hosts.clone();
    AuthorityService::new(
        Arc::clone(&authorities.ca),
        Arc::clone(&authorities.edge),
        Arc::clone(tokens),
        Arc::new(hosts),
    )
}

/// The TLS settings with the control plane's own certificate, renewed in time for ever.
fn own_tls(ca: &Arc<Ca>, clock: &Arc<dyn Clock>, tasks: &mut Tasks) -> Result<CurrentTls, StartError> {
    let identity = SpiffeId::new(ca.trust_domain(), SYSTEM_NAMESPACE, CONTROL)
        .map_err(|error| StartError::OwnCertificate(error.to_string()))?;
    let (svid, config) = fresh_tls(ca, clock, &identity)?;
    let current: CurrentTls = Arc::new(ArcSwap::new(config));
    tasks.spawn("own-certificate", renew(Arc::clone(ca), Arc::clone(clock), identity, svid, Arc::clone(&current)));
    Ok(current)
}

fn fresh_tls(
    ca: &Ca,
    clock: &Arc<dyn Clock>,
    identity: &SpiffeId,
) -> Result<(Svid, Arc<rustls::ServerConfig>), StartError> {
    let svid = ca.own_svid(identity)?;
    let config = hms_identity::tls::bootstrap_server_config(&svid, &ca.bundle(), &[b"h2"], Arc::clone(clock));
    let config = config.map_err(|error| StartError::OwnCertificate(error.to_string()))?;
    Ok((svid, config))
}

/// Longest sleep at a time: the wall clock may leap while we sleep.
const LOOK_AGAIN: Duration = Duration::from_mins(5);

async fn renew(ca: Arc<Ca>, clock: Arc<dyn Clock>, identity: SpiffeId, mut svid: Svid, current: CurrentTls) {
    let mut dice = rand::rngs::SmallRng::from_os_rng();
    let mut failures = 0;
    let mut due = hms_identity::rotate::renew_at(svid.not_before(), svid.not_after(), dice.random());
    loop {
        let now = clock.now();
        if let Ok(left) = due.duration_since(now)
            && !left.is_zero()
        {
            tokio::time::sleep(left.min(LOOK_AGAIN)).await;
            continue;
        }
        match fresh_tls(&ca, &clock, &identity) {
            Ok((fresh, config)) => {
                current.store(config);
                svid = fresh;
                failures = 0;
                due = hms_identity::rotate::renew_at(svid.not_before(), svid.not_after(), dice.random());
            }
            Err(error) => {
                tracing::error!(%error, "cannot renew the control plane's own certificate");
                failures += 1;
                due = hms_identity::rotate::retry_at(now, svid.not_after(), failures, dice.random());
            }
        }
    }
}

fn serve(
    listeners: Listeners,
    services: Services,
    tls: CurrentTls,
    context: &api::Context,
    mut stopped: watch::Receiver<bool>,
) -> Vec<tokio::task::JoinHandle<Option<()>>> {
    let log = |what: &'static str, result: Result<(), tonic::transport::Error>| {
        if let Err(error) = result {
            tracing::error!(%error, "{what}");
        }
    };
    let local = listen::accept_local(listeners.local);
    let remote = listen::accept_remote(listeners.grpc, tls);
    let others = services.clone();
    // A sender that is gone means that the control plane was dropped.
    let stop = async move { drop(stopped.wait_for(|stopped| *stopped).await.map(drop)) };
    vec![
        tasks::spawn("grpc-local", async move {
            log("the local socket", discovery::serve(services, local).await);
        }),
        tasks::spawn("grpc-remote", async move {
            log("gRPC over TCP", discovery::serve(others, remote).await);
        }),
        tasks::spawn("rest", api::serve(listeners.rest, context.clone(), stop)),
    ]
}

/// Says how the control plane can be reached.
fn announce(settings: &Settings, rest: SocketAddr, grpc: SocketAddr, trust_domain: &TrustDomain) -> io::Result<()> {
    let announcement = serde_json::json!({
        "pid": std::process::id(),
        "start_time": start_time(),
        "rest": rest.to_string(),
        "grpc": grpc.to_string(),
        "trust_domain": trust_domain.as_str(),
        "version": env!("CARGO_PKG_VERSION"),
    });
    files::write_atomically(&settings.announcement(), announcement.to_string().as_bytes())
}

/// When this process began, in clock ticks after boot: with the process id it names one process for ever (proc(5), field 22 of
/// `stat`; the second field is in brackets and may hold anything).
fn start_time() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    after_name.split_ascii_whitespace().nth(19).and_then(|ticks| ticks.parse().ok()).unwrap_or_default()
}
