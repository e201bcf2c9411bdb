//! Reading a response's head.

use std::mem::MaybeUninit;

use hms_model::message::ResponseHead;
use http::StatusCode;

use crate::head::{Lines, Side, after_first_line, check_shape, diagnose_fields, diagnose_line_ends};
use crate::limits::MOST_FIELDS;
use crate::websocket::Accept;
use crate::{Framing, Limits, Reject};

/// What the request was, as far as the response's framing depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// `HEAD`: the response has no body, whatever it says.
    Head,
    /// A WebSocket handshake: 101 is a possible answer.
    Upgrade,
    /// Anything else.
    Other,
}

/// A response's head and what it says about its connection.
#[derive(Debug)]
pub struct Response {
    /// Status and the fields that are passed on.
    pub head: ResponseHead,
    /// How its body ends.
    pub framing: Framing,
    /// Whether the connection can be used again once the body has ended (RFC 9112 §9.3).
    pub persistent: bool,
    /// Whether it is HTTP/1.0.
    pub http10: bool,
    /// `Content-Length` as declared, also where there is no body: to `HEAD` and on a 304 it tells what a `GET` would give
    /// (RFC 9110 §8.6).
    pub content_length: Option<u64>,
    /// What a 101 answers to the handshake's key; compare it with [`crate::websocket::Offer::check`].
    pub upgrade_accept: Option<Accept>,
}

impl Response {
    /// Whether more heads follow: 1xx except 101 (RFC 9110 §15.2).
    pub fn is_interim(&self) -> bool {
        self.head.status.is_informational() && self.head.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// Reads exactly one head, as [`crate::Scanner`] delimits it.
pub fn response(head: &[u8], asked: Asked, limits: &Limits) -> Result<Response, Reject> {
    check_shape(head, limits)?;
    if head.starts_with(b"\r\n") {
        return Err(Reject::EmptyLines);
    }
    if !head.starts_with(b"HTTP/") {
        return Err(Reject::StatusLine);
    }
    let mut headers = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    match httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut parsed, head, &mut headers) {
        Ok(httparse::Status::Complete(length)) if length == head.len() => {}
        Ok(_) => return Err(diagnose_line_ends(head).unwrap_or(Reject::Unfinished)),
        Err(error) => return Err(diagnose(head, error)),
    }
    let status = match parsed.code {
        Some(code @ 100..=599) => StatusCode::from_u16(code).map_err(|_range| Reject::Status)?,
        _ => return Err(Reject::Status),
    };
    let lines = Lines::read(head, parsed.headers, limits)?;
    assemble(status, parsed.version == Some(0), asked, &lines)
}

fn assemble(status: StatusCode, http10: bool, asked: Asked, lines: &Lines<'_>) -> Result<Response, Reject> {
    let (length, chunked) = lines.framing(http10)?;
    let bodiless = status.is_informational() || status == StatusCode::NO_CONTENT;
    if bodiless && (chunked || length.is_some_and(|length| length > 0)) {
        return Err(Reject::BodyForbidden);
    }
    let framing = match (length, chunked) {
        _ if bodiless || asked == Asked::Head || status == StatusCode::NOT_MODIFIED => Framing::None,
        (_, true) => Framing::Chunked,
        (Some(length), false) => Framing::of_length(length),
        (None, false) => Framing::UntilClose,
    };
    let upgrade_accept = match (status, asked) {
        (StatusCode::SWITCHING_PROTOCOLS, Asked::Upgrade) if http10 => return Err(Reject::Handshake),
        (StatusCode::SWITCHING_PROTOCOLS, Asked::Upgrade) => Some(Accept::read(lines)?),
        (StatusCode::SWITCHING_PROTOCOLS, _) => return Err(Reject::Unasked),
        _ => None,
    };
    Ok(Response {
        framing,
        persistent: lines.persistent(http10) && framing != Framing::UntilClose,
        http10,
        content_length: length.filter(|_declared| !bodiless),
        head: ResponseHead { status, fields: lines.fields(Side::Response, upgrade_accept.is_some()) },
        upgrade_accept,
    })
}

/// What is wrong with a head that `httparse` refused.
fn diagnose(head: &[u8], error: httparse::Error) -> Reject {
    if let Some(fault) = diagnose_line_ends(head) {
        return fault;
    }
    match error {
        httparse::Error::Version => version_fault(head),
        httparse::Error::Status | httparse::Error::Token | httparse::Error::NewLine => Reject::StatusLine,
        error => diagnose_fields(after_first_line(head), error),
    }
}

fn version_fault(head: &[u8]) -> Reject {
    match head.get(5..9) {
        Some([major, b'.', minor, b' ']) if major.is_ascii_digit() && minor.is_ascii_digit() => Reject::Version,
        _ => Reject::VersionSyntax,
    }
}
