//! What a captured connection that leads out of the mesh turns out to be, and whether it may.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use hms_model::listener::Direction;
use hms_traffic::detect::{Beginning, Seen};
use hms_traffic::egress::Asked;
use tokio::net::TcpStream;

use super::enter::{Decided, Entered, Far, read_hello};
use super::{IDLE, Outbound};
use crate::detect;
use crate::egress::{self, Found};
use crate::refusal::Refusal;
use crate::telemetry::flow::Flow;
use crate::timer::within;
use crate::transport::Protocol;
use crate::transport::buffer::ReadBuffer;
use crate::transport::tls_stream::Abort as _;
use crate::worker::Worker;

/// How long a caller may take to say a name, where its address alone may not leave.
const NAME: Duration = Duration::from_secs(10);

/// A connection to `dialled`. Requests and TLS name a host, which then decides; of anything else no more is known than the address,
/// and the name it was told for.
pub async fn enter(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    dialled: SocketAddr,
) -> io::Result<Entered> {
    let told = worker.shared.outside.told().name(dialled.ip(), worker.now());
    let asked = Asked { name: told.as_deref(), address: Some(dialled.ip()), port: dialled.port() };
    let nameless = find(worker, asked).await;
    let (decided, far) = match &nameless {
        Ok(found) => {
            let (decided, far) = first_word(worker, &stream, found, dialled.port()).await?;
            (decided, Some(far))
        }
        Err(_not_yet) => {
            let first = within(NAME, detect::beginning(&stream)).await;
            let first = first.unwrap_or(Ok(Beginning::Other));
            (Decided::Client(first?), None)
        }
    };
    let http = match decided {
        Decided::Client(Beginning::Http1) => Some(Protocol::Http1),
        Decided::Client(Beginning::Http2) => Some(Protocol::Http2),
        _ => None,
    };
    if let Some(protocol) = http {
        if let Some(far) = far {
            far.discard();
        }
        return Ok(Entered::Http(stream, protocol));
    }
    let connection = Connection { stream, peer, port: dialled.port(), read: ReadBuffer::default() };
    if let Decided::Client(Beginning::Tls) = decided {
        return tls(worker, connection, asked, (nameless, far)).await;
    }
    worker.shared.outside.seen().note(asked, nameless.as_ref().ok().map(|found| &*found.label));
    let found = match nameless {
        Ok(found) => found,
        Err(refusal) => return Ok(refuse(worker, connection, asked, &refusal)),
    };
    let dialled = match far {
        Some(far) => far.into_dialled().await,
        None => None,
    };
    Ok(Entered::Opaque(Box::new(connection.into_outbound(found, None, dialled))))
}

/// A connection that is being looked at.
struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    port: u16,
    read: ReadBuffer,
}

impl Connection {
    fn into_outbound(
        self,
        found: Found,
        server_name: Option<String>,
        dialled: Option<Result<super::dial::Dialled, Refusal>>,
    ) -> Outbound {
        let Self { stream, peer, port, read } = self;
        Outbound { stream, peer, upstream: found.upstream, port, server_name, read, dialled }
    }
}

async fn find(worker: &Rc<Worker>, asked: Asked<'_>) -> Result<Found, Refusal> {
    let runtime = worker.shared.current.load();
    egress::find(worker, &runtime, asked).await
}

/// Waits for whoever speaks first. The host is dialled at once, in case that it is the one, unless its callers were the first before.
async fn first_word(worker: &Rc<Worker>, stream: &TcpStream, found: &Found, port: u16) -> io::Result<(Decided, Far)> {
    let upstream = &found.upstream;
    let learned = upstream.cells.learned(port);
    let wait = upstream.originates_tls() || matches!(learned.seen(), Some(Seen::Http | Seen::ClientFirst));
    let mut far = if wait { Far::resting() } else { Far::dial(worker, upstream, port) };
    let deciding = async {
        tokio::select! {
            biased;
            first = detect::beginning(stream) => first.map(Decided::Client),
            decided = far.decides(worker, upstream, port) => Ok(decided),
        }
    };
    let decided = within(IDLE, deciding).await.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()))?;
    let _news = match &decided {
        Decided::Client(Beginning::Http1 | Beginning::Http2) => learned.note(Seen::Http),
        Decided::Client(_) => learned.note(Seen::ClientFirst),
        Decided::Server => learned.note(Seen::ServerFirst),
        Decided::Nobody => false,
    };
    Ok((decided, far))
}

/// A TLS client: the host it names decides, and where that name leads is where it goes.
async fn tls(
    worker: &Rc<Worker>,
    mut connection: Connection,
    nameless: Asked<'_>,
    (before, far): (Result<Found, Refusal>, Option<Far>),
) -> io::Result<Entered> {
    let hello = read_hello(&mut connection.read, &mut connection.stream).await?;
    let server_name = hello.ok().flatten();
    let asked = Asked { name: server_name.as_deref().or(nameless.name), ..nameless };
    let found = find(worker, asked).await;
    worker.shared.outside.seen().note(asked, found.as_ref().ok().map(|found| &*found.label));
    let found = match found.and_then(|found| found.for_bytes(true, nameless.port)) {
        Ok(found) => found,
        Err(refusal) => {
            if let Some(far) = far {
                far.discard();
            }
            return Ok(refuse(worker, connection, asked, &refusal));
        }
    };
    let same = before.is_ok_and(|before| before.upstream.leads_where(&found.upstream));
    let dialled = match far {
        Some(far) if same => far.into_dialled().await,
        Some(far) => {
            far.discard();
            None
        }
        None => None,
    };
    Ok(Entered::Opaque(Box::new(connection.into_outbound(found, server_name, dialled))))
}

/// Refuses a connection that has no words for it.
fn refuse(worker: &Rc<Worker>, connection: Connection, asked: Asked<'_>, refusal: &Refusal) -> Entered {
    let Connection { mut stream, peer, port, .. } = connection;
    let mut flow = Flow::begin(worker, Direction::Outbound, worker.own_party(), peer);
    (flow.port, flow.server_name) = (port, Some(egress::shown(asked)));
    tracing::debug!(host = egress::shown(asked), port, ?refusal, "a connection out of the mesh was refused");
    flow.refused(refusal.reason);
    stream.abort();
    Entered::Refused
}
