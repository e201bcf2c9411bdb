//! `hms down`: ends every supervisor and control plane of the project, and waits until they are gone.

use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use super::Context;
use crate::cli;
use crate::client::ControlRecord;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::containers;
use crate::laptop::ipc::{self, Ask};
use crate::laptop::records::{self, Kind, Paths, Record};
use crate::output::Mark;
use crate::output::progress::Progress;
use crate::processes::ProcessId;
use crate::project::Project;

/// Draining takes up to six seconds per stage, applications up to seven.
const PATIENCE: Duration = Duration::from_secs(25);
/// Containers have their own time to end, one after the other.
const PATIENCE_WITH_CONTAINERS: Duration = Duration::from_mins(2);
/// How often a process is looked for while it ends.
const LOOK: Duration = Duration::from_millis(20);

pub(super) async fn run(context: Context<'_>, options: &cli::Down) -> Result<Exit, Failure> {
    let project = context.project()?;
    let output = context.output;
    if options.purge {
        let question = format!("Delete registry, certificates, keys and logs of {}?", project.root.display());
        if !crate::output::confirm(&question, context.settings.yes)? {
            return Err(Failure::new(Exit::Failed, 1006, "nothing was deleted"));
        }
    }
    for line in records::sweep(&project) {
        output.note(&line);
    }
    let mut ended = 0;
    // Those that only run programs first, so that they can still reach the control plane while they drain.
    let mut supervisors = records::living(&project);
    supervisors.sort_by_key(|record| std::cmp::Reverse((order(record.kind), record.process.start_time)));
    for record in supervisors {
        end_supervisor(context, &project, &record).await?;
        ended += 1;
    }
    if let Some(control) = ControlRecord::read(&project) {
        control.process.signal(Signal::SIGTERM);
        gone(context, control.process, "control plane", PATIENCE).await?;
        ended += 1;
    }
    // Of a supervisor that was killed; one that is asked ends its containers itself.
    if containers::are_known(&project) && containers::down(context.settings, &project).await? {
        ended += 1;
    }
    records::sweep(&project);
    // What a killed supervisor's proxies left: keys of workloads that no longer exist.
    remove(&project.run)?;
    if options.purge {
        remove(&project.state)?;
    }
    if !output.document("Down", &json!({"stopped": ended, "purged": options.purge})) {
        let text = match (ended, options.purge) {
            (0, false) => "nothing was running".to_owned(),
            (0, true) => "nothing was running; state deleted".to_owned(),
            (_, false) => format!("{} is down", project.id),
            (_, true) => format!("{} is down; state deleted", project.id),
        };
        output.line(&format!("{} {text}", output.mark(Mark::Ok)));
    }
    Ok(Exit::Ok)
}

/// The control plane's supervisor goes last.
fn order(kind: Kind) -> u8 {
    match kind {
        Kind::Control => 0,
        Kind::Up => 1,
        Kind::Run => 2,
    }
}

async fn end_supervisor(context: Context<'_>, project: &Project, record: &Record) -> Result<(), Failure> {
    let paths = Paths::of(project, record.process.pid);
    let asked = ipc::ask(&paths.socket, &Ask::Shutdown, Duration::from_secs(2)).await;
    if let Err(failure) = asked {
        context.output.detail(&format!("{failure}: {}; sending SIGTERM", failure.why()));
        record.process.signal(Signal::SIGTERM);
    }
    let what = match record.kind {
        Kind::Up => "services",
        Kind::Run => "hms run",
        Kind::Control => "control plane",
    };
    let patience = if containers::are_known(project) { PATIENCE_WITH_CONTAINERS } else { PATIENCE };
    gone(context, record.process, what, patience).await
}

/// Waits until a process has ended; kills it if it does not.
async fn gone(context: Context<'_>, process: ProcessId, what: &str, patience: Duration) -> Result<(), Failure> {
    let mut progress = Progress::new(context.output);
    let wait = async {
        while process.is_alive() {
            progress.waiting(context.output, &format!("{what} (pid {}) to drain", process.pid));
            tokio::time::sleep(LOOK).await;
        }
    };
    if tokio::time::timeout(patience, wait).await.is_ok() {
        return Ok(());
    }
    context.output.note(&format!("{what} (pid {}) did not end; killed", process.pid));
    process.signal(Signal::SIGKILL);
    let wait = async {
        while process.is_alive() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.map_err(|_elapsed| {
        Failure::new(Exit::Deadline, 1003, format!("{what} does not end")).at(format!("pid {}", process.pid))
    })
}

fn remove(path: &std::path::Path) -> Result<(), Failure> {
    match std::fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => {
            Err(Failure::new(Exit::Failed, 1009, format!("cannot delete {}", path.display()))
                .because(error.to_string()))
        }
    }
}
