//! The live tables of the hot path, built from a [`Snapshot`] and swapped as a whole.
//!
//! A request takes one [`Runtime`] from its first line to its last. What a service or endpoint remembers (moving averages,
//! ejections, budgets, buckets) lives in cells that are carried from one runtime to the next by key.

pub mod directory;
pub mod local;
pub mod spread;
pub mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use hms_model::names::ServiceName;
use hms_model::policy::Telemetry;
use hms_model::snapshot::Snapshot;
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::http_route::{HttpTable, Whose};
use hms_traffic::routing::RouteTable;
use hms_traffic::subset::Caller;
use tokio::sync::watch;

use self::directory::Directory;
use self::local::Local;
use self::upstream::Upstream;
use crate::filters::jwt::Verifier;

/// Everything a request needs to know, at one moment.
#[derive(Debug, Default)]
pub struct Runtime {
    /// Every service of the mesh this proxy may see.
    pub directory: Arc<Directory>,
    /// Services this proxy knows in detail.
    pub upstreams: BTreeMap<ServiceName, Arc<Upstream>>,
    /// The service this proxy serves, with the rules that it enforces.
    pub local: Option<Arc<Local>>,
    /// What a gateway needs beside.
    pub gateway: Option<Arc<GatewayTable>>,
    /// What is told about requests.
    pub telemetry: Telemetry,
    /// The snapshot all this was built from, for the next one and for the last-good file.
    pub snapshot: Arc<Snapshot>,
}

/// A gateway's own tables.
#[derive(Debug)]
pub struct GatewayTable {
    /// Names it answers for.
    pub hosts: BTreeSet<String>,
    /// The routes of all services.
    pub routes: RouteTable,
    /// How requests are led before the services' own routes are asked.
    pub led: Option<HttpTable>,
    /// Whose tokens it takes.
    pub verifier: Verifier,
    /// Whether a token may be missing.
    pub is_open: bool,
}

impl Runtime {
    /// Builds the tables of `snapshot`, with the cells of `old`, for the proxy that `own` describes. Off the hot path.
    pub fn build(snapshot: Snapshot, old: &Self, own: &Own, keys: &KeySource) -> Self {
        let mut upstreams = BTreeMap::new();
        for (name, state) in &snapshot.services {
            let before = old.upstreams.get(name);
            let unchanged = before.filter(|_| old.snapshot.services.get(name) == Some(state));
            let upstream = if let Some(upstream) = unchanged {
                Arc::clone(upstream)
            } else {
                let mut upstream = Upstream::build(state, before.map(Arc::as_ref), &own.caller, keys);
                let whose = Whose::Service { service: name, caller: &own.service };
                upstream.led = HttpTable::build(&state.service.http, whose).map(Arc::new);
                Arc::new(upstream)
            };
            upstreams.insert(name.clone(), upstream);
        }
        let local =
            snapshot.services.get(&own.service).map(|state| Arc::new(Local::build(state, old.local.as_deref())));
        let gateway = snapshot.gateway.as_ref().map(|gateway| {
            let routes = snapshot.services.values().filter_map(|s| s.route.as_ref().map(|r| (&s.service.name, r)));
            Arc::new(GatewayTable {
                hosts: gateway.hosts.iter().map(|host| host.to_ascii_lowercase()).collect(),
                routes: RouteTable::build(routes),
                led: HttpTable::build(&gateway.routes, Whose::Gateway),
                verifier: Verifier::new(&gateway.issuers),
                is_open: gateway.is_open,
            })
        });
        let directory = if old.snapshot.directory == snapshot.directory {
            Arc::clone(&old.directory)
        } else {
            Arc::new(Directory::build(snapshot.directory.clone()))
        };
        Self {
            directory,
            upstreams,
            local,
            gateway,
            telemetry: snapshot.telemetry.clone(),
            snapshot: Arc::new(snapshot),
        }
    }
}

impl Runtime {
    /// The service of which an instance listens at this address, be it the instance's proxy or its application.
    pub fn service_at(&self, address: SocketAddr) -> Option<ServiceName> {
        let ip = address.ip().to_canonical();
        let found = self.upstreams.iter().find(|(_, upstream)| {
            upstream.endpoints.iter().any(|own| {
                let ports = [own.address.port(), own.endpoint.app_port];
                own.address.ip().to_canonical() == ip && ports.contains(&address.port())
            })
        });
        found.map(|(name, _)| name.clone())
    }
}

/// What the tables depend on beside the snapshot.
#[derive(Debug, Clone)]
pub struct Own {
    /// The service this proxy serves.
    pub service: ServiceName,
    /// This proxy, among the callers of a service.
    pub caller: Caller,
}

/// Hands out numbers for endpoints, never the same twice within a process.
#[derive(Debug, Default)]
pub struct KeySource(AtomicU64);

impl KeySource {
    /// The next number.
    pub fn next(&self) -> u64 {
        self.0.fetch_add(1, Relaxed) + 1
    }
}

/// The runtime in use.
#[derive(Debug)]
pub struct Current {
    runtime: ArcSwap<Runtime>,
    changed: watch::Sender<u64>,
    keys: KeySource,
    own: Own,
}

impl Current {
    /// Begins without any knowledge.
    pub fn new(own: Own) -> Self {
        Self {
            runtime: ArcSwap::from_pointee(Runtime::default()),
            changed: watch::Sender::new(0),
            keys: KeySource::default(),
            own,
        }
    }

    /// The runtime in use now.
    pub fn load(&self) -> Arc<Runtime> {
        self.runtime.load_full()
    }

    /// Builds the runtime of a snapshot and takes it into use.
    pub fn apply(&self, snapshot: Snapshot, now: Moment, dice: &mut Dice) -> Arc<Runtime> {
        let old = self.load();
        let new = Arc::new(Runtime::build(snapshot, &old, &self.own, &self.keys));
        for (name, upstream) in &new.upstreams {
            if let Some(before) = old.upstreams.get(name) {
                upstream.follow_health(before, now, dice);
            }
        }
        self.runtime.store(Arc::clone(&new));
        self.changed.send_modify(|count| *count += 1);
        new
    }

    /// Hands out numbers for endpoints beside those of the snapshot.
    pub fn keys(&self) -> &KeySource {
        &self.keys
    }

    /// This proxy, among the callers of a service.
    pub fn caller(&self) -> &Caller {
        &self.own.caller
    }

    /// Hears of every swap.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }
}
