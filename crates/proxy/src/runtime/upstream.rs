//! A service this proxy may call: its policy, its endpoints, and what is remembered of them.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};

use hms_model::mesh::ServiceState;
use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;
use hms_model::service::Service;
use hms_model::workload::{Endpoint, Health, Transport};
use hms_traffic::balance::slow_start::Since;
use hms_traffic::breaker::{self, EndpointView, ServiceBreaker};
use hms_traffic::clock::Moment;
use hms_traffic::detect::Learned;
use hms_traffic::dice::Dice;
use hms_traffic::ewma::Ewma;
use hms_traffic::http_route::HttpTable;
use hms_traffic::limits::Concurrency;
use hms_traffic::outlier::{EndpointHealth, FailureKind, Outcome};
use hms_traffic::retry::Budget;
use hms_traffic::subset::{self, Member};

use parking_lot::Mutex;

use super::KeySource;
use super::spread::Spread;
use crate::egress::origin::Origin;
use crate::telemetry::metrics::Party;
use crate::transport::waiting::Connections;

/// A service with its endpoints.
#[derive(Debug)]
pub struct Upstream {
    /// The service and how it is called.
    pub service: Arc<Service>,
    /// `calc-svc.mesh`.
    pub host: Arc<str>,
    /// Its endpoints, ordered by id.
    pub endpoints: Vec<Arc<UpstreamEndpoint>>,
    /// Their positions, in the order in which this proxy prefers them ([`hms_traffic::subset`]).
    pub preferred: Vec<usize>,
    /// How one of them is chosen, beyond what every service has.
    pub spread: Option<Arc<Spread>>,
    /// Whether an endpoint without a proxy is spoken to over HTTP/2 whatever comes: its first port says so.
    pub is_http2: bool,
    /// The names of its rules, for telemetry.
    pub rules: Vec<Arc<str>>,
    /// How requests to it are led, if routes speak of this proxy's.
    pub led: Option<Arc<HttpTable>>,
    /// TLS that is begun to its plain endpoints, if it is a host outside of the mesh that wants it.
    pub origin: Option<Arc<Origin>>,
    /// The host outside of the mesh that its endpoints, egress gateways, shall call.
    pub beyond: Option<Beyond>,
    /// What is remembered of the service as a whole.
    pub cells: Arc<Cells>,
}

/// A host outside of the mesh, as an egress gateway is told of it.
#[derive(Debug, Clone)]
pub struct Beyond {
    /// The egress gateway.
    pub gateway: ServiceName,
    /// The host's name or address.
    pub host: Arc<str>,
    /// Whether the gateway begins TLS to it.
    pub originates_tls: bool,
    /// Whether the application did.
    pub has_tls: bool,
}

/// What is remembered of a service as a whole.
#[derive(Debug, Default)]
pub struct Cells {
    /// Requests under way.
    pub concurrency: Arc<Concurrency>,
    /// Connections that are open, and who waits for one.
    pub connections: Arc<Connections>,
    /// What may be spent on retries.
    pub budget: Budget,
    /// Whose turn it is in round robin.
    pub rotor: AtomicUsize,
    /// What was spoken on each port.
    pub learned: Mutex<BTreeMap<u16, Arc<Learned>>>,
}

impl Cells {
    /// What was spoken on a port. Asked for once per connection.
    pub fn learned(&self, port: u16) -> Arc<Learned> {
        Arc::clone(self.learned.lock().entry(port).or_default())
    }
}

/// An endpoint with what is remembered of it.
#[derive(Debug)]
pub struct UpstreamEndpoint {
    /// As the registry has it.
    pub endpoint: Endpoint,
    /// Where to connect.
    pub address: SocketAddr,
    /// Labels of the other end.
    pub party: Arc<Party>,
    /// What is remembered.
    pub cells: Arc<EndpointCells>,
}

/// What is remembered of an endpoint.
#[derive(Debug)]
pub struct EndpointCells {
    /// Its number within this process; connections are pooled under it.
    pub key: u64,
    /// Failures and ejection.
    pub health: EndpointHealth,
    /// Latency.
    pub latency: Ewma,
    /// Requests under way.
    pub in_flight: AtomicU32,
    /// When it began to be used.
    pub since: Since,
}

impl Upstream {
    /// Builds a service's table for `caller`; an endpoint that keeps its id, address and identity keeps its cells.
    pub fn build(state: &ServiceState, old: Option<&Self>, caller: &subset::Caller, keys: &KeySource) -> Self {
        let known: HashMap<&str, &Arc<UpstreamEndpoint>> =
            old.into_iter().flat_map(|old| &old.endpoints).map(|e| (e.endpoint.id.as_str(), e)).collect();
        let endpoints = state
            .endpoints
            .values()
            .map(|endpoint| {
                let before = known.get(endpoint.id.as_str()).filter(|before| {
                    before.endpoint.address == endpoint.address && before.endpoint.transport == endpoint.transport
                });
                Arc::new(UpstreamEndpoint::new(endpoint, before.map(|b| &b.cells), keys))
            })
            .collect();
        let members = state.endpoints.values().map(|endpoint| Member { id: &endpoint.id, zone: &endpoint.zone });
        let members: Vec<_> = members.collect();
        let rules = state.route.iter().flat_map(|route| &route.rules).map(|rule| rule.matches.to_string().into());
        Self {
            service: Arc::new(state.service.clone()),
            host: state.service.name.mesh_host().into(),
            endpoints,
            preferred: subset::order(caller, &members),
            spread: Spread::build(state, old, caller),
            is_http2: state.service.ports.first().is_some_and(|port| is_http2(port.protocol)),
            rules: rules.collect(),
            led: None,
            origin: None,
            beyond: None,
            cells: old.map(|old| Arc::clone(&old.cells)).unwrap_or_default(),
        }
    }

