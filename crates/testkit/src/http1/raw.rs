//! A client that sends whatever bytes it is told to, as slowly as it likes.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use super::End;
use super::message::{self, Kind, Message};
use crate::client::trusting;

/// How long anything may take to come.
const PATIENCE: Duration = Duration::from_secs(20);

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A connection.
pub struct Raw {
    stream: Box<dyn Both>,
    got: Vec<u8>,
    ended: Option<End>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "raw HTTP/1.1 connection, {:?}", self.ended)
    }
}

impl Raw {
    /// Plain.
    pub async fn plain(address: SocketAddr) -> Self {
        Self::over(Box::new(connected(TcpSocket::new_v4().unwrap(), address).await))
    }

    /// Plain, from an address of the caller's choice.
    pub async fn plain_from(source: [u8; 4], address: SocketAddr) -> Self {
        Self::over(Box::new(connected(socket_at(source), address).await))
    }

    /// Plain, to a socket in the file system.
    pub async fn unix(path: &Path) -> Self {
        let stream = UnixStream::connect(path).await;
        Self::over(Box::new(stream.unwrap_or_else(|error| panic!("connect to {}: {error}", path.display()))))
    }

    /// Over TLS, to `host` at `address`.
    pub async fn tls(address: SocketAddr, host: &str, pem: &str) -> Self {
        Self::tls_from([127, 0, 0, 1], address, host, &connector(pem)).await
    }

    /// Over TLS, from an address of the caller's choice.
    pub async fn tls_from(source: [u8; 4], address: SocketAddr, host: &str, connector: &TlsConnector) -> Self {
        let stream = connected(socket_at(source), address).await;
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let connecting = Box::pin(connector.connect(name, stream));
        Self::over(Box::new(connecting.await.unwrap_or_else(|error| panic!("TLS with {address}: {error}"))))
    }

    fn over(stream: Box<dyn Both>) -> Self {
        Self { stream, got: Vec::new(), ended: None }
    }

    /// Sends bytes; `false` when the connection takes none any more.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).await.is_ok() && self.stream.flush().await.is_ok()
    }

    /// Ends this side of the connection.
    pub async fn finish(&mut self) {
        let _gone_is_fine = self.stream.shutdown().await.is_ok();
    }

    /// Reads until something comes; `false` at the end of the connection.
    pub async fn read_more(&mut self) -> bool {
        let mut part = vec![0; 4096];
        match self.stream.read(&mut part).await {
            Ok(0) => self.ended = Some(End::Clean),
            Ok(length) => self.got.extend_from_slice(&part[..length]),
            Err(_) => self.ended = Some(End::Broken),
        }
        self.ended.is_none()
    }

    /// The next whole message, interim ones too. `Err` is what there was at the end of the connection.
    pub async fn answer(&mut self, kind: Kind) -> Result<Message, Option<Message>> {
        let reading = async {
            loop {
                let found = message::first(&self.got, kind);
                if let Some(length) = found.as_ref().and_then(|message| message.length) {
                    let _taken = self.got.drain(..length);
                    return found.ok_or(None);
                }
                if !self.read_more().await {
                    return Err(found);
                }
            }
        };
        let Ok(read) = tokio::time::timeout(PATIENCE, reading).await else { panic!("no answer within {PATIENCE:?}") };
        read
    }

    /// Reads to the end of the connection. What came and was not taken as an answer, and how it ended.
    pub async fn rest(&mut self) -> (&[u8], End) {
        self.rest_within(PATIENCE).await.unwrap_or_else(|| panic!("the connection is open after {PATIENCE:?}"))
    }

    /// The same with a deadline of the caller's choice; `None` when it is past.
    pub async fn rest_within(&mut self, limit: Duration) -> Option<(&[u8], End)> {
        let reading = async { while self.ended.is_none() && self.read_more().await {} };
        tokio::time::timeout(limit, reading).await.ok()?;
        self.ended.map(|ended| (self.got.as_slice(), ended))
    }

    /// What came and was not taken as an answer.
    pub fn got(&self) -> &[u8] {
        &self.got
    }
}

/// What connects to a gateway as HTTP/1.1.
pub fn connector(pem: &str) -> TlsConnector {
    TlsConnector::from(Arc::new(trusting(pem, &[b"http/1.1"])))
}

fn socket_at(source: [u8; 4]) -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket
}

async fn connected(socket: TcpSocket, address: SocketAddr) -> TcpStream {
    let stream = socket.connect(address).await.unwrap_or_else(|error| panic!("connect to {address}: {error}"));
    stream.set_nodelay(true).unwrap();
    stream
}
