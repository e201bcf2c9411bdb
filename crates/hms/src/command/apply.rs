//! `hms apply FILE…`: files that take effect together, as one change.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Context, changes, register, taken};
use crate::cli;
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::laptop::base;
use crate::output::Mark;
use crate::views::Applied;

pub(super) async fn run(context: Context<'_>, options: &cli::Apply) -> Result<Exit, Failure> {
    let project = context.project()?;
    let files: Vec<_> = options.files.iter().chain(&options.more).cloned().collect();
    let texts = register::texts(&files)?;
    if !options.dry_run {
        base::ensure(context.settings, &project, context.output).await?;
    }
    let client = context.client()?;
    let begun = Instant::now();
    let document: Value = client.post("/v1/apply", &json!({"files": texts, "dry_run": options.dry_run})).await?;
    let applied: Applied = super::services::read(document.clone())?;
    for finding in applied.findings.iter().filter_map(finding_from_json) {
        context.output.finding(&finding);
    }
    let shown = context.output.document(if options.dry_run { "Planned" } else { "Applied" }, &document);
    if options.dry_run {
        if !shown {
            changes::list(context, &applied.changes);
        }
        let what = if applied.changes.is_empty() { "nothing would change" } else { "nothing was changed" };
        context.output.note(what);
        return Ok(Exit::Ok);
    }
    if !shown {
        for name in &applied.registered {
            let name = crate::output::clean(name);
            context.output.line(&format!("{} applied {name}", context.output.mark(Mark::Ok)));
        }
    }
    taken::everywhere(context, &client, taken::Made::of(applied.revision, begun, &applied.changes)).await
}
