//! `hms explain CODE`: what a code means, why it happens, how to mend it; the same text as the documentation.

use hms_model::finding::did_you_mean;
use serde_json::{Value, json};

use super::Context;
use crate::catalogue::{CODES, Entry};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::Table;

pub(super) fn run(context: Context<'_>, code: Option<&str>) -> Result<Exit, Failure> {
    let output = context.output;
    let Some(text) = code else {
        let items: Vec<Value> = CODES.iter().map(document).collect();
        if !output.document("CodeList", &json!({"items": items})) {
            let mut table = Table::new(&["CODE", "WHAT"]);
            for entry in CODES {
                table.row(vec![entry.name().into(), entry.what.into()]);
            }
            output.table(&table);
        }
        return Ok(Exit::Ok);
    };
    let entry = find(text).ok_or_else(|| unknown(text))?;
    if !output.document("Code", &document(entry)) {
        output.line(&format!("{}: {}", entry.name(), entry.what));
        output.line(&format!("  why: {}", entry.why));
        output.line(&format!("  fix: {}", entry.fix));
    }
    Ok(Exit::Ok)
}

/// `HMS-1101`, `hms-1101` and `1101` are the same.
fn find(text: &str) -> Option<&'static Entry> {
    let folded = text.trim().to_ascii_uppercase();
    let number: u16 = folded.strip_prefix("HMS-").unwrap_or(&folded).parse().ok()?;
    CODES.iter().find(|entry| entry.code == number)
}

fn unknown(text: &str) -> Failure {
    let names: Vec<String> = CODES.iter().map(Entry::name).collect();
    let failure =
        Failure::new(Exit::Failed, 1020, format!("`{}` is no code of this release", crate::output::clean(text)));
    match did_you_mean(&text.to_ascii_uppercase(), names.iter().map(String::as_str)) {
        Some(near) => failure.because(format!("did you mean {near}?")),
        None => failure.fix("hms explain   # lists all"),
    }
}

fn document(entry: &Entry) -> Value {
    json!({"name": entry.name(), "what": entry.what, "why": entry.why, "fix": entry.fix})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_in_any_spelling() {
        for text in ["HMS-1101", "hms-1101", "1101", " 1101 "] {
            assert_eq!(find(text).map(|entry| entry.code), Some(1101), "{text}");
        }
        assert!(find("HMS-9999").is_none() && find("port").is_none());
    }
}
