//! Which requests a rule is about (`HTTPRouteMatch`).

use hms_model::finding::Finding;
use hms_model::http_route::{
    FieldCondition, HttpMatch, MOST_MATCHES, PathCondition, Pattern, QueryCondition, ValueCondition,
};
use hms_model::message::CanonicalPath;
use http::Method;

use super::{edits, is_word};
use crate::document::{Value, short};
use crate::objects::object::items;
use crate::read::{Field, Keys, Reader, Table};

const MATCH: Keys = Keys::new(&["path", "method", "headers", "queryParams"]);
const PATH: Keys = Keys::new(&["type", "value"]);
const VALUE: Keys = Keys::new(&["type", "name", "value"]);
/// Conditions of one kind in one match, by the specification.
const CONDITIONS: usize = 16;
/// Longest path, and values of conditions, by the specification.
const PATH_BYTES: usize = 1024;
const VALUE_BYTES: usize = 4096;
const NAME_BYTES: usize = 256;

/// How a condition is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Exact,
    Prefix,
    Regex,
}

const PATH_WAYS: [(&str, Way); 3] =
    [("PathPrefix", Way::Prefix), ("Exact", Way::Exact), ("RegularExpression", Way::Regex)];
pub(super) const VALUE_WAYS: [(&str, Way); 2] = [("Exact", Way::Exact), ("RegularExpression", Way::Regex)];

const METHODS: [(&str, Method); 9] = [
    ("GET", Method::GET),
    ("HEAD", Method::HEAD),
    ("POST", Method::POST),
    ("PUT", Method::PUT),
    ("DELETE", Method::DELETE),
    ("CONNECT", Method::CONNECT),
    ("OPTIONS", Method::OPTIONS),
    ("TRACE", Method::TRACE),
    ("PATCH", Method::PATCH),
];

/// `matches` of a rule.
pub(crate) fn rule_matches(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<HttpMatch> {
    let mut matches = Vec::new();
    for item in
        items(reader, table, "matches", MOST_MATCHES, "a list such as [{path: {type: PathPrefix, value: /pay}}]")
    {
        if let Some(table) = reader.table(item.node, &item.path, MATCH) {
            matches.push(HttpMatch {
                path: table.field("path").cloned().and_then(|field| path(reader, &field)),
                method: table.field("method").cloned().and_then(|field| method(reader, &field)),
                headers: headers(reader, &table),
                query: query(reader, &table),
                sources: Vec::new(),
            });
        }
    }
    matches
}

/// Whether there is exactly one match and it is about a prefix, as replacing one needs it. Nothing said is the prefix `/`.
pub(super) fn has_one_prefix(table: &Table<'_>) -> bool {
    let Some(field) = table.field("matches") else { return true };
    let Value::List(list) = &field.node.value else { return true };
    let [one] = list.as_slice() else { return list.is_empty() };
    let entry = |node: &crate::document::Node, key: &str| match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone()),
        _ => None,
    };
    let way = entry(one, "path").and_then(|path| entry(&path, "type"));
    way.is_none_or(|way| matches!(&way.value, Value::Scalar(text, _) if text == "PathPrefix"))
}

