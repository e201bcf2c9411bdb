//! One request, from its head to its answer. The order of the steps is the order of the lines.
//!
//! Five entrances share the same tail: from another proxy ([`inbound`]), from our own application ([`outbound`]), from outside
//! ([`gateway`]), from another proxy to the outside ([`exit`]), from a listener that a file describes ([`hosts`]). Every way out that is not an upstream's reply is a [`Refusal`].

pub mod affinity;
mod details;
mod exit;
mod hosts;
mod http_route;
mod mirror;
pub mod shed;
pub mod split;

use std::cell::{OnceCell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::http_route::Scheme;
use hms_model::listener::{Direction, Role};
use hms_model::message::{CanonicalPath, RequestHead};
use hms_model::names::ServiceName;
use hms_model::port::DEFAULT_PORT;
use hms_model::spiffe::SpiffeId;
use hms_traffic::authorize::{self, Verdict};
use hms_traffic::routing::Selection;
use hms_traffic::{deadline, grpc, rate_limit};
use http::header::{AUTHORIZATION, MAX_FORWARDS};
use http::{HeaderValue, Method, StatusCode};

pub(crate) use self::details::details;
pub use self::mirror::Mirrors;
use self::split::Pick;
use crate::attempt::{self, Call, Terms};
use crate::body::{Body, Patience};
use crate::egress;
use crate::filters::jwt::Claims;
use crate::filters::{forwarded, json_body};
use crate::local_app;
use crate::refusal::{ERROR_HEADER, RateLimitFields, Reason, Refusal};
use crate::runtime::local::{Local, LocalRule};
use crate::runtime::upstream::Upstream;
use crate::runtime::{GatewayTable, Runtime};
use crate::standalone::StaticDoor;
use crate::telemetry::metrics::Party;
use crate::telemetry::record::Exchange;
use crate::timer::Timer;
use crate::transport::{BadHead, Edits, Handler, Protocol, Reply, Request, Response, grpc_status};
use crate::worker::Worker;

/// Where a connection came in.
#[derive(Debug)]
pub enum Entrance {
    /// From another proxy, whose identity is proven.
    Inbound {
        /// Who it is.
        peer: SpiffeId,
        /// The port of our service that it means; 0 is the application's only one.
        port: u16,
    },
    /// From the application beside us.
    Outbound {
        /// The one service this connection leads to, if it is not the authority that decides.
        pinned: Option<ServiceName>,
        /// The port of it that was dialled; 0 is the first.
        port: u16,
        /// The address outside of the mesh that was dialled, if it was one.
        dialled: Option<SocketAddr>,
    },
    /// From outside.
    Gateway,
    /// From another proxy to a host outside of the mesh.
    Egress {
        /// The port of that host.
        port: u16,
    },
    /// From anybody, by a listener that a file describes.
    Static(Arc<StaticDoor>),
}

/// One downstream connection.
#[derive(Debug)]
pub struct Downstream {
    /// Where it came in.
    pub entrance: Entrance,
    /// Its other end.
    pub peer: SocketAddr,
    /// Labels of its other end.
    pub party: Arc<Party>,
    /// The protocol spoken on it.
    pub protocol: Protocol,
    /// What its last requests had in common.
    pub memo: Memo,
}

/// What hardly changes from one request of a connection to the next, so that it is worked out once.
#[derive(Debug, Default)]
pub struct Memo {
    /// `x-forwarded-client-cert` of an inbound connection.
    client_cert: OnceCell<HeaderValue>,
    /// The host last asked for, and the service it names.
    service: RefCell<Option<Named>>,
}

/// A service, and the host that names it.
#[derive(Debug)]
struct Named {
    host: Box<str>,
    name: ServiceName,
}

impl Downstream {
    /// A connection.
    pub fn new(entrance: Entrance, peer: SocketAddr, party: Arc<Party>, protocol: Protocol) -> Self {
        Self { entrance, peer, party, protocol, memo: Memo::default() }
    }
}

/// Answers the requests of one connection.
#[derive(Debug, Clone)]
pub struct Serve {
    /// The thread it runs on.
    pub worker: Rc<Worker>,
    /// The connection.
    pub downstream: Rc<Downstream>,
}

impl Handler for Serve {
    async fn handle(&self, request: Result<Request, BadHead>, reply: impl Reply) {
        serve(&self.worker, &self.downstream, request, reply).await;
    }
}

/// A request as it is decided on.
struct Asked<'a> {
    downstream: &'a Downstream,
    head: &'a RequestHead,
    body: Body,
}

