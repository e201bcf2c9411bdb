//! Who is at the other end: mutual TLS and the greeting between proxies, the edge certificate towards the outside.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_identity::tls;
use hms_model::listener::Role;
use hms_model::spiffe::SpiffeId;
use hms_wire::hello::{HELLO_BYTES, Outside, PeerHello};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

use crate::telemetry::metrics::Party;
use crate::transport::Protocol;
use crate::transport::connect::{ALPN_HTTP2, ALPN_OPAQUE};
use crate::transport::tls_stream::Stream;
use crate::worker::Worker;

/// How long a handshake with its greeting may take (reliability §6).
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(5);

/// Another proxy, proven.
pub struct Arrived {
    /// Who it is.
    pub identity: SpiffeId,
    /// What it says of itself, for labels.
    pub party: Arc<Party>,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port of our service that it means; 0 is the first.
    pub port: u16,
    /// The host outside of the mesh that it means, if we are an egress gateway.
    pub outside: Option<Outside>,
    /// The connection, after the greeting.
    pub stream: Stream,
}

/// Terminates mutual TLS. Without a certificate of our trust domain there is no connection.
pub async fn accept(worker: &Rc<Worker>, stream: TcpStream, from: SocketAddr) -> io::Result<Arrived> {
    in_turn(worker, from, Box::pin(authenticate(worker, stream))).await
}

/// Waits for a turn among the handshakes of the same source, then has one; both within the deadline.
async fn in_turn<T>(
    worker: &Worker,
    from: SocketAddr,
    handshake: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    let taken = async {
        let _turn = worker.handshakes.enter(from.ip()).await;
        handshake.await
    };
    tokio::time::timeout(HANDSHAKE_DEADLINE, taken)
        .await
        .unwrap_or_else(|_elapsed| Err(io::Error::new(io::ErrorKind::TimedOut, "the handshake took too long")))
}

async fn authenticate(worker: &Rc<Worker>, stream: TcpStream) -> io::Result<Arrived> {
    let credentials = worker.shared.holder.current();
    let credentials = credentials.ok_or_else(|| io::Error::other("this proxy has no certificate yet"))?;
    let acceptor = TlsAcceptor::from(Arc::clone(&credentials.server));
    let mut tls = acceptor.accept(stream).await?;
    let (_, connection) = tls.get_ref();
    let identity = connection.peer_certificates().and_then(tls::peer_identity);
    let identity = identity.ok_or_else(|| io::Error::other("the peer has no identity"))?;
    let protocol = match connection.alpn_protocol() {
        Some(ALPN_HTTP2) => Protocol::Http2,
        Some(ALPN_OPAQUE) => Protocol::Opaque,
        Some(_) => Protocol::Http1,
        None => return Err(io::Error::other("the peer negotiated no protocol of ours")),
    };
    let hello = read_hello(&mut tls).await?;
    let party = Party {
        workload: identity.name().to_owned(),
        namespace: identity.namespace().to_owned(),
        principal: identity.to_string(),
        version: label(&hello.version),
    };
    let (port, outside) = (hello.destination_port, hello.outside);
    if outside.is_some() && worker.shared.settings.role != Role::Egress {
        return Err(io::Error::other("this proxy is no egress gateway"));
    }
    Ok(Arrived { identity, party: Arc::new(party), protocol, port, outside, stream: Stream::Accepted(Box::new(tls)) })
}

/// A peer's own words become a label only if they look like one.
fn label(text: &str) -> String {
    let fits = text.len() <= 63 && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'));
    if fits { text.to_owned() } else { String::new() }
}

async fn read_hello(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> io::Result<PeerHello> {
    let length = stream.read_u16().await?;
    if usize::from(length) > HELLO_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the greeting is too long"));
    }
    let mut message = length.to_be_bytes().to_vec();
    message.resize(2 + usize::from(length), 0);
    stream.read_exact(message.get_mut(2..).unwrap_or_default()).await?;
    let received = PeerHello::decode(&message).map_err(io::Error::other)?;
    received.map(|received| received.hello).ok_or_else(|| io::Error::other("the greeting is incomplete"))
}

/// Terminates TLS towards the outside.
pub async fn accept_edge(worker: &Rc<Worker>, stream: TcpStream, from: SocketAddr) -> io::Result<(Protocol, Stream)> {
    let config = worker.shared.edge.load_full();
    let config = config.ok_or_else(|| io::Error::other("the gateway has no certificate yet"))?;
    let handshake = async { TlsAcceptor::from(config).accept(stream).await };
    let tls = in_turn(worker, from, Box::pin(handshake)).await?;
    let protocol = match tls.get_ref().1.alpn_protocol() {
        Some(b"h2") => Protocol::Http2,
        _ => Protocol::Http1,
    };
    Ok((protocol, Stream::Accepted(Box::new(tls))))
}
