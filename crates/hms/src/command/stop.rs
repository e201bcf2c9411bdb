//! `hms stop`, `hms start`, `hms restart`: a service's program, through the supervisor that holds it.

use serde_json::json;

use super::Context;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::ipc::Ask;
use crate::laptop::supervise::ask_owner;
use crate::output::Mark;

/// What to do with the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    /// End it; sidecar and registration stay (ruling R3).
    Stop,
    /// Start it again.
    Start,
    /// Both.
    Restart,
}

pub(super) async fn run(context: Context<'_>, service: &str, verb: Verb) -> Result<Exit, Failure> {
    let service = context.program(service)?;
    let project = context.project()?;
    let question = match verb {
        Verb::Stop => Ask::Stop { service: service.clone() },
        Verb::Start => Ask::Start { service: service.clone() },
        Verb::Restart => Ask::Restart { service: service.clone() },
    };
    let answer = ask_owner(&project, &service, &question).await?;
    let output = context.output;
    if !output.document("Service", &json!({"name": service, "said": answer.said, "units": answer.units})) {
        output.line(&format!("{} {}", output.mark(Mark::Ok), answer.said));
    }
    Ok(Exit::Ok)
}
