//! What leads out of the mesh: allowed or refused, resolved, sent, counted.
//!
//! [`hms_traffic::egress`] decides; here the host becomes an [`Upstream`] with plain endpoints, so that everything that holds for
//! calls to services holds for it too: retries, breakers, limits, series, taps. [`names`] knows which names an application was
//! told an address for, [`origin`] begins TLS in its stead, [`gateway`] leads to the host through another proxy, [`seen`] counts what
//! the mesh does not manage.

pub mod gateway;
pub mod names;
pub mod origin;
pub mod seen;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_model::mesh::ServiceState;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::egress::EgressHost;
use hms_model::policy::{AuthorizationPolicy, TrafficPolicy};
use hms_model::port::{AppProtocol, Port};
use hms_model::service::Service;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_traffic::clock::Moment;
use hms_traffic::egress::{self as decide, Asked, Verdict, Why};
use parking_lot::Mutex;

use self::names::Told;
use self::origin::{Origin, Roots};
use self::seen::Seen;
use crate::attempt::{self, Call};
use crate::capture::dns::resolver::Resolver;
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::{Beyond, Upstream};
use crate::telemetry::record::Exchange;
use crate::transport::Response;
use crate::worker::{Shared, Worker};

/// The namespace under which hosts outside stand in labels of metrics; it is nobody's.
const NAMESPACE: &str = "egress";
/// The name of what nobody listed.
const UNMANAGED: &str = "unmanaged";
/// Hosts outside that are remembered; beyond that the one that was used longest ago is forgotten.
const MOST_KNOWN: usize = 1024;
/// Addresses of one host that are used.
const MOST_ADDRESSES: usize = 16;
/// How long addresses are used before the name is resolved again, whatever its answer says.
const HOLDS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What this process knows of hosts outside.
#[derive(Debug)]
pub struct Outside {
    resolver: Resolver,
    roots: Roots,
    known: Mutex<BTreeMap<Place, Known>>,
    /// Names that applications were told addresses for.
    told: Told,
    /// What was asked for.
    seen: Seen,
}

impl Outside {
    /// Names that applications were told addresses for.
    pub fn told(&self) -> &Told {
        &self.told
    }

    /// What was asked for.
    pub fn seen(&self) -> &Seen {
        &self.seen
    }
}

/// What tells hosts apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    /// Its label; empty when it is not listed.
    label: String,
    host: String,
    /// The address that was dialled, where that is what counts.
    dialled: Option<IpAddr>,
    port: u16,
}

impl Place {
    /// The name that it has as a service.
    fn service(&self) -> Result<ServiceName, Refusal> {
        let label = if self.label.is_empty() { UNMANAGED } else { &self.label };
        ServiceName::in_namespace(NAMESPACE, label)
            .map_err(|error| Refusal::new(Reason::NoConfiguration, format!("{label}: {error}")))
    }
}

#[derive(Debug)]
struct Known {
    upstream: Arc<Upstream>,
    /// The egress gateway that its endpoints were taken from.
    gateway: Option<Arc<Upstream>>,
    /// What it was made of.
    listed: Option<EgressHost>,
    until: Moment,
    used: Moment,
}

/// Whether a name in a request means a host outside of the mesh. `dialled` says that an address outside was dialled for it.
pub fn is_outside(runtime: &Runtime, host: &str, namespace: &str, dialled: bool) -> bool {
    let Ok(name) = ServiceName::from_host(host, namespace) else { return true };
    let host = decide::plain(host).to_ascii_lowercase();
    let directory = &runtime.directory;
    if directory.is_empty() || directory.get(&name).is_some() {
        return false;
    }
    match host.split_once('.') {
        // A bare name that led outside is a neighbour's of this machine.
        None => dialled,
        Some((_, "mesh")) => false,
        // `a.b` is a service of the namespace b, or a host of the domain b.
        Some((_, rest)) => {
            !rest.contains('.') && !directory.entries().keys().any(|known| known.namespace() == name.namespace())
        }
    }
}

/// Sends a request out of the mesh, to a port. The address is the one that a captured application chose.
pub async fn forward(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    mut call: Call<'_>,
    (dialled, port): (Option<IpAddr>, u16),
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let host = decide::plain(call.head.authority.host());
    let literal = decide::literal(host);
    let name = Some(host).filter(|host| literal.is_none() && !host.is_empty());
    let asked = Asked { name, address: dialled.or(literal), port };
    let found = find(worker, runtime, asked).await;
    worker.shared.outside.seen().note(asked, found.as_ref().ok().map(|found| &*found.label));
    let upstream = found?.upstream;
    // Of a host itself only one port is dialled; a gateway is told which.
    call.port = if upstream.beyond.is_some() { port } else { 0 };
    if upstream.beyond.is_some() {
        exchange.pass_trace(&mut call.edits);
    }
    attempt::run(worker, &upstream, call, exchange).await
}

