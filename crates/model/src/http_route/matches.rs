//! Which requests a rule is about.

use std::fmt;
use std::sync::Arc;

use http::{HeaderName, Method};

use crate::names::ServiceName;
use crate::route::PathPattern;

/// One set of conditions, all of which must hold (Gateway API, `HTTPRouteMatch`).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct HttpMatch {
    /// On the path; `None` for any.
    pub path: Option<PathCondition>,
    /// The method; `None` for any.
    pub method: Option<Method>,
    /// On header fields.
    pub headers: Vec<FieldCondition>,
    /// On query parameters.
    pub query: Vec<QueryCondition>,
    /// Who calls; empty for everybody.
    pub sources: Vec<Source>,
}

/// A condition on the canonical path. Case counts.
#[derive(Debug, Clone, PartialEq)]
pub enum PathCondition {
    /// The path is this.
    Exact(String),
    /// The path begins with these segments: `/a` takes `/a` and `/a/b` and not `/ab`. `/` takes everything; else no `/` at its end.
    Prefix(String),
    /// `/users/{id}/orders`.
    Template(PathPattern),
    /// The whole path fits.
    Regex(Pattern),
}

/// A condition on a header field.
#[derive(Debug, Clone, PartialEq)]
pub struct FieldCondition {
    /// The field.
    pub name: HeaderName,
    /// On its value; of several lines, on the first.
    pub value: ValueCondition,
    /// Whether the condition must not hold.
    pub is_negated: bool,
}

/// A condition on a query parameter.
#[derive(Debug, Clone, PartialEq)]
pub struct QueryCondition {
    /// The parameter, as it reads decoded.
    pub name: String,
    /// On its decoded value; of several, on the first.
    pub value: ValueCondition,
}

/// A condition on a value.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueCondition {
    /// It is this.
    Exact(String),
    /// The whole of it fits.
    Regex(Pattern),
    /// It is there.
    Present,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A service.
    Service(ServiceName),
    /// Every service of a namespace.
    Namespace(String),
}

impl Source {
    /// Whether a service is meant.
    pub fn takes(&self, caller: &ServiceName) -> bool {
        match self {
            Self::Service(own) => own == caller,
            Self::Namespace(own) => own == caller.namespace(),
        }
    }
}

/// Longest regular expression in bytes, and how large it may become when compiled.
const PATTERN_BYTES: usize = 512;
const COMPILED_BYTES: usize = 64 * 1024;

/// A regular expression that a whole text must fit; matching takes time linear in the text.
#[derive(Clone)]
pub struct Pattern {
    text: Arc<str>,
    compiled: regex_lite::Regex,
}

/// Why a text is no regular expression, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternTooLarge(String);

impl fmt::Display for PatternTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PatternTooLarge {}

impl Pattern {
    /// Compiles an expression of at most 512 bytes. Look-around and back-references do not exist in it.
    pub fn parse(text: &str) -> Result<Self, PatternTooLarge> {
        if text.len() > PATTERN_BYTES {
            return Err(PatternTooLarge(format!("it has more than {PATTERN_BYTES} bytes")));
        }
        // Alone first: in the group a `)(` would pass for balanced.
        let compile = |text: &str| {
            regex_lite::RegexBuilder::new(text)
                .size_limit(COMPILED_BYTES)
                .build()
                .map_err(|error| PatternTooLarge(error.to_string()))
        };
        let _checked = compile(text)?;
        Ok(Self { text: text.into(), compiled: compile(&format!("^(?:{text})$"))? })
    }

    /// The expression of exactly this text.
    pub fn literal(text: &str) -> Result<Self, PatternTooLarge> {
        Self::parse(&regex_lite::escape(text))
    }

    /// As written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of a text fits.
    pub fn is_match(&self, text: &str) -> bool {
        self.compiled.is_match(text)
    }
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Pattern {}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl PathCondition {
    /// Whether a canonical path fits.
    pub fn takes(&self, path: &str) -> bool {
        match self {
            Self::Exact(own) => path == own,
            Self::Prefix(own) if own == "/" => path.starts_with('/'),
            Self::Prefix(own) => {
                path.strip_prefix(own.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            }
            Self::Template(own) => own.matches(path),
            Self::Regex(own) => own.is_match(path),
        }
    }
}

impl fmt::Display for PathCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => f.write_str(text),
            Self::Prefix(text) if text == "/" => f.write_str("/*"),
            Self::Prefix(text) => write!(f, "{text}[/*]"),
            Self::Template(own) => own.fmt(f),
            Self::Regex(own) => write!(f, "~{own}"),
        }
    }
}

impl fmt::Display for ValueCondition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "={text}"),
            Self::Regex(own) => write!(f, "~{own}"),
            Self::Present => Ok(()),
        }
    }
}

/// As people read it: `GET /pay[/*] x-user=anna ?debug=1`.
impl fmt::Display for HttpMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method.as_ref().map_or("*", Method::as_str))?;
        match &self.path {
            Some(path) => write!(f, " {path}")?,
            None => f.write_str(" /*")?,
        }
        for FieldCondition { name, value, is_negated } in &self.headers {
            write!(f, " {}{name}{value}", if *is_negated { "!" } else { "" })?;
        }
        for QueryCondition { name, value } in &self.query {
            write!(f, " ?{name}{value}")?;
        }
        for source in &self.sources {
            match source {
                Source::Service(name) => write!(f, " from {name}")?,
                Source::Namespace(name) => write!(f, " from namespace {name}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_about_the_whole_text_and_bounded() {
        let pattern = Pattern::parse("/a|/b").unwrap();
        assert!(pattern.is_match("/a") && pattern.is_match("/b"));
        assert!(!pattern.is_match("/ab") && !pattern.is_match("/a/b") && !pattern.is_match("x/b"));
        for text in ["(", "a)(b", "(?=x)", &"x".repeat(513), "((a{100}){100}){100}"] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
        assert!(Pattern::literal("a.b").unwrap().is_match("a.b"));
        assert!(!Pattern::literal("a.b").unwrap().is_match("axb"));
    }

    #[test]
    fn a_prefix_is_made_of_segments() {
        let prefix = PathCondition::Prefix("/a".to_owned());
        assert!(prefix.takes("/a") && prefix.takes("/a/") && prefix.takes("/a/b"));
        assert!(!prefix.takes("/ab") && !prefix.takes("/"));
        assert!(PathCondition::Prefix("/".to_owned()).takes("/x"));
        assert!(!PathCondition::Prefix("/".to_owned()).takes("*"), "OPTIONS * is about no path");
    }
}
