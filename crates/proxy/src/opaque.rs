//! Connections whose bytes nobody reads: between an application and a service, through both proxies.
//!
//! [`enter`] finds out whether a connection of our application is one, [`dial`] gets an endpoint on the line, [`outbound`] and
//! [`inbound`] relay, [`exit`] does at an egress gateway. A refusal has no words on such a connection: the caller sees a reset, and the code stands in the log, the tap
//! and the series.

pub mod dial;
pub mod enter;
pub mod exit;
pub mod outside;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_model::listener::{Direction, Role};
use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;
use hms_model::spiffe::SpiffeId;
use hms_traffic::authorize::{self, Verdict};
use hms_traffic::detect::{self, Plan};
use hms_wire::hello::Reception;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use self::dial::Dialled;
use crate::local_app;
use crate::peer::Arrived;
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::Upstream;
use crate::telemetry::flow::Flow;
use crate::transport::buffer::ReadBuffer;
use crate::transport::relay::{self, Relay, Side};
use crate::transport::tls_stream::{Abort as _, Stream};
use crate::worker::Worker;

/// How long a connection may be silent both ways: pools of databases keep theirs for long.
pub const IDLE: Duration = Duration::from_hours(1);
/// How long a refused caller may take to read the refusal.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A connection of our application whose bytes are passed on unread.
#[derive(Debug)]
pub struct Outbound {
    stream: TcpStream,
    peer: SocketAddr,
    upstream: Arc<Upstream>,
    port: u16,
    server_name: Option<String>,
    /// What was read of it already.
    read: ReadBuffer,
    /// The endpoint, if one is on the line already, or why none is.
    dialled: Option<Result<Dialled, Refusal>>,
}

/// From our application to a service.
pub async fn outbound(worker: &Rc<Worker>, connection: Outbound) {
    let Outbound { mut stream, peer, upstream, port, server_name, read, dialled } = connection;
    let mut flow = Flow::begin(worker, Direction::Outbound, worker.own_party(), peer);
    flow.service = Some(Arc::clone(&upstream.host));
    flow.port = upstream.service.port(port).map_or(port, |port| port.number);
    flow.server_name = server_name;
    let dialled = match dialled {
        Some(dialled) => dialled,
        None if worker.shared.overload.is_shedding() => {
            Err(Refusal::new(Reason::Shedding, "this proxy has no memory left for connections"))
        }
        None => dial::dial(worker, &upstream, port).await,
    };
    let dialled = match dialled {
        Ok(dialled) => dialled,
        Err(refusal) => {
            tracing::debug!(service = %upstream.service.name, reason = ?refusal.reason, "opaque connection refused");
            stream.abort();
            return flow.refused(refusal.reason);
        }
    };
    let Dialled { stream: far, read: came, endpoint, attempts, held } = dialled;
    flow.attempts = attempts;
    flow.on(&endpoint);
    flow.opened();
    flow.passed_before(Side::Downstream, read.bytes().len());
    flow.passed_before(Side::Upstream, came.bytes().len());
    let relay = Relay::new(read, came, IDLE.max(upstream.service.policy.timeouts.idle));
    drop(upstream);
    let ended = relay::run(relay, (Stream::Plain(stream), far), &flow, &worker.shared.drain).await;
    drop(held);
    flow.ended(ended);
}

/// From another proxy to the application beside us.
pub async fn inbound(worker: &Rc<Worker>, arrived: Arrived, peer: SocketAddr) {
    let Arrived { identity, party, port, mut stream, .. } = arrived;
    let mut flow = Flow::begin(worker, Direction::Inbound, party, peer);
    (flow.mutual_tls, flow.destination, flow.port) = (true, Some(worker.own_party()), port);
    let runtime = worker.shared.current.load();
    let admitted = admit(worker, &runtime, &identity, &mut flow);
    drop(runtime);
    let app = match admitted {
        Ok(address) => local_app::dial(worker, address).await,
        Err(refusal) => Err(refusal),
    };
    match app {
        Err(refusal) => decline(stream, flow, &refusal).await,
        Ok(app) => {
            flow.attempts = 1;
            flow.opened();
            let ended = match taken(&mut stream).await {
                Ok(()) => {
                    let relay = Relay::new(ReadBuffer::default(), ReadBuffer::default(), IDLE);
                    relay::run(relay, (stream, Stream::Plain(app)), &flow, &worker.shared.drain).await
                }
                Err(_gone) => relay::Ended::Broken(Side::Downstream),
            };
            flow.ended(ended);
        }
    }
}

/// Tells another proxy why its connection is not taken.
async fn decline(mut stream: Stream, flow: Flow, refusal: &Refusal) {
    let answer = Reception::Refused(refusal.reason.code().0).encode();
    let telling = async {
        stream.write_all(&answer).await?;
        stream.shutdown().await
    };
    let _told = tokio::time::timeout(LAST_WORD, telling).await.is_ok();
    flow.refused(refusal.reason);
}

async fn taken(stream: &mut Stream) -> io::Result<()> {
    stream.write_all(&Reception::Taken.encode()).await?;
    stream.flush().await
}

/// Whether this caller gets an unread connection to our application, and where that is.
fn admit(worker: &Worker, runtime: &Runtime, caller: &SpiffeId, flow: &mut Flow) -> Result<SocketAddr, Refusal> {
    let refused = |reason: Reason, sentence: &'static str| Err(Refusal::new(reason, sentence));
    if worker.shared.overload.is_shedding() {
        return refused(Reason::Shedding, "this proxy has no memory left for connections");
    }
    if worker.shared.settings.role == Role::Egress {
        return refused(Reason::NoPort, "an egress gateway serves nothing of its own");
    }
    let Some(local) = &runtime.local else {
        return refused(Reason::NoConfiguration, "this proxy has no configuration yet");
    };
    flow.service = Some(Arc::clone(&local.host));
    let port = local.service.port(flow.port);
    if port.is_none() && flow.port != 0 {
        return refused(Reason::NoPort, "the service has no such port");
    }
    flow.port = port.map_or(0, |port| port.number);
    let declared = port.map_or(AppProtocol::Detect, |port| port.protocol);
    let http_policy = detect::has_http_policy(&local.service, !local.rules.is_empty());
    if detect::plan(declared, http_policy, None) == Plan::Http {
        return refused(Reason::WrongProtocol, "requests are read on this port, and nothing else is taken");
    }
    let identities = |name: &ServiceName| runtime.snapshot.services.get(name).map(|s| &s.service.identities);
    match authorize::authorize_connection(&local.service, Some(caller), identities) {
        Verdict::Deny { .. } => refused(Reason::Denied, "no allow rule without paths matches the caller"),
        Verdict::Allow { .. } => local_app::address(worker, local, flow.port)
            .ok_or_else(|| Refusal::new(Reason::AppDown, "no application is behind this proxy")),
    }
}
