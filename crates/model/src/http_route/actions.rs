//! What a rule does with its requests and their answers.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};

use crate::split::{MOST_WEIGHT, Share};

/// The largest status that may be answered.
pub const MOST_CODE: u16 = 599;

/// Everything a rule does beside choosing who gets its requests. In this order: CORS, redirect, fault, headers, rewrite, mirror.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Actions {
    /// Changed in requests.
    pub request_headers: HeaderEdits,
    /// Changed in answers of backends.
    pub response_headers: HeaderEdits,
    /// Answered instead of forwarding.
    pub redirect: Option<Redirect>,
    /// Sent instead of what the caller named.
    pub rewrite: Option<Rewrite>,
    /// Who gets a copy. Nobody waits for them; they are dropped before anything else is.
    pub mirrors: Vec<Mirror>,
    /// What is made to go wrong.
    pub fault: Option<Fault>,
    /// What browsers are told (Fetch standard, CORS protocol).
    pub cors: Option<Cors>,
}

/// Header fields to change: first set, then add, then remove (Gateway API, `HTTPHeaderFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Replaced, or added where missing.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Added to what is there.
    pub add: Vec<(HeaderName, HeaderValue)>,
    /// Removed.
    pub remove: Vec<HeaderName>,
}

impl HeaderEdits {
    /// Whether a field is the mesh's or the connection's, and not an author's to change.
    pub fn is_protected(name: &HeaderName) -> bool {
        const OURS: [&str; 12] = [
            "connection",
            "content-length",
            "host",
            "keep-alive",
            "proxy-connection",
            "te",
            "trailer",
            "traceparent",
            "transfer-encoding",
            "upgrade",
            "x-forwarded-client-cert",
            "x-trace-id",
        ];
        OURS.contains(&name.as_str()) || name.as_str().starts_with("x-hms-")
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }
}

/// A part of all, in millionths: 0 to [`MOST_WEIGHT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Portion(u32);

impl Portion {
    /// Everything.
    pub const ALL: Self = Self(MOST_WEIGHT);

    /// So many millionths; more than all is all.
    pub fn millionths(number: u32) -> Self {
        Self(number.min(MOST_WEIGHT))
    }

    /// The number of millionths.
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A scheme of web addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// `http`.
    Http,
    /// `https`.
    Https,
}

impl Scheme {
    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that need not be named.
    pub fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// How a path is replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathRewrite {
    /// As a whole.
    Full(String),
    /// The prefix that the rule's match names, by this; of a match without one, nothing is replaced.
    Prefix(String),
}

/// An answer that sends the caller elsewhere (Gateway API, `HTTPRequestRedirectFilter`). What is not said stays as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// To this scheme.
    pub scheme: Option<Scheme>,
    /// To this host.
    pub host: Option<String>,
    /// To this port. Without a word the scheme's own if the scheme is said, else the one that was called.
    pub port: Option<u16>,
    /// To this path.
    pub path: Option<PathRewrite>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What a backend sees instead of what the caller named (Gateway API, `HTTPURLRewriteFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// As the authority.
    pub host: Option<String>,
    /// As the path.
    pub path: Option<PathRewrite>,
}

/// Who gets a copy of requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The service; its weight means nothing.
    pub share: Share,
    /// The port of it; `None` for the first.
    pub port: Option<u16>,
    /// Of how many requests.
    pub portion: Portion,
}

/// What is made to go wrong, to see what callers make of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Fault {
    /// Requests that wait before they go on, and how long.
    pub delay: Option<(Duration, Portion)>,
    /// Requests that are answered at once, and with which status.
    pub abort: Option<(u16, Portion)>,
    /// Only requests with this field, whatever its value; `None` for all.
    pub trigger: Option<HeaderName>,
}

/// What browsers are told about requests from other origins (Gateway API, `HTTPCORSFilter`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Cors {
    /// `https://app.example`, `https://*.example` or `*`.
    pub origins: Vec<String>,
    /// Whether a browser may send credentials.
    pub credentials: bool,
    /// Methods that may be asked for; `None` for any that is asked for.
    pub methods: Option<Vec<Method>>,
    /// Fields that may be sent; `None` for any that is asked for.
    pub headers: Option<Vec<HeaderName>>,
    /// Fields that a page may read.
    pub expose: Vec<HeaderName>,
    /// How long a browser may remember.
    pub max_age: Duration,
}
