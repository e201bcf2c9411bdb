//! What a connection of our application to a service turns out to be.

use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_identity::client_hello::{self, MOST_WIRE};
use hms_model::listener::Direction;
use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;
use hms_traffic::detect::{self as decide, Beginning, Plan, Seen};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use super::dial::{self, Dialled};
use super::{IDLE, Outbound};
use crate::detect;
use crate::pipeline;
use crate::refusal::{Reason, Refusal};
use crate::runtime::upstream::Upstream;
use crate::tasks;
use crate::telemetry::flow::Flow;
use crate::timer::{Timer, within};
use crate::transport::Protocol;
use crate::transport::buffer::{ReadBuffer, SMALL};
use crate::transport::tls_stream::Abort as _;
use crate::worker::Worker;

/// How long a caller that will be refused may take to its first bytes: if they are HTTP it is told why in words.
const IN_WORDS: Duration = Duration::from_secs(1);
/// Silence after which a destination is dialled although its callers spoke HTTP before: another kind of server may have come.
const DOUBT: Duration = Duration::from_secs(1);
/// How long a TLS client may take for its first message.
const HELLO: Duration = Duration::from_secs(10);
/// How long an unused connection may take to be closed in order.
const FAREWELL: Duration = Duration::from_secs(1);

/// What a connection is.
#[derive(Debug)]
pub enum Entered {
    /// Requests come on it.
    Http(TcpStream, Protocol),
    /// Nobody reads it.
    Opaque(Box<Outbound>),
    /// Nothing: it was refused.
    Refused,
}

/// Finds out what a connection to `port` of the service `name` is; 0 is its first port.
pub async fn enter(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    name: &ServiceName,
    port: u16,
) -> io::Result<Entered> {
    let runtime = worker.shared.current.load();
    let details = pipeline::details(worker, &runtime, name).await;
    drop(runtime);
    let upstream = match details {
        Ok(upstream) => upstream,
        Err(refusal) => return Ok(refuse(worker, stream, peer, (name, port), &refusal).await),
    };
    let declared = upstream.service.port(port);
    if declared.is_none() && port != 0 {
        let refusal = Refusal::new(Reason::NoPort, format!("{name} has no port {port}"));
        return Ok(refuse(worker, stream, peer, (name, port), &refusal).await);
    }
    let port = declared.map_or(port, |port| port.number);
    let protocol = declared.map_or(AppProtocol::Detect, |port| port.protocol);
    let http_policy = decide::has_http_policy(&upstream.service, !upstream.rules.is_empty());
    let plan = decide::plan(protocol, http_policy, upstream.cells.learned(port).seen());
    let mut outbound =
        Outbound { stream, peer, upstream, port, server_name: None, read: ReadBuffer::default(), dialled: None };
    match plan {
        Plan::Http => {
            let protocol = detect::protocol(&outbound.stream).await?;
            Ok(Entered::Http(outbound.stream, protocol))
        }
        Plan::Opaque => Ok(Entered::Opaque(Box::new(outbound))),
        Plan::Tls => {
            match read_hello(&mut outbound.read, &mut outbound.stream).await? {
                Ok(name) => outbound.server_name = name,
                Err(why) => {
                    let refusal = Refusal::new(Reason::WrongProtocol, format!("the port takes TLS only: {why}"));
                    outbound.dialled = Some(Err(refusal));
                }
            }
            Ok(Entered::Opaque(Box::new(outbound)))
        }
        Plan::Watch { dial } => watch(worker, outbound, dial).await,
    }
}

/// Refuses a connection to an address of the mesh that belongs to no service.
pub fn refuse_nowhere(worker: &Rc<Worker>, mut stream: TcpStream, peer: SocketAddr, address: SocketAddr) {
    let mut flow = Flow::begin(worker, Direction::Outbound, worker.own_party(), peer);
    flow.port = address.port();
    tracing::debug!(%address, "no service has this address");
    flow.refused(Reason::NoAddress);
    stream.abort();
}

/// Refuses a connection: in words, if it turns out at once to be HTTP, whose pipeline comes to the same refusal.
async fn refuse(
    worker: &Rc<Worker>,
    mut stream: TcpStream,
    peer: SocketAddr,
    (name, port): (&ServiceName, u16),
    refusal: &Refusal,
) -> Entered {
    match within(IN_WORDS, detect::beginning(&stream)).await {
        Some(Ok(Beginning::Http1)) => return Entered::Http(stream, Protocol::Http1),
        Some(Ok(Beginning::Http2)) => return Entered::Http(stream, Protocol::Http2),
        _ => {}
    }
    let mut flow = Flow::begin(worker, Direction::Outbound, worker.own_party(), peer);
    (flow.service, flow.port) = (Some(name.mesh_host().into()), port);
    flow.refused(refusal.reason);
    stream.abort();
    Entered::Refused
}

