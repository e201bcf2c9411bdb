//! Which protocol a plain connection speaks, from its first bytes and without ever waiting a fixed time.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::transport::Protocol;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Pauses while a preface is incomplete: doubling from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// How long a connection may stay silent before its first byte.
const SILENCE: Duration = Duration::from_mins(1);

/// Looks at the first bytes without taking them. The first byte that is not the preface's decides for HTTP/1.
pub async fn protocol(stream: &TcpStream) -> io::Result<Protocol> {
    tokio::time::timeout(SILENCE, look(stream)).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

async fn look(stream: &TcpStream) -> io::Result<Protocol> {
    let mut seen = [0; PREFACE.len()];
    let mut before = 0;
    let mut pause = PAUSE.0;
    loop {
        let length = stream.peek(&mut seen).await?;
        let bytes = seen.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !PREFACE.starts_with(bytes) {
            return Ok(Protocol::Http1);
        }
        if bytes.len() == PREFACE.len() {
            return Ok(Protocol::Http2);
        }
        if length == before {
            // Peeking does not consume, so the socket stays readable; a growing pause keeps this from spinning.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE.1);
            stream.ready(Interest::READABLE).await?;
        }
        before = length;
    }
}
