//! `hms register FILE…`, also as `hms-api register`: prints exactly `✓ registered calc-svc` per service, in every locale.

use std::path::PathBuf;

use serde_json::json;

use super::Context;
use crate::cli::Format;
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::laptop::{base, plan, up};
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

/// Files as the control plane takes them. Their names stay as they were typed, so findings can be clicked.
pub(super) fn texts(files: &[PathBuf]) -> Result<Vec<NamedText>, Failure> {
    let read = |file: &PathBuf| {
        let source = plan::source(std::path::Path::new(""), file)?;
        Ok(NamedText { name: file.display().to_string(), text: source.text })
    };
    files.iter().map(read).collect()
}
