//! HTTP clients: our own small one that counts and times, and the real curl.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::tasks;

/// The longest exchange.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// The trailer fields.
    pub trailers: Option<HeaderMap>,
    /// From sending the request to the end of the answer.
    pub took: Duration,
}

impl Answer {
    /// A field as text; empty if it is not there.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {}", self.text()))
    }
}

/// Connections without a request.
type Idle = Vec<SendRequest<Full<Bytes>>>;

/// An HTTP/1.1 client of one address that reuses its connections.
#[derive(Clone)]
pub struct Http {
    address: SocketAddr,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    authority: String,
    proxied: bool,
    token: Option<String>,
    idle: Arc<Mutex<Idle>>,
}

impl std::fmt::Debug for Http {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {}", self.authority, self.address)
    }
}

impl Http {
    /// Plain HTTP to an address.
    pub fn plain(address: SocketAddr) -> Self {
        let idle = Arc::default();
        Self { address, tls: None, authority: address.to_string(), proxied: false, token: None, idle }
    }

    /// Plain HTTP for `authority` through the proxy at `address`, as programs do that read `HTTP_PROXY`.
    pub fn through(address: SocketAddr, authority: &str) -> Self {
        Self { authority: authority.to_owned(), proxied: true, ..Self::plain(address) }
    }

    /// HTTPS for `host` at `address`, trusting the roots in `pem`.
    pub fn tls(address: SocketAddr, host: &str, pem: &str) -> Self {
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connector = TlsConnector::from(Arc::new(trusting(pem, &[b"http/1.1"])));
        Self { tls: Some((connector, name)), authority: host.to_owned(), ..Self::plain(address) }
    }

    /// The same client with a bearer token on every request.
    #[must_use]
    pub fn bearer(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    /// `GET`.
    pub async fn get(&self, path: &str) -> Result<Answer, String> {
        Box::pin(self.send(Method::GET, path, &[], Bytes::new())).await
    }

    /// A request with more header fields and a body.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let uri = if self.proxied { format!("http://{}{path}", self.authority) } else { path.to_owned() };
        let mut request = Request::builder().method(method).uri(uri).header("host", &self.authority);
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).map_err(|error| error.to_string())?;
        let exchange = tokio::time::timeout(PATIENCE, Box::pin(self.exchange(request)));
        exchange.await.unwrap_or_else(|_late| Err(format!("no answer within {PATIENCE:?}")))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let begun = Instant::now();
        let kept = self.take_idle();
        let mut sender = match kept {
            Some(sender) => sender,
            None => self.connect().await?,
        };
        let response = sender.send_request(request).await.map_err(|error| format!("exchange: {error}"))?;
        let (head, body) = response.into_parts();
        let collected = body.collect().await.map_err(|error| format!("body: {error}"))?;
        let trailers = collected.trailers().cloned();
        let body = collected.to_bytes();
        if sender.ready().await.is_ok() {
            self.idle.lock().push(sender);
        }
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers, took: begun.elapsed() })
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock();
        while let Some(sender) = idle.pop() {
            if !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let stream = TcpStream::connect(self.address).await.map_err(|error| format!("connect: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        match &self.tls {
            None => handshake(stream).await,
            Some((connector, name)) => {
                let stream = connector.connect(name.clone(), stream).await.map_err(|error| format!("TLS: {error}"))?;
                handshake(stream).await
            }
        }
    }
}

async fn handshake<S>(stream: S) -> Result<SendRequest<Full<Bytes>>, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    let (sender, connection) =
        hyper::client::conn::http1::handshake(io).await.map_err(|error| format!("handshake: {error}"))?;
    let _until_closed = tasks::spawn(connection);
    Ok(sender)
}

/// A TLS configuration that trusts exactly the roots in `pem` and offers these protocols.
pub fn trusting(pem: &str, protocols: &[&[u8]]) -> rustls::ClientConfig {
    use rustls_pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    for root in rustls_pki_types::CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(root.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    config
}