fn method(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Method> {
    let words: Vec<(&'static str, usize)> = METHODS.iter().enumerate().map(|(at, (word, _))| (*word, at)).collect();
    let at = reader.word(field, &words)?;
    METHODS.get(at).map(|(_, method)| method.clone())
}

fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathCondition> {
    let table = reader.table(field.node, &field.path, PATH)?;
    let way = table.field("type").cloned();
    let way = way.map_or(Some(Way::Prefix), |field| reader.word(&field, &PATH_WAYS));
    let Some(value) = table.field("value").cloned() else {
        // `/` by default, which is everything if a prefix.
        return (way? == Way::Exact).then(|| PathCondition::Exact("/".to_owned()));
    };
    let text = reader.line(&value, "a path", PATH_BYTES)?;
    match way? {
        Way::Regex => pattern(reader, &value).map(PathCondition::Regex),
        Way::Exact => canonical(reader, &value, text).map(PathCondition::Exact),
        Way::Prefix => canonical(reader, &value, text).and_then(|path| match path.trim_end_matches('/') {
            "" => None,
            prefix => Some(PathCondition::Prefix(prefix.to_owned())),
        }),
    }
}

/// A path in the form that requests have when they are matched; what the specification refuses in one is refused.
pub(crate) fn canonical(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) -> Option<String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&b);
    let why = if !text.starts_with('/') {
        "it begins with /"
    } else if text.contains("//") || text.contains("/./") || text.contains("/../") {
        "no request has // or /./ or /../ in its path when it is matched"
    } else if text.ends_with("/.") || text.ends_with("/..") {
        "no request ends with /. or /.. when it is matched"
    } else if text.to_ascii_lowercase().contains("%2f") {
        "an encoded slash is ambiguous, and such requests are refused"
    } else if !text.bytes().all(fits) {
        "in a path stand letters, digits and -._~!$&'()*+,;=:@%"
    } else {
        match CanonicalPath::parse(text) {
            Ok(path) => return Some(path.as_str().to_owned()),
            Err(_malformed) => "a % is followed by two hexadecimal digits",
        }
    };
    let fix = if text.starts_with('/') {
        "write the path as requests have it".to_owned()
    } else {
        format!("write /{}", short(text))
    };
    reader.bad(field, "a path", why, &fix);
    None
}

/// A regular expression.
pub(crate) fn pattern(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Pattern> {
    let text = reader.line(field, "a regular expression", VALUE_BYTES)?;
    match Pattern::parse(text) {
        Ok(pattern) => Some(pattern),
        Err(error) => {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default().to_owned();
            reader.bad(
                field,
                "a regular expression",
                &why,
                "it is that of RE2: without look-around and back-references",
            );
            None
        }
    }
}

/// `headers` of a match. Of equal names the first counts, by the specification; we rather say so.
pub(super) fn headers(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<FieldCondition> {
    let mut conditions: Vec<FieldCondition> = Vec::new();
    for item in items(reader, table, "headers", CONDITIONS, "a list such as [{name: x-user, value: anna}]") {
        let Some(table) = reader.table(item.node, &item.path, VALUE) else { continue };
        let field = reader.need(&table, "name", "name: x-user").cloned();
        let name = field.as_ref().and_then(|field| edits::name(reader, field));
        let value = value(reader, &table);
        let (Some(name), Some(field)) = (name, field) else { continue };
        if conditions.iter().any(|own| own.name == name) {
            reader.report(field.node.span, edits::twice(&name));
        } else if let Some(value) = value {
            conditions.push(FieldCondition { name, value, is_negated: false });
        }
    }
    conditions
}

fn query(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<QueryCondition> {
    let mut conditions: Vec<QueryCondition> = Vec::new();
    for item in items(reader, table, "queryParams", CONDITIONS, "a list such as [{name: debug, value: \"1\"}]") {
        let Some(table) = reader.table(item.node, &item.path, VALUE) else { continue };
        let field = reader.need(&table, "name", "name: debug").cloned();
        let name = field.as_ref().and_then(|field| reader.line(field, "the name of a parameter", NAME_BYTES));
        let value = value(reader, &table);
        let (Some(name), Some(field)) = (name, field) else { continue };
        if conditions.iter().any(|own| own.name == name) {
            let finding = Finding::error(2110, format!("`{}` stands twice", short(name)));
            reader.report(field.node.span, finding.fix("keep one of the two"));
        } else if let Some(value) = value {
            conditions.push(QueryCondition { name: name.to_owned(), value });
        }
    }
    conditions
}

fn value(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<ValueCondition> {
    let way = table.field("type").cloned();
    let is_regex = is_word(way.as_ref(), "RegularExpression");
    let known = way.is_none_or(|field| reader.word(&field, &VALUE_WAYS).is_some());
    let value = reader.need(table, "value", "value: anna").cloned()?;
    if is_regex {
        return pattern(reader, &value).map(ValueCondition::Regex);
    }
    let text = reader.line(&value, "a value", VALUE_BYTES)?;
    known.then(|| ValueCondition::Exact(text.to_owned()))
}
