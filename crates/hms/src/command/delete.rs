//! `hms delete KIND NAME` and `hms delete -f FILE…`.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::services::read;
use super::{Context, changes, get, register, taken};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::views::Change;

/// What was removed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Deleted {
    revision: u64,
    changes: Vec<Change>,
}

pub(super) async fn run(context: Context<'_>, options: &cli::Delete) -> Result<Exit, Failure> {
    let client = context.client()?;
    let begun = Instant::now();
    let document: Value = if let (Some(kind), Some(name)) = (&options.kind, &options.name) {
        let query = if options.dry_run { "?dry_run=true" } else { "" };
        client.delete(&format!("{}{query}", get::path(&get::kind(kind), name))).await?
    } else {
        let files = register::texts(&options.files)?;
        client.post("/v1/delete", &json!({"files": files, "dry_run": options.dry_run})).await?
    };
    let deleted: Deleted = read(document.clone())?;
    if !context.output.document("Deleted", &document) {
        changes::list(context, &deleted.changes);
    }
    if options.dry_run {
        context.output.note("nothing was changed");
        return Ok(Exit::Ok);
    }
    taken::everywhere(context, &client, taken::Made::of(deleted.revision, begun, &deleted.changes)).await
}
