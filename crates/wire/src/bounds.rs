//! Bounds of what is taken from outside, and the checks that hold them.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::WireError;

/// Longest encoded resource, in bytes.
pub const RESOURCE_BYTES: usize = 4 * 1024 * 1024;

/// Longest name of a resource or subscription, in bytes. A real one has at most 267.
pub const NAME_BYTES: usize = 512;

/// What both ends of a gRPC connection should take as the longest message, in bytes. Responses are split well below it.
pub const MESSAGE_BYTES: usize = 32 * 1024 * 1024;

/// Longest time any policy may state.
pub(crate) const LONGEST: Duration = Duration::from_hours(7 * 24);

/// Longest short text: versions, zones, workload ids.
pub(crate) const WORD_BYTES: usize = 128;

/// Longest `file:line`.
pub(crate) const ORIGIN_BYTES: usize = 4096;

/// What a field must have.
pub(crate) fn required<T>(value: Option<T>, field: &'static str) -> Result<T, WireError> {
    value.ok_or(WireError::Missing(field))
}

/// A text of a length within `bytes` and without control characters, which would forge lines in logs.
pub(crate) fn text(value: String, field: &'static str, bytes: RangeInclusive<usize>) -> Result<String, WireError> {
    if !bytes.contains(&value.len()) {
        let why = format!("{} bytes, {} to {} are taken", value.len(), bytes.start(), bytes.end());
        return Err(WireError::field(field, &why));
    }
    if value.chars().any(char::is_control) {
        return Err(WireError::field(field, &"a control character"));
    }
    Ok(value)
}

/// A host name of 1 to 253 bytes: letters, digits, `.`, `-` and `_`.
pub(crate) fn host(value: String, field: &'static str) -> Result<String, WireError> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !(1..=253).contains(&value.len()) || !value.bytes().all(fits) {
        return Err(WireError::field(field, &format!("`{}` is no host name", value.escape_debug())));
    }
    Ok(value)
}

/// A host name, or an IP address.
pub(crate) fn host_or_address(value: String, field: &'static str) -> Result<String, WireError> {
    if value.parse::<IpAddr>().is_ok() { Ok(value) } else { host(value, field) }
}

/// Reads a list of at most `limit` entries.
pub(crate) fn each<T, U>(
    items: Vec<T>,
    field: &'static str,
    limit: usize,
    read: impl FnMut(T) -> Result<U, WireError>,
) -> Result<Vec<U>, WireError> {
    if items.len() > limit {
        return Err(WireError::TooMany { field, length: items.len(), limit });
    }
    items.into_iter().map(read).collect()
}

/// A number within bounds that fit its type.
pub(crate) fn number<N: TryFrom<u32>>(
    value: u32,
    field: &'static str,
    range: RangeInclusive<u32>,
) -> Result<N, WireError> {
    let outside = || WireError::field(field, &format!("{value}, {} to {} are taken", range.start(), range.end()));
    if !range.contains(&value) {
        return Err(outside());
    }
    N::try_from(value).map_err(|_wider_range_than_type| outside())
}

/// A duration as microseconds. One beyond 584 542 years saturates, and is refused at the other end like any beyond a week.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// A time longer than nothing and at most a week.
pub(crate) fn duration(micros: u64, field: &'static str) -> Result<Duration, WireError> {
    if micros == 0 {
        return Err(WireError::field(field, &"no time at all"));
    }
    pause(micros, field)
}

/// A time that may be nothing, at most a week.
pub(crate) fn pause(micros: u64, field: &'static str) -> Result<Duration, WireError> {
    let duration = Duration::from_micros(micros);
    if duration > LONGEST {
        return Err(WireError::field(field, &"longer than a week"));
    }
    Ok(duration)
}
