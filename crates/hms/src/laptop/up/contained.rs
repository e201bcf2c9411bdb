//! `hms up -f compose.yaml`: the part that is about containers.

use std::net::IpAddr;
use std::sync::Arc;

use tokio::time::Instant;

use super::LOOK;
use crate::cli;
use crate::client::{Client, ControlRecord};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::containers::{self, Containers, Docker, Facts};
use crate::laptop::detach::Report;
use crate::laptop::plan::Plan;
use crate::laptop::sidecar::Surroundings;
use crate::laptop::supervise::Supervisor;
use crate::output::{Mark, Output};
use crate::project::Project;
use crate::settings::Settings;
use crate::views::{Items, Service as ServiceView};

/// Shows the override that would be used.
pub(super) fn dry_run(
    settings: &Settings,
    options: &cli::Up,
    project: &Project,
    output: &Output,
) -> Result<Exit, Failure> {
    let mut plan = Plan::read(settings, project, options.file.as_deref())?;
    plan.only(&options.services, &settings.namespace)?;
    for finding in &plan.findings {
        output.note(&hms_formats::render(std::slice::from_ref(finding), false));
    }
    let Some(plan) = &plan.containers else {
        return Err(Failure::new(Exit::Usage, 1010, "there are no containers to join")
            .because("--dry-run shows how those of a Compose file would be joined")
            .fix("hms up -f compose.yaml --dry-run"));
    };
    output.write(&containers::dry_run(settings, project, plan)?);
    Ok(Exit::Ok)
}

/// The engine, and where containers find this machine.
pub(super) struct Engine {
    docker: Docker,
    /// Where the control plane must listen.
    pub(super) address: IpAddr,
}

/// Finds the engine, and makes the network that sidecars share with the control plane; nothing if there are no containers.
pub(super) async fn prepare(
    settings: &Settings,
    project: &Project,
    plan: &Plan,
    report: &mut Report<'_>,
) -> Result<Option<Engine>, Failure> {
    if plan.containers.is_none() {
        return Ok(None);
    }
    report.waiting("docker");
    let docker = Docker::find(settings).await?;
    if !containers::are_known(project) {
        containers::remember(project, Vec::new())?;
    }
    let address = docker.network(&containers::network_name(project), &project.id).await?;
    if !containers::is_local(address) {
        return Err(Failure::new(Exit::Failed, 1404, "containers cannot reach the control plane")
            .at(address.to_string())
            .because(
                "the engine's networks are not on this machine: it runs in a virtual machine, rootless or elsewhere",
            )
            .fix("docker context use default   # with Docker Engine on this machine"));
    }
    Ok(Some(Engine { docker, address }))
}

/// Joins the containers, starts them, and waits until those that serve something are healthy.
pub(super) async fn start(
    project: &Project,
    plan: &Plan,
    (engine, supervisor, client): (&Engine, &Supervisor, &Client),
    (around, report): (&Surroundings, &mut Report<'_>),
) -> Result<(), Failure> {
    let Some(plan) = &plan.containers else { return Ok(()) };
    let begun = Instant::now();
    report.waiting("docker compose up");
    let record = ControlRecord::read(project).ok_or_else(|| crate::client::absent(project))?;
    let facts = Facts {
        proxy: &around.program,
        lifeline: &around.lifeline,
        control: &record.grpc,
        trust_domain: &record.trust_domain,
    };
    let started = Box::pin(Containers::start(&engine.docker, (project, client), plan.clone(), facts)).await?;
    let started = Arc::new(started);
    supervisor.adopt(Arc::clone(&started));
    // It ends with this process, as the supervisor does.
    drop(containers::keep_following(&started));
    until_healthy(client, started.serving(), begun, report).await
}

async fn until_healthy(
    client: &Client,
    mut open: Vec<String>,
    begun: Instant,
    report: &mut Report<'_>,
) -> Result<(), Failure> {
    let done = report.output().mark(Mark::Ok);
    loop {
        let known: Items<ServiceView> = client.get("/v1/services").await?;
        open.retain(|name| {
            let healthy = known.items.iter().any(|item| item.display_name() == *name && item.state == "healthy");
            if healthy {
                report.step(&format!("{done} {name} ready {:.1}s (container)", begun.elapsed().as_secs_f64()));
            }
            !healthy
        });
        let Some(slowest) = open.first() else { return Ok(()) };
        report.waiting(&format!("{slowest}: its container does not serve yet; docker compose logs {slowest}"));
        tokio::time::sleep(LOOK).await;
    }
}
