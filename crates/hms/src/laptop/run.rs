//! `hms run`: one program as a service. It keeps the terminal, the process group and the exit code; the sidecar stands beside.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_formats::mesh_yaml::HealthFile;
use hms_model::listener::Role;
use hms_model::names::ServiceName;

use super::app::{self, Program};
use super::base;
use super::intercept;
use super::journal::Journal;
use super::ports::{self, Free};
use super::records::Kind;
use super::supervise::{Interrupts, Supervisor, finish_or_kill};
use super::unit::{self, Handle, Phase};
use crate::cli;
use crate::client::{Client, ControlRecord};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Output;
use crate::processes;
use crate::project::Project;
use crate::settings::Settings;
use crate::views::{Items, Service};

/// How long the header waits for the program to listen before it is printed without.
const HEADER: Duration = Duration::from_secs(30);

/// Runs the program; its exit code is ours.
pub(crate) async fn run(settings: &Settings, options: &cli::Run, output: &Output) -> Result<Exit, Failure> {
    let service = ServiceName::from_host(&options.name, &settings.namespace).map_err(|error| {
        Failure::new(Exit::Usage, 1017, format!("`{}` is no service name", options.name)).because(error.to_string())
    })?;
    if settings.is_disabled() {
        return Err(plainly(options));
    }
    let project = Project::find(settings)?;
    if let Some(port) = options.port
        && !ports::is_free(port)
    {
        let holder = processes::holder(port);
        return Err(ports::taken(&service.to_string(), port, holder.as_ref())
            .fix("stop that process, or leave -p away and let the program use $PORT"));
    }
    base::ensure(settings, &project, output).await?;
    let mut interrupts = Interrupts::take()?;
    let supervisor = Supervisor::open(&project, settings, Kind::Run, None)?;
    let result = live(settings, options, output, (&project, &service), (&supervisor, &mut interrupts)).await;
    finish_or_kill(supervisor, &mut interrupts).await;
    result
}

/// Without any mesh: this process becomes the program. Returns only if it cannot be started.
fn plainly(options: &cli::Run) -> Failure {
    use std::os::unix::process::CommandExt as _;
    let failed = |why: String| Failure::new(Exit::Child(127), 1103, "cannot start the program").because(why);
    let port = match options.port.map_or_else(|| Free::default().take(), Ok) {
        Ok(port) => port,
        Err(failure) => return failure,
    };
    let words = Program::Arguments(options.command.clone()).words(port);
    let Some((program, arguments)) = words.split_first() else { return failed("no program was named".to_owned()) };
    let error = std::process::Command::new(program).args(arguments).env("PORT", port.to_string()).exec();
    failed(error.to_string()).fix("check the command, and that its folder is on PATH")
}

async fn live(
    settings: &Settings,
    options: &cli::Run,
    output: &Output,
    (project, service): (&Project, &ServiceName),
    (supervisor, interrupts): (&Supervisor, &mut Interrupts),
) -> Result<Exit, Failure> {
    let control = ControlRecord::read(project).ok_or_else(|| crate::client::absent(project))?;
    let client = Client::find(settings, project)?;
    let known: Items<Service> = client.get("/v1/services").await?;
    let own = service.to_string();
    let upstreams = known.items.iter().map(Service::display_name).filter(|name| *name != own).collect();
    let port = match options.port {
        Some(port) => port,
        None => Free::default().take()?,
    };
    let folder =
        std::env::current_dir().map_err(|error| crate::project::unreadable(std::path::Path::new("."), &error))?;
    let journal = Journal::open(&project.sidecar_dir(), &own, None);
    let around = supervisor.surroundings(control.trust_domain)?;
    let plan = unit::Plan {
        service: service.clone(),
        version: options.workload_version.clone(),
        zone: options.zone.clone(),
        label: service.to_string(),
        role: Role::Sidecar,
        app: Some(app::Plan {
            program: Program::Arguments(options.command.clone()),
            folder,
            variables: BTreeMap::new(),
            capture: intercept::choose(&around, options.intercept.map(Into::into)).await?,
            host_ports: Vec::new(),
            interactive: true,
        }),
        port,
        must_listen: false,
        health: HealthFile { start_within: HEADER, ..HealthFile::default() },
        upstreams,
        https: None,
        publish: None,
        meshed: true,
        workload: format!("run-{}", std::process::id()),
    };
    let handle = supervisor.add(&around, plan, journal);
    let mut header_due = true;
    loop {
        let status = handle.status();
        match status.phase {
            Phase::Failed(failure) => return Err(failure),
            Phase::Exited(code) => return Ok(Exit::Child(code)),
            Phase::Running if header_due => {
                header_due = false;
                header(output, &handle);
            }
            Phase::Running | Phase::Starting | Phase::Stopped => {}
        }
        let mut watch = handle.watch();
        let seen = status.since_instant;
        tokio::select! {
            changed = watch.wait_for(|now| now.since_instant != seen) => {
                if changed.is_err() {
                    return Err(Failure::new(Exit::Failed, 1107, format!("the supervision of {own} ended")));
                }
            }
            () = supervisor.asked_to_end() => return Ok(Exit::Ok),
            // Keys of the terminal reach the program by themselves: it decides, and its exit code is ours.
            exit = interrupts.next() => if exit == Exit::Ok {
                return Ok(Exit::Child(128 + 15));
            }
        }
    }
}

/// `calc-svc v2 · mTLS ON · 15006→:8000`, on stderr: stdout is the program's.
fn header(output: &Output, handle: &Handle) {
    let report = handle.report();
    let version = report.version.map(|version| format!(" {version}")).unwrap_or_default();
    let inbound = report.inbound.map_or_else(|| "-".to_owned(), |address| address.port().to_string());
    let (dot, arrow) = (output.dot(), output.arrow());
    output.note(&format!("{}{version} {dot} mTLS ON {dot} {inbound}{arrow}:{}", report.service, handle.plan.port));
}