/// A host outside that may be called.
#[derive(Debug)]
pub struct Found {
    /// As everything that is called.
    pub upstream: Arc<Upstream>,
    /// What the mesh calls it; empty when it is not listed.
    pub label: String,
}

impl Found {
    /// The same for bytes that nobody reads, to a port. An application that began TLS itself gets a connection on which nobody else
    /// does, unless the port is one from which TLS is begun in its stead.
    pub fn for_bytes(self, has_tls: bool, port: u16) -> Result<Self, Refusal> {
        if !has_tls || !self.upstream.originates_tls() {
            return Ok(self);
        }
        if self.upstream.service.ports.iter().any(|own| own.number == port) {
            return Ok(Self { upstream: Arc::new(self.upstream.without_origin()), ..self });
        }
        let sentence = format!("{} takes no TLS on port {port}", self.upstream.host);
        Err(Refusal::new(Reason::WrongProtocol, sentence))
    }
}

/// Decides, and finds out where the host is, or the gateway that leads to it.
pub async fn find(worker: &Rc<Worker>, runtime: &Runtime, asked: Asked<'_>) -> Result<Found, Refusal> {
    let egress = &runtime.snapshot.egress;
    let name = asked.name.map(|name| decide::plain(name).to_ascii_lowercase());
    match decide::decide(egress, asked) {
        Verdict::Refused(why) => Err(refused(asked, why)),
        Verdict::Listed(label, listed) => {
            let port = if listed.tls.is_some() { listed.ports.first().copied() } else { None };
            let place = Place {
                label: label.to_string(),
                host: listed.host.clone(),
                dialled: None,
                port: port.unwrap_or(asked.port),
            };
            let upstream = upstream(worker, runtime, place, Some((label, listed))).await?;
            Ok(Found { upstream, label: label.to_string() })
        }
        Verdict::Unmanaged => {
            let host = name.or_else(|| asked.address.map(|address| address.to_string())).unwrap_or_default();
            let place = Place { label: String::new(), host, dialled: asked.address, port: asked.port };
            Ok(Found { upstream: upstream(worker, runtime, place, None).await?, label: String::new() })
        }
    }
}

fn refused(asked: Asked<'_>, why: Why<'_>) -> Refusal {
    let Asked { port, .. } = asked;
    let host = shown(asked);
    let sentence = match why {
        Why::Everything => {
            format!("{host}:{port} is outside of the mesh, and `egress: {{default: deny}}` lets nothing out")
        }
        Why::Port(label) => format!("port {port} of {host} is not listed; add it to egress.hosts.{label}.ports"),
        Why::NotListed => format!(
            "{host}:{port} is outside of the mesh and not listed; add to mesh.yaml: \
             egress: {{hosts: {{NAME: {{host: {host}, ports: [{port}]}}}}}}"
        ),
    };
    Refusal::new(Reason::EgressRefused, sentence)
}

/// A host as people are told of it.
pub fn shown(asked: Asked<'_>) -> String {
    let name = asked.name.map(|name| decide::plain(name).to_ascii_lowercase());
    name.or_else(|| asked.address.map(|address| address.to_string())).unwrap_or_default()
}

/// The host with its endpoints; resolved again when what is known of it has been known for long enough. Where a gateway calls it,
/// its endpoints are the gateways.
async fn upstream(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    place: Place,
    listed: Listed<'_>,
) -> Result<Arc<Upstream>, Refusal> {
    let (outside, now) = (&worker.shared.outside, worker.now());
    let gateway = gateway::of(worker, runtime).await?;
    if let Some(known) = outside.known.lock().get_mut(&place) {
        known.used = now;
        let same_way = known.gateway.as_ref().map(Arc::as_ptr) == gateway.as_ref().map(Arc::as_ptr);
        if now < known.until && same_way && known.listed.as_ref() == listed.map(|(_, host)| host) {
            return Ok(Arc::clone(&known.upstream));
        }
    }
    if let Some(gateway) = gateway {
        return Ok(outside.remember(worker, gateway::leads_to(&gateway, place, listed)?, listed));
    }
    // Once in a while, so its future is not part of every request's.
    Box::pin(resolved(worker, place, listed)).await
}

/// A listed host with its label.
type Listed<'a> = Option<(&'a Label, &'a EgressHost)>;

