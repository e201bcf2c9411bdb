//! The base every project needs: a control plane and a gateway. `hms up` brings its own; `hms run` and `hms register` start
//! them in the background if nobody did.

use std::ffi::OsString;

use crate::client::ControlRecord;
use crate::failure::Failure;
use crate::output::Output;
use crate::project::Project;
use crate::settings::Settings;

/// Makes sure that a control plane serves the project. Says on stderr if it had to be started, since it stays.
pub(crate) async fn ensure(settings: &Settings, project: &Project, output: &Output) -> Result<(), Failure> {
    project.prepare()?;
    for line in super::records::sweep(project) {
        output.note(&line);
    }
    if settings.server.is_some() || ControlRecord::read(project).is_some() {
        return Ok(());
    }
    let arguments: Vec<OsString> = ["up", "--bare"].map(OsString::from).to_vec();
    let quiet = Output::quiet(settings);
    super::detach::start(&quiet, project, "hms.log", &arguments).await?;
    output.note("started control plane and gateway in the background (hms down stops them)");
    Ok(())
}
