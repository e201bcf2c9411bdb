//! Reading a request's head.

use std::mem::MaybeUninit;

use hms_model::message::{Authority, Malformed, RequestHead};
use http::Method;

use crate::head::{
    Lines, Side, after_first_line, check_shape, diagnose_fields, diagnose_line_ends, is_tchar, is_token,
};
use crate::limits::MOST_FIELDS;
use crate::target::Target;
use crate::websocket::Offer;
use crate::{Framing, Limits, Reject};

/// Longest method.
const MAX_METHOD: usize = 32;

/// A request's head and what it says about its connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each answers a question of its own")]
pub struct Request {
    /// Method, authority, path, query and the fields that are passed on.
    pub head: RequestHead,
    /// How its body ends; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether the client wants the connection kept (RFC 9112 §9.3).
    pub persistent: bool,
    /// Whether it is HTTP/1.0: no chunks and no interim responses may be sent to it.
    pub http10: bool,
    /// Whether the client waits for a 100 before it sends the body (RFC 9110 §10.1.1).
    pub expects_continue: bool,
    /// The WebSocket handshake, if this is one.
    pub upgrade: Option<Offer>,
}

/// Reads exactly one head, as [`crate::Scanner`] delimits it.
pub fn request(head: &[u8], limits: &Limits) -> Result<Request, Reject> {
    let head = head.strip_prefix(b"\r\n").unwrap_or(head);
    check_shape(head, limits)?;
    if head.starts_with(b"\r\n") {
        return Err(Reject::EmptyLines);
    }
    if !head.first().copied().is_some_and(is_tchar) {
        return Err(if head.starts_with(b"\n") { Reject::BareLf } else { Reject::Method });
    }
    let mut headers = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    match httparse::ParserConfig::default().parse_request_with_uninit_headers(&mut parsed, head, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(diagnose_line_ends(head).unwrap_or(Reject::Unfinished)),
        Err(error) => return Err(diagnose(head, error, limits)),
    }
    let target = parsed.path.unwrap_or_default();
    if target.len() > limits.target {
        return Err(Reject::TargetTooLong);
    }
    let method = method(parsed.method.unwrap_or_default())?;
    let lines = Lines::read(head, parsed.headers, limits)?;
    assemble(method, target, parsed.version == Some(0), &lines)
}

fn assemble(method: Method, target: &str, http10: bool, lines: &Lines<'_>) -> Result<Request, Reject> {
    if method == Method::CONNECT {
        return Err(Reject::Connect);
    }
    let target = Target::parse(target, &method)?;
    let authority = authority(lines, target.authority, http10)?;
    let framing = match lines.framing(http10)? {
        (_, true) => Framing::Chunked,
        (Some(length), false) => Framing::of_length(length),
        (None, false) => Framing::None,
    };
    if method == Method::TRACE && framing != Framing::None {
        return Err(Reject::TraceBody);
    }
    lines.check_nominations()?;
    let continues = expects_continue(lines)?;
    // HTTP/1.0 knows no upgrade, and without the option it is not meant for us (RFC 9110 §7.8).
    let upgrade = match lines.websocket && lines.options.upgrade && !http10 {
        true if method != Method::GET || framing != Framing::None => return Err(Reject::WebSocket),
        true => Some(Offer::read(lines)?),
        false => None,
    };
    Ok(Request {
        framing,
        persistent: lines.persistent(http10),
        http10,
        expects_continue: continues && !http10 && framing != Framing::None,
        head: RequestHead {
            method,
            authority,
            path: target.path,
            query: target.query.map(Into::into),
            fields: lines.fields(Side::Request, upgrade.is_some()),
        },
        upgrade,
    })
}

fn method(text: &str) -> Result<Method, Reject> {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    if text.len() > MAX_METHOD {
        return Err(Reject::MethodTooLong);
    }
    let odd = text.bytes().any(|byte| byte.is_ascii_lowercase());
    if odd && KNOWN.iter().any(|known| known.eq_ignore_ascii_case(text)) {
        return Err(Reject::MethodCase);
    }
    Method::from_bytes(text.as_bytes()).map_err(|_no_token| Reject::Method)
}

/// The one host of a request (RFC 9112 §3.2, §3.3; reliability C3). HTTP/1.0 may leave `Host` out if the target has one.
fn authority(lines: &Lines<'_>, named: Option<Authority>, http10: bool) -> Result<Authority, Reject> {
    if lines.host.again {
        return Err(Reject::ManyHosts);
    }
    let host = match (lines.host.value, named) {
        (None, Some(named)) if http10 => return Ok(named),
        (None, _) => return Err(Reject::NoHost),
        (Some(value), named) => {
            let text = std::str::from_utf8(value).map_err(|_not_ascii| Reject::Host(Malformed::BadAuthority))?;
            let host = Authority::parse(text).map_err(Reject::Host)?;
            if named.is_some_and(|named| named != host) {
                return Err(Reject::HostMismatch);
            }
            host
        }
    };
    Ok(host)
}

fn expects_continue(lines: &Lines<'_>) -> Result<bool, Reject> {
    match (lines.expect.value, lines.expect.again) {
        (None, _) => Ok(false),
        (Some(value), false) if value.eq_ignore_ascii_case(b"100-continue") => Ok(true),
        _ => Err(Reject::Expect),
    }
}

/// What is wrong with a head that `httparse` refused.
fn diagnose(head: &[u8], error: httparse::Error, limits: &Limits) -> Reject {
    let end = memchr::memchr2(b'\r', b'\n', head).unwrap_or(head.len());
    let line = head.get(..end).unwrap_or_default();
    diagnose_line(line, limits)
        .or_else(|| diagnose_line_ends(head))
        .unwrap_or_else(|| diagnose_fields(after_first_line(head), error))
}

/// What is wrong with a request line, if anything is.
fn diagnose_line(line: &[u8], limits: &Limits) -> Option<Reject> {
    if line == b"PRI * HTTP/2.0" {
        return Some(Reject::Preface);
    }
    if line.contains(&0) {
        return Some(Reject::Nul);
    }
    if line.contains(&b'\t') {
        return Some(Reject::RequestLine);
    }
    let mut parts = line.split(|byte| *byte == b' ');
    let method = parts.next().unwrap_or_default();
    if !is_token(method) {
        return Some(if is_token(method.trim_ascii()) { Reject::RequestLine } else { Reject::Method });
    }
    let (Some(target), version, rest) = (parts.next(), parts.next(), parts.next()) else {
        return Some(Reject::RequestLine);
    };
    if target.is_empty() || rest.is_some() {
        return Some(Reject::RequestLine);
    }
    if target.len() > limits.target {
        return Some(Reject::TargetTooLong);
    }
    if target.iter().any(|byte| !matches!(byte, 0x21..=0x7e)) {
        return Some(Reject::Target(Malformed::RawByte));
    }
    match version {
        None => Some(Reject::NoVersion),
        Some(b"HTTP/1.1" | b"HTTP/1.0") => None,
        Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Some(Reject::Version)
        }
        Some(b"") => Some(Reject::RequestLine),
        Some(_) => Some(Reject::VersionSyntax),
    }
}
