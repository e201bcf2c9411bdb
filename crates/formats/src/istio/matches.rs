//! `HTTPMatchRequest`.

use hms_model::finding::Finding;
use hms_model::http_route::{
    FieldCondition, HttpMatch, MOST_MATCHES, PathCondition, Pattern, QueryCondition, Source, ValueCondition,
};
use hms_model::names::ServiceName;
use http::Method;

use crate::document::short;
use crate::gateway_api::{canonical, header_name, pattern};
use crate::objects::object::{Object, items, namespace_of, no_equal, not_carried};
use crate::objects::words::{self, key_field, key_node};
use crate::read::{Field, Keys, Reader, Table};

const MATCH: Keys = Keys::new(&[
    "name",
    "uri",
    "ignoreUriCase",
    "method",
    "headers",
    "withoutHeaders",
    "queryParams",
    "sourceLabels",
    "sourceNamespace",
    "scheme",
    "authority",
    "port",
    "gateways",
    "statPrefix",
]);
const STRING: Keys = Keys::new(&["exact", "prefix", "regex"]);
/// Conditions of one kind in one match.
const CONDITIONS: usize = 16;

/// `match` of a rule.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>) -> Vec<HttpMatch> {
    let mut matches = Vec::new();
    for item in items(reader, table, "match", MOST_MATCHES, "a list such as [{uri: {prefix: /pay}}]") {
        let Some(table) = reader.table(item.node, &item.path, MATCH) else { continue };
        let mut headers = fields(reader, &table, "headers", false);
        headers.extend(fields(reader, &table, "withoutHeaders", true));
        matches.push(HttpMatch {
            path: table.field("uri").cloned().and_then(|field| path(reader, &field)),
            method: table.field("method").cloned().and_then(|field| method(reader, &field)),
            headers,
            query: query(reader, &table),
            sources: sources(reader, object, &table),
        });
        without_equal(reader, &table);
    }
    matches
}

fn without_equal(reader: &mut Reader<'_>, table: &Table<'_>) {
    let why = "a match is about path, method, header fields, query and caller";
    for key in ["ignoreUriCase", "scheme", "authority", "port", "gateways"] {
        let Some(field) = table.field(key) else { continue };
        if !crate::gateway_api::is_word(Some(field), "false") {
            no_equal(
                reader,
                field.key,
                &format!("`{key}` of a match"),
                why,
                "leave it out, or use a regular expression",
            );
        }
    }
    if let Some(field) = table.field("statPrefix") {
        not_carried(reader, field.key, "`statPrefix`", "metrics have the rule's name");
    }
}

/// How a text is meant, and the text.
enum Text<'n> {
    Exact(&'n str),
    Prefix(&'n str),
    Regex(Pattern),
}

fn string<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<Text<'n>> {
    let table = reader.table(field.node, &field.path, STRING)?;
    let [own] = table.fields() else {
        let finding = Finding::error(2105, format!("`{}` wants one of exact, prefix and regex", field.path));
        reader.report(field.key, finding.fix("exact: /pay"));
        return None;
    };
    let own = own.clone();
    match own.name {
        "regex" => pattern(reader, &own).map(Text::Regex),
        name => {
            let text = reader.line(&own, "a text", 512)?;
            Some(if name == "exact" { Text::Exact(text) } else { Text::Prefix(text) })
        }
    }
}

fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathCondition> {
    match string(reader, field)? {
        Text::Exact(text) => canonical(reader, field, text).map(PathCondition::Exact),
        Text::Regex(pattern) => Some(PathCondition::Regex(pattern)),
        Text::Prefix(text) => words::prefix(reader, field, text),
    }
}

fn method(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Method> {
    match string(reader, field)? {
        Text::Exact(text) => {
            let method = Method::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= 32);
            if method.is_none() {
                reader.bad(field, "a method", "a method is one word", "write for example exact: GET");
            }
            method
        }
        Text::Prefix(_) | Text::Regex(_) => {
            no_equal(
                reader,
                field.key,
                "a pattern of methods",
                "a match is about one method or all",
                "write a match for each",
            );
            None
        }
    }
}