/// One request, one response, one record.
async fn serve(worker: &Rc<Worker>, downstream: &Downstream, request: Result<Request, BadHead>, reply: impl Reply) {
    let runtime = worker.shared.current.load();
    let direction = match downstream.entrance {
        Entrance::Inbound { .. } | Entrance::Egress { .. } => Direction::Inbound,
        Entrance::Outbound { .. } | Entrance::Gateway | Entrance::Static(_) => Direction::Outbound,
    };
    let (head, body) = match request {
        Ok(Request { head, body }) => (Ok(head), body),
        Err(bad) => (Err(bad), Body::empty()),
    };
    let sample = runtime.telemetry.sample_per_million;
    let (party, peer) = (&downstream.party, downstream.peer);
    let mut exchange = Exchange::begin(worker, direction, party, peer, head.as_ref().ok(), sample);
    let asked = head.as_ref().map(|head| Asked { downstream, head, body });
    let answer = match (asked, &downstream.entrance) {
        (Err(bad), _) => Err(bad_head(*bad)),
        (Ok(_), _) if worker.shared.overload.is_shedding() => Err(shed()),
        (Ok(asked), Entrance::Inbound { peer, port }) => {
            inbound(worker, &runtime, asked, (peer, *port), &mut exchange).await
        }
        (Ok(asked), Entrance::Outbound { pinned, port, dialled }) => {
            let place = (pinned.as_ref(), *port, *dialled);
            let answer = outbound(worker, &runtime, asked, place, &mut exchange).await;
            shed::note(worker, &answer);
            answer
        }
        (Ok(asked), Entrance::Egress { port }) => {
            Box::pin(exit::serve(worker, &runtime, asked, *port, &mut exchange)).await
        }
        (Ok(asked), Entrance::Static(door)) => {
            Box::pin(hosts::serve(worker, &runtime, asked, door, &mut exchange)).await
        }
        // The largest of the three; boxed, so that the other two do not pay for its size.
        (Ok(asked), Entrance::Gateway) => Box::pin(gateway(worker, &runtime, asked, &mut exchange)).await,
    };
    let response = finish(answer, &mut exchange);
    let delivered = reply.send(response).await;
    exchange.delivered(&delivered);
}

/// From another proxy to the application beside us.
async fn inbound(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    (peer, port): (&SpiffeId, u16),
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    exchange.mutual_tls = true;
    if is_probe(head) {
        return local_app::probe(worker).await;
    }
    if worker.shared.settings.role == Role::Egress {
        return Err(Refusal::new(Reason::NoPort, "an egress gateway serves nothing of its own"));
    }
    let Some(local) = &runtime.local else {
        return Err(Refusal::new(Reason::NoConfiguration, "this proxy has no configuration yet"));
    };
    exchange.service = Some(Arc::clone(&local.host));
    exchange.destination = Some(worker.own_party());
    let rule = match local.table.select(&head.method, &head.path) {
        Selection::Found(target) => local.rules.get(target.rule),
        Selection::NoMethod { .. } | Selection::NoPath { .. } => None,
    };
    exchange.rule = rule.map(|rule| Arc::clone(&rule.name));
    // Before the limits: a stranger must not drain a bucket.
    allowed(runtime, local, peer, head)?;
    if let Some(rule) = rule {
        within_rate(rule, local, worker, (peer, head))?;
    }
    let mut edits = Edits::default();
    exchange.pass_trace(&mut edits);
    forwarded::at_the_destination(head, client_cert(worker, downstream, peer), &mut edits);
    exchange.attempts = 1;
    let told = told(head);
    exchange.until(told.all.map(|all| exchange.begun().plus(all)));
    let time = (told, exchange.trace_key());
    let mut response = local_app::forward(worker, (local, port), head, body, &edits, time).await?;
    // Only a proxy may speak in the mesh's name.
    response.head.fields.remove(&ERROR_HEADER);
    shed::mark(worker, &mut response, exchange.begun());
    Ok(response)
}

/// How long another proxy says that it will wait for the answer, and how long a gRPC call may take in its own words.
fn told(head: &RequestHead) -> Patience {
    let grpc = head.fields.first(&attempt::GRPC_TIMEOUT).filter(|_| head.is_grpc());
    Patience {
        answer: head.fields.first(&forwarded::EXPECTED).and_then(deadline::read),
        all: grpc.and_then(|value| grpc::read_timeout(value).ok()),
    }
}

