//! Choosing one endpoint of several.

use std::time::Duration;

use http::HeaderName;

/// How the next endpoint is chosen, and what is preferred before that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Balance {
    /// Of those that may be chosen, which.
    pub algorithm: Algorithm,
    /// Whether a caller stays with the endpoint that answered it first. Nobody does by default.
    pub affinity: Option<Affinity>,
    /// Whether the caller's own zone comes first.
    pub zones: Zones,
    /// How long an endpoint that is new, or back from an ejection, gets less than its share; zero, the default, for not at all.
    pub slow_start: Duration,
}

impl From<Algorithm> for Balance {
    fn from(algorithm: Algorithm) -> Self {
        Self { algorithm, ..Self::default() }
    }
}

/// Which endpoint of those that may be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Algorithm {
    /// Of two random endpoints the one with less load: outstanding requests times its moving average of latency.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any, evenly.
    Random,
    /// The one that a ring has for the request's key: for every caller the same, and when an endpoint leaves only its keys move.
    RingHash(HashKey),
    /// The one that Maglev's table has for the request's key: more even than a ring, and a few more keys move.
    Maglev(HashKey),
}

impl Algorithm {
    /// What is hashed, where something is.
    pub fn key(&self) -> Option<&HashKey> {
        match self {
            Self::RingHash(key) | Self::Maglev(key) => Some(key),
            Self::LeastRequest | Self::RoundRobin | Self::Random => None,
        }
    }
}

/// What of a request decides where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKey {
    /// The first value of a header.
    Header(HeaderName),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a parameter of the query, as it is written.
    Query(String),
    /// Who calls: for a sidecar its own workload, elsewhere the address of the connection's other end.
    Source,
}

/// What a caller shows to stay with its endpoint. The proxy hands it out with an answer; it says nothing to anybody else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Affinity {
    /// A cookie.
    Cookie {
        /// Its name: [`is_cookie_name`].
        name: String,
        /// How long the caller keeps it; `None` until its session ends.
        ttl: Option<Duration>,
    },
    /// A header of the answer that the caller sends with its next request.
    Header(HeaderName),
}

/// What a zone means to a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Zones {
    /// Nothing, but for which endpoints a caller uses when a service has very many.
    #[default]
    Ignore,
    /// The caller's own zone while enough of its endpoints are usable, the others for as much as it lacks.
    Prefer,
}

/// Longest name of a cookie or of a parameter, in bytes.
pub const KEY_BYTES: usize = 64;

/// Whether a text can be the name of a cookie (RFC 6265 §4.1.1: a token) that is not too long.
pub fn is_cookie_name(text: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    (1..=KEY_BYTES).contains(&text.len()) && text.bytes().all(token)
}

/// Whether a text can be the name of a parameter: one that stands in a query as it is written here.
pub fn is_parameter_name(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    (1..=KEY_BYTES).contains(&text.len()) && text.bytes().all(plain)
}