/// What a text must be. Several lines are never meant.
fn value(reader: &mut Reader<'_>, field: &Field<'_>, text: Text<'_>) -> Option<ValueCondition> {
    Some(match text {
        Text::Exact(text) => ValueCondition::Exact(text.to_owned()),
        Text::Regex(pattern) => ValueCondition::Regex(pattern),
        Text::Prefix(text) => {
            let pattern = Pattern::literal(text).and_then(|own| Pattern::parse(&format!("{}.*", own.as_str())));
            if pattern.is_err() {
                reader.bad(field, "a prefix", "it is too long", "write a shorter one");
            }
            ValueCondition::Regex(pattern.ok()?)
        }
    })
}

fn is_empty(field: &Field<'_>) -> bool {
    match &field.node.value {
        crate::document::Value::Map(entries) => entries.is_empty(),
        crate::document::Value::Null => true,
        _ => false,
    }
}

fn fields(reader: &mut Reader<'_>, table: &Table<'_>, key: &str, is_negated: bool) -> Vec<FieldCondition> {
    let mut conditions = Vec::new();
    for field in named(reader, table, key) {
        let node = key_node(&field);
        let name = header_name(reader, &key_field(&field, &node));
        // `{}` wants the field, whatever its value.
        let value = if is_empty(&field) {
            Some(ValueCondition::Present)
        } else {
            string(reader, &field).and_then(|text| value(reader, &field, text))
        };
        if let (Some(name), Some(value)) = (name, value) {
            conditions.push(FieldCondition { name, value, is_negated });
        }
    }
    conditions
}

fn named<'n>(reader: &mut Reader<'_>, table: &Table<'n>, key: &str) -> Vec<Field<'n>> {
    let Some(field) = table.field(key).cloned() else { return Vec::new() };
    let Some(all) = reader.open_table(field.node, &field.path) else { return Vec::new() };
    let mut all = all.fields().to_vec();
    if all.len() > CONDITIONS {
        let finding = Finding::error(2112, format!("`{}` has {} entries", field.path, all.len()));
        reader.report(field.key, finding.because(format!("there are at most {CONDITIONS}")).fix("write fewer"));
        all.truncate(CONDITIONS);
    }
    all
}

fn query(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<QueryCondition> {
    let mut conditions = Vec::new();
    for field in named(reader, table, "queryParams") {
        let node = key_node(&field);
        let name = reader.line(&key_field(&field, &node), "the name of a parameter", 256).map(str::to_owned);
        let value = if is_empty(&field) {
            Some(ValueCondition::Present)
        } else {
            string(reader, &field).and_then(|text| value(reader, &field, text))
        };
        if let (Some(name), Some(value)) = (name, value) {
            conditions.push(QueryCondition { name, value });
        }
    }
    conditions
}

/// Who calls: the service that the label `app` names, or a namespace.
fn sources(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>) -> Vec<Source> {
    let mut sources = Vec::new();
    if let Some(field) = table.field("sourceNamespace").cloned() {
        sources.extend(namespace_of(reader, &field).map(|name| Source::Namespace(name.to_owned())));
    }
    for field in named(reader, table, "sourceLabels") {
        let service = match field.name {
            "app" => reader
                .text(&field, "the name of a service")
                .map(|text| ServiceName::in_namespace(object.namespace, text)),
            _ => None,
        };
        match service {
            Some(Ok(service)) if sources.is_empty() => sources.push(Source::Service(service)),
            _ => {
                let why = "a caller is known by its identity: `app: NAME` means the service of this name; and nothing else beside it";
                no_equal(
                    reader,
                    field.key,
                    &format!("the label `{}` of a caller", short(field.name)),
                    why,
                    "app: NAME alone",
                );
            }
        }
    }
    sources
}
