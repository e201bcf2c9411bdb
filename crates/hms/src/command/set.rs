//! `hms set STAMP on|off`: what the mesh does to every request, switched off and on again while it runs.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::services::read;
use super::{Context, taken};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::table::{Cell, Table};
use crate::output::{Tone, confirm};
use crate::views::Stamps;

const PATH: &str = "/v1/stamps";

pub(super) async fn run(context: Context<'_>, options: &cli::Set) -> Result<Exit, Failure> {
    let client = context.client()?;
    let Some(stamp) = &options.stamp else {
        let document: Value = client.get(PATH).await?;
        show(context, &document)?;
        return Ok(Exit::Ok);
    };
    let on = options.to == Some(cli::OnOff::On);
    if stamp == "jwt" && !on {
        let question = "The gateway will take requests without a token, as nobody's. Go on?";
        if !confirm(question, context.settings.yes)? {
            return Ok(Exit::Failed);
        }
    }
    let begun = Instant::now();
    let document: Value = client.put(PATH, &json!({"stamps": [{"name": stamp, "on": on}]})).await?;
    let revision = show(context, &document)?.revision;
    taken::everywhere(context, &client, taken::Made::everywhere(revision, begun)).await
}

fn show(context: Context<'_>, document: &Value) -> Result<Stamps, Failure> {
    let stamps: Stamps = read(document.clone())?;
    if !context.output.document("Stamps", document) {
        let mut table = Table::new(&["STAMP", "STATE", "WHAT"]);
        for own in &stamps.stamps {
            let (state, tone) = if own.on { ("ON", Tone::Good) } else { ("OFF", Tone::Warn) };
            table.row(vec![Cell::text(&own.name), Cell::text(state).tone(tone), Cell::text(&own.does)]);
        }
        context.output.table(&table);
    }
    Ok(stamps)
}
