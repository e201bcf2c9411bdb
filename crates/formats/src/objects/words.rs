//! Words that several meshes share, because the same proxy stands behind them: prefixes, conditions on texts, conditions for trying
//! again, names as keys.

use hms_model::finding::Finding;
use hms_model::http_route::{FieldCondition, PathCondition, Pattern, ValueCondition};
use hms_model::policy::Retry;
use hms_model::policy::retry::{RetryOn, Toggle};
use http::{HeaderName, HeaderValue, Method};

use super::object::not_carried;
use crate::document::{Form, Node, Value, short};
use crate::gateway_api::{canonical, editable, header_value};
use crate::read::{Field, Reader, Span, Table};

/// Longest text of a condition.
const TEXT_BYTES: usize = 512;
/// Entries of one table whose keys are names.
const ENTRIES: usize = 64;

/// A prefix of any characters, as a prefix of segments; none for `/`.
pub(crate) fn prefix(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) -> Option<PathCondition> {
    if text == "/" {
        return None;
    }
    let path = canonical(reader, field, text)?;
    let prefix = path.trim_end_matches('/').to_owned();
    let message = format!("the prefix `{}` is made of segments", short(text));
    let why = format!("`{prefix}` and `{prefix}/more` are taken here, `{prefix}more` is not");
    reader.report(field.node.span, Finding::warning(2173, message).because(why));
    (!prefix.is_empty()).then_some(PathCondition::Prefix(prefix))
}

/// Where in a value a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    Start,
    End,
    Anywhere,
}

/// A condition that a value has a text in it.
pub(crate) fn part_of(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    part: Part,
    ignores_case: bool,
) -> Option<ValueCondition> {
    let text = reader.line(field, "a text", TEXT_BYTES)?;
    if part == Part::Whole && !ignores_case {
        return Some(ValueCondition::Exact(text.to_owned()));
    }
    let pattern = Pattern::literal(text).and_then(|own| {
        let own = own.as_str();
        let spelt = match part {
            Part::Whole => own.to_owned(),
            Part::Start => format!("{own}.*"),
            Part::End => format!(".*{own}"),
            Part::Anywhere => format!(".*{own}.*"),
        };
        Pattern::parse(&if ignores_case { format!("(?i){spelt}") } else { spelt })
    });
    if pattern.is_err() {
        reader.bad(field, "a text", "it is too long", "write a shorter one");
    }
    pattern.ok().map(ValueCondition::Regex)
}

/// One method by its word.
pub(crate) fn method(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Method> {
    const WORDS: [(&str, Method); 9] = [
        ("GET", Method::GET),
        ("HEAD", Method::HEAD),
        ("POST", Method::POST),
        ("PUT", Method::PUT),
        ("PATCH", Method::PATCH),
        ("DELETE", Method::DELETE),
        ("CONNECT", Method::CONNECT),
        ("OPTIONS", Method::OPTIONS),
        ("TRACE", Method::TRACE),
    ];
    reader.word(field, &WORDS)
}

/// Adds a condition on a field. Two on the same field are never meant.
pub(crate) fn add_field(
    reader: &mut Reader<'_>,
    at: Span,
    conditions: &mut Vec<FieldCondition>,
    condition: FieldCondition,
) {
    if conditions.iter().any(|own| own.name == condition.name) {
        let finding = Finding::error(2110, format!("`{}` stands twice", condition.name));
        reader.report(at, finding.because("names of header fields do not differ by case").fix("keep one of the two"));
    } else {
        conditions.push(condition);
    }
}

/// Adds a condition on a field that Envoy would see: what is turned round does not hold there of a field that is not there.
pub(crate) fn add_seen(
    reader: &mut Reader<'_>,
    at: Span,
    conditions: &mut Vec<FieldCondition>,
    condition: FieldCondition,
) {
    let before = conditions.len();
    let name = condition.name.clone();
    let is_of_value = condition.is_negated && condition.value != ValueCondition::Present;
    add_field(reader, at, conditions, condition);
    if is_of_value && conditions.len() > before {
        conditions.push(FieldCondition { name, value: ValueCondition::Present, is_negated: false });
    }
}

/// Conditions for trying again in Envoy's words; whether there was a strange one.
pub(crate) fn try_again(words: &[&str], retry: &mut Retry) -> bool {
    let mut on = RetryOn { status_5xx: false, reset: false, timeout: Toggle::Off };
    let (mut strange, mut all) = (false, false);
    for word in words.iter().copied() {
        match word {
            "5xx" => {
                on = RetryOn { status_5xx: true, reset: true, timeout: Toggle::On };
                all = true;
            }
            "gateway-error" => {
                on.status_5xx = true;
                retry.statuses.extend(502..=504);
            }
            "reset" | "reset-before-request" => on.reset = true,
            "unavailable" => {
                on.status_5xx = true;
                retry.statuses.push(503);
            }
            // Always tried again: nobody has processed it.
            "connect-failure" | "refused-stream" => {}
            _ => match word.parse::<u16>() {
                Ok(status) if (500..=599).contains(&status) => {
                    on.status_5xx = true;
                    retry.statuses.push(status);
                }
                _ => strange = true,
            },
        }
    }
    if all {
        retry.statuses.clear();
    }
    retry.statuses.sort_unstable();
    retry.statuses.dedup();
    retry.on = on;
    strange
}

/// The finding for a strange one.
pub(crate) fn strange_condition(reader: &mut Reader<'_>, at: Span, what: &str) {
    let why =
        "known: 5xx, gateway-error, reset, connect-failure, refused-stream, unavailable, and statuses from 500 to 599";
    not_carried(reader, at, &format!("a part of `{what}`"), why);
}

/// A key read as if it were a value, where keys are names of something.
pub(crate) fn key_node(field: &Field<'_>) -> Node {
    Node { span: field.key, value: Value::Scalar(field.name.to_owned(), Form::Quoted) }
}

/// Such a key as a field.
pub(crate) fn key_field<'k>(field: &Field<'_>, node: &'k Node) -> Field<'k> {
    Field { path: field.path.clone(), name: "", key: field.key, node }
}

/// Header fields to be changed, as a table of names and values.
pub(crate) fn pairs(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let Some(field) = table.field(key).cloned() else { return Vec::new() };
    let Some(table) = reader.open_table(field.node, &field.path) else { return Vec::new() };
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    if table.fields().len() > ENTRIES {
        let finding = Finding::error(2112, format!("`{}` has more than {ENTRIES} entries", field.path));
        reader.report(field.key, finding.fix("divide them among several rules"));
    }
    for field in table.fields().iter().take(ENTRIES) {
        let node = key_node(field);
        let name = editable(reader, &key_field(field, &node));
        let value = header_value(reader, field);
        pairs.extend(name.zip(value));
    }
    pairs
}
