//! What a change of the configuration came to, in words and line by line.

use serde_json::Value;
use similar::TextDiff;

use super::Context;
use crate::output::{Tone, clean, to_yaml};
use crate::views::Change;

/// Lines around a difference.
const AROUND: usize = 3;

impl Change {
    /// `split pay-svc`, `route pay.prod`, `defaults`.
    pub(super) fn named(&self) -> String {
        let kind = clean(&self.kind);
        match self.namespace.as_str() {
            "mesh" => kind,
            hms_model::names::DEFAULT_NAMESPACE => format!("{kind} {}", clean(&self.name)),
            namespace => format!("{kind} {}.{}", clean(&self.name), clean(namespace)),
        }
    }

    /// Added, changed or removed, as one sign.
    pub(super) fn sign(&self) -> (&'static str, Tone) {
        match self.what.as_str() {
            "added" => ("+", Tone::Good),
            "removed" => ("-", Tone::Bad),
            _ => ("~", Tone::Warn),
        }
    }

    /// Its lines before and after, as `diff -u` writes them.
    pub(super) fn unified(&self) -> String {
        let (before, after) = (text(self.before.as_ref()), text(self.after.as_ref()));
        let header = |there: bool, word: &str| {
            if there { format!("{} ({word})", self.named()) } else { "/dev/null".to_owned() }
        };
        let headers = (header(!before.is_empty(), "now"), header(!after.is_empty(), "then"));
        let diff = TextDiff::from_lines(&before, &after);
        diff.unified_diff().context_radius(AROUND).header(&headers.0, &headers.1).to_string()
    }
}

/// Its YAML; nothing for what is not there.
fn text(value: Option<&Value>) -> String {
    match value {
        None | Some(Value::Null) => String::new(),
        Some(value) => to_yaml(value),
    }
}

/// One line for each change.
pub(super) fn list(context: Context<'_>, changes: &[Change]) {
    for change in changes {
        let (sign, tone) = change.sign();
        context.output.line(&format!("{} {}", context.output.tint(tone, sign), change.named()));
    }
}

/// Every change line by line.
pub(super) fn unified(context: Context<'_>, changes: &[Change]) {
    for change in changes {
        for line in change.unified().lines() {
            let tone = match line.as_bytes() {
                [b'-' | b'+', b'-' | b'+', ..] => Tone::Strong,
                [b'+', ..] => Tone::Good,
                [b'-', ..] => Tone::Bad,
                [b'@', ..] => Tone::Dim,
                _ => Tone::Plain,
            };
            context.output.line(&context.output.tint(tone, &clean(line)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(change: &str, before: Option<Value>, after: Option<Value>) -> Change {
        let (kind, namespace, name) = ("split".to_owned(), "default".to_owned(), "pay".to_owned());
        Change { what: change.to_owned(), kind, namespace, name, before, after }
    }

    #[test]
    fn a_change_is_shown_as_diff_shows_it() {
        let spec = |weight: u32| Some(json!({"service": "pay", "shares": [{"version": "v1", "weight": weight}]}));
        insta::assert_snapshot!(change("changed", spec(90), spec(50)).unified(), @r"
        --- split pay (now)
        +++ split pay (then)
        @@ -1,4 +1,4 @@
         service: pay
         shares:
         - version: v1
        -  weight: 90
        +  weight: 50
        ");
        let added = change("added", Some(Value::Null), Some(json!({"service": "pay"}))).unified();
        assert_eq!(added, "--- /dev/null\n+++ split pay (then)\n@@ -0,0 +1 @@\n+service: pay\n");
    }

    #[test]
    fn names_are_as_short_as_they_are_clear() {
        let own = change("added", None, None);
        assert_eq!((own.named().as_str(), own.sign().0), ("split pay", "+"));
        assert_eq!(Change { namespace: "prod".to_owned(), ..own.clone() }.named(), "split pay.prod");
        assert_eq!(Change { namespace: "mesh".to_owned(), kind: "defaults".to_owned(), ..own }.named(), "defaults");
    }
}
