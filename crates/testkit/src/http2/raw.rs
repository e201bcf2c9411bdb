//! A client of HTTP/2 that sends whatever bytes it is told to, and tells every frame that comes back.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;

use super::wire;
use crate::client::trusting;
use crate::tasks;

/// How long a frame may take to come.
const PATIENCE: Duration = Duration::from_secs(40);

trait Both: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Both for T {}

/// A frame that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its type.
    pub kind: u8,
    /// Its flags.
    pub flags: u8,
    /// Its stream; 0 for the connection.
    pub stream: u32,
    /// The rest.
    pub payload: Vec<u8>,
}

impl Seen {
    /// The error code of `RST_STREAM` and `GOAWAY`.
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            wire::RST_STREAM => 0,
            wire::GOAWAY => 4,
            _ => return None,
        };
        self.payload.get(at..at + 4).map(|code| u32::from_be_bytes(code.try_into().unwrap()))
    }
}

/// What became of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered; 0 is a status in a form we do not read.
    Status(u16),
    /// It was reset with this code.
    Reset(u32),
    /// The connection was ended with this code.
    GoAway(u32),
    /// The connection closed without a word.
    Closed,
}

/// A connection.
pub struct Raw {
    writer: WriteHalf<Box<dyn Both>>,
    frames: mpsc::UnboundedReceiver<Seen>,
}

impl std::fmt::Debug for Raw {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("raw HTTP/2 connection")
    }
}

impl Raw {
    /// Over TLS, to `host` at `address`. Nothing is sent yet.
    pub async fn tls(address: SocketAddr, host: &str, pem: &str) -> Self {
        let connector = TlsConnector::from(Arc::new(trusting(pem, &[b"h2"])));
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let stream = Box::pin(connector.connect(name, stream)).await.unwrap();
        Self::over(Box::new(stream))
    }

    /// Plain, with prior knowledge. Nothing is sent yet.
    pub async fn plain(address: SocketAddr) -> Self {
        Self::over(Box::new(TcpStream::connect(address).await.unwrap()))
    }

    fn over(stream: Box<dyn Both>) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        let (told, frames) = mpsc::unbounded_channel();
        let _until_closed = tasks::spawn(read(reader, told));
        Self { writer, frames }
    }

    /// Sends the preface and `SETTINGS` with these parameters.
    pub async fn begin(&mut self, parameters: &[(u16, u32)]) {
        let hello = [wire::PREFACE, &wire::settings(parameters)].concat();
        assert!(self.send(&hello).await, "the connection takes its first bytes");
    }

    /// Sends bytes; `false` when the connection takes none any more.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        self.writer.write_all(bytes).await.is_ok() && self.writer.flush().await.is_ok()
    }

    /// The next frame; `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Seen> {
        let next = tokio::time::timeout(PATIENCE, self.frames.recv()).await;
        next.unwrap_or_else(|_late| panic!("no frame within {PATIENCE:?}"))
    }

    /// The next frame, if one comes in time.
    pub async fn next_within(&mut self, limit: Duration) -> Option<Seen> {
        tokio::time::timeout(limit, self.frames.recv()).await.ok().flatten()
    }

    /// The error code of the last `GOAWAY` before the end of the connection.
    pub async fn farewell(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(seen) = self.next().await {
            if seen.kind == wire::GOAWAY {
                code = seen.code();
            }
        }
        code
    }

    /// The next frame that begins a response, on whichever stream.
    pub async fn next_head(&mut self) -> Seen {
        loop {
            let seen = self.next().await.unwrap_or_else(|| panic!("the connection ended"));
            match seen.kind {
                wire::HEADERS => return seen,
                wire::GOAWAY | wire::RST_STREAM => panic!("no response but {seen:?}"),
                _ => {}
            }
        }
    }

    /// What becomes of a stream first.
    pub async fn outcome_of(&mut self, stream: u32) -> Outcome {
        while let Some(seen) = self.next().await {
            match seen.kind {
                wire::GOAWAY => return Outcome::GoAway(seen.code().unwrap_or_default()),
                wire::RST_STREAM if seen.stream == stream => return Outcome::Reset(seen.code().unwrap_or_default()),
                wire::HEADERS if seen.stream == stream => {
                    return Outcome::Status(wire::status(&seen.payload).unwrap_or_default());
                }
                _ => {}
            }
        }
        Outcome::Closed
    }

    /// Waits for the end of a stream whose answer has begun: with its last frame it gives its place to another. `false` if the
    /// connection ends before, or the stream is reset.
    pub async fn finished(&mut self, stream: u32) -> bool {
        while let Some(seen) = self.next().await {
            match seen.kind {
                wire::DATA | wire::HEADERS if seen.stream == stream && seen.flags & wire::END_STREAM != 0 => {
                    return true;
                }
                wire::RST_STREAM if seen.stream == stream => return false,
                _ => {}
            }
        }
        false
    }
}

async fn read(mut reader: ReadHalf<Box<dyn Both>>, told: mpsc::UnboundedSender<Seen>) {
    let mut head = [0; 9];
    while reader.read_exact(&mut head).await.is_ok() {
        let [high, middle, low, kind, flags, a, b, c, d] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        if reader.read_exact(&mut payload).await.is_err() {
            return;
        }
        if told.send(Seen { kind, flags, stream: u32::from_be_bytes([a, b, c, d]), payload }).is_err() {
            return;
        }
    }
}
