//! The application beside this proxy.

use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;
use hms_traffic::probe::Answer;
use http::header::MAX_FORWARDS;
use http::{HeaderValue, Method, StatusCode};
use tokio::net::TcpStream;

use crate::app_probe;
use crate::body::{Body, Patience, Replayable, Source, answer_within};
use crate::endpoint::PLAIN_IDLE;
use crate::pipeline::empty;
use crate::refusal::{Reason, Refusal};
use crate::runtime::local::Local;
use crate::transport::connect::{self, Connection};
use crate::transport::pool::{Home, Key};
use crate::transport::{Edits, Processed, Protocol, Response, SendError};
use crate::worker::Worker;

/// The application's place in the pool, by its own port; endpoints count from 1.
const fn key(port: u16) -> Key {
    Key { endpoint: 0, generation: 0, port }
}

/// How long a request's body may be silent (reliability §6).
const BODY_IDLE: Duration = Duration::from_secs(30);
/// How long the application may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);

/// How long the body of a request may be silent. A gRPC caller may have nothing to say on a stream it keeps open: it gets the time
/// that answers have.
pub fn body_idle(head: &RequestHead, idle: Duration) -> Duration {
    if head.is_grpc() { idle } else { BODY_IDLE }
}

/// Hands a request to the application and waits for the answer's head, no longer than its caller has `told`. As long as it takes,
/// the calls that the application makes for it have no more time either.
pub async fn forward(
    worker: &Worker,
    (local, port): (&Local, u16),
    head: &RequestHead,
    body: Body,
    edits: &Edits,
    (told, trace): (Patience, u64),
) -> Result<Response, Refusal> {
    let Some(address) = address(worker, local, port) else { return Err(down(worker)) };
    let policy = &local.service.policy;
    // gRPC needs HTTP/2; anything else an application is sure to speak HTTP/1, unless it is declared.
    let declared = local.service.port(port).map(|port| port.protocol);
    let asks_http2 = head.is_grpc() || matches!(declared, Some(AppProtocol::Http2 | AppProtocol::Grpc));
    let protocol = if asks_http2 && body.offered().is_none() { Protocol::Http2 } else { Protocol::Http1 };
    let body = Replayable::new(body.idle_limit(body_idle(head, policy.timeouts.idle)));
    let answer = [told.answer, policy.timeouts.request].into_iter().flatten().min();
    let (patience, begun) = (Patience { answer, all: told.all }, worker.now());
    let under_way = worker.shared.app.deadlines().begin(trace);
    if let Some(all) = patience.all {
        under_way.until(begun, all);
    }
    let whole = || {
        let now = worker.now();
        let all = patience.all.map(|all| all.saturating_sub(now.saturating_since(begun)));
        if let Some(left) = [answer, all].into_iter().flatten().min() {
            under_way.until(now, left);
        }
    };
    if body.source() == Source::Complete {
        whole();
    }
    let is_told = told.all.is_some() || (told.answer.is_some() && told.answer == answer);
    let sending = pin!(attempt(worker, address, protocol, head, edits, &body));
    answer_within(patience, &body, sending, whole).await.unwrap_or_else(|| Err(late(worker, is_told)))
}

/// The refusal of a request that was not answered in time: that which its caller gave it, or our own.
fn late(worker: &Worker, is_told: bool) -> Refusal {
    let service = &worker.shared.settings.service;
    let (reason, sentence) = if is_told {
        (Reason::Deadline, format!("{service} did not answer before its caller gave up"))
    } else {
        (Reason::Timeout, format!("{service} did not answer in time"))
    };
    Refusal::new(reason, sentence)
}

