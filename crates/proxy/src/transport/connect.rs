//! Opening a connection to an endpoint: TCP, TLS to exactly the identity that was chosen, and our greeting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_traffic::outlier::FailureKind;
use hms_wire::hello::Reception;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pool::Home;
use super::tls_stream::Stream;
use super::waiting::Place;
use super::{Processed, Protocol, Response, SendError, http1, http2};
use crate::body::Body;
use crate::capture::sidecar::Captured;
use crate::transport::Edits;
use hms_model::message::RequestHead;

/// ALPN of HTTP/1.1 between our proxies.
pub const ALPN_HTTP1: &[u8] = b"hms1-http/1.1";
/// ALPN of HTTP/2 between our proxies.
pub const ALPN_HTTP2: &[u8] = b"hms1-h2";
/// ALPN between our proxies of bytes that nobody reads.
pub const ALPN_OPAQUE: &[u8] = b"hms1-tcp";

/// A connection to an endpoint, ready for requests.
#[derive(Debug)]
pub enum Connection {
    /// One request at a time.
    Http1(http1::Connection),
    /// Many.
    Http2(http2::Connection),
}

impl Connection {
    /// Sends a request and waits for the response's head. An HTTP/1 connection goes to `home` when the response was read.
    pub async fn send(
        self,
        head: &RequestHead,
        edits: &Edits,
        body: Body,
        home: Option<Home>,
    ) -> Result<Response, SendError> {
        match self {
            Self::Http1(connection) => connection.send(head, edits, body, home).await,
            Self::Http2(connection) => connection.send(head, edits, body).await,
        }
    }
}

/// Why no connection came about. Nothing was sent in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectError {
    /// What kind of failure, as the outlier detection counts it.
    pub kind: FailureKind,
    /// For people.
    pub message: String,
}

impl From<ConnectError> for SendError {
    fn from(error: ConnectError) -> Self {
        Self { message: error.message, processed: Processed::No }
    }
}

/// How to secure a connection to another proxy.
#[derive(Debug, Clone)]
pub struct Secured {
    /// Our certificate, and the one identity that is accepted at the other end.
    pub config: Arc<ClientConfig>,
    /// The server name: the opaque one of a service, or a host's own.
    pub sni: String,
    /// The encoded greeting; empty for a host outside of the mesh, which is no proxy of ours.
    pub hello: Arc<[u8]>,
}

impl Secured {
    fn is_of_proxy(&self) -> bool {
        !self.hello.is_empty()
    }
}

/// Opens a TCP connection to an endpoint.
async fn tcp(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    // Small writes must not wait for each other; an error here only costs latency.
    let _without_delay = stream.set_nodelay(true).is_ok();
    Ok(stream)
}

/// What came of opening a connection for bytes that nobody reads.
#[derive(Debug)]
pub enum Opaque {
    /// An application is at the other end.
    Taken(Stream),
    /// A proxy is, and says by its HMS code why no application.
    Refused(u16),
}

/// Opens a connection for bytes that nobody reads within `timeout`; another proxy then has `patience` to get its own far end on the
/// line.
pub async fn open_opaque(
    address: SocketAddr,
    secured: Option<&Secured>,
    timeout: Duration,
    patience: Duration,
) -> Result<Opaque, ConnectError> {
    let reached = tokio::time::timeout(timeout, reach(address, secured)).await;
    let mut stream = reached.unwrap_or_else(|_elapsed| Err(late(address, timeout)))?;
    if !secured.is_some_and(Secured::is_of_proxy) {
        return Ok(Opaque::Taken(stream));
    }
    let received = async {
        let mut answer = [0; Reception::BYTES];
        stream.read_exact(&mut answer).await.map_err(|error| ConnectError {
            kind: FailureKind::Reset,
            message: format!("{address} closed before it took the connection: {error}"),
        })?;
        Ok(match Reception::decode(answer) {
            Reception::Taken => Opaque::Taken(stream),
            Reception::Refused(code) => Opaque::Refused(code),
        })
    };
    tokio::time::timeout(patience, received).await.unwrap_or_else(|_elapsed| Err(late(address, patience)))
}

