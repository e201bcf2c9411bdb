//! One try at one endpoint: a pooled or new connection, the request on it, the answer's head.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_model::message::RequestHead;
use hms_model::policy::KeepAlive;
use hms_model::workload::{Health, Transport};
use hms_traffic::clock::Moment;
use hms_traffic::line::PATIENCE;
use hms_traffic::outlier::{FailureKind, Phase};
use hms_traffic::{deadline, grpc};
use hms_wire::LEVEL;
use hms_wire::hello::{Outside, PeerHello};
use http::HeaderName;

use crate::attempt::GRPC_TIMEOUT;
use crate::body::{Body, Frame, Replayable, Waits};
use crate::filters::forwarded::EXPECTED;
use crate::refusal::{Reason, Refusal};
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::transport::connect::{self, ConnectError, Connection, Opaque, Secured};
use crate::transport::dialling;
use crate::transport::pool::{Home, Key};
use crate::transport::tls_stream::Stream;
use crate::transport::waiting::{Got, InVain, OwnPlace, Place, Wanted};
use crate::transport::{Edits, Protocol, Response, SendError};
use crate::worker::Worker;

/// How long a connection to another proxy may be idle; shorter than the other side's patience ([`http1::MESH`]).
const MESH_IDLE: Duration = Duration::from_mins(1);
/// How long a connection to a server that is no proxy may be idle: shorter than uvicorn's and Node's 5 s.
pub const PLAIN_IDLE: Duration = Duration::from_secs(4);

/// How long an egress gateway may take to reach a host for which nobody set a time.
const BEYOND: Duration = Duration::from_secs(30);

/// What came of sending.
#[derive(Debug)]
pub enum Sent {
    /// An answer's head; its body is still to come.
    Answered(Response),
    /// No connection; nothing was sent.
    NotConnected(ConnectError),
    /// The connection broke before an answer.
    Broken(SendError),
    /// Not sent, for a reason of our own.
    Refused(Refusal),
    /// No answer in time.
    TimedOut,
}

/// A request as it is sent, as often as it takes.
#[derive(Clone, Copy)]
pub struct Outgoing<'a> {
    /// Its head as it came.
    pub head: &'a RequestHead,
    /// What this hop changes.
    pub edits: &'a Edits,
    /// Its body.
    pub body: &'a Replayable,
    /// What it came by.
    pub downstream: Protocol,
    /// The port of the service that is asked for; 0 is the first.
    pub port: u16,
}

/// Sends a request to `endpoint`. A pooled connection that turns out to be dead is replaced once, as long as nothing was sent.
pub async fn send(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &UpstreamEndpoint,
    outgoing: Outgoing<'_>,
) -> Sent {
    let Outgoing { head, edits, body, downstream, port } = outgoing;
    let protocol = match &endpoint.endpoint.transport {
        // Like to like between proxies; the far proxy knows what its application speaks.
        Transport::Mesh(_) => downstream,
        Transport::Plain if head.is_grpc() || upstream.is_http2 => Protocol::Http2,
        Transport::Plain => Protocol::Http1,
    };
    let target = match Target::of(worker, upstream, endpoint, port) {
        Ok(target) => target,
        Err(message) => return Sent::Refused(unready(message)),
    };
    body.waits().set(Waits::Never);
    if let Some(connection) = target.pooled(worker, upstream, protocol) {
        match connection.send(head, edits, body.attempt(), target.home(worker)).await {
            Err(error) if error.processed == crate::transport::Processed::No && body.can_replay() => {}
            other => return other.map_or_else(Sent::Broken, Sent::Answered),
        }
    }
    // Once per connection, so its future is not part of every request's.
    Box::pin(send_on_new(worker, upstream, endpoint, outgoing, &target, protocol)).await
}

async fn send_on_new(
    worker: &Rc<Worker>,
    upstream: &Upstream,
    endpoint: &UpstreamEndpoint,
    outgoing: Outgoing<'_>,
    target: &Target<'_>,
    protocol: Protocol,
) -> Sent {
    let secured = match target.secure(worker, upstream, protocol) {
        Ok(secured) => secured,
        Err(message) => return Sent::Refused(unready(message)),
    };
    let Outgoing { head, edits, body, .. } = outgoing;
    let dialled = Dialled { upstream, address: endpoint.address, target, protocol, secured: secured.as_ref() };
    let mut look = true;
    let (begun, late) = (worker.now(), OnceCell::new());
    loop {
        let (connection, kept) = match dialled.connection(worker, look, body.waits()).await {
            Ok(connection) => connection,
            Err(sent) => return sent,
        };
        let edits = match body.waits().get() {
            Waits::Before => late.get_or_init(|| shortened(head, edits, worker.now().saturating_since(begun))),
            Waits::Never | Waits::Now => edits,
        };
        match connection.send(head, edits, body.attempt(), target.home(worker)).await {
            // That one had been closed as well, which says nothing about the endpoint; a new one will.
            Err(error) if kept && error.processed == crate::transport::Processed::No && body.can_replay() => {
                look = false;
            }
            sent => return sent.map_or_else(Sent::Broken, Sent::Answered),
        }
    }
}