/// Reads the first message of a TLS client, whose bytes stay for the destination, for the host it names. The inner error is its own
/// fault.
pub(super) async fn read_hello(
    read: &mut ReadBuffer,
    stream: &mut TcpStream,
) -> io::Result<Result<Option<String>, String>> {
    let reading = async {
        loop {
            match client_hello::read(read.bytes()) {
                Ok(Some(hello)) => return Ok(Ok(hello.server_name)),
                Err(why) => return Ok(Err(why.to_string())),
                Ok(None) => {}
            }
            if poll_fn(|context| read.poll_fill(stream, 2 * MOST_WIRE, context)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    };
    within(HELLO, reading).await.unwrap_or_else(|| Ok(Err("its ClientHello did not come in time".to_owned())))
}

/// An endpoint on its way to the line.
type Dialling = Pin<Box<dyn Future<Output = Result<Dialled, Refusal>>>>;

/// The destination, while nobody has spoken.
pub(super) enum Far {
    /// Not dialled, until then.
    Resting(Timer),
    /// Being dialled.
    Dialling(Dialling),
    /// On the line, and silent.
    Open(Dialled),
    /// It left without a word.
    Gone,
    /// It cannot be reached; until then the caller may say whether it speaks HTTP.
    Failed(Refusal, Timer),
}

/// Who decided.
pub(super) enum Decided {
    /// The caller began so.
    Client(Beginning),
    /// The server spoke first.
    Server,
    /// Neither: there is no server, and the caller waits for one.
    Nobody,
}

impl Far {
    /// To be dialled when nobody speaks for long.
    pub(super) fn resting() -> Self {
        Self::Resting(Timer::after(DOUBT))
    }

    pub(super) fn dial(worker: &Rc<Worker>, upstream: &Arc<Upstream>, port: u16) -> Self {
        let (worker, upstream) = (Rc::clone(worker), Arc::clone(upstream));
        Self::Dialling(Box::pin(async move { dial::dial(&worker, &upstream, port).await }))
    }

    /// Resolves when this end decides. Where it stands is kept when it is not waited for to the end.
    pub(super) async fn decides(&mut self, worker: &Rc<Worker>, upstream: &Arc<Upstream>, port: u16) -> Decided {
        loop {
            *self = match self {
                Self::Resting(timer) => {
                    timer.struck().await;
                    Self::dial(worker, upstream, port)
                }
                Self::Dialling(dialling) => match dialling.await {
                    Ok(dialled) => Self::Open(dialled),
                    Err(refusal) => Self::Failed(refusal, Timer::after(IN_WORDS)),
                },
                Self::Open(Dialled { stream, read, .. }) => {
                    let came = poll_fn(|context| read.poll_fill(stream, SMALL, context)).await;
                    if matches!(came, Ok(1..)) {
                        return Decided::Server;
                    }
                    // A server may close what is idle; the caller has not lost anything yet.
                    Self::Gone
                }
                Self::Failed(_, timer) => {
                    timer.struck().await;
                    return Decided::Nobody;
                }
                Self::Gone => pending().await,
            };
        }
    }

    /// What it is worth, now that bytes are to be passed on.
    pub(super) async fn into_dialled(self) -> Option<Result<Dialled, Refusal>> {
        match self {
            Self::Resting(_) | Self::Gone => None,
            Self::Dialling(dialling) => Some(dialling.await),
            Self::Open(dialled) => Some(Ok(dialled)),
            Self::Failed(refusal, _) => Some(Err(refusal)),
        }
    }

    /// Lets go of it in order, so that its application sees a caller that changed its mind and not one that broke off.
    pub(super) fn discard(self) {
        if let Self::Open(mut dialled) = self {
            tasks::spawn_local("unused connection", async move {
                let _closed = tokio::time::timeout(FAREWELL, dialled.stream.shutdown()).await.is_ok();
            });
        }
    }
}

/// Sees who speaks first, and what.
async fn watch(worker: &Rc<Worker>, mut outbound: Outbound, dial: bool) -> io::Result<Entered> {
    let (upstream, port) = (Arc::clone(&outbound.upstream), outbound.port);
    let learned = upstream.cells.learned(port);
    let mut far = if dial { Far::dial(worker, &upstream, port) } else { Far::resting() };
    let deciding = async {
        tokio::select! {
            biased;
            first = detect::beginning(&outbound.stream) => first.map(Decided::Client),
            decided = far.decides(worker, &upstream, port) => Ok(decided),
        }
    };
    let decided = within(IDLE, deciding).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    let http = match decided {
        Decided::Client(Beginning::Http1) => Some(Protocol::Http1),
        Decided::Client(Beginning::Http2) => Some(Protocol::Http2),
        Decided::Client(beginning) => {
            let _news = learned.note(Seen::ClientFirst);
            if beginning == Beginning::Tls {
                // Only for its name: where nobody declared TLS, anything may begin so.
                let named = read_hello(&mut outbound.read, &mut outbound.stream).await?;
                outbound.server_name = named.ok().flatten();
            }
            None
        }
        Decided::Server => {
            if learned.note(Seen::ServerFirst) {
                let service = &upstream.service.name;
                tracing::info!(%service, port, "the server spoke first; passed on unread from now on (protocol: tcp says so)");
            }
            None
        }
        Decided::Nobody => None,
    };
    if let Some(protocol) = http {
        let _news = learned.note(Seen::Http);
        far.discard();
        return Ok(Entered::Http(outbound.stream, protocol));
    }
    outbound.dialled = far.into_dialled().await;
    Ok(Entered::Opaque(Box::new(outbound)))
}