/// From the application beside us to a service.
async fn outbound(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    (pinned, port, dialled): (Option<&ServiceName>, u16, Option<SocketAddr>),
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    let asked_host = head.authority.host();
    let asked_service = match pinned {
        Some(name) => details(worker, runtime, name).await?,
        None if leads_out(worker, runtime, downstream, (asked_host, dialled)) => {
            let edits = Edits::default();
            let protocol = downstream.protocol;
            let call = Call { head, body, edits, protocol, port, terms: Terms::default(), pick: Pick::default() };
            let place = match dialled {
                Some(dialled) => (Some(dialled.ip()), dialled.port()),
                None => (None, head.authority.port().unwrap_or(DEFAULT_PORT)),
            };
            // Its future is not part of every request's.
            return Box::pin(egress::forward(worker, runtime, call, place, exchange)).await;
        }
        None => named(worker, runtime, downstream, asked_host).await?,
    };
    let port = match pinned {
        // Whoever dialled an address meant this port and no other.
        Some(name) if port != 0 && asked_service.service.port(port).is_none() => {
            return Err(Refusal::new(Reason::NoPort, format!("{name} has no port {port}")));
        }
        Some(_) => port,
        None => head.authority.port().unwrap_or(DEFAULT_PORT),
    };
    let mut edits = Edits::default();
    exchange.pass_trace(&mut edits);
    if let Some(table) = &asked_service.led {
        let Some(selected) = table.select(head, port) else {
            exchange.service = Some(Arc::clone(&asked_service.host));
            return Err(http_route::unmatched(table, head, &asked_service.service.name));
        };
        let way = http_route::Way { selected, parent: Some(&asked_service), port, scheme: Scheme::Http };
        let asked = Asked { downstream, head, body };
        // Its future is not part of every request's.
        return Box::pin(http_route::serve(worker, runtime, asked, way, edits, exchange)).await;
    }
    let (upstream, pick) = split::follow(worker, runtime, &asked_service).await?;
    let port = named_port(&upstream, port);
    let call = Call { head, body, edits, protocol: downstream.protocol, port, terms: Terms::default(), pick };
    attempt::run(worker, &upstream, call, exchange).await
}

/// From outside to a service.
async fn gateway(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    let Some(table) = &runtime.gateway else {
        return Err(Refusal::new(Reason::NoConfiguration, "the gateway has no configuration yet"));
    };
    known_host(table, head.authority.host())?;
    let led = table.led.as_ref().and_then(|led| led.select(head, 0));
    if let Some(answer) = led.and_then(|selected| http_route::preflight(selected, head)) {
        return Ok(answer);
    }
    let mut edits = Edits::default();
    admit(worker, table, downstream.peer, head, &mut edits)?;
    if let Some(selected) = led {
        exchange.pass_trace(&mut edits);
        let way = http_route::Way { selected, parent: None, port: DEFAULT_PORT, scheme: Scheme::Https };
        let asked = Asked { downstream, head, body };
        return http_route::serve(worker, runtime, asked, way, edits, exchange).await;
    }
    let name = destination(table, runtime, head, &mut edits)?;
    let asked_service = details(worker, runtime, &name).await?;
    let (upstream, pick) = split::follow(worker, runtime, &asked_service).await?;
    exchange.pass_trace(&mut edits);
    let port = named_port(&upstream, DEFAULT_PORT);
    let call = Call { head, body, edits, protocol: downstream.protocol, port, terms: Terms::default(), pick };
    let response = attempt::run(worker, &upstream, call, exchange).await?;
    if !runtime.telemetry.in_json_body {
        return Ok(response);
    }
    // Rare, so its future is not part of every request's.
    let trace_id = exchange.trace_id();
    Ok(Box::pin(json_body::add_trace_id(&head.method, response, trace_id.as_str())).await)
}

/// What a gateway decides before it looks where a request goes: the token; then who the caller is, for everybody after us.
fn admit(
    worker: &Worker,
    table: &GatewayTable,
    peer: SocketAddr,
    head: &RequestHead,
    edits: &mut Edits,
) -> Result<(), Refusal> {
    // Before the routes: a stranger must not learn what exists.
    let now = worker.shared.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    // Whoever shows a token is held to it even where none is asked for.
    let is_missing = table.is_open && head.fields.first(&AUTHORIZATION).is_none();
    let claims = if is_missing { Claims::default() } else { table.verifier.verify(&head.fields, now)? };
    forwarded::at_the_gateway(head, peer, &claims, edits);
    Ok(())
}