/// What the next hop is told of the time that is left, less what went by in waiting.
fn shortened(head: &RequestHead, edits: &Edits, waited: Duration) -> Edits {
    let mut shorter = edits.clone();
    // What was not set here is an application's own word.
    let own = |name: &HeaderName| {
        let line = edits.hides(name.as_str().as_bytes()).then(|| edits.values(head, name));
        line.and_then(|lines| lines.first().map(|line| line.to_vec()))
    };
    if let Some(left) = own(&EXPECTED).and_then(|line| deadline::read(&line)) {
        shorter.set_line(&EXPECTED, deadline::write(left.saturating_sub(waited)).as_bytes());
    }
    if let Some(left) = own(&GRPC_TIMEOUT).and_then(|line| grpc::read_timeout(&line).ok()) {
        shorter.set_line(&GRPC_TIMEOUT, grpc::write_timeout(left.saturating_sub(waited)).as_bytes());
    }
    shorter
}

/// Where a connection for requests leads.
struct Dialled<'a> {
    upstream: &'a Upstream,
    address: std::net::SocketAddr,
    target: &'a Target<'a>,
    protocol: Protocol,
    secured: Option<&'a Secured>,
}

impl Dialled<'_> {
    /// A new connection, or one that somebody has finished with meanwhile, and whether it is such a one. When all there may be are
    /// in use this waits for one.
    async fn connection(
        &self,
        worker: &Rc<Worker>,
        look: bool,
        waits: &Cell<Waits>,
    ) -> Result<(Connection, bool), Sent> {
        {
            // Not within the time to connect: when many wait, those who get their turn must have all of it, or none would ever finish.
            let _turn = dialling::turn(self.address).await;
            let pooled = if look { self.target.pooled(worker, self.upstream, self.protocol) } else { None };
            if let Some(connection) = pooled {
                return Ok((connection, true));
            }
            let most = self.upstream.service.policy.limits.connections;
            if let Some(own) = self.upstream.cells.connections.place(most) {
                return self.open(worker, own).await.map(|connection| (connection, false));
            }
        }
        let since = worker.now();
        loop {
            let wanted = self.target.wanted(worker, self.protocol);
            match wait(worker, self.upstream, wanted, since, waits).await.map_err(Sent::Refused)? {
                Got::Connection(connection) => return Ok((connection, true)),
                Got::Room => {
                    let pooled = worker.pool.borrow_mut().take(self.target.key, self.protocol);
                    if let Some(connection) = pooled {
                        return Ok((connection, true));
                    }
                }
                Got::Place(own) => {
                    let _turn = dialling::turn(self.address).await;
                    return self.open(worker, own).await.map(|connection| (connection, false));
                }
            }
        }
    }

    /// Opens a connection at a place for one; the error says why there is none.
    async fn open(&self, worker: &Rc<Worker>, own: OwnPlace) -> Result<Connection, Sent> {
        let place = place(worker, own, self.target.wanted(worker, self.protocol)).map_err(Sent::Refused)?;
        let timeout = self.upstream.service.policy.timeouts.connect;
        let connection = connect::open(self.address, self.protocol, self.secured, timeout, Some(place)).await;
        let connection = connection.map_err(Sent::NotConnected)?;
        if let Connection::Http2(shared) = &connection {
            worker.pool.borrow_mut().share(self.target.key, shared);
        }
        Ok(connection)
    }
}

/// Waits for a connection to a service or a place for one, counted from `since`; the refusal names the limit.
async fn wait(
    worker: &Worker,
    upstream: &Upstream,
    wanted: Wanted,
    since: Moment,
    waits: &Cell<Waits>,
) -> Result<Got, Refusal> {
    let limits = upstream.service.policy.limits;
    let now = worker.now();
    let patience = PATIENCE.saturating_sub(now.saturating_since(since));
    worker.metrics.pending(&upstream.host);
    waits.set(Waits::Now);
    let connections = &upstream.cells.connections;
    let bounds = (limits.connections, limits.pending);
    let waited = connections.wait(&worker.pool, wanted, bounds, (now, patience)).await;
    waits.set(Waits::Before);
    waited.map_err(|why| in_vain(worker, upstream, why))
}