    /// The endpoints this proxy uses now, with their positions: the first of its order that `usable` holds for, as many as what
    /// is under way needs. One that is unusable is replaced by the next in the order.
    pub fn subset(
        &self,
        usable: impl Fn(&UpstreamEndpoint) -> bool,
    ) -> impl Iterator<Item = (usize, &UpstreamEndpoint)> {
        let size = subset::size(self.cells.concurrency.in_flight());
        let ordered = self.preferred.iter().filter_map(|index| Some((*index, &**self.endpoints.get(*index)?)));
        ordered.filter(move |(_, endpoint)| usable(endpoint)).take(size)
    }

    /// What a proxy says of its own application counts at once: one that went away is ejected like one that failed too often, with
    /// its countdown; one that came back is taken back. Whoever is new, or back, begins with less than its share.
    pub fn follow_health(&self, before: &Self, now: Moment, dice: &mut Dice) {
        let policy = &self.service.policy.outlier;
        for endpoint in &self.endpoints {
            let old = before.endpoints.iter().find(|old| Arc::ptr_eq(&old.cells, &endpoint.cells));
            match (old.map(|old| old.endpoint.health), endpoint.endpoint.health) {
                (Some(Health::Healthy), Health::Unhealthy) => {
                    let down = Outcome::GatewayFailure(FailureKind::AppDown);
                    let mut failures = 0..policy.consecutive.max(1);
                    let _ejected = failures.any(|_| endpoint.cells.health.observe(down, now, policy, dice).is_some());
                }
                (Some(Health::Unhealthy), Health::Healthy) => {
                    let _restored = endpoint.cells.health.restore();
                    endpoint.cells.since.begin(now);
                }
                (None, _) => endpoint.cells.since.begin(now),
                _ => {}
            }
        }
    }

    /// The same without TLS that a proxy begins, for an application that does.
    #[must_use]
    pub fn without_origin(&self) -> Self {
        Self {
            service: Arc::clone(&self.service),
            host: Arc::clone(&self.host),
            endpoints: self.endpoints.clone(),
            preferred: self.preferred.clone(),
            spread: self.spread.clone(),
            is_http2: self.is_http2,
            rules: self.rules.clone(),
            led: self.led.clone(),
            origin: None,
            beyond: self.beyond.clone().map(|beyond| Beyond { has_tls: true, ..beyond }),
            cells: Arc::clone(&self.cells),
        }
    }

    /// Whom a call that fails failed at, for people.
    pub fn called(&self) -> String {
        match &self.beyond {
            Some(beyond) => format!("the egress gateway that leads to {}", beyond.host),
            None => self.service.name.to_string(),
        }
    }

    /// Whether a proxy begins TLS to it.
    pub fn originates_tls(&self) -> bool {
        self.origin.is_some() || self.beyond.as_ref().is_some_and(|beyond| beyond.originates_tls && !beyond.has_tls)
    }

    /// Whether connections to both lead to the same addresses in the same way.
    pub fn leads_where(&self, other: &Self) -> bool {
        let addresses = |of: &Self| of.endpoints.iter().map(|endpoint| endpoint.address).collect::<Vec<_>>();
        let host = |of: &Self| of.beyond.as_ref().map(|beyond| Arc::clone(&beyond.host));
        let plain = !self.originates_tls() && !other.originates_tls();
        plain && host(self) == host(other) && addresses(self) == addresses(other)
    }

    /// The state of the service's breaker (ruling R3).
    pub fn breaker(&self, now: Moment) -> ServiceBreaker {
        let views = self.endpoints.iter().map(|endpoint| EndpointView {
            usable_health: endpoint.endpoint.health == Health::Healthy,
            phase: endpoint.cells.health.phase(now),
        });
        breaker::phase(views, true)
    }
}

fn is_http2(protocol: AppProtocol) -> bool {
    matches!(protocol, AppProtocol::Http2 | AppProtocol::Grpc)
}

impl UpstreamEndpoint {
    fn new(endpoint: &Endpoint, cells: Option<&Arc<EndpointCells>>, keys: &KeySource) -> Self {
        let fresh = || {
            Arc::new(EndpointCells {
                key: keys.next(),
                health: EndpointHealth::default(),
                latency: Ewma::new(),
                in_flight: AtomicU32::new(0),
                since: Since::always(),
            })
        };
        let principal = match &endpoint.transport {
            Transport::Mesh(identity) => identity.to_string(),
            Transport::Plain => String::new(),
        };
        let party = Party {
            workload: endpoint.service.name().to_owned(),
            namespace: endpoint.service.namespace().to_owned(),
            principal,
            version: endpoint.version.clone(),
        };
        Self {
            address: SocketAddr::new(endpoint.address.ip, endpoint.address.port),
            party: Arc::new(party),
            cells: cells.map_or_else(fresh, Arc::clone),
            endpoint: endpoint.clone(),
        }
    }

    /// Counts a request as under way until the guard is dropped.
    pub fn begin(&self) -> InFlight {
        self.cells.in_flight.fetch_add(1, Relaxed);
        InFlight(Arc::clone(&self.cells))
    }
}

/// A request under way to an endpoint.
#[derive(Debug)]
pub struct InFlight(Arc<EndpointCells>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}
