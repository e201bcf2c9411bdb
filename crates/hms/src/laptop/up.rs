//! `hms up`: from a folder to a running mesh, and back to nothing.

mod contained;
mod plain;
pub(crate) mod summary;

use std::ffi::OsString;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hms_formats::mesh_yaml::HealthFile;
use hms_model::listener::Role;
use hms_model::names::{EGRESS, GATEWAY, SYSTEM_NAMESPACE, ServiceName};
use tokio::time::Instant;

use super::app;
use super::containers;
use super::control_plane::{self, Choice, ControlPlane};
use super::detach::{self, Report};
use super::intercept::{self, Capture};
use super::journal::{Journal, Show};
use super::lock::StartLock;
use super::plan::{Plan, Service};
use super::ports::{self, Free};
use super::records::{self, Kind};
use super::sidecar::Surroundings;
use super::supervise::{Interrupts, Supervisor, all_units, finish_or_kill};
use super::trust::{self, GatewayRecord};
use super::unit::{self, Handle, Phase};
use crate::cli::{self, PortChoice};
use crate::client::{Client, ControlRecord};
use crate::exit::Exit;
use crate::failure::{Failure, finding_from_json};
use crate::output::{Mark, Output, Tone};
use crate::project::Project;
use crate::settings::Settings;
use crate::views::{Applied, Items, Service as ServiceView};

/// How often the registry is asked whether everything is healthy.
const LOOK: Duration = Duration::from_millis(50);

/// Starts the project; returns when it is told to end, or at once with `-d`.
pub(crate) async fn up(settings: &Settings, options: &cli::Up, output: &Output) -> Result<Exit, Failure> {
    let project = project_of(settings, options)?;
    if options.dry_run {
        return contained::dry_run(settings, options, &project, output);
    }
    project.prepare()?;
    if options.detach && !options.detached {
        detach::start(output, &project, "hms.log", &detached_arguments(options)).await?;
        return Ok(Exit::Ok);
    }
    if options.detached {
        detach::leave_session()?;
    }
    let mut report = Report::new(output, options.detached);
    let result = Box::pin(live(settings, options, &project, &mut report)).await;
    if let (Report::Parent { .. }, Err(failure)) = (&report, &result) {
        report.done(Err(failure));
        return Ok(failure.exit());
    }
    result
}

/// `-f` names a file, and by it the project.
fn project_of(settings: &Settings, options: &cli::Up) -> Result<Project, Failure> {
    let Some(file) = options.file.as_ref().filter(|_| settings.project.is_none()) else {
        return Project::find(settings);
    };
    let file = file.canonicalize().map_err(|error| crate::project::unreadable(file, &error))?;
    let folder = file.parent().unwrap_or(&file).to_path_buf();
    Ok(Project::at(folder, &settings.directories))
}

/// The arguments of the detached half; its project and colours are added where it is started.
fn detached_arguments(options: &cli::Up) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = vec!["up".into(), format!("--wait={}ms", options.wait.as_millis()).into()];
    if let Some(file) = options.file.as_ref().and_then(|file| file.canonicalize().ok()) {
        arguments.extend(["--file".into(), file.into_os_string()]);
    }
    if options.ports == PortChoice::Auto {
        arguments.extend(["--ports".into(), "auto".into()]);
    }
    if let Some(way) = options.intercept.and_then(|way| clap::ValueEnum::to_possible_value(&way)) {
        arguments.extend(["--intercept".into(), way.get_name().into()]);
    }
    if let Some(port) = options.https {
        arguments.extend(["--https".into(), port.to_string().into()]);
    }
    arguments.extend(options.services.iter().map(OsString::from));
    arguments
}

/// What a starting `hms up` holds.
#[derive(Default)]
struct Held {
    /// Its control plane, unless another process has one.
    control: Option<ControlPlane>,
    /// Until others can see what was started; after a failure until all of it has ended, so that nobody joins what goes away.
    lock: Option<StartLock>,
    /// Whether containers may have been started.
    contained: bool,
}

