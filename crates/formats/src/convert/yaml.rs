//! Values as YAML in block style. Texts that another reader could take for something else are quoted.

use std::fmt::Write as _;

use serde_json::Value;

/// Appends one document.
pub(super) fn write(out: &mut String, value: &Value) {
    block(out, value, 0);
}

fn block(out: &mut String, value: &Value, depth: usize) {
    let indent = "  ".repeat(depth);
    match value {
        Value::Object(map) => {
            for (key, value) in map {
                let _written = write!(out, "{indent}{key}:");
                below(out, value, depth);
            }
        }
        Value::Array(items) => {
            for item in items {
                if item.as_object().is_some_and(serde_json::Map::is_empty) {
                    let _written = writeln!(out, "{indent}- {{}}");
                    continue;
                }
                let mut inner = String::new();
                block(&mut inner, item, depth + 1);
                // The first line begins behind the dash.
                let first = inner.trim_start();
                let _written = write!(out, "{indent}- {first}");
            }
        }
        scalar => {
            let _written = writeln!(out, "{indent}{}", text(scalar));
        }
    }
}

fn below(out: &mut String, value: &Value, depth: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) => {
            out.push('\n');
            block(out, value, depth + 1);
        }
        Value::Array(_) => {
            out.push('\n');
            block(out, value, depth);
        }
        scalar => {
            let _written = writeln!(out, " {}", text(scalar));
        }
    }
}

/// A scalar. JSON's way of quoting is one of YAML's.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) if is_plain(text) => text.clone(),
        other => other.to_string(),
    }
}

fn is_plain(text: &str) -> bool {
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'/' | b'-' | b'_' | b'.'))
        && !words.contains(&text.to_ascii_lowercase().as_str())
}