async fn attempt(
    worker: &Worker,
    address: SocketAddr,
    protocol: Protocol,
    head: &RequestHead,
    edits: &Edits,
    body: &Replayable,
) -> Result<Response, Refusal> {
    let pooled = worker.pool.borrow_mut().take(key(address.port()), protocol);
    if let Some(connection) = pooled {
        match exchange(worker, connection, address, head, edits, body).await {
            Ok(response) => return Ok(response),
            // A kept connection that the application had closed: not a byte was sent. Any other failure is the caller's to retry.
            Err(error) if error.processed == Processed::No && body.can_replay() => {}
            Err(error) => return Err(broken(worker, &error, body)),
        }
    }
    match Box::pin(connect::open_app(&worker.shared.captured, address, protocol, CONNECT_DEADLINE)).await {
        Err(error) => {
            tracing::debug!(error = %error.message, "application not reached");
            worker.shared.app.suspect();
            Err(down(worker))
        }
        Ok(connection) => {
            if let Connection::Http2(shared) = &connection {
                worker.pool.borrow_mut().share(key(address.port()), shared);
            }
            exchange(worker, connection, address, head, edits, body).await.map_err(|error| broken(worker, &error, body))
        }
    }
}

async fn exchange(
    worker: &Worker,
    connection: Connection,
    address: SocketAddr,
    head: &RequestHead,
    edits: &Edits,
    body: &Replayable,
) -> Result<Response, SendError> {
    let home = Home { pool: Rc::clone(&worker.pool), key: key(address.port()), keep: PLAIN_IDLE };
    connection.send(head, edits, body.attempt(), Some(home)).await
}

/// Where the application serves a port of the service: its own port behind that, or the only one it has.
pub fn address(worker: &Worker, local: &Local, port: u16) -> Option<SocketAddr> {
    let own = worker.shared.settings.app?;
    let target = local.service.port(port).filter(|_| port != 0).and_then(|port| port.target);
    Some(target.map_or(own, |target| SocketAddr::new(own.ip(), target)))
}

/// A connection to the application for bytes that nobody reads.
pub async fn dial(worker: &Worker, address: SocketAddr) -> Result<TcpStream, Refusal> {
    let dialled = tokio::time::timeout(CONNECT_DEADLINE, worker.shared.captured.dial(address)).await;
    let Ok(Ok(stream)) = dialled else {
        worker.shared.app.suspect();
        return Err(down(worker));
    };
    // An error here only costs latency.
    let _without_delay = stream.set_nodelay(true).is_ok();
    Ok(stream)
}

fn broken(worker: &Worker, error: &SendError, body: &Replayable) -> Refusal {
    let source = body.source();
    if matches!(source, Source::Broken | Source::Malformed) {
        return incomplete(source);
    }
    tracing::debug!(%error, "application broke off");
    worker.shared.app.suspect();
    Refusal::new(
        Reason::UpstreamReset,
        format!("{} closed the connection before an answer", worker.shared.settings.service),
    )
}

/// The caller's own doing.
pub fn incomplete(source: Source) -> Refusal {
    match source {
        Source::Malformed => Refusal::new(Reason::Malformed, "the request's body is malformed"),
        _ => Refusal::new(Reason::Incomplete, "the request's body broke off before its end"),
    }
}

fn down(worker: &Worker) -> Refusal {
    let detail = format!("the application of {} accepts no connections", worker.shared.settings.service);
    Refusal::new(Reason::AppDown, detail).after(Duration::from_secs(1))
}

/// Asked anew: whoever asks has found it wanting.
async fn is_well(worker: &Worker, address: SocketAddr) -> bool {
    let asked = app_probe::plan(&worker.shared);
    app_probe::ask(&worker.shared, address, &asked).await == Answer::Good
}

/// Answers another proxy's probe: is the application well at this moment?
pub async fn probe(worker: &Worker) -> Result<Response, Refusal> {
    match worker.shared.settings.app {
        Some(address) if is_well(worker, address).await => Ok(empty(StatusCode::OK)),
        _ => Err(down(worker)),
    }
}

/// The request that asks a proxy about its application.
pub fn probe_head(service: &ServiceName) -> Option<RequestHead> {
    let mut fields = Fields::new();
    fields.set(MAX_FORWARDS, HeaderValue::from_static("0"));
    let authority = Authority::parse(&service.to_string()).ok()?;
    let path = CanonicalPath::parse("*").ok()?;
    Some(RequestHead { method: Method::OPTIONS, authority, path, query: None, fields })
}
