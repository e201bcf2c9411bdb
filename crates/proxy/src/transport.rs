//! HTTP on the wire. Nothing above this module sees a type of h2.
//!
//! A request comes in as a [`Request`] whose head is canonical and free of hop-by-hop fields and framing; a [`Response`] goes out
//! the same way. What differs between protocols ends here.

pub mod buffer;
pub mod connect;
pub mod dialling;
pub mod http1;
pub mod http2;
pub mod pool;
pub mod relay;
pub mod tls_stream;
pub mod waiting;

use std::fmt;

use hms_http1::Reject;
use hms_model::message::{Authority, CanonicalPath, Fields, Malformed, RequestHead, ResponseHead};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use crate::body::{Body, BodyError};

/// Most field lines a head may have (reliability §6).
pub const MAX_FIELDS: usize = 100;
/// Largest head in bytes.
pub const MAX_HEAD: usize = 64 * 1024;
/// Longest request target in bytes.
pub const MAX_TARGET: usize = 16 * 1024;

/// The protocol of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Bytes that nobody reads.
    Opaque,
}

/// A request as it came.
#[derive(Debug)]
pub struct Request {
    /// Its head.
    pub head: RequestHead,
    /// Its body.
    pub body: Body,
}

/// A response, ours or an upstream's.
#[derive(Debug)]
pub struct Response {
    /// Its head.
    pub head: ResponseHead,
    /// Its body.
    pub body: Body,
}

/// Why a head is refused before anything is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// HTTP/1.1 that is ambiguous or broken.
    Http1(Reject),
    /// Not here in time.
    Late,
    /// Ambiguous or broken.
    Malformed(Malformed),
    /// No, or more than one, `Host`; or one that contradicts the target (RFC 9112 §3.2).
    Host,
    /// `CONNECT`.
    Connect,
    /// Too many fields or too long a target.
    TooLarge,
    /// `Connection` nominates a field that must reach the other end (RFC 9110 §7.6.1).
    Nominated,
    /// Both `Transfer-Encoding` and `Content-Length`, or several lengths (RFC 9112 §6.3).
    Framing,
    /// A scheme other than `http` and `https`.
    Scheme,
    /// A value that begins or ends with white space where it cannot be trimmed (RFC 9113 §8.2.1).
    Padded,
}

impl fmt::Display for BadHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http1(reject) => reject.fmt(f),
            Self::Late => f.write_str("the head did not come in time"),
            Self::Malformed(malformed) => malformed.fmt(f),
            Self::Host => f.write_str("a request names exactly one host"),
            Self::Connect => f.write_str("CONNECT is not offered"),
            Self::TooLarge => f.write_str("the head is too large"),
            Self::Nominated => f.write_str("Connection nominates a field that may not be dropped"),
            Self::Framing => f.write_str("the length of the body is ambiguous"),
            Self::Scheme => f.write_str("the scheme is neither http nor https"),
            Self::Padded => f.write_str("a value begins or ends with white space"),
        }
    }
}

/// Fields that `Connection` may not nominate away: dropping them would change what a request means or who sent it.
const PROTECTED: [&str; 9] = [
    "host",
    "authorization",
    "content-length",
    "content-type",
    "cookie",
    "te",
    "transfer-encoding",
    "traceparent",
    "forwarded",
];

/// Makes an HTTP/2 head canonical: what h2 parsed becomes what the mesh decides on.
fn request_head(method: Method, uri: &http::Uri, mut map: HeaderMap) -> Result<RequestHead, BadHead> {
    if method == Method::CONNECT {
        return Err(BadHead::Connect);
    }
    let target = uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    if map.len() > MAX_FIELDS || target.len() > MAX_TARGET {
        return Err(BadHead::TooLarge);
    }
    let mut lengths = map.get_all(CONTENT_LENGTH).iter();
    let is_number = |value: &HeaderValue| !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit);
    let sound = lengths.next().is_none_or(is_number) && lengths.next().is_none();
    if !sound || map.contains_key(TRANSFER_ENCODING) {
        return Err(BadHead::Framing);
    }
    let authority = authority(uri, &map)?;
    strip_hop_by_hop(&mut map)?;
    map.remove(HOST);
    map.remove(PROXY_AUTHORIZATION);
    let raw_path = if uri.path().is_empty() { "/" } else { uri.path() };
    let path = CanonicalPath::parse(raw_path).map_err(BadHead::Malformed)?;
    Ok(RequestHead { method, authority, path, query: uri.query().map(Into::into), fields: Fields::from(map) })
}

