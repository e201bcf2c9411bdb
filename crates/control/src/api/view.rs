//! A service as people see it: what the registry knows and what proxies report, put together.

use hms_model::mesh::ServiceState;
use hms_model::names::{SYSTEM_NAMESPACE, ServiceName};
use hms_model::workload::{Endpoint, Transport};
use schemars::JsonSchema;
use serde::Serialize;

use crate::live::{BreakerPhase, BreakerReport, Live, Stats};
use crate::registry::View;

/// A list of things.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "{T}List")]
pub(super) struct Items<T> {
    /// The things.
    pub(super) items: Vec<T>,
}

/// A service.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Service")]
pub(super) struct ServiceView {
    /// Its name within its namespace.
    name: String,
    /// Its namespace.
    namespace: String,
    /// `healthy`, `unhealthy`, `waiting` while nothing serves it, or `client` if there is nothing to serve.
    pub(super) state: &'static str,
    /// The versions that run.
    versions: Vec<String>,
    /// `ON` when every way to it is mutually authenticated, else `OFF`.
    pub(super) mtls: &'static str,
    /// Tries after the first, in the last minute.
    pub(super) retries: u64,
    /// `CLOSED` (calls pass), `HALF-OPEN` (a probe is under way) or `OPEN` (calls are refused).
    pub(super) breaker: &'static str,
    /// Requests per second, over the last minute.
    rps: f64,
    /// Share of requests that did not fail, 0 to 1; null without requests.
    success: Option<f64>,
    /// 95th percentile of the time to answer in milliseconds; null without requests.
    p95_ms: Option<f64>,
    /// What it serves to the outside.
    routes: Vec<RouteView>,
    /// Where it runs.
    endpoints: Vec<EndpointView>,
}

/// A route.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Route")]
pub(super) struct RouteView {
    /// Which requests: `GET /sum/{a}/{b}`.
    #[serde(rename = "match")]
    matches: String,
    /// How many of them: `20 req/min`; null for any number.
    rate_limit: Option<String>,
    /// `file:line` where it was written; may be empty.
    origin: String,
}

/// An endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Endpoint")]
pub(super) struct EndpointView {
    /// Its id within the service.
    id: String,
    /// Where its proxy (or, without one, itself) listens: `ip:port`.
    address: String,
    /// The port of the application; 0 when unknown.
    app_port: u16,
    /// Its version.
    version: String,
    /// Its failure domain; may be empty.
    zone: String,
    /// `healthy`, `unhealthy` or `draining`.
    health: &'static str,
    /// Who registered it: `sidecar` or `api`.
    source: &'static str,
    /// Whose certificate its proxy shows; null for one without a proxy.
    identity: Option<String>,
}

impl From<&Endpoint> for EndpointView {
    fn from(endpoint: &Endpoint) -> Self {
        Self {
            id: endpoint.id.clone(),
            address: endpoint.address.to_string(),
            app_port: endpoint.app_port,
            version: endpoint.version.clone(),
            zone: endpoint.zone.clone(),
            health: endpoint.health.as_str(),
            source: endpoint.source.as_str(),
            identity: match &endpoint.transport {
                Transport::Mesh(identity) => Some(identity.to_string()),
                Transport::Plain => None,
            },
        }
    }
}

/// Every service of people's, in the order of the names; the mesh's own parts are shown as proxies.
pub(super) fn services(view: &View, live: &Live) -> Vec<ServiceView> {
    let of_people = view.mesh.services.iter().filter(|(name, _)| name.namespace() != SYSTEM_NAMESPACE);
    of_people.map(|(name, state)| service(view, live, name, state)).collect()
}

/// One service.
pub(super) fn service(view: &View, live: &Live, name: &ServiceName, state: &ServiceState) -> ServiceView {
    let stats = live.stats(name);
    let breaker = phase(view, name, state, &live.breakers(Some(name)));
    let routes = state.route.iter().flat_map(|route| &route.rules).map(|rule| RouteView {
        matches: rule.matches.to_string(),
        rate_limit: rule.rate_limit.as_ref().map(ToString::to_string),
        origin: rule.origin.clone(),
    });
    let mut versions: Vec<String> = state.endpoints.values().map(|endpoint| endpoint.version.clone()).collect();
    versions.sort();
    versions.dedup();
    ServiceView {
        name: name.name().to_owned(),
        namespace: name.namespace().to_owned(),
        state: health(view, name, state),
        versions,
        mtls: mtls(state, &stats),
        retries: stats.retries,
        breaker: breaker.as_str(),
        rps: stats.rps,
        success: stats.success,
        p95_ms: stats.p95.map(|p95| p95.as_secs_f64() * 1000.0),
        routes: routes.collect(),
        endpoints: state.endpoints.values().map(EndpointView::from).collect(),
    }
}

/// Whether a service can be given work.
pub(super) fn health(view: &View, name: &ServiceName, state: &ServiceState) -> &'static str {
    if state.serves("") {
        return "healthy";
    }
    if !state.endpoints.is_empty() || view.stopped.contains(name) {
        return "unhealthy";
    }
    let mut shares = state.service.split.iter().filter(|share| share.weight > 0);
    if shares.any(|share| view.mesh.services.get(&share.service).is_some_and(|state| state.serves(""))) {
        // Others answer for it.
        return "healthy";
    }
    let says_nothing = view.declaration(name).is_none_or(|declaration| declaration.ports.is_empty());
    let serves_nothing = state.route.is_none() && state.service.split.is_empty() && says_nothing;
    if serves_nothing { "client" } else { "waiting" }
}

/// Mutual TLS holds for every endpoint with a proxy; one plain endpoint, or one plain request, and it is off.
fn mtls(state: &ServiceState, stats: &Stats) -> &'static str {
    let plain = state.endpoints.values().any(|endpoint| endpoint.transport == Transport::Plain);
    if plain || stats.mtls == Some(false) { "OFF" } else { "ON" }
}

/// The worst that any caller sees. A service without a usable endpoint is open whoever looks (ruling R3), unless it only calls.
pub(super) fn phase(view: &View, name: &ServiceName, state: &ServiceState, reports: &[BreakerReport]) -> BreakerPhase {
    if !matches!(health(view, name, state), "healthy" | "client") {
        return BreakerPhase::Open;
    }
    reports.iter().map(|report| report.phase).max().unwrap_or(BreakerPhase::Closed)
}