async fn live(
    settings: &Settings,
    options: &cli::Up,
    project: &Project,
    report: &mut Report<'_>,
) -> Result<Exit, Failure> {
    let begun = Instant::now();
    if settings.is_disabled() {
        return plain::live(settings, options, project, report).await;
    }
    let mut plan = if options.bare { Plan::empty() } else { Plan::read(settings, project, options.file.as_deref())? };
    plan.only(&options.services, &settings.namespace)?;
    let mut interrupts = Interrupts::take()?;
    let supervisor = Supervisor::open(project, settings, Kind::Up, None)?;
    let mut held = Held::default();
    let started = {
        let work = async {
            held.lock = Some(StartLock::take(project, begun + options.wait, |what| report.waiting(what)).await?);
            // Not before: another command may be replacing a stale record just now.
            for line in records::sweep(project) {
                report.note(&line);
            }
            Box::pin(start(settings, options, project, &plan, (&supervisor, &mut held, report))).await
        };
        tokio::select! {
            started = tokio::time::timeout(options.wait, work) => started,
            exit = interrupts.next() => Ok(Err(Failure::new(exit, 1015, "interrupted; nothing was left running"))),
            () = supervisor.asked_to_end() => Ok(Err(Failure::new(Exit::Conflict, 1015, "stopped by hms down"))),
        }
    };
    let result = match started {
        Ok(Ok(())) => {
            summary::print(settings, project, begun.elapsed(), report).await;
            report.done(Ok(()));
            if held.control.is_none() && supervisor.units().is_empty() {
                // Everything runs already, under other supervisors; there is nothing to stay for.
                supervisor.finish().await;
                return Ok(Exit::Ok);
            }
            follow(&supervisor, &mut interrupts, report).await
        }
        Ok(Err(failure)) => Err(failure),
        Err(_) if held.contained => Err(late(options.wait, &supervisor)
            .because("containers are being started, or do not serve yet; images may still be fetched")
            .log(containers::last_lines(settings, project).await)),
        Err(_) => Err(late(options.wait, &supervisor)),
    };
    if report.output().is_for_people() && matches!(report, Report::Terminal { .. }) {
        report.note("stopping; once more to kill");
    }
    finish_or_kill(supervisor, &mut interrupts).await;
    // The gateway is gone; its record would only be swept later.
    remove_own_gateway(project);
    // Those of a mesh that goes on are not ours to end.
    if held.contained && held.control.is_some() && containers::are_known(project) {
        end_containers(settings, project, &mut interrupts, report).await;
    }
    if let Some(control) = held.control {
        control_plane::shutdown(control).await;
    }
    drop(held.lock);
    result
}

