//! Whether the most particular rule is the first that fits.

use hms_model::finding::Finding;
use hms_model::http_route::{HttpMatch, HttpRule, PathCondition, ValueCondition};

use crate::read::{Reader, Span};

/// How particular a match is, as the tables of proxies order them.
pub(crate) type Rank = (u8, usize, bool, usize, usize);

pub(crate) fn rank(own: &HttpMatch) -> Rank {
    let (kind, length) = match &own.path {
        Some(PathCondition::Exact(text)) => (3, text.len()),
        Some(PathCondition::Template(pattern)) => (2, pattern.as_str().len()),
        Some(PathCondition::Regex(pattern)) => (1, pattern.as_str().len()),
        Some(PathCondition::Prefix(text)) => (0, text.len()),
        None => (0, 1),
    };
    (kind, length, own.method.is_some(), own.headers.len(), own.query.len())
}

/// Whether no request can fit both. May be `false` where that is so.
fn apart(one: &HttpMatch, other: &HttpMatch) -> bool {
    let paths = match (&one.path, &other.path) {
        (Some(PathCondition::Exact(path)), Some(own)) | (Some(own), Some(PathCondition::Exact(path))) => {
            !own.takes(path)
        }
        (Some(PathCondition::Prefix(path)), Some(PathCondition::Prefix(own))) => {
            let below = |path: &str, own: &str| PathCondition::Prefix(own.to_owned()).takes(path);
            !below(path, own) && !below(own, path)
        }
        (Some(PathCondition::Prefix(prefix)), Some(PathCondition::Regex(regex)))
        | (Some(PathCondition::Regex(regex)), Some(PathCondition::Prefix(prefix))) => {
            let start = literal_start(regex.as_str());
            !start.starts_with(prefix.as_str()) && !prefix.starts_with(start)
        }
        _ => false,
    };
    let methods = matches!((&one.method, &other.method), (Some(one), Some(other)) if one != other);
    let headers = one.headers.iter().any(|own| {
        other.headers.iter().any(|other| {
            let differ = matches!((&own.value, &other.value), (ValueCondition::Exact(one), ValueCondition::Exact(two)) if one != two);
            own.name == other.name && differ && !own.is_negated && !other.is_negated
        })
    });
    paths || methods || headers
}

/// What every text begins with that fits an expression.
fn literal_start(regex: &str) -> &str {
    if regex.contains('|') {
        return "";
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '-' | '_' | '~');
    let end = regex.find(|c| !is_plain(c)).unwrap_or(regex.len());
    let (start, rest) = regex.split_at_checked(end).unwrap_or(("", regex));
    // What is repeated, perhaps never, does not count.
    let is_repeated = rest.starts_with(['*', '?', '{']);
    if is_repeated { start.get(..start.len().saturating_sub(1)).unwrap_or_default() } else { start }
}

/// Rules that would be tried too late here: each stands before another that fits the same requests and is more particular.
pub(crate) fn check(reader: &mut Reader<'_>, rules: &[(HttpRule, Span)]) {
    let everything = [HttpMatch::default()];
    let of = |rule: &HttpRule| if rule.matches.is_empty() { everything.to_vec() } else { rule.matches.clone() };
    for (at, (later, span)) in rules.iter().enumerate() {
        let before = rules.get(..at).unwrap_or_default();
        let overtaken = before.iter().find(|(earlier, _)| {
            of(earlier).iter().any(|first| of(later).iter().any(|own| rank(own) > rank(first) && !apart(first, own)))
        });
        let Some((_, first)) = overtaken else { continue };
        let finding = Finding::error(2175, "this rule would come before another that stands above it");
        let why = format!(
            "{} is tried first there; here the more particular one wins: exact path, expression, longer prefix, method, more conditions",
            reader.origin(*first)
        );
        reader.report(
            *span,
            finding.because(why).fix("put the more particular rule first, or remove it: it is hardly ever reached"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_expression_begins_with_is_only_what_is_sure() {
        for (regex, start) in
            [("/v[0-9]+", "/v"), ("/ab*", "/a"), ("/ab+", "/ab"), ("/a|/b", ""), (".*", ""), ("/a/b", "/a/b"), ("", "")]
        {
            assert_eq!(literal_start(regex), start, "{regex}");
        }
    }
}
