//! `hms proxy`. `hms proxy restart`: a new process of a proxy takes over the listeners of the old one, through the supervisor that holds it.

use std::time::Duration;

use serde_json::json;

use super::Context;
use crate::cli::{ProxyRestart, ProxyVerb};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::ipc::{self, Ask};
use crate::laptop::plan::unknown_service;
use crate::laptop::records::Paths;
use crate::laptop::supervise::all_units;
use crate::output::Mark;

/// Longer than a new proxy may take to be ready.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) async fn run(context: Context<'_>, verb: &ProxyVerb) -> Result<Exit, Failure> {
    match verb {
        ProxyVerb::Restart(options) => restart(context, options).await,
        ProxyVerb::Run(options) => super::proxy_run::run(context, options).await,
    }
}

async fn restart(context: Context<'_>, options: &ProxyRestart) -> Result<Exit, Failure> {
    let project = context.project()?;
    let wanted = options.services.iter().map(|name| context.program(name)).collect::<Result<Vec<_>, _>>()?;
    let units = all_units(&project).await;
    for service in &wanted {
        if !units.iter().any(|(_, unit)| unit.is_called(service)) {
            return Err(unknown_service(service, units.iter().map(|(_, unit)| unit.label().to_owned())));
        }
    }
    let mut restarted = Vec::new();
    // One after the other: should a new release not work, all but one proxy are as they were.
    for (record, unit) in units {
        if !options.all && !wanted.iter().any(|name| unit.is_called(name)) {
            continue;
        }
        let socket = Paths::of(&project, record.process.pid).socket;
        let answer = ipc::ask(&socket, &Ask::RestartProxy { service: unit.label().to_owned() }, PATIENCE).await?;
        let now = answer.units.first().and_then(|unit| unit.proxy_pid);
        if context.output.is_for_people() {
            context.output.line(&format!("{} {}", context.output.mark(Mark::Ok), answer.said));
        }
        restarted.push(json!({"name": unit.label(), "was": unit.proxy_pid, "is": now}));
    }
    let _shown = context.output.document("ProxyRestart", &json!({"items": restarted}));
    Ok(Exit::Ok)
}
