//! Opening a connection to an endpoint: TCP, TLS to exactly the identity that was chosen, and our greeting.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_traffic::limits::Permit;
use hms_traffic::outlier::FailureKind;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pool::Home;
use super::tls_stream::Stream;
use super::{Processed, Protocol, Response, SendError, http1, http2};
use crate::body::Body;
use crate::capture::sidecar::Captured;
use crate::transport::Edits;
use hms_model::message::RequestHead;

/// ALPN of HTTP/1.1 between our proxies.
pub const ALPN_HTTP1: &[u8] = b"hms1-http/1.1";
/// ALPN of HTTP/2 between our proxies.
pub const ALPN_HTTP2: &[u8] = b"hms1-h2";

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
    /// The opaque server name of the service.
    pub sni: String,
    /// The encoded greeting.
    pub hello: Arc<[u8]>,
}

/// Opens a connection within `timeout`, TCP and TLS together. It keeps `place` until it is closed.
pub async fn open(
    address: SocketAddr,
    protocol: Protocol,
    secured: Option<&Secured>,
    timeout: Duration,
    place: Option<Permit>,
) -> Result<Connection, ConnectError> {
    tokio::time::timeout(timeout, dial(address, protocol, secured, place)).await.unwrap_or_else(|_elapsed| {
        let message = format!("{address} did not answer within {} ms", timeout.as_millis());
        Err(ConnectError { kind: FailureKind::ConnectTimeout, message })
    })
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
        establish(tcp, address, protocol, None, None).await
    };
    tokio::time::timeout(timeout, dialled).await.unwrap_or_else(|_elapsed| {
        let message = format!("{address} did not answer within {} ms", timeout.as_millis());
        Err(ConnectError { kind: FailureKind::ConnectTimeout, message })
    })
}

async fn dial(
    address: SocketAddr,
    protocol: Protocol,
    secured: Option<&Secured>,
    place: Option<Permit>,
) -> Result<Connection, ConnectError> {
    let tcp = TcpStream::connect(address).await.map_err(|error| refused(address, &error))?;
    establish(tcp, address, protocol, secured, place).await
}

fn refused(address: SocketAddr, error: &std::io::Error) -> ConnectError {
    ConnectError { kind: FailureKind::ConnectRefused, message: format!("connect {address}: {error}") }
}

async fn establish(
    tcp: TcpStream,
    address: SocketAddr,
    protocol: Protocol,
    secured: Option<&Secured>,
    place: Option<Permit>,
) -> Result<Connection, ConnectError> {
    // Small writes must not wait for each other; an error here only costs latency.
    let _without_delay = tcp.set_nodelay(true).is_ok();
    let stream = match secured {
        None => Stream::Plain(tcp),
        Some(secured) => secure(tcp, address, secured).await?,
    };
    let (peer, liveness) = if secured.is_some() {
        (http1::Peer::Proxy, http2::Liveness::Asked)
    } else {
        (http1::Peer::Server, http2::Liveness::Assumed)
    };
    let reset = |error: SendError| ConnectError { kind: FailureKind::Reset, message: error.message };
    Ok(match protocol {
        Protocol::Http1 => Connection::Http1(http1::Connection::new(stream, place, peer)),
        Protocol::Http2 => Connection::Http2(http2::Connection::new(stream, place, liveness).await.map_err(reset)?),
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