/// The answer with what every answer carries.
fn finish(answer: Result<Response, Refusal>, exchange: &mut Exchange<'_>) -> Response {
    let mut response = answer.unwrap_or_else(|refusal| {
        exchange.reason = Some(refusal.reason);
        refusal.into_response(exchange.trace_id().as_str(), exchange.is_grpc())
    });
    if exchange.reason.is_none() {
        exchange.reason = response.head.fields.first(&ERROR_HEADER).and_then(Reason::from_code);
    }
    exchange.answered(&mut response.head);
    if exchange.is_grpc() && response.head.status == StatusCode::OK && grpc_status(&response.head.fields).is_none() {
        response.body = response.body.grpc(exchange.time_left().map(Timer::after));
    }
    response
}

/// Before anything is spent on the request.
fn shed() -> Refusal {
    Refusal::new(Reason::Shedding, "this proxy has no memory left for requests").after(Duration::from_secs(1))
}

fn bad_head(bad: BadHead) -> Refusal {
    let status = if let BadHead::Http1(reject) = bad { reject.status() } else { StatusCode::BAD_REQUEST };
    match (bad, status) {
        (BadHead::Connect, _) | (_, StatusCode::METHOD_NOT_ALLOWED) => {
            Refusal::new(Reason::ConnectMethod, "CONNECT is not offered")
        }
        (BadHead::Late, _) => Refusal::new(Reason::HeadTooLate, bad.to_string()),
        (_, StatusCode::URI_TOO_LONG) => Refusal::new(Reason::TargetTooLong, bad.to_string()),
        (BadHead::TooLarge, _) | (_, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE) => {
            Refusal::new(Reason::HeadTooLarge, bad.to_string())
        }
        (_, StatusCode::NOT_IMPLEMENTED) => Refusal::new(Reason::NotImplemented, bad.to_string()),
        (_, StatusCode::EXPECTATION_FAILED) => Refusal::new(Reason::Expectation, bad.to_string()),
        (_, StatusCode::HTTP_VERSION_NOT_SUPPORTED) => Refusal::new(Reason::Version, bad.to_string()),
        _ => Refusal::new(Reason::Malformed, bad.to_string()),
    }
}

/// `OPTIONS *` that may not be forwarded asks the recipient itself (RFC 9110 §7.6.2): our proxies probe each other so.
fn is_probe(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS && head.path.as_str() == "*" && head.fields.first(&MAX_FORWARDS) == Some(b"0")
}

/// Envoy's `x-forwarded-client-cert`, the same for every request of a connection.
fn client_cert<'a>(worker: &Worker, downstream: &'a Downstream, peer: &SpiffeId) -> Option<&'a HeaderValue> {
    if downstream.memo.client_cert.get().is_none() {
        let own = worker.shared.holder.current()?;
        let value = HeaderValue::try_from(format!("By={};URI={peer}", own.svid.identity())).ok()?;
        return Some(downstream.memo.client_cert.get_or_init(|| value));
    }
    downstream.memo.client_cert.get()
}

fn allowed(runtime: &Runtime, local: &Local, peer: &SpiffeId, head: &RequestHead) -> Result<(), Refusal> {
    let identities = |name: &ServiceName| runtime.snapshot.services.get(name).map(|s| &s.service.identities);
    match authorize::authorize(&local.service, Some(peer), identities, &head.method, &head.path) {
        Verdict::Allow { .. } => Ok(()),
        Verdict::Deny { .. } => {
            let detail =
                format!("the sidecar of {}, not the application, refused: no allow rule matches", local.service.name);
            Err(Refusal::new(Reason::Denied, detail))
        }
    }
}

/// Takes a token from the rule's bucket (ruling R15).
fn within_rate(
    rule: &LocalRule,
    local: &Local,
    worker: &Worker,
    (peer, head): (&SpiffeId, &RequestHead),
) -> Result<(), Refusal> {
    let Some((limit, bucket)) = &rule.limit else { return Ok(()) };
    match bucket.take(limit, peer, head, worker.now()) {
        rate_limit::Verdict::Granted { .. } => Ok(()),
        rate_limit::Verdict::Refused { retry_after } => {
            let seconds = retry_after.as_millis().div_ceil(1000).max(1);
            let detail = format!("{} {}: {limit} used up; next token in {seconds} s", local.service.name, rule.name);
            let window = limit.period().as_secs().max(1);
            let policy = format!("\"{}\";q={};w={window}", local.service.name, limit.count());
            let state = format!("\"{}\";r=0;t={seconds}", local.service.name);
            Err(Refusal::new(Reason::RateLimited, detail)
                .after(retry_after)
                .rate_limit(RateLimitFields { policy, state }))
        }
    }
}

