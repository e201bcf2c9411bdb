//! What a proxy runs by that no control plane leads: its listeners with their virtual hosts, and the services behind them.
//!
//! The words are those of a static file (listeners, virtual hosts, ordered routes) and not those of a mesh, because the meaning
//! differs: the first route that fits is taken, and a service is a list of plain addresses and host names.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::message::CanonicalPath;
use crate::names::ServiceName;
use crate::policy::TrafficPolicy;
use crate::workload::Health;

/// Everything such a proxy is told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Standalone {
    /// Where health and metrics are served; `None` leaves it to the proxy's own settings.
    pub admin: Option<SocketAddr>,
    /// The listeners, each with a name and an address of its own.
    pub listeners: Vec<StaticListener>,
    /// The services that routes lead to, by name.
    pub services: Vec<StaticService>,
}

/// A socket with the hosts that are served on it.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticListener {
    /// Its name, unique.
    pub name: String,
    /// Where it listens; port 0 is one that the system chooses.
    pub address: SocketAddr,
    /// What the port in a request's authority means.
    pub host_port: HostPort,
    /// The virtual hosts; no domain stands twice.
    pub hosts: Vec<VirtualHost>,
}

/// What becomes of the port that a caller names beside the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HostPort {
    /// It is part of the name: `a:8080` is not `a`.
    #[default]
    Kept,
    /// It is ignored.
    Ignored,
    /// It is ignored if it is the listener's own.
    IgnoredIfOwn,
}

/// Names, and the routes behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct VirtualHost {
    /// What people call it.
    pub name: String,
    /// The names it answers for.
    pub domains: Vec<Domain>,
    /// Its routes; the first that fits is taken.
    pub routes: Vec<HostRoute>,
}

/// A pattern of host names, in lower case.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Domain {
    /// Exactly this, with the port if there is one.
    Exact(String),
    /// `*.example.com`, `*-bar.example.com`: something, then this.
    Suffix(String),
    /// `example.*`: this, then something.
    Prefix(String),
    /// `*`.
    Any,
}

/// Why a text is no domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainError {
    /// Nothing, or more than 255 bytes.
    Length,
    /// A `*` that is neither the first nor the last character, or two of them.
    Wildcard,
    /// A character that no host name contains.
    Character(char),
}

impl fmt::Display for DomainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length => f.write_str("a domain has 1 to 255 characters"),
            Self::Wildcard => f.write_str("one * may stand at the beginning or at the end"),
            Self::Character(c) => write!(f, "`{}` stands in no host name", c.escape_default()),
        }
    }
}

impl Domain {
    /// Reads `example.com`, `example.com:8080`, `*.example.com`, `example.*` or `*`.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        if !(1..=255).contains(&text.len()) {
            return Err(DomainError::Length);
        }
        let folded = text.to_ascii_lowercase();
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let literal = |text: &str| match text.chars().find(|c| !fits(*c)) {
            Some('*') => Err(DomainError::Wildcard),
            Some(c) => Err(DomainError::Character(c)),
            None => Ok(text.to_owned()),
        };
        if folded == "*" {
            return Ok(Self::Any);
        }
        match (folded.strip_prefix('*'), folded.strip_suffix('*')) {
            (Some(suffix), _) => literal(suffix).map(Self::Suffix),
            (None, Some(prefix)) => literal(prefix).map(Self::Prefix),
            (None, None) => literal(&folded).map(Self::Exact),
        }
    }

    /// Whether a host, with its port if that counts, is one of these. A `*` stands for at least one character.
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(own) => own == host,
            Self::Suffix(own) => host.len() > own.len() && host.ends_with(own.as_str()),
            Self::Prefix(own) => host.len() > own.len() && host.starts_with(own.as_str()),
            Self::Any => true,
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Suffix(text) => write!(f, "*{text}"),
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Any => f.write_str("*"),
        }
    }
}

/// Which paths, and where their requests go.
#[derive(Debug, Clone, PartialEq)]
pub struct HostRoute {
    /// Which paths.
    pub path: PathMatch,
    /// The service; one of [`Standalone::services`].
    pub service: ServiceName,
    /// How its requests are sent: the service's policy with what the route says of time and retries.
    pub policy: TrafficPolicy,
    /// `file:line` where it was written; may be empty.
    pub origin: String,
}

/// A condition on the canonical path. Case counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PathMatch {
    /// The path begins so, wherever segments end: `/a` takes `/abc`.
    Prefix(String),
    /// The path is this, or goes on with `/` after it: `/a` takes `/a/b` and not `/abc`. No `/` at its end.
    Segments(String),
    /// The path is this.
    Exact(String),
}

impl PathMatch {
    /// Whether a path fits.
    pub fn takes(&self, path: &str) -> bool {
        match self {
            Self::Prefix(own) => path.starts_with(own.as_str()),
            Self::Segments(own) => {
                path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Exact(own) => path == own,
        }
    }

    /// Whether any canonical path could fit. What never could is a mistake of the author's, not a rule.
    pub fn can_match(&self) -> bool {
        let is_canonical =
            |text: &str| !text.contains('?') && CanonicalPath::parse(text).is_ok_and(|path| path.as_str() == text);
        match self {
            // Whatever follows a prefix may complete its last segment.
            Self::Prefix(own) => is_canonical(&format!("{own}x")),
            Self::Segments(own) => is_canonical(own) && !own.ends_with('/'),
            Self::Exact(own) => is_canonical(own),
        }
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(text) => write!(f, "{text}*"),
            Self::Segments(text) => write!(f, "{text}[/*]"),
            Self::Exact(text) => f.write_str(text),
        }
    }
}

