//! `HMS_DISABLE=1 hms up`: the programs alone. No control plane, no gateway, no proxies, no capture; what remains is that they start
//! together, get their ports, and end together.

use tokio::time::Instant;

use super::{Interrupts, Plan, Report, Supervisor, finish_or_kill, follow, late, show, unit_plan};
use crate::cli;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::intercept::{Capture, Mode};
use crate::laptop::journal::Journal;
use crate::laptop::ports::Free;
use crate::laptop::records::Kind;
use crate::laptop::unit::{self, Handle, Phase};
use crate::output::Mark;
use crate::project::Project;
use crate::settings::Settings;

/// Starts the programs; returns when it is told to end.
pub(super) async fn live(
    settings: &Settings,
    options: &cli::Up,
    project: &Project,
    report: &mut Report<'_>,
) -> Result<Exit, Failure> {
    let mut plan = Plan::read(settings, project, options.file.as_deref())?;
    plan.only(&options.services, &settings.namespace)?;
    if plan.containers.is_some() {
        return Err(Failure::new(Exit::Usage, 1010, "there is nothing to start")
            .because("HMS_DISABLE is set, and containers run without the mesh by themselves")
            .fix("docker compose up"));
    }
    let mut interrupts = Interrupts::take()?;
    let supervisor = Supervisor::open(project, settings, Kind::Up, None)?;
    report.note("HMS_DISABLE is set: programs run without the mesh");
    let started = tokio::time::timeout(options.wait, start(settings, &plan, &supervisor, report)).await;
    let result = match started {
        Ok(Ok(())) => {
            report.done(Ok(()));
            follow(&supervisor, &mut interrupts, report).await
        }
        Ok(Err(failure)) => Err(failure),
        Err(_elapsed) => Err(late(options.wait, &supervisor)),
    };
    finish_or_kill(supervisor, &mut interrupts).await;
    result
}

async fn start(
    settings: &Settings,
    plan: &Plan,
    supervisor: &Supervisor,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let around = supervisor.surroundings(String::new())?;
    let width = plan.services.iter().map(|service| service.name.to_string().len()).max().unwrap_or_default();
    let free = Free::default();
    let mut handles: Vec<Handle> = Vec::new();
    // Without a mesh nobody would divide calls among versions.
    for service in plan.services.iter().filter(|service| !service.beside) {
        let capture =
            Capture { mode: Mode::None, why: "HMS_DISABLE is set".to_owned(), fix: "unset HMS_DISABLE".to_owned() };
        let Some(unit) = unit_plan(service, capture, &[], &free)? else { continue };
        let show = matches!(report, Report::Terminal { .. }).then(|| show(settings, width));
        let journal = Journal::open(&around.project.sidecar_dir(), &service.name.to_string(), show);
        handles.push(supervisor.add(&around, unit::Plan { meshed: false, ..unit }, journal));
    }
    let begun = Instant::now();
    for handle in &handles {
        let name = handle.plan.service.to_string();
        match handle.settled().await.phase {
            Phase::Failed(failure) => return Err(failure),
            Phase::Exited(code) if handle.plan.must_listen => {
                return Err(Failure::new(Exit::Failed, 1104, format!("{name} ended"))
                    .because(format!("exit code {code}"))
                    .log(handle.journal.last_lines()));
            }
            _ => {}
        }
        let done = report.output().mark(Mark::Ok);
        let (port, elapsed) = (handle.plan.port, begun.elapsed().as_secs_f64());
        report.step(&format!("{done} {name} at 127.0.0.1:{port} {elapsed:.1}s"));
    }
    Ok(())
}
