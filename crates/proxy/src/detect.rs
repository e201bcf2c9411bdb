//! Which protocol a plain connection speaks, from its first bytes and without ever waiting a fixed time.

use std::io;
use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;

use hms_traffic::detect::{self, Beginning};

use crate::transport::Protocol;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes that are looked at; every protocol is known by fewer.
const LOOKED_AT: usize = 64;
/// Pauses while a preface is incomplete: doubling from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(100));
/// How long a connection may stay silent before its first byte.
const SILENCE: Duration = Duration::from_mins(1);

/// Looks at the first bytes without taking them. The first byte that is not the preface's decides for HTTP/1.
pub async fn protocol(stream: &TcpStream) -> io::Result<Protocol> {
    let decide = |bytes: &[u8]| match (bytes.starts_with(PREFACE), PREFACE.starts_with(bytes)) {
        (true, _) => Some(Protocol::Http2),
        (false, true) => None,
        (false, false) => Some(Protocol::Http1),
    };
    let looking = look(stream, decide);
    tokio::time::timeout(SILENCE, looking).await.unwrap_or_else(|_elapsed| Err(io::ErrorKind::TimedOut.into()))
}

/// Looks at the first bytes without taking them, however long they take to come.
pub async fn beginning(stream: &TcpStream) -> io::Result<Beginning> {
    look(stream, |bytes| Some(detect::beginning(bytes)).filter(|beginning| *beginning != Beginning::More)).await
}

async fn look<T>(stream: &TcpStream, decide: impl Fn(&[u8]) -> Option<T>) -> io::Result<T> {
    let mut seen = [0; LOOKED_AT];
    let mut before = 0;
    let mut pause = PAUSE.0;
    loop {
        let length = stream.peek(&mut seen).await?;
        let bytes = seen.get(..length).unwrap_or_default();
        if bytes.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(decided) = decide(bytes) {
            return Ok(decided);
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