/// A service without proxies of its own.
#[derive(Debug, Clone, PartialEq)]
pub struct StaticService {
    /// Its name.
    pub name: ServiceName,
    /// How it is called.
    pub policy: TrafficPolicy,
    /// What it speaks.
    pub protocol: StaticProtocol,
    /// Where it is.
    pub targets: Vec<StaticTarget>,
}

/// What a service without a proxy speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum StaticProtocol {
    /// HTTP/1.1; gRPC calls come over HTTP/2.
    #[default]
    Http1,
    /// HTTP/2 without TLS, known beforehand (RFC 9113 §3.3).
    Http2,
}

/// One or, behind a host name, several endpoints of a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticTarget {
    /// Its address or name.
    pub host: TargetHost,
    /// 1 to 65535.
    pub port: u16,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Whether it is given work.
    pub health: Health,
}

/// How a target is found.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TargetHost {
    /// It is there.
    Address(IpAddr),
    /// Its name is asked for again and again.
    Name(HostName),
}

/// A host name, and what to make of the answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostName {
    /// 1 to 253 of letters, digits, `.`, `-` and `_`.
    pub name: String,
    /// Which addresses count.
    pub family: Family,
    /// How many of them.
    pub take: Take,
    /// Time between two questions.
    pub every: Duration,
}

/// Which addresses of a name count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Family {
    /// All.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
    /// IPv4, and IPv6 if there is none.
    V4First,
}

/// How many addresses of a name are endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Take {
    /// Each is one.
    #[default]
    All,
    /// The first is the only one.
    First,
}

impl Standalone {
    /// What is wrong with it as a whole, in one sentence: a proxy never runs by half of what was meant.
    pub fn check(&self) -> Result<(), String> {
        let mut known = BTreeSet::new();
        if let Some(twice) = self.services.iter().find(|service| !known.insert(&service.name)) {
            return Err(format!("the service {} stands twice", twice.name));
        }
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for listener in &self.listeners {
            let is_taken = listener.address.port() != 0 && !addresses.insert(listener.address);
            if !names.insert(&listener.name) || is_taken {
                return Err(format!("the listener {} on {} stands twice", listener.name, listener.address));
            }
            let mut domains = BTreeSet::new();
            for host in &listener.hosts {
                if let Some(twice) = host.domains.iter().find(|domain| !domains.insert(*domain)) {
                    return Err(format!("the domain {twice} stands twice in the listener {}", listener.name));
                }
                if let Some(route) = host.routes.iter().find(|route| !known.contains(&route.service)) {
                    return Err(format!("the route {} leads to {}, which is not there", route.path, route.service));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_read_what_they_write_and_a_star_stands_for_something() {
        for (text, yes, no) in [
            ("a.example", "a.example", "b.example"),
            ("a:80", "a:80", "a"),
            ("*.example.com", "x.example.com", "example.com"),
            ("*-bar.example.com", "foo-bar.example.com", "-bar.example.com"),
            ("example.*", "example.org", "example."),
        ] {
            let domain = Domain::parse(text).unwrap();
            assert_eq!(domain.to_string(), text);
            assert!(domain.matches(yes) && !domain.matches(no), "{text}");
        }
        assert_eq!(Domain::parse("A.Example"), Ok(Domain::Exact("a.example".into())));
        assert_eq!(Domain::parse("*"), Ok(Domain::Any));
        for text in ["a.*.b", "**", "*.*", "*a*"] {
            assert_eq!(Domain::parse(text), Err(DomainError::Wildcard), "{text}");
        }
        assert_eq!(Domain::parse(""), Err(DomainError::Length));
        assert_eq!(Domain::parse("a/b"), Err(DomainError::Character('/')));
    }

    #[test]
    fn paths_fit_as_their_kind_says() {
        let prefix = PathMatch::Prefix("/a".into());
        let segments = PathMatch::Segments("/a".into());
        let exact = PathMatch::Exact("/a".into());
        let fits = |path: &str| [&prefix, &segments, &exact].map(|own| own.takes(path));
        assert_eq!(fits("/a"), [true, true, true]);
        assert_eq!(fits("/a/b"), [true, true, false]);
        assert_eq!(fits("/abc"), [true, false, false]);
        assert_eq!(fits("/b"), [false, false, false]);
    }

    #[test]
    fn what_no_canonical_path_begins_with_is_known() {
        for text in ["/", "/a", "/a/", "/.", "/.well"] {
            assert!(PathMatch::Prefix(text.into()).can_match(), "{text}");
        }
        for text in ["", "a", "/a//", "/%61", "/a/../b", "/a?b", "/a#b"] {
            assert!(!PathMatch::Prefix(text.into()).can_match(), "{text}");
        }
        assert!(!PathMatch::Segments("/a/".into()).can_match());
        assert!(!PathMatch::Exact("/a/./b".into()).can_match());
    }
}
