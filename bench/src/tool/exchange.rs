//! As much of HTTP/1.1 as a client needs whose every answer is known: a status, a length, a body.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use memchr::memmem;

/// Longest a single exchange may take.
const PATIENCE: Duration = Duration::from_secs(20);
const END_OF_HEAD: &[u8] = b"\r\n\r\n";

/// A GET as `wrk` writes it, so that both loads are alike.
pub(crate) fn get(host: &str, path: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Where the head ends, if it is there.
pub(crate) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    memmem::find(bytes, END_OF_HEAD).map(|at| at + END_OF_HEAD.len())
}

/// What is known of an answer once its head is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// Its status.
    pub(crate) status: u16,
    /// How long it is, head and body.
    pub(crate) length: usize,
}

impl Answer {
    /// Reads a head; `None` while it is incomplete. An answer without a length cannot be measured and is an error.
    pub(crate) fn read(bytes: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = end_of_head(bytes) else { return Ok(None) };
        let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(io::Error::other)?;
        let status = head.get(9..12).and_then(|word| word.parse().ok());
        let body = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
        });
        let body = if status == Some(204) { Some(0) } else { body };
        match (status, body) {
            (Some(status), Some(body)) => Ok(Some(Self { status, length: end + body })),
            _ => Err(io::Error::other(format!("an answer without status or length: {head}"))),
        }
    }
}

/// Sends a request and reads its answer; returns the status and the body.
pub(crate) fn exchange(stream: &mut (impl Read + Write), request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    stream.write_all(request)?;
    stream.flush()?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 16 * 1024];
    loop {
        let length = stream.read(&mut chunk)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(chunk.get(..length).unwrap_or_default());
        if let Some(answer) = Answer::read(&bytes)?
            && bytes.len() >= answer.length
        {
            let end = end_of_head(&bytes).unwrap_or_default();
            return Ok((answer.status, bytes.split_off(end)));
        }
    }
}

/// The same on a connection of its own.
pub(crate) fn once(address: SocketAddr, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    exchange(&mut connect(address)?, request)
}

/// A connection that does not wait for ever.
pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    patient(&stream)?;
    Ok(stream)
}

/// Sets the limits that every blocking connection of ours has.
pub(crate) fn patient(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_its_head_says() {
        let bytes = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(Answer::read(bytes).unwrap(), Some(Answer { status: 503, length: bytes.len() }));
        assert_eq!(Answer::read(&bytes[..20]).unwrap(), None);
        assert!(Answer::read(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
