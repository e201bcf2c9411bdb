//! Writing messages. Framing is always made anew, never copied.
//!
//! Everything is appended to a buffer that the caller keeps; nothing else is allocated.

use hms_model::message::Fields;
use http::{Method, StatusCode};

use crate::Framing;

/// What stands after a chunk's data.
pub const CHUNK_TAIL: &[u8] = b"\r\n";

/// Writes `METHOD path?query HTTP/1.1`.
pub fn request_line(out: &mut Vec<u8>, method: &Method, path: &str, query: Option<&str>) {
    out.extend_from_slice(method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(path.as_bytes());
    if let Some(query) = query {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// Writes `HTTP/1.1 status reason`, with the reason that the status has by its registration, or none.
pub fn status_line(out: &mut Vec<u8>, status: StatusCode) {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Writes a field. One that contains CR, LF or NUL would be more than one; it is left out.
pub fn field(out: &mut Vec<u8>, name: impl AsRef<[u8]>, value: &[u8]) {
    let name = name.as_ref();
    let start = out.len();
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    let breaks = memchr::memchr3(b'\r', b'\n', 0, out.get(start..).unwrap_or_default()).is_some();
    if breaks || name.is_empty() {
        out.truncate(start);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

/// Writes a line that a parser of ours has checked already.
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Writes the field that tells where the body ends. [`Framing::Length`] of 0 is written, [`Framing::None`] is not: a request
/// without content needs nothing, while a response with an empty body needs the 0.
pub fn framing(out: &mut Vec<u8>, framing: &Framing) {
    match framing {
        Framing::None | Framing::UntilClose => {}
        Framing::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
        Framing::Length(length) => {
            out.extend_from_slice(b"content-length: ");
            decimal(out, *length);
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Ends a head.
pub fn end(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\r\n");
}

/// Writes what stands before `len` bytes of a chunk. A chunk of 0 bytes would end the body; nothing is written for it.
pub fn chunk_head(out: &mut Vec<u8>, len: usize) {
    if len > 0 {
        hexadecimal(out, len);
        out.extend_from_slice(b"\r\n");
    }
}

/// Ends a chunked body, with the trailers if there are any.
pub fn last_chunk(out: &mut Vec<u8>, trailers: Option<&Fields>) {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flat_map(Fields::iter) {
        field(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// Writes a number without leading zeros.
/// Writes a number in decimal digits.
pub fn decimal(out: &mut Vec<u8>, number: u64) {
    digits::<10>(out, number);
}

fn hexadecimal(out: &mut Vec<u8>, number: usize) {
    // A usize has at most 64 bits.
    digits::<16>(out, u64::try_from(number).unwrap_or(u64::MAX));
}

/// Writes a number without its leading zeros.
fn digits<const BASE: u64>(out: &mut Vec<u8>, mut number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 20];
    let mut used = 0;
    for slot in text.iter_mut().rev() {
        // The remainder is below 16.
        let digit = usize::try_from(number % BASE).unwrap_or_default();
        *slot = DIGITS.get(digit).copied().unwrap_or(b'0');
        used += 1;
        number /= BASE;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(text.get(text.len() - used..).unwrap_or_default());
}
