//! Changing header fields (`HTTPHeaderFilter`).

use hms_model::finding::Finding;
use hms_model::http_route::HeaderEdits;
use http::{HeaderName, HeaderValue};

use crate::document::short;
use crate::objects::object::items;
use crate::read::{Field, Keys, Reader, Table};

const EDITS: Keys = Keys::new(&["set", "add", "remove"]);
const HEADER: Keys = Keys::new(&["name", "value"]);
/// Fields of one list, by the specification.
const HEADERS: usize = 16;
/// Longest name and value of a field, by the specification.
const NAME_BYTES: usize = 256;
const VALUE_BYTES: usize = 4096;

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> HeaderEdits {
    let Some(table) = reader.table(field.node, &field.path, EDITS) else { return HeaderEdits::default() };
    let mut remove = Vec::new();
    for item in items(reader, &table, "remove", HEADERS, "a list of names of header fields") {
        if let Some(name) = editable(reader, &item)
            && !remove.contains(&name)
        {
            remove.push(name);
        }
    }
    HeaderEdits { set: pairs(reader, &table, "set"), add: pairs(reader, &table, "add"), remove }
}

/// Fields with their values; no name stands twice.
fn pairs(reader: &mut Reader<'_>, table: &Table<'_>, key: &str) -> Vec<(HeaderName, HeaderValue)> {
    let mut pairs: Vec<(HeaderName, HeaderValue)> = Vec::new();
    for item in items(reader, table, key, HEADERS, "a list such as [{name: x-env, value: test}]") {
        let Some(table) = reader.table(item.node, &item.path, HEADER) else { continue };
        let name = reader.need(&table, "name", "name: x-env").cloned();
        let named = name.as_ref().and_then(|field| editable(reader, field));
        let value = reader.need(&table, "value", "value: test").cloned();
        let value = value.and_then(|field| value_of(reader, &field));
        let (Some(named), Some(name)) = (named, name) else { continue };
        if pairs.iter().any(|(own, _)| *own == named) {
            reader.report(name.node.span, twice(&named));
        } else if let Some(value) = value {
            pairs.push((named, value));
        }
    }
    pairs
}

/// Of equal names the first counts.
pub(super) fn twice(name: &HeaderName) -> Finding {
    Finding::error(2110, format!("`{name}` stands twice"))
        .because("names of header fields do not differ by case")
        .fix("keep one of the two")
}

/// The name of a header field that an author may change.
pub(crate) fn editable(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HeaderName> {
    let name = name(reader, field)?;
    if !HeaderEdits::is_protected(&name) {
        return Some(name);
    }
    let (why, fix) = match name.as_str() {
        "host" => ("it is the authority of the request", "use URLRewrite with hostname"),
        own if own.starts_with("x-") || own == "traceparent" => {
            ("fields of this name are the mesh's own", "use another name")
        }
        _ => ("it frames the message or belongs to one connection alone", "leave it out"),
    };
    let finding = Finding::error(2105, format!("the field `{name}` cannot be edited"));
    reader.report(field.node.span, finding.because(why).fix(fix));
    None
}

/// The name of a header field, in lower case.
pub(crate) fn name(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HeaderName> {
    let text = reader.text(field, "the name of a header field")?;
    let name = HeaderName::from_bytes(text.as_bytes()).ok().filter(|_| text.len() <= NAME_BYTES);
    if name.is_none() {
        let finding = Finding::error(2105, format!("`{}` is no name of a header field", short(text)));
        let why =
            if text.starts_with(':') { "fields such as :authority are no header fields" } else { "RFC 9110, 5.1" };
        reader.report(field.node.span, finding.because(why).fix("write for example x-env"));
    }
    name
}

/// The value of a header field.
pub(crate) fn value_of(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<HeaderValue> {
    const WANTS: &str = "the value of a header field";
    let text = reader.text(field, WANTS)?;
    let value = HeaderValue::from_bytes(text.as_bytes()).ok().filter(|_| (1..=VALUE_BYTES).contains(&text.len()));
    if value.is_none() {
        let why = format!("it has 1 to {VALUE_BYTES} bytes and no control characters");
        reader.bad(field, WANTS, &why, "write one line of text");
    }
    value
}
