//! `${NAME}` and `${NAME:-instead}` in values. It happens after the file was parsed, so no variable can add a key.

use hms_model::finding::Finding;

use crate::document::{Form, MAX_EXPANDED, Node, Value, short};
use crate::mesh_yaml::Lookup;
use crate::read::Reader;

/// Expands every value below `root` in place. Keys stay as they are; `$${` stands for a literal `${`.
pub(crate) fn expand(reader: &mut Reader<'_>, root: &mut Node, lookup: Lookup<'_>) {
    let mut expander = Expander { lookup, room: MAX_EXPANDED };
    expander.node(reader, root, false);
}

struct Expander<'l> {
    lookup: Lookup<'l>,
    /// Bytes that may still be written.
    room: usize,
}

impl Expander<'_> {
    /// `command`: the value of a `run` key, where `${PORT}` is left to whoever starts it.
    fn node(&mut self, reader: &mut Reader<'_>, node: &mut Node, command: bool) {
        match &mut node.value {
            Value::Null | Value::Unknown => {}
            Value::Scalar(text, form) => {
                if text.contains("${") {
                    match self.text(text, command) {
                        Ok(expanded) => {
                            *text = expanded;
                            *form = Form::Expanded;
                        }
                        Err(finding) => {
                            reader.report(node.span, *finding);
                            node.value = Value::Unknown;
                        }
                    }
                }
            }
            Value::List(items) => items.iter_mut().for_each(|item| self.node(reader, item, false)),
            Value::Map(entries) => {
                for entry in entries {
                    self.node(reader, &mut entry.value, entry.key == "run");
                }
            }
        }
    }

    fn text(&mut self, text: &str, command: bool) -> Result<String, Box<Finding>> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find("${") {
            let (before, from) = rest.split_at(at);
            if let Some(kept) = before.strip_suffix('$') {
                out.push_str(kept);
                out.push_str("${");
                rest = from.get(2..).unwrap_or_default();
                continue;
            }
            out.push_str(before);
            let Some((inside, after)) = from.get(2..).and_then(|inside| inside.split_once('}')) else {
                let finding = Finding::error(2105, "a ${ is not closed");
                return Err(Box::new(finding.fix("write ${NAME} or ${NAME:-instead}; $${ stands for a literal ${")));
            };
            if command && inside == "PORT" {
                out.push_str("${PORT}");
            } else {
                out.push_str(&self.variable(inside)?);
            }
            if out.len() + after.len() > self.room {
                let finding = Finding::error(2112, "the file grows too large with its variables expanded");
                return Err(Box::new(finding.fix("use shorter values")));
            }
            rest = after;
        }
        out.push_str(rest);
        self.room = self.room.saturating_sub(out.len());
        Ok(out)
    }

    fn variable(&self, inside: &str) -> Result<String, Box<Finding>> {
        let (name, instead) = match inside.split_once(":-") {
            Some((name, instead)) => (name, Some(instead)),
            None => (inside, None),
        };
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let finding = Finding::error(2105, format!("`${{{}}}` is no variable", short(inside)));
            return Err(Box::new(
                finding.because("a name has letters, digits and _").fix("write ${NAME} or ${NAME:-instead}"),
            ));
        }
        match ((self.lookup)(name), instead) {
            (Some(value), None) => Ok(value),
            (Some(value), Some(_)) if !value.is_empty() => Ok(value),
            (_, Some(instead)) => Ok(instead.to_owned()),
            (None, None) => {
                let name = short(name);
                let finding = Finding::error(2113, format!("the variable `{name}` is not set"));
                let fix = if name == "PORT" {
                    "write $PORT, without braces, for the port that the application is given".to_owned()
                } else {
                    format!("set it, or give a value to use instead: ${{{name}:-value}}")
                };
                Err(Box::new(finding.fix(fix)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(text: &str, command: bool) -> Result<String, u16> {
        let lookup = |name: &str| match name {
            "A" => Some("1".to_owned()),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        let mut expander = Expander { lookup: &lookup, room: 100 };
        expander.text(text, command).map_err(|finding| finding.code.0)
    }

    #[test]
    fn variables_expand_and_everything_else_stays() {
        for (text, expected) in [
            ("${A}", "1"),
            ("x${A}y${A}", "x1y1"),
            ("${B:-2}", "2"),
            ("${EMPTY:-2}${EMPTY}", "2"),
            ("${A:-2}", "1"),
            ("$PORT ${A}", "$PORT 1"),
            ("$${A} ${A}", "${A} 1"),
            ("${B:-}", ""),
        ] {
            assert_eq!(expanded(text, false), Ok(expected.to_owned()), "{text}");
        }
        assert_eq!(expanded("app --port ${PORT} ${A}", true), Ok("app --port ${PORT} 1".to_owned()));
    }

    #[test]
    fn what_does_not_expand_is_an_error() {
        for (text, code) in
            [("${B}", 2113), ("${PORT}", 2113), ("${", 2105), ("${}", 2105), ("${a b}", 2105), ("${1}", 2105)]
        {
            assert_eq!(expanded(text, false), Err(code), "{text}");
        }
        assert_eq!(expanded(&"${A}".repeat(200), false), Err(2112));
    }
}