async fn resolved(worker: &Rc<Worker>, place: Place, listed: Listed<'_>) -> Result<Arc<Upstream>, Refusal> {
    let outside = &worker.shared.outside;
    let (mut addresses, holds) = match place.dialled.or_else(|| decide::literal(&place.host)) {
        Some(address) => (vec![address], HOLDS.1),
        None => names::resolve(&outside.resolver, &place.host).await,
    };
    if addresses.is_empty() {
        let sentence = format!("no address is known of {}", place.host);
        return Err(Refusal::new(Reason::ConnectFailed, sentence).after(Duration::from_secs(1)));
    }
    let local = listed.is_some_and(|(_, host)| host.local);
    let first = addresses.first().copied();
    addresses.retain(|address| local || !decide::is_special(*address));
    if let (true, Some(first)) = (addresses.is_empty(), first) {
        let leads = if place.host == first.to_string() { String::new() } else { format!(" leads to {first}, which") };
        let sentence = format!(
            "{}{leads} is an address that is special to this machine; `local: true` in egress.hosts allows that",
            place.host
        );
        return Err(Refusal::new(Reason::EgressRefused, sentence));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(MOST_ADDRESSES);
    let origin = match listed.and_then(|(_, host)| host.tls.as_ref()) {
        Some(tls) => Some(Arc::new(Origin::new(&outside.roots, &place.host, tls).await?)),
        None => None,
    };
    let name = place.service()?;
    let endpoints = addresses.iter().map(|ip| plain(&name, place.port, *ip)).collect();
    let state = state(name, &place, policy(listed.map(|(_, host)| host)), endpoints);
    Ok(outside.remember(worker, Way { place, state, origin, beyond: None, gateway: None, holds }, listed))
}

/// How a host is called, found out anew.
struct Way {
    place: Place,
    state: ServiceState,
    origin: Option<Arc<Origin>>,
    beyond: Option<Beyond>,
    gateway: Option<Arc<Upstream>>,
    holds: Duration,
}

impl Outside {
    /// Knows nothing; asks `resolver` about names.
    pub fn new(resolver: Resolver) -> Self {
        Self {
            resolver,
            roots: Roots::default(),
            known: Mutex::default(),
            told: Told::default(),
            seen: Seen::default(),
        }
    }

    /// Whether an endpoint of this number still exists.
    pub fn has_endpoint(&self, key: u64) -> bool {
        self.known.lock().values().any(|known| known.upstream.endpoints.iter().any(|e| e.cells.key == key))
    }

    fn remember(&self, worker: &Worker, way: Way, listed: Listed<'_>) -> Arc<Upstream> {
        let Way { place, state, origin, beyond, gateway, holds } = way;
        let (now, listed) = (worker.now(), listed.map(|(_, host)| host));
        let mut all = self.known.lock();
        let old = all.get(&place).filter(|known| known.listed.as_ref() == listed).map(|known| &known.upstream);
        let current = &worker.shared.current;
        let mut upstream = Upstream::build(&state, old.map(Arc::as_ref), current.caller(), current.keys());
        if let (Some(old), Some(_)) = (old, &gateway) {
            upstream.follow_health(old, now, &mut worker.dice.borrow_mut());
        }
        // Names that callers made up must not become series without end.
        let named = listed.is_some() || self.seen.names(&place.host, place.port);
        upstream.host = if named { place.host.as_str() } else { seen::OTHERS }.into();
        (upstream.origin, upstream.beyond) = (origin, beyond);
        let upstream = Arc::new(upstream);
        if all.len() >= MOST_KNOWN && !all.contains_key(&place) {
            let oldest = all.iter().min_by_key(|(_, known)| known.used).map(|(place, _)| place.clone());
            oldest.and_then(|oldest| all.remove(&oldest));
        }
        let until = now.plus(holds.clamp(HOLDS.0, HOLDS.1));
        let known = Known { upstream: Arc::clone(&upstream), gateway, listed: listed.cloned(), until, used: now };
        all.insert(place, known);
        upstream
    }
}

/// An address of a host outside as an endpoint.
fn plain(name: &ServiceName, port: u16, ip: IpAddr) -> (String, Endpoint) {
    let endpoint = Endpoint {
        service: name.clone(),
        id: ip.to_string(),
        address: Address { ip, port },
        app_port: port,
        version: String::new(),
        zone: String::new(),
        health: Health::Healthy,
        source: Registrar::Api,
        transport: Transport::Plain,
    };
    (endpoint.id.clone(), endpoint)
}

/// A host outside in the form of a service.
fn state(
    name: ServiceName,
    place: &Place,
    policy: TrafficPolicy,
    endpoints: BTreeMap<String, Endpoint>,
) -> ServiceState {
    let port = Port { number: place.port, name: String::new(), protocol: AppProtocol::Detect, target: None };
    let service = Service {
        identities: std::collections::BTreeSet::new(),
        sni: place.host.clone(),
        policy,
        authorization: AuthorizationPolicy::default(),
        ports: vec![port],
        split: Vec::new(),
        http: Vec::new(),
        name,
    };
    ServiceState { service, addresses: Vec::new(), route: None, endpoints }
}

/// What is not managed is passed on as it is: nothing is repeated, and nothing ends because it takes long.
fn policy(listed: Option<&EgressHost>) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    if let Some(host) = listed {
        return host.overlay.over(&policy);
    }
    policy.retry.retries = 0;
    (policy.timeouts.request, policy.timeouts.attempt) = (None, None);
    policy
}

/// What was asked for since the process began, for the control plane.
pub fn report(shared: &Shared) -> Vec<hms_wire::proto::hms::v1::OutsideHost> {
    shared.outside.seen().report()
}
