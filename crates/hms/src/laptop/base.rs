//! The base every project needs: a control plane and a gateway. `hms up` brings its own; `hms run` and `hms register` start
//! them in the background if nobody did.

use std::ffi::OsString;

use tokio::time::Instant;

use super::lock::{self, StartLock};
use crate::client::ControlRecord;
use crate::failure::Failure;
use crate::output::Output;
use crate::output::progress::Progress;
use crate::project::Project;
use crate::settings::Settings;

/// Makes sure that a control plane serves the project. Says on stderr if it had to be started, since it stays.
pub(crate) async fn ensure(settings: &Settings, project: &Project, output: &Output) -> Result<(), Failure> {
    project.prepare()?;
    if settled(settings, project, output).await? {
        return Ok(());
    }
    let arguments: Vec<OsString> = ["up", "--bare"].map(OsString::from).to_vec();
    let quiet = Output::quiet(settings);
    let started = super::detach::start(&quiet, project, "hms.log", &arguments).await?;
    // Another command may have come first after all; then ours has joined it.
    if ControlRecord::read(project).is_some_and(|record| Some(record.process.pid) == started) {
        output.note("started control plane and gateway in the background (hms down stops them)");
    }
    Ok(())
}

/// Waits for a command that starts this project already; whether nothing is left to start. The lock is given back: what has to
/// be started is a process of its own, which takes it for itself.
async fn settled(settings: &Settings, project: &Project, output: &Output) -> Result<bool, Failure> {
    let mut progress = Progress::new(output);
    let lock = StartLock::take(project, Instant::now() + lock::PATIENCE, |what| progress.waiting(output, what)).await?;
    progress.clear();
    for line in super::records::sweep(project) {
        output.note(&line);
    }
    let settled = settings.server.is_some() || ControlRecord::read(project).is_some();
    drop(lock);
    Ok(settled)
}
