//! `hms apply FILE…`: files that take effect together, as one change.

use std::path::PathBuf;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Context, register, taken};
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::laptop::base;
use crate::output::Mark;
use crate::views::Applied;

pub(super) async fn run(context: Context<'_>, files: &[PathBuf]) -> Result<Exit, Failure> {
    let project = context.project()?;
    let texts = register::texts(files)?;
    base::ensure(context.settings, &project, context.output).await?;
    let client = context.client()?;
    let begun = Instant::now();
    let document: Value = client.post("/v1/apply", &json!({"files": texts})).await?;
    let applied: Applied = super::services::read(document.clone())?;
    for finding in applied.findings.iter().filter_map(finding_from_json) {
        context.output.finding(&finding);
    }
    if !context.output.document("Applied", &document) {
        for name in &applied.registered {
            let name = crate::output::clean(name);
            context.output.line(&format!("{} applied {name}", context.output.mark(Mark::Ok)));
        }
    }
    taken::everywhere(context, &client, applied.revision, begun).await
}
