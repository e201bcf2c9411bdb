//! `hms diff FILE…`: what applying files would change, line by line. The control plane works it out; nothing is changed.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::{Context, changes, register};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::views::Applied;

pub(super) async fn run(context: Context<'_>, files: &[PathBuf]) -> Result<Exit, Failure> {
    let texts = register::texts(files)?;
    let client = context.client()?;
    let document: Value = client.post("/v1/apply", &json!({"files": texts, "dry_run": true})).await?;
    let planned: Applied = super::services::read(document.clone())?;
    let items = document.get("changes").cloned().unwrap_or_default();
    if !context.output.document("Diff", &json!({"revision": planned.revision, "items": items})) {
        changes::unified(context, &planned.changes);
    }
    Ok(if planned.changes.is_empty() { Exit::Ok } else { Exit::Findings })
}
