//! `hms control`: the control plane alone, in the foreground or in the background.

use std::ffi::OsString;

use tokio::time::Instant;

use super::Context;
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::control_plane::{self, Choice};
use crate::laptop::detach::{self, Report};
use crate::laptop::lock::{self, StartLock};
use crate::laptop::records::{self, Kind};
use crate::laptop::supervise::{Interrupts, Supervisor};
use crate::output::Mark;
use crate::project::Project;

pub(super) async fn run(context: Context<'_>, options: &cli::Control) -> Result<Exit, Failure> {
    let project = context.project()?;
    project.prepare()?;
    if options.detach && !options.detached {
        detach::start(context.output, &project, "control.log", &arguments(options)).await?;
        return Ok(Exit::Ok);
    }
    if options.detached {
        detach::leave_session()?;
    }
    let mut report = Report::new(context.output, options.detached);
    let result = serve(context, options, &project, &mut report).await;
    if let (Report::Parent { .. }, Err(failure)) = (&report, &result) {
        report.done(Err(failure));
        return Ok(failure.exit());
    }
    result
}

async fn serve(
    context: Context<'_>,
    options: &cli::Control,
    project: &Project,
    report: &mut Report<'_>,
) -> Result<Exit, Failure> {
    let lock = StartLock::take(project, Instant::now() + lock::PATIENCE, |what| report.waiting(what)).await?;
    for line in records::sweep(project) {
        report.note(&line);
    }
    if let Some(other) = crate::client::ControlRecord::read(project) {
        return Err(Failure::new(Exit::Conflict, 1102, "a control plane already serves this project")
            .at(format!("pid {}, http://{}", other.process.pid, other.rest))
            .fix("hms down"));
    }
    let mut interrupts = Interrupts::take()?;
    let supervisor = Supervisor::open(project, context.settings, Kind::Control, options.data_dir.as_deref())?;
    let (choice, remarks) = Choice::of_flags(project, options)?;
    for remark in remarks {
        report.note(&remark);
    }
    let control = control_plane::start(choice).await?;
    drop(lock);
    let record = crate::client::ControlRecord::read(project);
    let address =
        record.map_or_else(|| "an address of its own choice".to_owned(), |record| format!("http://{}", record.rest));
    report.step(&format!("{} control plane {address} SERVING", context.output.mark(Mark::Ok)));
    report.done(Ok(()));
    let exit = tokio::select! {
        exit = interrupts.next() => exit,
        () = supervisor.asked_to_end() => Exit::Ok,
    };
    supervisor.finish().await;
    control_plane::shutdown(control).await;
    Ok(exit)
}

/// The arguments of the detached half.
fn arguments(options: &cli::Control) -> Vec<OsString> {
    let store = match options.store {
        cli::Store::Sqlite => "sqlite",
        cli::Store::Memory => "memory",
    };
    let mut arguments: Vec<OsString> = ["control", "--store", store].map(OsString::from).to_vec();
    for (flag, address) in [("--rest", options.rest), ("--grpc", options.grpc)] {
        if let Some(address) = address {
            arguments.extend([flag.into(), address.to_string().into()]);
        }
    }
    if let Some(folder) = &options.data_dir {
        let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.clone());
        arguments.extend(["--data-dir".into(), folder.into_os_string()]);
    }
    if let Some(validity) = options.validity {
        arguments.extend(["--validity".into(), format!("{}ms", validity.as_millis()).into()]);
    }
    arguments
}
