//! `match` of a route: which requests it is about.

use hms_model::finding::Finding;
use hms_model::http_route::{FieldCondition, HttpMatch, PathCondition, QueryCondition, ValueCondition};
use hms_model::route::PathPattern;

use super::one_of;
use crate::document::short;
use crate::gateway_api::{canonical, header_name, pattern};
use crate::objects::object::{items, no_equal};
use crate::objects::words::{self, Part};
use crate::read::{Field, Keys, Reader, Table};

const HTTP: Keys = Keys::new(&["prefix", "path", "method", "headers", "queryParameters", "scheme", "port", "hostname"]);
const GRPC: Keys = Keys::new(&["serviceName", "methodName", "metadata", "port", "hostname"]);
const PATH: Keys = Keys::new(&["exact", "regex"]);
const HEADER: Keys = Keys::new(&["name", "match", "invert"]);
const HOW: Keys = Keys::new(&["exact", "prefix", "suffix", "regex", "range"]);
const QUERY: Keys = Keys::new(&["name", "match"]);
const EXACT: Keys = Keys::new(&["exact"]);
/// Conditions of one kind in one match.
const CONDITIONS: usize = 16;

/// The conditions on requests, and the table for what else stands in it.
pub(super) fn http<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<(HttpMatch, Table<'n>)> {
    let table = reader.table(field.node, &field.path, HTTP)?;
    for key in ["scheme", "port"] {
        if let Some(field) = table.field(key) {
            let why = "a match is about path, method, header fields and query";
            no_equal(reader, field.key, &format!("`{key}` of a match"), why, "leave it out");
        }
    }
    if let (Some(_), Some(second)) = (table.field("prefix"), table.field("path")) {
        let finding = Finding::error(2105, format!("`{}` wants one of prefix, path", table.path));
        reader.report(second.key, finding.fix("keep one of them"));
    }
    let path = match table.field("prefix").cloned() {
        Some(field) => reader.line(&field, "a path", 1024).and_then(|text| words::prefix(reader, &field, text)),
        None => table.field("path").cloned().and_then(|field| path(reader, &field)),
    };
    let own = HttpMatch {
        path,
        method: table.field("method").cloned().and_then(|field| words::method(reader, &field)),
        headers: headers(reader, &table, "headers"),
        query: query(reader, &table),
        sources: Vec::new(),
    };
    Some((own, table))
}

fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathCondition> {
    let table = reader.table(field.node, &field.path, PATH)?;
    let field = one_of(reader, &table, PATH.known, "exact: /pay")?;
    if field.name == "regex" {
        return pattern(reader, &field).map(PathCondition::Regex);
    }
    let text = reader.line(&field, "a path", 1024)?;
    canonical(reader, &field, text).map(PathCondition::Exact)
}

/// The conditions on calls of gRPC.
pub(super) fn grpc<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<(HttpMatch, Table<'n>)> {
    let table = reader.table(field.node, &field.path, GRPC)?;
    if let Some(field) = table.field("port") {
        let why = "a match is about the service and method that are called, and metadata";
        no_equal(reader, field.key, "`port` of a match", why, "leave it out");
    }
    let service = table.field("serviceName").cloned();
    let method = table.field("methodName").cloned();
    let name = |reader: &mut Reader<'_>, field: &Field<'_>, dots: bool| {
        let text = reader.line(field, "a name", 256)?;
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.');
        let is_name = text.bytes().all(fits);
        if !is_name {
            let why = "it is made of letters, digits and _, as in the .proto file";
            reader.bad(field, "a name", why, "copy the name from the .proto file");
        }
        is_name.then(|| text.to_owned())
    };
    if let (None, Some(field)) = (&service, &method) {
        let finding = Finding::error(2105, format!("`{}` stands without a service", field.path));
        reader.report(field.key, finding.fix("serviceName: shop.Pay"));
    }
    let service = service.and_then(|field| name(reader, &field, true));
    let method = method.and_then(|field| name(reader, &field, false));
    let path = match (service, method) {
        (Some(service), Some(method)) => Some(PathCondition::Exact(format!("/{service}/{method}"))),
        (Some(service), None) => {
            PathPattern::parse(&format!("/{service}/{{method}}")).ok().map(PathCondition::Template)
        }
        (None, _) => None,
    };
    let headers = headers(reader, &table, "metadata");
    Some((HttpMatch { path, headers, ..HttpMatch::default() }, table))
}

fn headers(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Vec<FieldCondition> {
    let mut conditions = Vec::new();
    for item in items(reader, table, key, CONDITIONS, "a list such as [{name: x-debug, match: {exact: \"1\"}}]") {
        let Some(table) = reader.table(item.node, &item.path, HEADER) else { continue };
        let name = reader.need(&table, "name", "name: x-debug").cloned();
        let name = name.and_then(|field| header_name(reader, &field));
        let invert = table.field("invert").cloned();
        let is_negated = invert.and_then(|field| reader.boolean(&field)).unwrap_or_default();
        let value = match table.field("match").cloned() {
            None => Some(ValueCondition::Present),
            Some(field) => how(reader, &field),
        };
        if let (Some(name), Some(value)) = (name, value) {
            let condition = FieldCondition { name, value, is_negated };
            words::add_seen(reader, item.node.span, &mut conditions, condition);
        }
    }
    conditions
}

fn how(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<ValueCondition> {
    let table = reader.table(field.node, &field.path, HOW)?;
    let field = one_of(reader, &table, HOW.known, "exact: \"1\"")?;
    let part = match field.name {
        "exact" => Part::Whole,
        "prefix" => Part::Start,
        "suffix" => Part::End,
        "regex" => return pattern(reader, &field).map(ValueCondition::Regex),
        _ => {
            let why = "a value is compared as a text";
            no_equal(reader, field.key, "a range of numbers", why, "use a regular expression: [1-5][0-9]");
            return None;
        }
    };
    words::part_of(reader, &field, part, false)
}

fn query(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<QueryCondition> {
    let mut conditions: Vec<QueryCondition> = Vec::new();
    let wants = "a list such as [{name: debug, match: {exact: \"1\"}}]";
    for item in items(reader, table, "queryParameters", CONDITIONS, wants) {
        let Some(table) = reader.table(item.node, &item.path, QUERY) else { continue };
        let name = reader.need(&table, "name", "name: debug").cloned();
        let name = name.and_then(|field| reader.line(&field, "the name of a parameter", 256).map(str::to_owned));
        let value = match table.field("match").cloned() {
            None => Some(ValueCondition::Present),
            Some(field) => reader.table(field.node, &field.path, EXACT).and_then(|table| {
                let field = reader.need(&table, "exact", "exact: \"1\"").cloned()?;
                words::part_of(reader, &field, Part::Whole, false)
            }),
        };
        let (Some(name), Some(value)) = (name, value) else { continue };
        if conditions.iter().any(|own| own.name == name) {
            let finding = Finding::error(2110, format!("`{}` stands twice", short(&name)));
            reader.report(item.node.span, finding.fix("keep one of the two"));
        } else {
            conditions.push(QueryCondition { name, value });
        }
    }
    conditions
}