/// The one authority of a request; where target and `Host` both name one they must agree (reliability C3).
fn authority(uri: &http::Uri, map: &HeaderMap) -> Result<Authority, BadHead> {
    let mut hosts = map.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (_, Some(_)) => return Err(BadHead::Host),
        (None, None) => None,
        (Some(host), None) => {
            let host = host.to_str().map_err(|_not_ascii| BadHead::Host)?;
            Some(Authority::parse(host).map_err(BadHead::Malformed)?)
        }
    };
    let named = uri.authority().map(|a| Authority::parse(a.as_str())).transpose().map_err(BadHead::Malformed)?;
    match (named, host) {
        (Some(named), Some(host)) if named != host => Err(BadHead::Host),
        (Some(named), _) => Ok(named),
        (None, Some(host)) => Ok(host),
        (None, None) => Err(BadHead::Host),
    }
}

/// Removes what is meant for one hop only (RFC 9110 §7.6.1).
fn strip_hop_by_hop(map: &mut HeaderMap) -> Result<(), BadHead> {
    let mut nominated: Vec<HeaderName> = Vec::new();
    for value in map.get_all(CONNECTION) {
        for token in value.as_bytes().split(|b| *b == b',') {
            let token = token.trim_ascii();
            let Ok(name) = HeaderName::from_bytes(token) else { continue };
            let text = name.as_str();
            // `Connection: te` is what RFC 9110 §10.1.4 asks of everyone who sends TE.
            if text != "te"
                && (PROTECTED.contains(&text) || text.starts_with("x-forwarded-") || text.starts_with("x-hms-"))
            {
                return Err(BadHead::Nominated);
            }
            nominated.push(name);
        }
    }
    for name in nominated {
        map.remove(name);
    }
    let trailers = map.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    for name in [CONNECTION, TRANSFER_ENCODING, UPGRADE, TE, PROXY_AUTHENTICATE] {
        map.remove(name);
    }
    for name in ["keep-alive", "proxy-connection", "http2-settings"] {
        map.remove(name);
    }
    if trailers {
        map.insert(TE, HeaderValue::from_static("trailers"));
    }
    Ok(())
}

/// A response's head without hop-by-hop fields.
fn response_head(status: http::StatusCode, mut map: HeaderMap) -> ResponseHead {
    // A response that nominates a protected field is still delivered; only the nomination is ignored.
    let _checked = strip_hop_by_hop(&mut map).is_ok();
    map.remove(CONNECTION);
    map.remove(TRANSFER_ENCODING);
    map.remove(TE);
    ResponseHead { status, fields: Fields::from(map) }
}

/// What is sent in the end: the head as received plus what this hop changes. The head itself stays as it is, so that every try
/// starts from the same.
#[derive(Debug, Clone)]
pub struct Edits {
    added: Fields,
    removed: Vec<HeaderName>,
    path: Option<CanonicalPath>,
    authority: Option<Box<Authority>>,
}

impl Default for Edits {
    fn default() -> Self {
        // The trace, who called, and what a gateway adds.
        Self { added: Fields::with_capacity(8, 256), removed: Vec::new(), path: None, authority: None }
    }
}

impl Edits {
    /// Replaces a field.
    pub fn set(&mut self, name: HeaderName, value: HeaderValue) {
        self.added.set(name, value);
    }

    /// Replaces a field by one line; see [`Fields::push_line`].
    pub fn set_line(&mut self, name: &HeaderName, value: &[u8]) {
        self.added.set_line(name, value);
    }

    /// Removes a field.
    pub fn remove(&mut self, name: HeaderName) {
        self.added.remove(&name);
        self.removed.push(name);
    }

    /// Sends another path than the head's own.
    pub fn rewrite(&mut self, path: CanonicalPath) {
        self.path = Some(path);
    }

    /// Names another authority than the head's own.
    pub fn rename(&mut self, authority: Authority) {
        self.authority = Some(Box::new(authority));
    }

    /// The authority to name.
    pub fn authority<'a>(&'a self, head: &'a RequestHead) -> &'a Authority {
        self.authority.as_deref().unwrap_or(&head.authority)
    }

    /// What is sent under a name so far: an edit's value, else every one of the head's.
    pub fn values<'a>(&'a self, head: &'a RequestHead, name: &'a HeaderName) -> Vec<&'a [u8]> {
        if self.added.contains(name.as_str().as_bytes()) {
            return self.added.all(name).collect();
        }
        if self.removed.contains(name) { Vec::new() } else { head.fields.all(name).collect() }
    }

    /// Whether a field of the head is not sent as it came.
    pub fn hides(&self, name: &[u8]) -> bool {
        let removed = |removed: &HeaderName| name.eq_ignore_ascii_case(removed.as_str().as_bytes());
        self.added.contains(name) || self.removed.iter().any(removed)
    }

    /// The fields that are sent besides.
    pub fn added(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.added.lines()
    }

    /// The path to send.
    pub fn path<'a>(&'a self, head: &'a RequestHead) -> &'a CanonicalPath {
        self.path.as_ref().unwrap_or(&head.path)
    }

    fn apply(&self, map: &mut HeaderMap) {
        for name in &self.removed {
            map.remove(name);
        }
        for (name, value) in HeaderMap::from(self.added.clone()) {
            // No name comes twice, so every one stands before its value.
            if let Some(name) = name {
                map.insert(name, value);
            }
        }
    }

    /// Path and query to send.
    fn target(&self, head: &RequestHead) -> String {
        let path = self.path(head);
        match &head.query {
            None => path.as_str().to_owned(),
            Some(query) => format!("{path}?{query}"),
        }
    }
}