/// The refusal of a request that waited for a connection, or may not even wait.
pub fn in_vain(worker: &Worker, upstream: &Upstream, why: InVain) -> Refusal {
    let limits = upstream.service.policy.limits;
    worker.metrics.pending_refused(&upstream.host);
    let (name, connections) = (upstream.called(), limits.connections);
    let detail = match why {
        InVain::Full if limits.pending == 0 => {
            format!("limits.connections of {name} is reached: {connections} are open")
        }
        InVain::Full => {
            format!("limits.pending of {name} is reached: {} wait for one of {connections} connections", limits.pending)
        }
        InVain::Late => format!("limits.connections of {name} is reached: none of {connections} became free in time"),
    };
    Refusal::new(Reason::Overloaded, detail).after(Duration::from_secs(1))
}

/// The place of a connection, among all as well.
fn place(worker: &Worker, own: OwnPlace, wanted: Wanted) -> Result<Place, Refusal> {
    let of_all = worker.shared.overload.upstream_place().ok_or_else(|| {
        let detail = "this proxy has no place left for a connection to anybody";
        Refusal::new(Reason::Overloaded, detail).after(Duration::from_secs(1))
    })?;
    Ok(Place::new(own, wanted, of_all))
}

/// What came of opening a connection for bytes that nobody reads.
#[derive(Debug)]
pub enum Opening {
    /// An application is at the other end. The connection has its place as long as it lives.
    Open(Stream, Place),
    /// No connection.
    NotConnected(ConnectError),
    /// The endpoint's proxy has no application for it, and says why by its code.
    Declined(u16),
    /// Not tried, for a reason of our own.
    Refused(Refusal),
}

/// Opens a connection to `endpoint` for bytes that nobody reads.
pub async fn open_opaque(worker: &Rc<Worker>, upstream: &Upstream, endpoint: &UpstreamEndpoint, port: u16) -> Opening {
    let ready = Target::of(worker, upstream, endpoint, port).and_then(|target| {
        let secured = target.secure(worker, upstream, Protocol::Opaque)?;
        Ok((target.wanted(worker, Protocol::Opaque), secured))
    });
    let (wanted, secured) = match ready {
        Ok(ready) => ready,
        Err(message) => return Opening::Refused(unready(message)),
    };
    let own = match upstream.cells.connections.place(upstream.service.policy.limits.connections) {
        Some(own) => own,
        None => match wait(worker, upstream, wanted, worker.now(), &Cell::new(Waits::Never)).await {
            Ok(Got::Place(own)) => own,
            // Nothing else is of use for these bytes, and nothing else is handed to who wants it.
            Ok(Got::Connection(_) | Got::Room) => return Opening::Refused(in_vain(worker, upstream, InVain::Late)),
            Err(refusal) => return Opening::Refused(refusal),
        },
    };
    let place = match place(worker, own, wanted) {
        Ok(place) => place,
        Err(refusal) => return Opening::Refused(refusal),
    };
    let _turn = dialling::turn(endpoint.address).await;
    let timeouts = &upstream.service.policy.timeouts;
    let patience = match &upstream.beyond {
        // The gateway resolves and dials only now, and tries again where that may help.
        Some(_) => timeouts.request.unwrap_or(BEYOND),
        None => timeouts.connect,
    };
    match connect::open_opaque(endpoint.address, secured.as_ref(), timeouts.connect, patience).await {
        Ok(Opaque::Taken(stream)) => Opening::Open(stream, place),
        Ok(Opaque::Refused(code)) => Opening::Declined(code),
        Err(error) => Opening::NotConnected(error),
    }
}

fn unready(message: String) -> Refusal {
    Refusal::new(Reason::NoConfiguration, message).after(Duration::from_secs(1))
}

/// Where a connection leads, and how it is kept.
struct Target<'a> {
    key: Key,
    keep: Option<Duration>,
    transport: &'a Transport,
}

impl<'a> Target<'a> {
    fn of(worker: &Worker, upstream: &Upstream, endpoint: &'a UpstreamEndpoint, port: u16) -> Result<Self, String> {
        let (generation, idle) = match &endpoint.endpoint.transport {
            Transport::Plain => (upstream.origin.as_ref().map_or(0, |origin| origin.generation(worker)), PLAIN_IDLE),
            Transport::Mesh(_) => {
                let credentials = worker.shared.holder.current().ok_or("this proxy has no certificate yet")?;
                if credentials.svid.not_after() <= worker.shared.now() {
                    // Every endpoint would refuse it, and none of them is to blame.
                    return Err("this proxy's certificate has expired".to_owned());
                }
                (credentials.generation, MESH_IDLE)
            }
        };
        let key = Key { endpoint: endpoint.cells.key, generation, port };
        let keep = (upstream.service.policy.keep_alive == KeepAlive::On).then_some(idle);
        Ok(Self { key, keep, transport: &endpoint.endpoint.transport })
    }

