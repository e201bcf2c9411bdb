//! The REST API: everything `hms`, pipelines and pages do to a mesh.
//!
//! One list of operations (`table`) makes both the router and the `OpenAPI` document. Every request passes the
//! guard first (loopback, origin, token); every answer that is no success is one shape (`problem`). Input takes effect as a
//! whole or not at all.

mod apply;
mod authority;
mod breakers;
mod canaries;
mod certificates;
mod conditions;
mod egress;
mod endpoints;
mod guard;
mod input;
mod mesh;
mod metrics;
mod openapi;
mod outside;
mod problem;
mod proxies;
mod replaced;
mod resources;
mod revisions;
mod routes;
mod server;
mod services;
mod splits;
mod stamps;
mod status;
mod table;
mod tap;
#[cfg(test)]
mod tests;
mod tokens;
mod view;
mod why;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use hms_identity::clock::Clock;
use hms_model::names::ServiceName;
use hms_model::spiffe::SpiffeId;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::ca::Ca;
use crate::ca::attest::Attestations;
use crate::ca::edge::EdgeCa;
use crate::ca::tokens::JoinTokens;
use crate::canary::Canaries;
use crate::jwt::DevIssuer;
use crate::live::Live;
use crate::registry::{Registry, RegistryError};
use crate::show::Shower;

pub use guard::TokenDigest;
pub use server::serve;

use problem::{Kind, Problem};
use table::Operation;

/// Streams of requests that may be open at the same time.
const STREAMS: usize = 64;

/// What the API works on.
#[derive(Debug)]
pub struct Parts {
    /// The mesh.
    pub registry: Registry,
    /// What proxies report.
    pub live: Live,
    /// Versions that are given more and more of the calls.
    pub canaries: Canaries,
    /// The authority of the mesh.
    pub ca: Arc<Ca>,
    /// The authority of gateways towards the outside.
    pub edge: Arc<EdgeCa>,
    /// Join tokens.
    pub tokens: Arc<JoinTokens>,
    /// What the supervisor said of its children.
    pub attestations: Arc<Attestations>,
    /// The built-in issuer of users' tokens.
    pub jwt: Arc<DevIssuer>,
    /// The digest of the token that callers have to bring.
    pub token: TokenDigest,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
}

/// What every handler works on; clones share it.
#[derive(Clone)]
pub struct Context(Arc<Inner>);

struct Inner {
    parts: Parts,
    started: Instant,
    ready: AtomicBool,
    streams: Arc<Semaphore>,
    /// One change of the configuration at a time: each is planned on what the one before left.
    changing: tokio::sync::Mutex<()>,
    document: Arc<str>,
    shower: Shower,
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("ready", &self.is_ready()).finish_non_exhaustive()
    }
}

impl Context {
    /// Works on `parts`; not ready until told so.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            started: Instant::now(),
            ready: AtomicBool::new(false),
            streams: Arc::new(Semaphore::new(STREAMS)),
            changing: tokio::sync::Mutex::default(),
            document: openapi().into(),
            shower: Shower::new(),
        }))
    }

    /// What `/healthz/ready` says from now on.
    pub fn set_ready(&self, ready: bool) {
        self.0.ready.store(ready, Ordering::Relaxed);
    }

    fn is_ready(&self) -> bool {
        self.0.ready.load(Ordering::Relaxed)
    }

    fn token(&self) -> &TokenDigest {
        &self.0.parts.token
    }

    fn parts(&self) -> &Parts {
        &self.0.parts
    }

    /// What shows resources to people.
    fn shower(&self) -> &Shower {
        &self.0.shower
    }

    /// The identity that a service has unless somebody decided otherwise.
    fn identity(&self, service: &ServiceName) -> Result<SpiffeId, Problem> {
        SpiffeId::new(self.0.parts.registry.trust_domain(), service.namespace(), service.name())
            .map_err(|error| Problem::internal(&error))
    }
}

/// Who a change is attributed to. There is one token, so there is one name.
const ACTOR: &str = "admin";

/// Everything the API does.
fn operations() -> Vec<Operation> {
    [
        status::operations(),
        metrics::operations(),
        services::operations(),
        splits::operations(),
        canaries::operations(),
        apply::operations(),
        resources::operations(),
        revisions::operations(),
        endpoints::operations(),
        routes::operations(),
        mesh::operations(),
        breakers::operations(),
        egress::operations(),
        certificates::operations(),
        proxies::operations(),
        tap::operations(),
        stamps::operations(),
        tokens::operations(),
        why::operations(),
        authority::operations(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The `OpenAPI` 3.1 document of the API, as served and as checked in at `api/openapi.json`.
pub fn openapi() -> String {
    let mut text = format!("{:#}", openapi::document(&operations()));
    text.push('\n');
    text
}

/// Every path with its methods, in order.
pub fn paths() -> BTreeMap<&'static str, Vec<Method>> {
    let mut paths: BTreeMap<&'static str, Vec<Method>> = BTreeMap::new();
    for operation in operations() {
        paths.entry(operation.path).or_default().push(operation.method);
    }
    paths
}

/// The API over `context`.
pub fn router(context: Context) -> Router {
    let mut router = Router::new();
    for operation in operations() {
        let mutates = operation.mutates();
        let mut handler = operation.handler;
        if !operation.open {
            handler = handler.route_layer(from_fn_with_state(context.clone(), guard::authenticate));
        }
        if mutates {
            handler = handler.route_layer(from_fn_with_state(operation.name, guard::audit));
        }
        router = router.route(operation.path, handler);
    }
    router.fallback(nothing_here).layer(from_fn(guard::admit)).with_state(context)
}

async fn nothing_here(uri: Uri) -> Problem {
    let path = input::shown(uri.path());
    Problem::new(Kind::NoSuchPath, format!("there is nothing at `{path}`"))
        .fix("GET /v1/openapi.json lists what there is")
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Conflict { .. } => {
                Self::new(Kind::Conflict, error.to_string()).fix("read it again and repeat")
            }
            RegistryError::Invalid(findings) => Self::refused(findings),
            RegistryError::NotFound(_) => Self::new(Kind::NoSuchThing, error.to_string()),
            RegistryError::Refused(finding) => Self::refused(vec![*finding]),
            RegistryError::Store(error) => Self::from(error),
            RegistryError::ForeignTrustDomain { .. } => Self::internal(&error),
        }
    }
}

impl From<crate::store::StoreError> for Problem {
    fn from(error: crate::store::StoreError) -> Self {
        tracing::error!(%error, "the store failed");
        Self::new(Kind::Unavailable, "the store does not take changes at this moment; nothing was changed")
            .fix("see the control plane's log")
    }
}