/// The service an authority names (ruling R7).
async fn named(
    worker: &Worker,
    runtime: &Runtime,
    downstream: &Downstream,
    host: &str,
) -> Result<Arc<Upstream>, Refusal> {
    if let Some(upstream) = named_last(runtime, downstream, host) {
        return Ok(upstream);
    }
    let name = ServiceName::from_host(host, worker.shared.settings.service.namespace())
        .map_err(|_foreign| Refusal::new(Reason::NoService, format!("`{host}` is no service of the mesh")))?;
    *downstream.memo.service.borrow_mut() = Some(Named { host: host.into(), name: name.clone() });
    details(worker, runtime, &name).await
}

/// Whether a name is a host outside of the mesh.
fn leads_out(
    worker: &Worker,
    runtime: &Runtime,
    downstream: &Downstream,
    (host, dialled): (&str, Option<SocketAddr>),
) -> bool {
    named_last(runtime, downstream, host).is_none()
        && egress::is_outside(runtime, host, worker.shared.settings.service.namespace(), dialled.is_some())
}

/// The service that the connection's last request named, if this one names the same.
fn named_last(runtime: &Runtime, downstream: &Downstream, host: &str) -> Option<Arc<Upstream>> {
    let last = downstream.memo.service.borrow();
    let named = last.as_ref().filter(|named| *named.host == *host)?;
    runtime.upstreams.get(&named.name).map(Arc::clone)
}

fn known_host(table: &GatewayTable, host: &str) -> Result<(), Refusal> {
    let loopback = ["localhost", "gateway.localhost", "127.0.0.1", "[::1]"];
    if table.hosts.contains(host) || loopback.contains(&host) {
        return Ok(());
    }
    let hosts: Vec<&str> = table.hosts.iter().map(String::as_str).collect();
    Err(Refusal::new(Reason::UnknownHost, format!("this gateway answers for {}", hosts.join(", "))))
}

/// The service whose route a request matches; `/api/NAME/rest` reaches `NAME-svc` as `/rest` (ruling R12).
fn destination(
    table: &GatewayTable,
    runtime: &Runtime,
    head: &RequestHead,
    edits: &mut Edits,
) -> Result<ServiceName, Refusal> {
    match table.routes.select(&head.method, &head.path) {
        Selection::Found(target) => Ok(target.service.clone()),
        Selection::NoMethod { allowed } => {
            let words: Vec<&str> = allowed.iter().map(Method::as_str).collect();
            let detail = format!("{} takes {}, not {}", head.path, words.join(", "), head.method);
            Err(Refusal::new(Reason::MethodNotAllowed, detail).allow(allowed))
        }
        Selection::NoPath { known } => {
            if let Some((name, rest)) = by_prefix(head.path.as_str(), runtime) {
                edits.rewrite(rest);
                return Ok(name);
            }
            let routes = if known.is_empty() { "nothing yet".to_owned() } else { known.join(", ") };
            Err(Refusal::new(Reason::NoRoute, format!("no route has {}; there is {routes}", head.path)))
        }
    }
}

fn by_prefix(path: &str, runtime: &Runtime) -> Option<(ServiceName, CanonicalPath)> {
    let rest = path.strip_prefix("/api/")?;
    let (name, rest) = rest.split_once('/').unwrap_or((rest, ""));
    let service = ServiceName::new(&format!("{name}-svc")).ok()?;
    let rest = CanonicalPath::parse(&format!("/{rest}")).ok()?;
    runtime.directory.get(&service).is_some().then_some((service, rest))
}

/// The port that the called proxy must know: it matters only where the application serves each on a port of its own. One that is
/// not declared is the first, as callers through `HTTP_PROXY` name whatever port they like.
fn named_port(upstream: &Upstream, number: u16) -> u16 {
    let service = &upstream.service;
    let port = service.port(number).or_else(|| service.port(0));
    port.filter(|port| port.target.is_some()).map_or(0, |port| port.number)
}

/// An answer without content.
pub(crate) fn empty(status: StatusCode) -> Response {
    let head = hms_model::message::ResponseHead { status, fields: hms_model::message::Fields::new() };
    Response { head, body: Body::empty() }
}