    /// What a connection there is good for.
    fn wanted(&self, worker: &Worker, protocol: Protocol) -> Wanted {
        Wanted { pool: Rc::as_ptr(&worker.pool).addr(), key: self.key, protocol }
    }

    /// A connection that is kept, unless somebody has waited longer for it.
    fn pooled(&self, worker: &Worker, upstream: &Upstream, protocol: Protocol) -> Option<Connection> {
        if upstream.cells.connections.is_ahead_of(&self.wanted(worker, protocol)) {
            return None;
        }
        worker.pool.borrow_mut().take(self.key, protocol)
    }

    /// Where a connection goes when it is free again.
    fn home(&self, worker: &Worker) -> Option<Home> {
        self.keep.map(|keep| Home { pool: Rc::clone(&worker.pool), key: self.key, keep })
    }

    fn secure(&self, worker: &Worker, upstream: &Upstream, protocol: Protocol) -> Result<Option<Secured>, String> {
        let Transport::Mesh(identity) = self.transport else {
            return upstream.origin.as_ref().map(|origin| origin.secured(worker, protocol)).transpose();
        };
        let credentials = worker.shared.holder.current().ok_or("this proxy has no certificate yet")?;
        let config = credentials.client(identity, protocol).map_err(|error| error.to_string())?;
        let settings = &worker.shared.settings;
        let beyond = upstream.beyond.as_ref();
        let hello = PeerHello {
            destination: beyond.map_or(&upstream.service.name, |beyond| &beyond.gateway).clone(),
            destination_port: self.key.port,
            source: settings.service.clone(),
            workload: settings.workload_id.clone(),
            version: settings.version.clone(),
            zone: settings.zone.clone(),
            level: LEVEL,
            outside: beyond.map(|beyond| Outside { host: beyond.host.to_string(), has_tls: beyond.has_tls }),
        };
        let hello: Arc<[u8]> = hello.encode().map_err(|error| error.to_string())?.into();
        Ok(Some(Secured { config, sni: upstream.service.sni.clone(), hello }))
    }
}

/// Asks the proxy of `endpoint` whether its application accepts connections; of a plain endpoint, whether anything does.
pub async fn probe(worker: &Rc<Worker>, upstream: &Upstream, endpoint: &UpstreamEndpoint) -> Result<(), FailureKind> {
    let target = Target::of(worker, upstream, endpoint, 0).map_err(|_unready| FailureKind::Tls)?;
    let secured = target.secure(worker, upstream, Protocol::Http1).map_err(|_unready| FailureKind::Tls)?;
    let timeout = upstream.service.policy.timeouts.connect;
    let connection = connect::open(endpoint.address, Protocol::Http1, secured.as_ref(), timeout, None).await;
    let connection = connection.map_err(|error| error.kind)?;
    if secured.is_none() {
        return Ok(());
    }
    let head = crate::local_app::probe_head(&upstream.service.name).ok_or(FailureKind::Reset)?;
    let answer = tokio::time::timeout(timeout, connection.send(&head, &Edits::default(), Body::empty(), None)).await;
    match answer {
        Err(_elapsed) => Err(FailureKind::Timeout),
        Ok(Err(_broken)) => Err(FailureKind::Reset),
        Ok(Ok(Response { head, mut body })) => {
            while let Some(Ok(Frame::Data(_))) = body.frame().await {}
            if head.status.is_success() { Ok(()) } else { Err(FailureKind::AppDown) }
        }
    }
}

/// Why an endpoint gets no requests, in words for people: `3×connect-refused`.
pub fn why_unusable(endpoint: &UpstreamEndpoint, now: Moment) -> String {
    let health = &endpoint.cells.health;
    let ejected = health.phase(now) != Phase::Closed;
    match (ejected, health.reason(), endpoint.endpoint.health) {
        (_, _, Health::Draining) => "it is leaving".to_owned(),
        (true, Some(reason), _) => format!("{}×{}", health.consecutive().max(1), reason.as_str().replace(' ', "-")),
        (_, _, Health::Unhealthy) => "its application accepts no connections".to_owned(),
        _ => "it is being probed".to_owned(),
    }
}
