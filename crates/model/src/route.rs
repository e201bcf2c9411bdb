//! Routes: which requests a service serves, as patterns.

use std::fmt;

use http::Method;

use crate::message::CanonicalPath;
use crate::names::ServiceName;
use crate::policy::RateLimit;

/// Why a pattern is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PatternError {
    /// Does not begin with `/`.
    NoSlash,
    /// A `{` without name or `}`; the segment.
    BadParameter(String),
    /// The same parameter twice.
    Repeated(String),
    /// A character that cannot stand in a path; percent-encode it.
    BadCharacter(char),
    /// `*` anywhere but as the last segment.
    BadWildcard,
    /// A segment that no canonical path contains: empty, `.`, `..`, or with a bad percent-encoding.
    BadSegment,
    /// No method of HTTP; the word.
    UnknownMethod(String),
    /// Not `METHOD /path`.
    Shape,
}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSlash => f.write_str("a path starts with /"),
            Self::BadParameter(segment) => {
                write!(f, "`{segment}` is no parameter; one reads {{name}} and fills its segment")
            }
            Self::Repeated(name) => write!(f, "the parameter {{{name}}} stands twice"),
            Self::BadCharacter(c) => write!(f, "`{}` cannot stand in a path; percent-encode it", c.escape_default()),
            Self::BadWildcard => f.write_str("* may only be the last segment"),
            Self::BadSegment => f.write_str("empty, `.`, `..` and wrongly percent-encoded segments never match"),
            Self::UnknownMethod(word) => write!(f, "`{word}` is no HTTP method"),
            Self::Shape => f.write_str("a route reads METHOD /path, for example GET /sum/{a}/{b}"),
        }
    }
}

impl std::error::Error for PatternError {}

/// The methods a route may name.
pub const METHODS: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];

/// `/sum/{a}/{b}`, `/files/*`: literal segments, parameters that match one segment, and a last `*` that matches any rest.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PathPattern {
    text: Box<str>,
    segments: Box<[Segment]>,
}

/// One segment of a pattern. The order is the order of preference: a literal beats a parameter beats the rest.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Segment {
    /// Exactly this text.
    Literal(Box<str>),
    /// Any one segment, by this name.
    Parameter(Box<str>),
    /// Everything that follows, at least one segment.
    Rest,
}

impl PathPattern {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let rest = text.strip_prefix('/').ok_or(PatternError::NoSlash)?;
        let allowed =
            |c: char| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '\\' | '"' | '<' | '>' | '^' | '`' | '|');
        if let Some(bad) = text.chars().find(|c| !allowed(*c)) {
            return Err(PatternError::BadCharacter(bad));
        }
        let mut segments: Vec<Segment> = Vec::new();
        let mut parts = rest.split('/').peekable();
        while let Some(part) = parts.next() {
            let last = parts.peek().is_none();
            segments.push(match part {
                "" if last => break,
                "" | "." | ".." => return Err(PatternError::BadSegment),
                "*" if last => Segment::Rest,
                _ if part.contains('*') => return Err(PatternError::BadWildcard),
                _ if part.contains(['{', '}']) => Self::parameter(part, &segments)?,
                _ => Segment::Literal(canonical(part)?),
            });
        }
        Ok(Self { text: text.into(), segments: segments.into() })
    }

    fn parameter(part: &str, before: &[Segment]) -> Result<Segment, PatternError> {
        let name = part.strip_prefix('{').and_then(|p| p.strip_suffix('}')).filter(|name| {
            !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        });
        let Some(name) = name else { return Err(PatternError::BadParameter(part.to_owned())) };
        if before.iter().any(|s| matches!(s, Segment::Parameter(n) if **n == *name)) {
            return Err(PatternError::Repeated(name.to_owned()));
        }
        Ok(Segment::Parameter(name.into()))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// Whether a canonical path fits.
    pub fn matches(&self, path: &str) -> bool {
        let mut parts = path.strip_prefix('/').unwrap_or(path).split('/').filter(|p| !p.is_empty());
        for segment in &self.segments {
            match (segment, parts.next()) {
                (Segment::Rest, Some(_)) => return true,
                (Segment::Literal(text), Some(part)) if **text == *part => {}
                (Segment::Parameter(_), Some(_)) => {}
                _ => return false,
            }
        }
        parts.next().is_none()
    }
}

