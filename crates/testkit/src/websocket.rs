//! An application that takes WebSocket handshakes and then does, with frames, what its path says.
//!
//! | path | what it does |
//! |---|---|
//! | `/echo` | sends back what comes; a Close frame is answered, then the connection ended |
//! | `/first` | says [`WELCOME`] in the same breath as its 101, then as `/echo` |
//! | `/bye` | says [`WELCOME`] and a Close frame, and closes without reading |
//! | `/fail` | reads once, says a Close frame with 1002, and closes although more is coming |
//! | `/no` | refuses with 403 |

use std::net::SocketAddr;

use hms_http1::{Limits, request};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::tasks;

/// A text frame of a server.
pub const WELCOME: &[u8] = b"\x81\x07welcome";
/// A Close frame of a server, 1000.
pub const CLOSE: &[u8] = b"\x88\x02\x03\xe8";
/// A Close frame of a server, 1002.
pub const FAIL: &[u8] = b"\x88\x02\x03\xea";

/// Starts it on a free port.
pub async fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let _until_the_end = tasks::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _until_closed = tasks::spawn(async move { serve(stream).await.is_some() });
        }
    });
    address
}

/// What a client asks with; the key is that of RFC 6455 §1.3.
pub fn ask(path: &str, host: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    .into_bytes()
}

/// A client's frame: final, masked.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode];
    match payload.len() {
        length @ ..126 => frame.push(0x80 | u8::try_from(length).unwrap()),
        length @ 126..65_536 => {
            frame.push(0x80 | 0x7e);
            frame.extend(u16::try_from(length).unwrap().to_be_bytes());
        }
        length => {
            frame.push(0x80 | 0x7f);
            frame.extend(u64::try_from(length).unwrap().to_be_bytes());
        }
    }
    let mask = [7, 13, 42, 99];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

async fn serve(mut stream: TcpStream) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut read = Vec::new();
    let end = loop {
        if let Some(at) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    };
    let asked = request(&read[..end], &Limits::MESH).ok()?;
    let path = asked.head.path.as_str().to_owned();
    let Some(offer) = asked.upgrade.filter(|_| path != "/no") else {
        let refusal = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
        stream.write_all(refusal).await.ok()?;
        return Some(());
    };
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-protocol: chat\r\n".to_vec();
    offer.accept().write(&mut answer);
    answer.extend(b"\r\n");
    if matches!(path.as_str(), "/first" | "/bye") {
        answer.extend(WELCOME);
    }
    let early = read.split_off(end);
    match path.as_str() {
        "/bye" => {
            answer.extend(CLOSE);
            stream.write_all(&answer).await.ok()
        }
        "/fail" => {
            stream.write_all(&answer).await.ok()?;
            if early.is_empty() {
                stream.read_buf(&mut read).await.ok()?;
            }
            stream.write_all(FAIL).await.ok()
        }
        _ => {
            stream.write_all(&answer).await.ok()?;
            echo(stream, early).await
        }
    }
}

/// Sends back unmasked what the frames carry, as frames of the same kind.
async fn echo(mut stream: TcpStream, mut read: Vec<u8>) -> Option<()> {
    loop {
        while let Some((length, answer)) = unmasked(&read) {
            read.drain(..length);
            stream.write_all(&answer).await.ok()?;
            if answer.first()? & 0x0f == 8 {
                return stream.shutdown().await.ok();
            }
        }
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
}

/// The first frame as a server would send it, and how many bytes it took.
fn unmasked(bytes: &[u8]) -> Option<(usize, Vec<u8>)> {
    let short = usize::from(bytes.get(1)? & 0x7f);
    let (length, head) = match short {
        126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
        127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
        length => (length, 2),
    };
    let mask = bytes.get(head..head + 4)?;
    let payload = bytes.get(head + 4..head + 4 + length)?;
    let mut answer = bytes.get(..head)?.to_vec();
    *answer.get_mut(1)? &= 0x7f;
    answer.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    Some((head + 4 + length, answer))
}
