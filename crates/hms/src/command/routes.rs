//! `hms routes export|import`: the table of all routes in the shape of `/var/hms/routes.json`.

use std::io::Read as _;
use std::path::Path;

use serde_json::Value;

use super::Context;
use crate::cli::{Format, RoutesVerb};
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::output::{Mark, to_yaml};
use crate::project::unreadable;
use crate::views::Applied;

/// A larger file is no table of routes.
const LARGEST: u64 = 16 << 20;

pub(super) async fn run(context: Context<'_>, verb: &RoutesVerb) -> Result<Exit, Failure> {
    let client = context.client()?;
    match verb {
        RoutesVerb::Export => {
            let table: Value = client.get("/v1/routes").await?;
            match context.output.format() {
                // The table itself, without wrapping: other programs read this file.
                Format::Yaml => context.output.write(&to_yaml(&table)),
                Format::Name => {
                    for name in table.as_object().into_iter().flat_map(|table| table.keys()) {
                        context.output.line(name);
                    }
                }
                Format::Table | Format::Wide | Format::Json => {
                    context.output.line(&serde_json::to_string_pretty(&table).unwrap_or_default());
                }
            }
        }
        RoutesVerb::Import { file } => {
            let table: Value = serde_json::from_str(&read(file)?).map_err(|error| {
                Failure::new(Exit::Failed, 2101, format!("{} is no JSON", file.display()))
                    .at(format!("{}:{}:{}", file.display(), error.line(), error.column()))
                    .because(error.to_string())
            })?;
            let applied: Applied = client.put("/v1/routes", &table).await?;
            for finding in applied.findings.iter().filter_map(finding_from_json) {
                context.output.finding(&finding);
            }
            let count = table.as_object().map_or(0, serde_json::Map::len);
            if !context.output.document("Import", &serde_json::json!({"services": count})) {
                context.output.line(&format!("{} routes of {count} services imported", context.output.mark(Mark::Ok)));
            }
        }
    }
    Ok(Exit::Ok)
}

fn read(file: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        std::io::stdin().take(LARGEST).read_to_string(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(LARGEST).read_to_string(&mut text))
    };
    read.map_err(|error| unreadable(file, &error))?;
    Ok(text)
}
