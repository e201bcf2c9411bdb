//! Where a body ends.

use crate::Reject;
use crate::head::is_token;

/// How the end of a body is told (RFC 9112 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is no body. A length of 0 is read as this.
    None,
    /// That many bytes.
    Length(u64),
    /// Chunks up to an empty one.
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
}

impl Framing {
    pub(crate) fn of_length(length: u64) -> Self {
        if length == 0 { Self::None } else { Self::Length(length) }
    }
}

/// Reads a `Content-Length`: digits only, below 2⁶³ so that no other recipient overflows (RFC 9110 §8.6).
pub(crate) fn length(value: &[u8]) -> Result<u64, Reject> {
    if value.contains(&b',') {
        return Err(Reject::ManyLengths);
    }
    if value.is_empty() {
        return Err(Reject::Length);
    }
    let mut length = 0_i64;
    for byte in value {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return Err(Reject::Length);
        }
        length = length.checked_mul(10).and_then(|tens| tens.checked_add(i64::from(digit))).ok_or(Reject::Length)?;
    }
    Ok(length.unsigned_abs())
}

/// Refuses a `Transfer-Encoding` that is not exactly `chunked` (RFC 9112 §6.1, §6.3).
pub(crate) fn coding(value: &[u8]) -> Result<(), Reject> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let is_chunked = |coding: &[u8]| coding.trim_ascii().eq_ignore_ascii_case(b"chunked");
    let mut backwards = value.rsplit(|byte| *byte == b',');
    let ends_chunked = backwards.next().is_some_and(is_chunked);
    // Exactly `chunked` at the end after codings we do not know is well-formed, only not for us.
    let broken = |coding: &[u8]| is_chunked(coding) || !is_token(coding.trim_ascii());
    if ends_chunked && !backwards.any(broken) { Err(Reject::UnknownCoding) } else { Err(Reject::Coding) }
}
