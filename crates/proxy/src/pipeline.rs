//! One request, from its head to its answer. The order of the steps is the order of the lines.
//!
//! Three entrances share the same tail: from another proxy ([`inbound`]), from our own application ([`outbound`]), from outside
//! ([`gateway`]). Every way out that is not an upstream's reply is a [`Refusal`].

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_model::message::{CanonicalPath, RequestHead};
use hms_model::names::ServiceName;
use hms_model::spiffe::SpiffeId;
use hms_traffic::authorize::{self, Verdict};
use hms_traffic::rate_limit;
use hms_traffic::routing::Selection;
use http::header::MAX_FORWARDS;
use http::{Method, StatusCode};

use crate::attempt;
use crate::body::{Body, Watcher as _};
use crate::filters::{forwarded, json_body};
use crate::local_app;
use crate::refusal::{ERROR_HEADER, RateLimitFields, Reason, Refusal};
use crate::runtime::local::Local;
use crate::runtime::upstream::Upstream;
use crate::runtime::{GatewayTable, Runtime};
use crate::telemetry::metrics::Party;
use crate::telemetry::record::Exchange;
use crate::transport::{BadHead, Edits, Handler, Protocol, Request, Response};
use crate::worker::Worker;

/// How long a first request waits for the details of a service it names.
const DETAILS_DEADLINE: Duration = Duration::from_secs(1);

/// Where a connection came in.
#[derive(Debug)]
pub enum Entrance {
    /// From another proxy, whose identity is proven.
    Inbound {
        /// Who it is.
        peer: SpiffeId,
    },
    /// From the application beside us.
    Outbound {
        /// The one service this listener leads to, if it is not the authority that decides.
        pinned: Option<ServiceName>,
    },
    /// From outside.
    Gateway,
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
    async fn handle(&self, request: Result<Request, BadHead>) -> Response {
        // One allocation per request, so that an idle connection holds nothing of its size.
        Box::pin(serve(&self.worker, &self.downstream, request)).await
    }
}

/// One request, one response, one record.
async fn serve(worker: &Rc<Worker>, downstream: &Downstream, request: Result<Request, BadHead>) -> Response {
    let runtime = worker.shared.current.load();
    let direction = match downstream.entrance {
        Entrance::Inbound { .. } => Direction::Inbound,
        Entrance::Outbound { .. } | Entrance::Gateway => Direction::Outbound,
    };
    let head = request.as_ref().ok().map(|request| &request.head);
    let sample = runtime.telemetry.sample_per_million;
    let mut exchange = Exchange::begin(worker, direction, Arc::clone(&downstream.party), head, sample);
    exchange.peer = downstream.peer.to_string();
    let answer = match request {
        Err(bad) => Err(bad_head(bad)),
        Ok(_) if worker.shared.overload.is_shedding() => Err(shed()),
        Ok(request) => match &downstream.entrance {
            Entrance::Inbound { peer } => inbound(worker, &runtime, peer, request, &mut exchange).await,
            Entrance::Outbound { pinned } => {
                outbound(worker, downstream, pinned.as_ref(), request, &mut exchange).await
            }
            // The largest of the three; boxed, so that the other two do not pay for its size.
            Entrance::Gateway => Box::pin(gateway(worker, &runtime, downstream, request, &mut exchange)).await,
        },
    };
    finish(answer, exchange)
}

