//! `hms register FILE…`, also as `hms-api register`: prints exactly `✓ registered calc-svc` per service, in every locale.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use hms_formats::Source;
use serde_json::json;

use super::Context;
use crate::cli::Format;
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::laptop::{base, plan, up};
use crate::project::unreadable;
use crate::views::{Applied, Items, NamedText, Service};

pub(super) async fn run(context: Context<'_>, files: &[PathBuf]) -> Result<Exit, Failure> {
    let project = context.project()?;
    let texts = texts(files)?;
    base::ensure(context.settings, &project, context.output).await?;
    let client = context.client()?;
    let applied: Applied = client.post("/v1/route-files", &json!({"files": texts})).await?;
    for finding in applied.findings.iter().filter_map(finding_from_json) {
        context.output.finding(&finding);
    }
    let items: Vec<_> = applied.registered.iter().map(|name| json!({"name": name})).collect();
    if matches!(context.output.format(), Format::Json | Format::Yaml) {
        context.output.document("RegisteredList", &json!({"items": items}));
    } else {
        for name in &applied.registered {
            context.output.line(&format!("✓ registered {}", crate::output::clean(name)));
        }
    }
    let services: Items<Service> = client.get("/v1/services").await?;
    for service in services.items.iter().filter(|service| service.endpoints.is_empty()) {
        let name = service.display_name();
        if applied.registered.contains(&name) {
            context.output.note(&up::waiting_hint(&name));
        }
    }
    Ok(Exit::Ok)
}

/// Files as the control plane takes them. Their names stay as they were typed, so findings can be clicked. `-` is what comes in.
pub(super) fn texts(files: &[PathBuf]) -> Result<Vec<NamedText>, Failure> {
    let read = |file: &PathBuf| {
        let source = if file == Path::new("-") { standard_input()? } else { plan::source(Path::new(""), file)? };
        Ok(NamedText { name: file.display().to_string(), text: source.text })
    };
    files.iter().map(read).collect()
}

/// What another program pipes into this one, bounded as a file is.
fn standard_input() -> Result<Source, Failure> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(hms_formats::source::MAX_BYTES).unwrap_or(u64::MAX);
    let read = std::io::stdin().take(limit.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(Path::new("-"), &error))?;
    Source::from_bytes("-", &bytes).map_err(|finding| plan::refused(vec![*finding]))
}