/// Opens a connection within `timeout`, TCP and TLS together. It keeps `place` until it is closed.
pub async fn open(
    address: SocketAddr,
    protocol: Protocol,
    secured: Option<&Secured>,
    timeout: Duration,
    place: Option<Place>,
) -> Result<Connection, ConnectError> {
    let dialling = dial(address, protocol, secured, place);
    tokio::time::timeout(timeout, dialling).await.unwrap_or_else(|_elapsed| Err(late(address, timeout)))
}

fn late(address: SocketAddr, timeout: Duration) -> ConnectError {
    let message = format!("{address} did not answer within {} ms", timeout.as_millis());
    ConnectError { kind: FailureKind::ConnectTimeout, message }
}

async fn reach(address: SocketAddr, secured: Option<&Secured>) -> Result<Stream, ConnectError> {
    let stream = tcp(address).await.map_err(|error| refused(address, &error))?;
    match secured {
        None => Ok(Stream::Plain(stream)),
        Some(secured) => secure(stream, address, secured).await,
    }
}

/// Opens a plain connection to the application beside us, wherever it lives, within `timeout`.
pub async fn open_app(
    captured: &Captured,
    address: SocketAddr,
    protocol: Protocol,
    timeout: Duration,
) -> Result<Connection, ConnectError> {
    let dialled = async {
        let tcp = captured.dial(address).await.map_err(|error| refused(address, &error))?;
        // Small writes must not wait for each other; an error here only costs latency.
        let _without_delay = tcp.set_nodelay(true).is_ok();
        establish(Stream::Plain(tcp), false, protocol, None).await
    };
    tokio::time::timeout(timeout, dialled).await.unwrap_or_else(|_elapsed| Err(late(address, timeout)))
}

async fn dial(
    address: SocketAddr,
    protocol: Protocol,
    secured: Option<&Secured>,
    place: Option<Place>,
) -> Result<Connection, ConnectError> {
    let stream = reach(address, secured).await?;
    establish(stream, secured.is_some_and(Secured::is_of_proxy), protocol, place).await
}

fn refused(address: SocketAddr, error: &std::io::Error) -> ConnectError {
    ConnectError { kind: FailureKind::ConnectRefused, message: format!("connect {address}: {error}") }
}

async fn establish(
    stream: Stream,
    secured: bool,
    protocol: Protocol,
    place: Option<Place>,
) -> Result<Connection, ConnectError> {
    let (peer, liveness) = if secured {
        (http1::Peer::Proxy, http2::Liveness::Asked)
    } else {
        (http1::Peer::Server, http2::Liveness::Assumed)
    };
    let reset = |error: SendError| ConnectError { kind: FailureKind::Reset, message: error.message };
    Ok(match protocol {
        Protocol::Http1 => Connection::Http1(http1::Connection::new(stream, place, peer)),
        Protocol::Http2 => Connection::Http2(http2::Connection::new(stream, place, liveness).await.map_err(reset)?),
        Protocol::Opaque => {
            return Err(reset(SendError::not_processed("no requests are sent on an opaque connection")));
        }
    })
}

async fn secure(tcp: TcpStream, address: SocketAddr, secured: &Secured) -> Result<Stream, ConnectError> {
    let failed = |message: String| ConnectError { kind: FailureKind::Tls, message };
    let name = ServerName::try_from(secured.sni.clone()).map_err(|error| failed(error.to_string()))?;
    let connector = TlsConnector::from(Arc::clone(&secured.config));
    let mut tls = connector.connect(name, tcp).await.map_err(|error| failed(format!("TLS with {address}: {error}")))?;
    tls.write_all(&secured.hello).await.map_err(|error| failed(format!("greeting {address}: {error}")))?;
    Ok(Stream::Connected(Box::new(tls)))
}
