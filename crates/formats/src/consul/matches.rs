//! `Match` of a route: which requests it is about.

use hms_model::finding::Finding;
use hms_model::http_route::{FieldCondition, HttpMatch, PathCondition, QueryCondition, ValueCondition};

use super::said;
use crate::gateway_api::{canonical, header_name, pattern};
use crate::objects::object::{items, no_equal};
use crate::objects::words::{self, Part};
use crate::read::{Field, Keys, Reader, Table};

const MATCH: Keys = Keys::new(&["HTTP"]);
const HTTP: Keys =
    Keys::new(&["PathExact", "PathPrefix", "PathRegex", "CaseInsensitive", "Header", "QueryParam", "Methods"]);
const HEADER: Keys =
    Keys::new(&["Name", "Present", "Exact", "Prefix", "Suffix", "Contains", "Regex", "Invert", "IgnoreCase"]);
const QUERY: Keys = Keys::new(&["Name", "Present", "Exact", "Regex"]);
/// Conditions of one kind.
const CONDITIONS: usize = 16;

/// The matches of one: as many as it has methods, none for every request.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<HttpMatch> {
    let Some(table) = reader.table_spelt(field.node, &field.path, MATCH, &[]) else { return Vec::new() };
    let Some(field) = said(&table, "HTTP") else { return Vec::new() };
    let Some(table) = reader.table_spelt(field.node, &field.path, HTTP, &[]) else { return Vec::new() };
    if let Some(field) = said(&table, "CaseInsensitive")
        && reader.boolean(&field) == Some(true)
    {
        no_equal(reader, field.key, "a path whatever its case", "case counts in paths", "use PathRegex: (?i)/admin");
    }
    let query = query(reader, &table);
    let matches = self::table(reader, &table, &query);
    if matches == [HttpMatch::default()] { Vec::new() } else { matches }
}

/// The conditions that a router and an intention have in common.
pub(super) fn table(reader: &mut Reader<'_>, table: &Table<'_>, query: &[QueryCondition]) -> Vec<HttpMatch> {
    let (path, headers) = (path(reader, table), headers(reader, table));
    let mut methods = Vec::new();
    for item in items(reader, table, "Methods", CONDITIONS, "a list such as [GET]") {
        let Some(method) = words::method(reader, &item) else { continue };
        if methods.contains(&Some(method.clone())) {
            let finding = Finding::error(2110, format!("`{method}` stands twice"));
            reader.report(item.node.span, finding.fix("keep one of the two"));
        } else {
            methods.push(Some(method));
        }
    }
    if methods.is_empty() {
        methods.push(None);
    }
    let whole = |method| HttpMatch {
        path: path.clone(),
        method,
        headers: headers.clone(),
        query: query.to_vec(),
        sources: Vec::new(),
    };
    methods.into_iter().map(whole).collect()
}

fn path(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<PathCondition> {
    let field = one_of(reader, table, &["PathExact", "PathPrefix", "PathRegex"], false)?;
    match field.name {
        "PathRegex" => pattern(reader, &field).map(PathCondition::Regex),
        name => {
            let text = reader.line(&field, "a path", 1024)?;
            match name {
                "PathExact" => canonical(reader, &field, text).map(PathCondition::Exact),
                _ => words::prefix(reader, &field, text),
            }
        }
    }
}

/// Of some keys the only one that says something. `false` says nothing.
fn one_of<'n>(reader: &mut Reader<'_>, table: &Table<'n>, keys: &[&str], is_needed: bool) -> Option<Field<'n>> {
    let is_false = |field: &Field<'_>| crate::gateway_api::is_word(Some(field), "false");
    let found: Vec<Field<'n>> =
        keys.iter().filter_map(|key| said(table, key)).filter(|field| !is_false(field)).collect();
    if let [one] = found.as_slice() {
        return Some(one.clone());
    }
    if !found.is_empty() || is_needed {
        let finding = Finding::error(2105, format!("`{}` wants one of {}", table.path, keys.join(", ")));
        let fix = if found.is_empty() { "add one of them" } else { "keep one of them" };
        reader.report(found.get(1).map_or(table.span, |second| second.key), finding.fix(fix));
    }
    None
}

fn headers(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<FieldCondition> {
    let mut conditions = Vec::new();
    for item in items(reader, table, "Header", CONDITIONS, "a list such as [{Name: x-debug, Exact: \"1\"}]") {
        let Some(table) = reader.table_spelt(item.node, &item.path, HEADER, &[]) else { continue };
        let name = reader.need_spelt(&table, "Name", "x-debug").and_then(|field| header_name(reader, &field));
        let (is_negated, ignores_case) = (is_on(reader, &table, "Invert"), is_on(reader, &table, "IgnoreCase"));
        let value = value(reader, &table, &["Present", "Exact", "Prefix", "Suffix", "Contains", "Regex"], ignores_case);
        if let (Some(name), Some(value)) = (name, value) {
            let condition = FieldCondition { name, value, is_negated };
            words::add_seen(reader, item.node.span, &mut conditions, condition);
        }
    }
    conditions
}

fn is_on(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> bool {
    said(table, key).and_then(|field| reader.boolean(&field)).unwrap_or_default()
}

fn value(reader: &mut Reader<'_>, table: &Table<'_>, keys: &[&str], ignores_case: bool) -> Option<ValueCondition> {
    let field = one_of(reader, table, keys, true)?;
    let part = match field.name {
        "Present" => return reader.boolean(&field).map(|_true| ValueCondition::Present),
        "Regex" => return pattern(reader, &field).map(ValueCondition::Regex),
        "Exact" => Part::Whole,
        "Prefix" => Part::Start,
        "Suffix" => Part::End,
        _ => Part::Anywhere,
    };
    words::part_of(reader, &field, part, ignores_case)
}

fn query(reader: &mut Reader<'_>, table: &Table<'_>) -> Vec<QueryCondition> {
    let mut conditions: Vec<QueryCondition> = Vec::new();
    for item in items(reader, table, "QueryParam", CONDITIONS, "a list such as [{Name: debug, Exact: \"1\"}]") {
        let Some(table) = reader.table_spelt(item.node, &item.path, QUERY, &[]) else { continue };
        let name = reader.need_spelt(&table, "Name", "debug");
        let name = name.and_then(|field| reader.line(&field, "the name of a parameter", 256).map(str::to_owned));
        let value = value(reader, &table, &["Present", "Exact", "Regex"], false);
        let (Some(name), Some(value)) = (name, value) else { continue };
        if conditions.iter().any(|own| own.name == name) {
            let finding = Finding::error(2110, format!("`{}` stands twice", crate::document::short(&name)));
            reader.report(item.node.span, finding.fix("keep one of the two"));
        } else {
            conditions.push(QueryCondition { name, value });
        }
    }
    conditions
}
