//! Which requests a rule is about.

use hms_model::http_route::{
    FieldCondition, HttpMatch, PathCondition, Pattern, QueryCondition, Source, ValueCondition,
};
use hms_model::names::{Label, ServiceName};
use hms_model::route::PathPattern;
use http::{HeaderName, Method};

use crate::bounds::{each, text};
use crate::proto::hms::v1::{self, http_match};
use crate::{Wire, WireError};

/// Conditions on fields or parameters of one match.
const CONDITIONS: usize = 32;
const SOURCES: usize = 64;
/// Longest path, value or name.
const TEXT_BYTES: usize = 16 * 1024;
const METHOD_BYTES: usize = 32;

impl Wire for HttpMatch {
    type Message = v1::HttpMatch;

    fn to_wire(&self) -> v1::HttpMatch {
        let Self { path, method, headers, query, sources } = self;
        let path = path.as_ref().map(|path| match path {
            PathCondition::Exact(text) => http_match::Path::Exact(text.clone()),
            PathCondition::Prefix(text) => http_match::Path::Prefix(text.clone()),
            PathCondition::Template(pattern) => http_match::Path::Template(pattern.to_string()),
            PathCondition::Regex(pattern) => http_match::Path::Regex(pattern.to_string()),
        });
        let header = |own: &FieldCondition| http_match::FieldCondition {
            name: own.name.to_string(),
            value: value(&own.value),
            negated: own.is_negated,
        };
        let parameter = |own: &QueryCondition| http_match::FieldCondition {
            name: own.name.clone(),
            value: value(&own.value),
            negated: false,
        };
        let source = |own: &Source| http_match::Source {
            kind: Some(match own {
                Source::Service(name) => http_match::source::Kind::Service(name.to_wire()),
                Source::Namespace(name) => http_match::source::Kind::Namespace(name.clone()),
            }),
        };
        v1::HttpMatch {
            path,
            method: method.as_ref().map(ToString::to_string).unwrap_or_default(),
            headers: headers.iter().map(header).collect(),
            query: query.iter().map(parameter).collect(),
            sources: sources.iter().map(source).collect(),
        }
    }

    fn from_wire(message: v1::HttpMatch) -> Result<Self, WireError> {
        let v1::HttpMatch { path, method, headers, query, sources } = message;
        Ok(Self {
            path: path.map(read_path).transpose()?,
            method: read_method(method)?,
            headers: each(headers, "match.headers", CONDITIONS, |own| {
                Ok(FieldCondition {
                    name: HeaderName::try_from(own.name).map_err(|error| WireError::field("match.headers", &error))?,
                    value: read_value(own.value)?,
                    is_negated: own.negated,
                })
            })?,
            query: each(query, "match.query", CONDITIONS, |own| {
                Ok(QueryCondition {
                    name: text(own.name, "match.query", 1..=TEXT_BYTES)?,
                    value: read_value(own.value)?,
                })
            })?,
            sources: each(sources, "match.sources", SOURCES, read_source)?,
        })
    }
}

fn read_method(method: String) -> Result<Option<Method>, WireError> {
    if method.is_empty() {
        return Ok(None);
    }
    let method = text(method, "match.method", 1..=METHOD_BYTES)?;
    Method::from_bytes(method.as_bytes()).map(Some).map_err(|error| WireError::field("match.method", &error))
}

fn read_path(path: http_match::Path) -> Result<PathCondition, WireError> {
    let checked = |path: String| text(path, "match.path", 1..=TEXT_BYTES);
    Ok(match path {
        http_match::Path::Exact(path) => PathCondition::Exact(checked(path)?),
        http_match::Path::Prefix(path) => PathCondition::Prefix(checked(path)?),
        http_match::Path::Template(path) => PathCondition::Template(
            PathPattern::parse(&checked(path)?).map_err(|error| WireError::field("match.template", &error))?,
        ),
        http_match::Path::Regex(path) => PathCondition::Regex(pattern(&path)?),
    })
}

fn pattern(text: &str) -> Result<Pattern, WireError> {
    Pattern::parse(text).map_err(|error| WireError::field("match.regex", &error))
}

fn value(condition: &ValueCondition) -> Option<http_match::field_condition::Value> {
    match condition {
        ValueCondition::Exact(text) => Some(http_match::field_condition::Value::Exact(text.clone())),
        ValueCondition::Regex(own) => Some(http_match::field_condition::Value::Regex(own.to_string())),
        ValueCondition::Present => None,
    }
}

fn read_value(value: Option<http_match::field_condition::Value>) -> Result<ValueCondition, WireError> {
    Ok(match value {
        None => ValueCondition::Present,
        Some(http_match::field_condition::Value::Exact(exact)) => {
            ValueCondition::Exact(text(exact, "match.value", 0..=TEXT_BYTES)?)
        }
        Some(http_match::field_condition::Value::Regex(regex)) => ValueCondition::Regex(pattern(&regex)?),
    })
}

fn read_source(message: http_match::Source) -> Result<Source, WireError> {
    match message.kind {
        Some(http_match::source::Kind::Service(name)) => Ok(Source::Service(ServiceName::from_wire(name)?)),
        Some(http_match::source::Kind::Namespace(name)) => {
            Label::new(&name).map_err(|error| WireError::field("match.sources", &error))?;
            Ok(Source::Namespace(name))
        }
        None => Err(WireError::Missing("match.sources.kind")),
    }
}
