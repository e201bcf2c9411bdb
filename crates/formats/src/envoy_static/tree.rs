//! What is done with the whole tree before it is read: spellings are made one, and what looks like a variable is found.

use std::collections::BTreeSet;

use hms_model::finding::Finding;

use crate::document::{Node, Value, short};
use crate::read::Reader;

/// Folds `camelCase` keys, which protobuf takes as well, and reports `${…}`: Envoy expands nothing, so the author expects what does
/// not happen.
pub(super) fn fold(reader: &mut Reader<'_>, node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Unknown => {}
        Value::Scalar(text, _) => {
            if let Some(name) = variable(text) {
                let finding = Finding::error(2105, format!("`${{{}}}` is not expanded", short(name)));
                let why = "a static file is taken as it stands, as it is by Envoy";
                reader.report(node.span, finding.because(why).fix("write the value, or run envsubst first"));
            }
        }
        Value::List(items) => items.iter_mut().for_each(|item| fold(reader, item)),
        Value::Map(entries) => {
            let mut seen = BTreeSet::new();
            for entry in entries.iter_mut() {
                if let Some(key) = snake(&entry.key) {
                    entry.key = key;
                }
                if !seen.insert(entry.key.clone()) {
                    let finding = Finding::error(2110, format!("the key `{}` stands twice", short(&entry.key)));
                    reader.report(entry.span, finding.because("once in camelCase").fix("keep one of the two"));
                }
                fold(reader, &mut entry.value);
            }
        }
    }
}

/// `connectTimeout` as `connect_timeout`; `None` for a key that is not in that form.
fn snake(key: &str) -> Option<String> {
    let camel = key.starts_with(|c: char| c.is_ascii_lowercase())
        && key.bytes().all(|b| b.is_ascii_alphanumeric())
        && key.bytes().any(|b| b.is_ascii_uppercase());
    camel.then(|| {
        key.chars().fold(String::with_capacity(key.len() + 4), |mut folded, c| {
            if c.is_ascii_uppercase() {
                folded.push('_');
            }
            folded.push(c.to_ascii_lowercase());
            folded
        })
    })
}

/// The name in `${NAME}` or `${NAME:-…}`.
fn variable(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once("${")?;
    let (name, _) = rest.split_once('}')?;
    let name = name.split(':').next().unwrap_or(name);
    (!name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')).then_some(name)
}
