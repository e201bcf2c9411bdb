//! A value as it is written into another Compose file: on one line, and meaning the same.

use crate::document::{Form, Node, Value};

/// A value in flow style. Variables stay for Compose to expand.
pub(super) fn flow(node: &Node) -> String {
    match &node.value {
        Value::Null | Value::Unknown => "null".to_owned(),
        Value::Scalar(text, Form::Plain) if is_typed(text) => text.clone(),
        Value::Scalar(text, _) => quoted(text),
        Value::List(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Map(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|entry| format!("{}: {}", quoted(&entry.key), flow(&entry.value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// Whether a plain scalar is a number or a truth value, and not a text.
fn is_typed(text: &str) -> bool {
    let number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    number || matches!(text, "true" | "false")
}

/// A text in double quotes; JSON's are YAML's as well.
pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The same for a text of ours, in which a dollar is no variable.
pub(super) fn literal(text: &str) -> String {
    quoted(&text.replace('$', "$$"))
}