/// From another proxy to the application beside us.
async fn inbound(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    peer: &SpiffeId,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, Refusal> {
    exchange.mutual_tls = true;
    if is_probe(&request.head) {
        return local_app::probe(worker).await;
    }
    let Some(local) = &runtime.local else {
        return Err(Refusal::new(Reason::NoConfiguration, "this proxy has no configuration yet"));
    };
    describe_local(worker, local, exchange);
    let rule = match local.table.select(&request.head.method, &request.head.path) {
        Selection::Found(target) => local.rules.get(target.rule),
        Selection::NoMethod { .. } | Selection::NoPath { .. } => None,
    };
    exchange.rule = rule.map(|rule| Arc::clone(&rule.name));
    // Before the limits: a stranger must not drain a bucket.
    allowed(runtime, local, peer, &request.head)?;
    if let Some(rule) = rule {
        within_rate(rule, local, worker)?;
    }
    let mut edits = Edits::default();
    set_trace(exchange, &mut edits);
    if let Some(own) = worker.shared.holder.current() {
        forwarded::at_the_destination(&request.head, peer, own.svid.identity(), &mut edits);
    }
    exchange.attempts = 1;
    let mut response = local_app::forward(worker, &local.service.policy, request, &edits).await?;
    // Only a proxy may speak in the mesh's name.
    response.head.fields.remove(&ERROR_HEADER);
    Ok(response)
}

/// From the application beside us to a service.
async fn outbound(
    worker: &Rc<Worker>,
    downstream: &Downstream,
    pinned: Option<&ServiceName>,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, Refusal> {
    let name = match pinned {
        Some(name) => name.clone(),
        None => named_service(worker, request.head.authority.host())?,
    };
    let upstream = details(worker, &name).await?;
    let mut edits = Edits::default();
    set_trace(exchange, &mut edits);
    attempt::run(worker, &upstream, request, edits, downstream.protocol, exchange).await
}

/// From outside to a service.
async fn gateway(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    downstream: &Downstream,
    request: Request,
    exchange: &mut Exchange,
) -> Result<Response, Refusal> {
    let Some(table) = &runtime.gateway else {
        return Err(Refusal::new(Reason::NoConfiguration, "the gateway has no configuration yet"));
    };
    let Request { mut head, body } = request;
    let mut edits = Edits::default();
    let name = admit(worker, runtime, table, downstream.peer, &mut head, &mut edits)?;
    let upstream = details(worker, &name).await?;
    set_trace(exchange, &mut edits);
    let method = head.method.clone();
    let request = Request { head, body };
    let response = attempt::run(worker, &upstream, request, edits, downstream.protocol, exchange).await?;
    if !runtime.telemetry.in_json_body {
        return Ok(response);
    }
    // Rare, so its future is not part of every request's.
    Ok(Box::pin(json_body::add_trace_id(&method, response, &exchange.trace.trace_id())).await)
}

/// What a gateway decides before anything is sent: the host, the token, the route; then who the caller is, for everybody after us.
fn admit(
    worker: &Worker,
    runtime: &Runtime,
    table: &GatewayTable,
    peer: SocketAddr,
    head: &mut RequestHead,
    edits: &mut Edits,
) -> Result<ServiceName, Refusal> {
    known_host(table, head.authority.host())?;
    // Before the routes: a stranger must not learn what exists.
    let now = worker.shared.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let claims = table.verifier.verify(&head.fields, now)?;
    let name = destination(table, runtime, head, edits)?;
    forwarded::at_the_gateway(head, peer, &claims, edits);
    Ok(name)
}

/// Adds what every answer carries, and hands the record to the body, whose end is the request's.
fn finish(answer: Result<Response, Refusal>, mut exchange: Exchange) -> Response {
    let trace_id = exchange.trace.trace_id();
    let mut response = match answer {
        Ok(response) => response,
        Err(refusal) => {
            exchange.reason = Some(refusal.reason);
            refusal.into_response(&trace_id, exchange.is_grpc())
        }
    };
    for (name, value) in exchange.trace.headers() {
        if let Some(value) = value {
            response.head.fields.set(name, value);
        }
    }
    if let Some(code) = response.head.fields.first(&ERROR_HEADER)
        && exchange.reason.is_none()
    {
        exchange.reason = Reason::from_code(code);
    }
    exchange.answered(response.head.status.as_u16(), &response.head.fields);
    if response.body.is_end() {
        // Nobody asks a body without bytes for its end.
        exchange.ended(Ok(()));
        return response;
    }
    Response { head: response.head, body: response.body.watched(Box::new(exchange)) }
}

/// Before anything is spent on the request.
fn shed() -> Refusal {
    Refusal::new(Reason::Shedding, "this proxy has no memory left for requests").after(Duration::from_secs(1))
}

fn bad_head(bad: BadHead) -> Refusal {
    match bad {
        BadHead::Connect => Refusal::new(Reason::ConnectMethod, "CONNECT is not offered"),
        BadHead::TooLarge => Refusal::new(Reason::HeadTooLarge, "at most 100 fields and a target of 16 KiB are taken"),
        other => Refusal::new(Reason::Malformed, other.to_string()),
    }
}

/// `OPTIONS *` that may not be forwarded asks the recipient itself (RFC 9110 §7.6.2): our proxies probe each other so.
fn is_probe(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS && head.path.as_str() == "*" && head.fields.first(&MAX_FORWARDS) == Some(b"0")
}

fn describe_local(worker: &Worker, local: &Local, exchange: &mut Exchange) {
    exchange.service = local.service.name.mesh_host().into();
    let principal = worker.shared.holder.current().map(|c| c.svid.identity().to_string()).unwrap_or_default();
    exchange.destination = Arc::new(Party {
        workload: local.service.name.name().to_owned(),
        namespace: local.service.name.namespace().to_owned(),
        principal,
        version: worker.shared.settings.version.clone(),
    });
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
fn within_rate(rule: &crate::runtime::local::LocalRule, local: &Local, worker: &Worker) -> Result<(), Refusal> {
    let Some((limit, bucket)) = &rule.limit else { return Ok(()) };
    match bucket.take(*limit, worker.now()) {
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
fn named_service(worker: &Worker, host: &str) -> Result<ServiceName, Refusal> {
    ServiceName::from_host(host, worker.shared.settings.service.namespace())
        .map_err(|_foreign| Refusal::new(Reason::NoService, format!("`{host}` is no service of the mesh")))
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
    runtime.directory.contains(&service).then_some((service, rest))
}

/// The details of a service, asked for when they are not there yet.
async fn details(worker: &Worker, name: &ServiceName) -> Result<Arc<Upstream>, Refusal> {
    let runtime = worker.shared.current.load();
    if let Some(upstream) = runtime.upstreams.get(name) {
        return Ok(Arc::clone(upstream));
    }
    if !runtime.directory.is_empty() && !runtime.directory.contains(name) {
        let names: Vec<String> = runtime.directory.iter().take(8).map(ToString::to_string).collect();
        let detail = format!("no service is called {name}; there is {}", names.join(", "));
        return Err(Refusal::new(Reason::NoService, detail));
    }
    // Once per service, so its future is not part of every request's.
    Box::pin(first_details(worker, name)).await
}

async fn first_details(worker: &Worker, name: &ServiceName) -> Result<Arc<Upstream>, Refusal> {
    let current = &worker.shared.current;
    let mut changes = current.watch();
    // A full queue means that somebody else's wish is about to be sent; ours is repeated with the next request.
    let _asked = worker.shared.wanted.try_send(name.clone()).is_ok();
    let arrived = async {
        loop {
            if let Some(upstream) = current.load().upstreams.get(name) {
                return Some(Arc::clone(upstream));
            }
            changes.changed().await.ok()?;
        }
    };
    match tokio::time::timeout(DETAILS_DEADLINE, arrived).await {
        Ok(Some(upstream)) => Ok(upstream),
        _ => {
            Err(Refusal::new(Reason::NoConfiguration, format!("nothing is known of {name} yet"))
                .after(DETAILS_DEADLINE))
        }
    }
}

fn set_trace(exchange: &Exchange, edits: &mut Edits) {
    for (name, value) in exchange.trace.headers() {
        if let Some(value) = value {
            edits.set(name, value);
        }
    }
}

/// An answer without content.
pub(crate) fn empty(status: StatusCode) -> Response {
    let head = hms_model::message::ResponseHead { status, fields: hms_model::message::Fields::new() };
    Response { head, body: Body::empty() }
}