/// A literal segment in the form that canonical paths have, so that `/%61` means the same as `/a`.
fn canonical(part: &str) -> Result<Box<str>, PatternError> {
    let path = CanonicalPath::parse(&format!("/{part}")).map_err(|_ambiguous| PatternError::BadSegment)?;
    Ok(path.as_str().trim_start_matches('/').into())
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Which requests: a method (or any) and a path pattern.
#[derive(Clone, PartialEq, Eq)]
pub struct Match {
    /// The method; `None` for any. `GET` also takes `HEAD` (RFC 9110 §9.3.2).
    pub method: Option<Method>,
    /// The path.
    pub path: PathPattern,
}

impl Match {
    /// Reads `GET /sum/{a}/{b}`, or `/sum/*` and `* /sum/*` for any method.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut words = text.split_ascii_whitespace();
        let (method, path) = match (words.next(), words.next(), words.next()) {
            (Some(path), None, None) if path.starts_with('/') => (None, path),
            (Some("*"), Some(path), None) => (None, path),
            (Some(method), Some(path), None) => (Some(method), path),
            _ => return Err(PatternError::Shape),
        };
        let method = match method {
            None => None,
            Some(word) if METHODS.contains(&word) => {
                Some(Method::from_bytes(word.as_bytes()).map_err(|_unreachable| PatternError::Shape)?)
            }
            Some(word) => return Err(PatternError::UnknownMethod(word.to_owned())),
        };
        Ok(Self { method, path: PathPattern::parse(path)? })
    }

    /// Whether the method fits.
    pub fn takes(&self, method: &Method) -> bool {
        match &self.method {
            None => true,
            Some(own) => own == method || (*own == Method::GET && *method == Method::HEAD),
        }
    }
}

impl fmt::Display for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.method {
            None => write!(f, "* {}", self.path),
            Some(method) => write!(f, "{method} {}", self.path),
        }
    }
}

impl fmt::Debug for Match {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The routes of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The service that serves them.
    pub service: ServiceName,
    /// The rules, in the order written.
    pub rules: Vec<Rule>,
}

/// One pattern with what holds for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which requests.
    pub matches: Match,
    /// How many of them; each rule has its own bucket.
    pub rate_limit: Option<RateLimit>,
    /// `file:line` where it was written, for explanations; may be empty.
    pub origin: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_match_one_segment_and_a_star_the_rest() {
        let sum = PathPattern::parse("/sum/{a}/{b}").unwrap();
        assert!(sum.matches("/sum/2/3"));
        assert!(!sum.matches("/sum/2"));
        assert!(!sum.matches("/sum/2/3/4"));
        assert!(!sum.matches("/sums/2/3"));
        let rest = PathPattern::parse("/files/*").unwrap();
        assert!(rest.matches("/files/a/b"));
        assert!(!rest.matches("/files"));
        assert!(PathPattern::parse("/%61/%c3%a4").unwrap().matches("/a/%C3%A4"));
        assert!(PathPattern::parse("/").unwrap().matches("/"));
        assert!(!PathPattern::parse("/").unwrap().matches("/x"));
    }

    #[test]
    fn bad_patterns_say_what_is_wrong() {
        assert_eq!(PathPattern::parse("sum"), Err(PatternError::NoSlash));
        assert_eq!(PathPattern::parse("/{a}/{a}"), Err(PatternError::Repeated("a".into())));
        assert_eq!(PathPattern::parse("/{a"), Err(PatternError::BadParameter("{a".into())));
        assert_eq!(PathPattern::parse("/x{a}"), Err(PatternError::BadParameter("x{a}".into())));
        assert_eq!(PathPattern::parse("/*/x"), Err(PatternError::BadWildcard));
        assert_eq!(PathPattern::parse("/a//b"), Err(PatternError::BadSegment));
        assert_eq!(PathPattern::parse("/a/../b"), Err(PatternError::BadSegment));
        assert_eq!(PathPattern::parse("/a?b"), Err(PatternError::BadCharacter('?')));
        assert_eq!(Match::parse("GTE /x").unwrap_err(), PatternError::UnknownMethod("GTE".into()));
        assert_eq!(Match::parse("GET").unwrap_err(), PatternError::Shape);
        assert_eq!(Match::parse("GET /x y").unwrap_err(), PatternError::Shape);
    }

    #[test]
    fn get_also_takes_head() {
        let get = Match::parse("GET /x").unwrap();
        assert!(get.takes(&Method::HEAD));
        assert!(!get.takes(&Method::POST));
        assert!(Match::parse("/x").unwrap().takes(&Method::POST));
    }
}
