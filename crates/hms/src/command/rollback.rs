//! `hms rollback`: the configuration as it was, as a new revision.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::services::read;
use super::{Context, changes, taken};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Mark;
use crate::views::Change;

/// What going back came to.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RolledBack {
    to: u64,
    revision: u64,
    changes: Vec<Change>,
}

pub(super) async fn run(context: Context<'_>, options: &cli::Rollback) -> Result<Exit, Failure> {
    let client = context.client()?;
    let begun = Instant::now();
    let asked = json!({"to": options.to, "dry_run": options.dry_run});
    let document: Value = client.post("/v1/rollback", &asked).await?;
    let done: RolledBack = read(document.clone())?;
    let RolledBack { to, revision, .. } = done;
    if !context.output.document("RolledBack", &document) {
        if options.dry_run {
            changes::unified(context, &done.changes);
        } else {
            changes::list(context, &done.changes);
            let mark = context.output.mark(Mark::Ok);
            context.output.line(&format!("{mark} revision {revision} says what revision {to} said"));
        }
    }
    if options.dry_run {
        context.output.note(&format!("revision {to} would hold again; nothing was changed"));
        return Ok(Exit::Ok);
    }
    taken::everywhere(context, &client, taken::Made::of(revision, begun, &done.changes)).await
}
