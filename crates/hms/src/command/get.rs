//! `hms get [KIND [NAME]]`: what is configured, as it is stored.

use hms_model::resource::Kind;
use serde_json::Value;

use super::Context;
use super::services::read;
use crate::cli;
use crate::client::segment;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{clean_lines, to_yaml};
use crate::views::Items;

/// Characters of a resource in a row.
const SHOWN: usize = 100;

pub(super) async fn run(context: Context<'_>, options: &cli::Get) -> Result<Exit, Failure> {
    let client = context.client()?;
    let (kind, name) = (options.kind.as_deref().map(kind), options.name.as_deref());
    if let (Some(kind), Some(name)) = (&kind, name) {
        let document: Value = client.get(&path(kind, name)).await?;
        if !context.output.document("Resource", &renamed(&document)) {
            context.output.write(&clean_lines(&to_yaml(&document)));
        }
        return Ok(Exit::Ok);
    }
    let listed = kind.as_deref().map_or_else(|| "/v1/resources".to_owned(), |kind| path(kind, ""));
    let document: Value = client.get(listed.trim_end_matches('/')).await?;
    if !context.output.document("ResourceList", &document) {
        let resources: Items<Value> = read(document)?;
        context.output.table(&table(&resources.items, kind.is_some()));
    }
    Ok(Exit::Ok)
}

/// Where a resource is.
pub(super) fn path(kind: &str, name: &str) -> String {
    format!("/v1/resources/{}/{}", segment(kind), segment(name))
}

/// A kind from what people write: `splits`, `SPLIT`, and `service` for its declaration.
pub(super) fn kind(text: &str) -> String {
    let text = text.to_ascii_lowercase();
    let known = |word: &str| Kind::ALL.iter().any(|kind| kind.as_str() == word);
    let singular = text.strip_suffix('s').filter(|word| !known(&text) && (known(word) || *word == "service"));
    match singular.unwrap_or(&text) {
        "service" | "svc" => Kind::Declaration.as_str().to_owned(),
        word => word.to_owned(),
    }
}

/// `kind` is the document's own word; the resource's is under another there.
fn renamed(document: &Value) -> Value {
    let mut document = document.clone();
    if let Some(fields) = document.as_object_mut()
        && let Some(kind) = fields.shift_remove("kind")
    {
        fields.insert("resource".to_owned(), kind);
    }
    document
}

fn table(resources: &[Value], with_fields: bool) -> Table {
    let mut table = Table::new(if with_fields { &["NAME", "SAYS"] } else { &["KIND", "NAME"] });
    for resource in resources {
        let text = |member: &str| resource.get(member).and_then(Value::as_str).unwrap_or_default();
        let name = match text("namespace") {
            "mesh" | hms_model::names::DEFAULT_NAMESPACE => text("name").to_owned(),
            namespace => format!("{}.{namespace}", text("name")),
        };
        table.row(match resource.get("spec") {
            Some(spec) if with_fields => vec![Cell::text(name), Cell::text(short(&spec.to_string()))],
            _ => vec![Cell::text(text("kind")), Cell::text(name)],
        });
    }
    table
}

fn short(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_understood_as_people_write_them() {
        for (written, meant) in [
            ("splits", "split"),
            ("Route", "route"),
            ("service", "declaration"),
            ("services", "declaration"),
            ("defaults", "defaults"),
            ("egress", "egress"),
            ("nonsense", "nonsense"),
        ] {
            assert_eq!(kind(written), meant);
        }
    }
}
