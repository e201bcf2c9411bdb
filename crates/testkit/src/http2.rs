//! HTTP/2: a client on the `h2` crate, one that sends raw bytes ([`raw`], [`wire`]), and an application that leaves ([`leaver`]).

pub mod grpc;
pub mod leaver;
pub mod raw;
pub mod wire;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::SendRequest;
use http::Request;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;

use crate::client::{Answer, trusting};
use crate::tasks;

/// The longest exchange.
const PATIENCE: Duration = Duration::from_secs(30);

/// One connection.
#[derive(Clone)]
pub struct Http2 {
    sender: SendRequest<Bytes>,
}

impl std::fmt::Debug for Http2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("HTTP/2 connection")
    }
}

impl Http2 {
    /// Connects to `host` at `address`; fails unless HTTP/2 is agreed on.
    pub async fn connect(address: SocketAddr, host: &str, pem: &str) -> Result<Self, String> {
        let connector = TlsConnector::from(Arc::new(trusting(pem, &[b"h2"])));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| error.to_string())?;
        let stream = TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?;
        let stream = Box::pin(connector.connect(name, stream)).await.map_err(|error| format!("TLS: {error}"))?;
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err("the server did not agree on h2".to_owned());
        }
        Box::pin(Self::over(stream)).await
    }

    /// Connects without TLS, with prior knowledge.
    pub async fn plain(address: SocketAddr) -> Result<Self, String> {
        Self::over(TcpStream::connect(address).await.map_err(|error| format!("connect: {error}"))?).await
    }

    async fn over(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> Result<Self, String> {
        let (sender, connection) = h2::client::handshake(stream).await.map_err(|error| format!("h2: {error}"))?;
        let _until_closed = tasks::spawn(connection);
        Ok(Self { sender })
    }

    /// Sends a request and reads the answer to its end.
    pub async fn send(&self, request: Request<()>, body: impl Into<Bytes>) -> Result<Answer, String> {
        let body = body.into();
        let length = body.len();
        let exchange = tokio::time::timeout(PATIENCE, Box::pin(self.exchange(request, body, length)));
        exchange.await.unwrap_or_else(|_late| Err(format!("no answer within {PATIENCE:?}")))
    }

    /// The same with a body of `count` pieces, each in a frame of its own.
    pub async fn send_in_pieces(&self, request: Request<()>, piece: &[u8], count: usize) -> Result<Answer, String> {
        let exchange = Box::pin(self.exchange(request, piece.repeat(count).into(), piece.len()));
        exchange.await
    }

    async fn exchange(&self, request: Request<()>, mut body: Bytes, most: usize) -> Result<Answer, String> {
        let begun = Instant::now();
        let text = |error: h2::Error| format!("h2: {error}");
        let mut sender = self.sender.clone().ready().await.map_err(text)?;
        let (response, mut stream) = sender.send_request(request, body.is_empty()).map_err(text)?;
        let upload = async {
            while !body.is_empty() {
                stream.reserve_capacity(body.len().min(most));
                let Some(room) = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await else { break };
                let part = body.split_to(room.map_err(text)?.min(body.len()).min(most));
                stream.send_data(part, body.is_empty()).map_err(text)?;
            }
            Ok::<(), String>(())
        };
        let download = async {
            let (head, mut stream) = response.await.map_err(text)?.into_parts();
            let mut body = BytesMut::new();
            while let Some(part) = stream.data().await {
                let part = part.map_err(text)?;
                stream.flow_control().release_capacity(part.len()).map_err(text)?;
                body.extend_from_slice(&part);
            }
            let trailers = stream.trailers().await.map_err(text)?;
            Ok::<_, String>((head, body.freeze(), trailers))
        };
        let (sent, got) = tokio::join!(upload, download);
        let (head, body, trailers) = got.map_err(|error| format!("{error} (upload: {sent:?})"))?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, trailers, took: begun.elapsed() })
    }
}