/// Everything up to the moment when all services are healthy. Gives the lock back as soon as others can see what was started.
async fn start(
    settings: &Settings,
    options: &cli::Up,
    project: &Project,
    plan: &Plan,
    (supervisor, held, report): (&Supervisor, &mut Held, &mut Report<'_>),
) -> Result<(), Failure> {
    let output = report.output();
    let done = output.mark(Mark::Ok);
    if let Some(text) = &plan.detected {
        report.step(&format!("{done} {text} (no mesh.yaml)"));
    }
    for finding in &plan.findings {
        report.note(&hms_formats::render(std::slice::from_ref(finding), false));
    }
    held.contained = plan.containers.is_some();
    let engine = contained::prepare(settings, project, plan, report).await?;
    let address = engine.as_ref().map(|engine| engine.address);
    ensure_control(settings, options, project, (&mut held.control, address, report)).await?;
    let client = Client::find(settings, project)?;
    let record = ControlRecord::read(project);
    let trust_domain = match &record {
        Some(record) => record.trust_domain.clone(),
        None => client.get::<crate::views::Summary>("/v1/summary").await?.trust_domain,
    };
    if !options.bare {
        register(&client, plan, report).await?;
    }
    let around = supervisor.surroundings(trust_domain)?;
    let running: Vec<String> = all_units(project).await.into_iter().map(|(_, unit)| unit.label().to_owned()).collect();
    let gateway = start_gateway(options, project, plan, (supervisor, &around, report))?;
    let egress = start_egress(plan, &running, (supervisor, &around))?;
    let handles = start_services((settings, options), plan, &running, (supervisor, &around, &client, report)).await?;
    if let Some(gateway) = gateway {
        await_gateway(settings, project, &client, &gateway).await?;
    }
    if let Some(egress) = egress
        && let Phase::Failed(failure) = egress.settled().await.phase
    {
        return Err(failure);
    }
    held.lock = None;
    await_services(&client, &handles, report).await?;
    if let Some(engine) = &engine {
        Box::pin(contained::start(project, plan, (engine, supervisor, &client), (&around, report))).await?;
    }
    Ok(())
}

/// Ends the containers; a further interrupt leaves them to `hms down`.
async fn end_containers(settings: &Settings, project: &Project, interrupts: &mut Interrupts, report: &mut Report<'_>) {
    let ended = tokio::select! {
        ended = containers::down(settings, project) => ended.map(drop),
        _ = interrupts.next() => return report.note("containers are left; they end with: hms down"),
    };
    if let Err(failure) = ended {
        report.note(&format!("containers are left ({failure}: {}); they end with: hms down", failure.why()));
    }
}

async fn ensure_control(
    settings: &Settings,
    options: &cli::Up,
    project: &Project,
    (control, address, report): (&mut Option<ControlPlane>, Option<IpAddr>, &mut Report<'_>),
) -> Result<(), Failure> {
    let begun = Instant::now();
    let done = report.output().mark(Mark::Ok);
    if settings.server.is_some() || ControlRecord::read(project).is_some() {
        let client = Client::find(settings, project)?;
        client.text("/healthz/ready").await?;
        report.step(&format!("{done} control plane {} (already there)", client.address()));
        return Ok(());
    }
    report.waiting("control plane");
    let first = !project.control_dir().join("ca").exists();
    let (mut choice, remarks) = Choice::of_laptop(project, options.ports);
    if let Some(address) = address {
        // Proxies of this machine come by the socket, so nobody misses the loopback address.
        choice.grpc.set_ip(address);
    }
    for remark in remarks {
        report.note(&remark);
    }
    // Kept at once: whatever is cut short from here on, it will be shut down politely.
    *control = Some(control_plane::start(choice).await?);
    if first {
        report.step(&format!("{done} CA created ({}, local only)", tilde(settings, &project.control_dir())));
    }
    let client = Client::find(settings, project)?;
    let word = client.text("/healthz/ready").await?;
    let elapsed = begun.elapsed().as_millis();
    report.step(&format!("{done} control plane {} {} {elapsed}ms", client.address(), word.trim()));
    Ok(())
}

/// Applies the files as one change, and shows the control plane's warnings.
async fn register(client: &Client, plan: &Plan, report: &mut Report<'_>) -> Result<(), Failure> {
    let applied: Applied = client.put("/v1/mesh", &plan.request).await?;
    for finding in applied.findings.iter().filter_map(finding_from_json) {
        if !plan.findings.iter().any(|known| known.message == finding.message) {
            report.note(&hms_formats::render(std::slice::from_ref(&finding), false));
        }
    }
    Ok(())
}

fn start_gateway(
    options: &cli::Up,
    project: &Project,
    plan: &Plan,
    (supervisor, around, report): (&Supervisor, &Arc<Surroundings>, &mut Report<'_>),
) -> Result<Option<Handle>, Failure> {
    if GatewayRecord::read(project).is_some() {
        return Ok(None);
    }
    let (port, remark) = ports::public(options.https.or(plan.https), options.ports)?;
    if let Some(remark) = remark {
        report.note(&remark);
    }
    let plan = unit::Plan { https: Some(ports::loopback(port)), ..own_proxy(Role::Gateway, GATEWAY)? };
    let journal = Journal::open(&project.sidecar_dir(), GATEWAY, None);
    Ok(Some(supervisor.add(around, plan, journal)))
}

/// Where calls leave the mesh, if the files want it and nobody has started it yet.
fn start_egress(
    plan: &Plan,
    running: &[String],
    (supervisor, around): (&Supervisor, &Arc<Surroundings>),
) -> Result<Option<Handle>, Failure> {
    let unit = own_proxy(Role::Egress, EGRESS)?;
    if !plan.egress_gateway || running.contains(&unit.service.to_string()) {
        return Ok(None);
    }
    let journal = Journal::open(&around.project.sidecar_dir(), EGRESS, None);
    Ok(Some(supervisor.add(around, unit, journal)))
}

/// A proxy of the mesh's own, beside no program.
fn own_proxy(role: Role, name: &str) -> Result<unit::Plan, Failure> {
    let service = ServiceName::in_namespace(SYSTEM_NAMESPACE, name)
        .map_err(|error| Failure::new(Exit::Failed, 1017, "the gateway has no name").because(error.to_string()))?;
    Ok(unit::Plan {
        service,
        workload: "1".to_owned(),
        version: None,
        zone: None,
        label: format!("{name}.{SYSTEM_NAMESPACE}"),
        role,
        app: None,
        port: 0,
        must_listen: false,
        health: HealthFile { start_within: Duration::from_secs(10), ..HealthFile::default() },
        upstreams: Vec::new(),
        https: None,
        publish: None,
        meshed: true,
    })
}

async fn start_services(
    (settings, options): (&Settings, &cli::Up),
    plan: &Plan,
    running: &[String],
    (supervisor, around, client, report): (&Supervisor, &Arc<Surroundings>, &Client, &mut Report<'_>),
) -> Result<Vec<Handle>, Failure> {
    let free = Free::default();
    let known: Items<ServiceView> = client.get("/v1/services").await?;
    let known: Vec<String> = known.items.iter().map(ServiceView::display_name).collect();
    let width = plan.services.iter().map(|service| service.label().len()).max().unwrap_or_default();
    let mut handles = Vec::new();
    for service in &plan.services {
        let name = service.name.to_string();
        let label = service.label();
        if running.contains(&label) {
            report.step(&format!("{} {label} already runs", report.output().mark(Mark::Ok)));
            continue;
        }
        let wanted = options.intercept.map(Into::into).or(service.intercept);
        let capture = intercept::choose(around, wanted).await?;
        let Some(unit) = unit_plan(service, capture, &known, &free)? else {
            report.note(&waiting_hint(&name));
            continue;
        };
        let show = matches!(report, Report::Terminal { .. }).then(|| show(settings, width));
        let journal = Journal::open(&around.project.sidecar_dir(), &label, show);
        handles.push(supervisor.add(around, unit, journal));
    }
    Ok(handles)
}

/// The unit of a service; `None` if nobody knows how to start it.
fn unit_plan(
    service: &Service,
    capture: Capture,
    known: &[String],
    free: &Free,
) -> Result<Option<unit::Plan>, Failure> {
    let private = capture.mode.is_private();
    let Some(app) = service.app.clone().map(|app| app::Plan { capture, ..app }) else { return Ok(None) };
    let name = service.name.to_string();
    let port = match service.port {
        Some(port) if !private && !ports::is_free(port) => {
            let holder = crate::processes::holder(port);
            return Err(
                ports::taken(&name, port, holder.as_ref()).fix("stop that process, or take `port:` out and use $PORT")
            );
        }
        Some(port) => port,
        None => free.take()?,
    };
    Ok(Some(unit::Plan {
        service: service.name.clone(),
        workload: service.version.as_ref().map_or_else(|| "1".to_owned(), |version| format!("{version}-1")),
        version: service.version.clone(),
        zone: service.zone.clone(),
        label: service.label(),
        role: Role::Sidecar,
        app: Some(app),
        port,
        must_listen: service.has_routes,
        health: service.health.clone(),
        upstreams: known.iter().filter(|other| **other != name).cloned().collect(),
        https: None,
        publish: service.publish.filter(|_| private),
        meshed: true,
    }))
}

/// What to type when a route has no program behind it.
pub(crate) fn waiting_hint(service: &str) -> String {
    format!("waiting: hms run {service} -p 8000 -- uvicorn app:app --port 8000")
}

/// Prints a program's line with its service's name before it.
fn show(settings: &Settings, width: usize) -> Show {
    let output = Output::new(settings);
    Arc::new(move |service, line| {
        let label = output.tint(Tone::Dim, &format!("{service:width$} |"));
        output.line(&format!("{label} {}", crate::output::clean(line)));
    })
}

async fn await_gateway(
    settings: &Settings,
    project: &Project,
    client: &Client,
    gateway: &Handle,
) -> Result<(), Failure> {
    let status = gateway.settled().await;
    if let Phase::Failed(failure) = status.phase {
        return Err(failure);
    }
    let https = status.proxy.and_then(|(_, ports)| ports.https).ok_or_else(|| {
        Failure::new(Exit::Failed, 1105, "the gateway has no HTTPS listener").fix("hms check --only gateway")
    })?;
    let summary: crate::views::Summary = client.get("/v1/summary").await?;
    let hosts = if summary.gateway.hosts.is_empty() { vec!["gateway.local".to_owned()] } else { summary.gateway.hosts };
    let record = GatewayRecord { process: crate::processes::ProcessId::own(), https, hosts };
    record.write(project)?;
    trust::write(settings, project, &record).await.map(drop)
}

/// Waits until each program listens, the registry calls each service healthy, and every caller knows: right after a start
/// the gateway may not have heard of the endpoint yet.
async fn await_services(client: &Client, handles: &[Handle], report: &mut Report<'_>) -> Result<(), Failure> {
    let begun = Instant::now();
    let done = report.output().mark(Mark::Ok);
    let mut open: Vec<&Handle> = handles.iter().collect();
    loop {
        for handle in &open {
            match handle.status().phase {
                Phase::Failed(failure) => return Err(failure),
                Phase::Exited(code) if handle.plan.must_listen => {
                    return Err(Failure::new(Exit::Failed, 1104, format!("{} ended", handle.plan.label))
                        .because(format!("exit code {code}"))
                        .log(handle.journal.last_lines()));
                }
                _ => {}
            }
        }
        let healthy: Items<ServiceView> = client.get("/v1/services").await?;
        let is_healthy = |name: &str| {
            healthy
                .items
                .iter()
                .any(|item| item.display_name() == name && item.state == "healthy" && item.breaker != "OPEN")
        };
        open.retain(|handle| {
            let name = handle.plan.service.to_string();
            let ready =
                !matches!(handle.status().phase, Phase::Starting) && (!handle.plan.must_listen || is_healthy(&name));
            if ready {
                let label = &handle.plan.label;
                report.step(&format!("{done} {label} ready {:.1}s", begun.elapsed().as_secs_f64()));
            }
            !ready
        });
        let Some(slowest) = open.first() else { return Ok(()) };
        report.waiting(&waiting_for(slowest));
        tokio::time::sleep(LOOK).await;
    }
}

/// What a service is waiting for, with its name.
fn waiting_for(handle: &Handle) -> String {
    let status = handle.status();
    let what = match status.phase {
        Phase::Starting if status.proxy.is_none() => "its proxy starts".to_owned(),
        Phase::Starting => format!("nothing listens on 127.0.0.1:{} yet", handle.plan.port),
        _ => "its proxy registers it".to_owned(),
    };
    format!("{}: {what}", handle.plan.label)
}

fn late(wait: Duration, supervisor: &Supervisor) -> Failure {
    let slow: Vec<Handle> =
        supervisor.units().into_iter().filter(|handle| !matches!(handle.status().phase, Phase::Stopped)).collect();
    let waiting: Vec<String> = slow.iter().filter(|handle| handle.plan.app.is_some()).map(waiting_for).collect();
    let lines = slow.iter().flat_map(|handle| handle.journal.last_lines()).collect();
    Failure::new(Exit::Deadline, 1003, format!("not ready after {:.1} s", wait.as_secs_f64()))
        .because(waiting.join("; "))
        .log(lines)
        .fix("hms up --wait=120s")
}

/// Keeps everything running until somebody asks for the end.
async fn follow(
    supervisor: &Supervisor,
    interrupts: &mut Interrupts,
    report: &mut Report<'_>,
) -> Result<Exit, Failure> {
    let told: Vec<_> = supervisor.units();
    let mut said = std::collections::BTreeSet::new();
    loop {
        tokio::select! {
            exit = interrupts.next() => return Ok(exit),
            () = supervisor.asked_to_end() => return Ok(Exit::Ok),
            () = tokio::time::sleep(Duration::from_millis(500)), if matches!(report, Report::Terminal { .. }) => {
                for handle in &told {
                    let status = handle.status();
                    if let Phase::Exited(code) = status.phase
                        && said.insert((handle.plan.label.clone(), status.since))
                    {
                        let name = &handle.plan.label;
                        report.note(&format!("{name} ended with code {code}; again: hms start {name}"));
                    }
                }
            }
        }
    }
}

fn remove_own_gateway(project: &Project) {
    let own = crate::processes::ProcessId::own();
    if GatewayRecord::read(project).is_some_and(|record| record.process == own) {
        drop(std::fs::remove_file(project.gateway_file()));
    }
}

/// A path with the home folder shortened.
pub(crate) fn tilde(settings: &Settings, path: &Path) -> String {
    path.strip_prefix(&settings.directories.home)
        .map_or_else(|_| path.display().to_string(), |rest| format!("~/{}", rest.display()))
}

/// A loopback address as people read it: only the port.
pub(crate) fn port_of(address: SocketAddr) -> String {
    format!(":{}", address.port())
}
