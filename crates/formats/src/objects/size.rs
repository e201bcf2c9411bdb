//! How much a route comes to: a few lines of a file can stand for very much.

use hms_model::http_route::{HeaderEdits, HttpMatch, HttpRoute, PathCondition, ValueCondition};

/// The most that one route may come to, in bytes, roughly.
pub(super) const MOST: usize = 3 * 1024 * 1024;
/// The most that all routes of the files may come to.
pub(super) const MOST_ALL: usize = 64 * 1024 * 1024;

/// What each part takes beside its texts: a condition or a field, a share, a rule.
const PART: usize = 16;
const SHARE: usize = 256;
const RULE: usize = 512;

/// Roughly how many bytes a route has in memory; when it is stored it has fewer.
pub(super) fn of(route: &HttpRoute) -> usize {
    let rules = route.rules.iter().map(|rule| {
        let actions = &rule.actions;
        let backends = rule
            .backends
            .iter()
            .map(|own| SHARE + own.share.version.len() + edits(&own.request_headers) + edits(&own.response_headers));
        RULE + rule.origin.len()
            + rule.matches.iter().map(condition).sum::<usize>()
            + backends.sum::<usize>()
            + actions.mirrors.len() * PART
            + edits(&actions.request_headers)
            + edits(&actions.response_headers)
    });
    rules.sum()
}

fn edits(own: &HeaderEdits) -> usize {
    let pairs = own.set.iter().chain(&own.add).map(|(name, value)| PART + name.as_str().len() + value.len());
    pairs.sum::<usize>() + own.remove.iter().map(|name| PART + name.as_str().len()).sum::<usize>()
}

fn condition(own: &HttpMatch) -> usize {
    let path = match &own.path {
        None => 0,
        Some(PathCondition::Exact(text) | PathCondition::Prefix(text)) => text.len(),
        Some(PathCondition::Template(pattern)) => pattern.as_str().len(),
        Some(PathCondition::Regex(pattern)) => pattern.as_str().len(),
    };
    let value = |value: &ValueCondition| match value {
        ValueCondition::Exact(text) => text.len(),
        ValueCondition::Regex(pattern) => pattern.as_str().len(),
        ValueCondition::Present => 0,
    };
    let headers = own.headers.iter().map(|own| PART + own.name.as_str().len() + value(&own.value));
    let query = own.query.iter().map(|own| PART + own.name.len() + value(&own.value));
    PART + path + headers.sum::<usize>() + query.sum::<usize>() + own.sources.len() * PART
}