/// How a try failed before a response head.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendError {
    /// What happened, for people.
    pub message: String,
    /// Whether the request may have been processed.
    pub processed: Processed,
}

/// What is known of a request that got no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Processed {
    /// It provably was not: never sent, or refused unprocessed (RFC 9113 §8.7).
    No,
    /// It may have been.
    Maybe,
}

impl SendError {
    fn not_processed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), processed: Processed::No }
    }

    fn maybe_processed(message: impl fmt::Display) -> Self {
        Self { message: message.to_string(), processed: Processed::Maybe }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// Answers requests of one downstream connection. The future is polled on the connection's own task, and dropped when the caller
/// goes away.
pub trait Handler: Clone {
    /// One request, one response.
    fn handle(&self, request: Result<Request, BadHead>, reply: impl Reply) -> impl Future<Output = ()>;
}

/// The way back to the caller.
pub trait Reply {
    /// Sends the response, as fast as the caller reads.
    fn send(self, response: Response) -> impl Future<Output = Delivered>;
}

/// What became of a response.
#[derive(Debug, Default)]
pub struct Delivered {
    /// Bytes of its body that were handed on.
    pub bytes: u64,
    /// The `grpc-status` of its trailers.
    pub grpc_status: Option<u8>,
    /// How it ended.
    pub outcome: Outcome,
}

/// How a response ended.
#[derive(Debug, Default)]
pub enum Outcome {
    /// Whole.
    Complete,
    /// Its body broke off, and so did what the caller got.
    UpstreamBroke(BodyError),
    /// The caller did not wait for it.
    #[default]
    DownstreamGone,
}

impl Delivered {
    /// Notes the trailers that passed.
    fn note(&mut self, trailers: &Fields) {
        self.grpc_status = grpc_status(trailers).or(self.grpc_status);
    }
}

/// The `grpc-status` among fields or trailers.
pub fn grpc_status(fields: &Fields) -> Option<u8> {
    fields.text(&HeaderName::from_static("grpc-status")).and_then(|text| text.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(target: &str, fields: &[(&'static str, &'static str)]) -> Result<RequestHead, BadHead> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        request_head(Method::GET, &target.parse().unwrap(), map)
    }

    #[test]
    fn target_and_host_must_agree() {
        assert_eq!(head("/x", &[("host", "A.:80")]).unwrap().authority.to_string(), "a:80");
        assert_eq!(head("http://a/x", &[("host", "a")]).unwrap().authority.to_string(), "a");
        assert_eq!(head("http://b/x", &[("host", "a")]).unwrap_err(), BadHead::Host);
        assert_eq!(head("/x", &[]).unwrap_err(), BadHead::Host);
        assert_eq!(head("/x", &[("host", "a"), ("host", "a")]).unwrap_err(), BadHead::Host);
    }

    #[test]
    fn hop_by_hop_fields_stay_on_their_hop() {
        let head = head(
            "/x",
            &[
                ("host", "a"),
                ("connection", "close, X-Foo"),
                ("x-foo", "1"),
                ("keep-alive", "5"),
                ("upgrade", "h2c"),
                ("te", "trailers"),
                ("x-bar", "2"),
            ],
        )
        .unwrap();
        let names: Vec<&str> = head.fields.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["te", "x-bar"]);
    }

    #[test]
    fn nominating_a_protected_field_away_is_refused() {
        for token in ["authorization", "X-Forwarded-For", "x-hms-subject", "host", "traceparent"] {
            let mut map = HeaderMap::new();
            map.insert(HOST, HeaderValue::from_static("a"));
            map.insert(CONNECTION, HeaderValue::from_str(&format!("close, {token}")).unwrap());
            let refused = request_head(Method::GET, &"/".parse().unwrap(), map);
            assert_eq!(refused.unwrap_err(), BadHead::Nominated, "{token}");
        }
    }

    #[test]
    fn ambiguous_lengths_are_refused() {
        assert_eq!(
            head("/", &[("host", "a"), ("content-length", "1"), ("transfer-encoding", "chunked")]).unwrap_err(),
            BadHead::Framing
        );
        assert_eq!(
            head("/", &[("host", "a"), ("content-length", "1"), ("content-length", "1")]).unwrap_err(),
            BadHead::Framing
        );
        for length in ["", "+1", "1 ", "0x1"] {
            assert_eq!(head("/", &[("host", "a"), ("content-length", length)]).unwrap_err(), BadHead::Framing);
        }
    }
}
