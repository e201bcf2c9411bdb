//! The containers of a Compose file as services of the mesh (`hms up -f compose.yaml`): joined by an override that Compose merges, and
//! looked after through the `docker` program. They are Compose's: it makes, starts and stops them.

mod docker;
mod join;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hms_formats::compose::{ComposeFile, SIDECAR};
use hms_formats::mesh_yaml::MeshFile;
use hms_model::names::ServiceName;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

pub(crate) use self::docker::Docker;
use self::docker::{Compose, Happened, STARTING, STOPPING, Seen};
pub(crate) use self::join::{Facts, dry_run, is_local, network_name};
use super::intercept::{Capture, Mode};
use super::ipc::UnitReport;
use crate::client::{Client, ControlRecord};
use crate::failure::Failure;
use crate::project::{Project, write_file};
use crate::settings::Settings;
use crate::tasks;

/// How long is waited before the engine is asked for events again.
const AGAIN: Duration = Duration::from_secs(2);

/// What a Compose file says.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The file.
    pub(crate) file: PathBuf,
    /// Its containers.
    pub(crate) compose: ComposeFile,
    /// What is said of the mesh, there or in the `mesh.yaml` beside it.
    pub(crate) mesh: MeshFile,
    /// The services that are asked for; empty for all. The others are joined all the same: Compose starts what these depend on.
    pub(crate) only: Vec<ServiceName>,
}

impl Plan {
    /// Starts the named services only.
    pub(crate) fn only(&mut self, names: &[ServiceName]) {
        let known = self.compose.containers.iter().map(|container| &container.name);
        self.only = known.filter(|name| names.contains(name)).cloned().collect();
    }

    fn names(&self) -> Vec<&str> {
        self.compose.containers.iter().map(|container| container.name.name()).collect()
    }

    /// Whether a service is waited for.
    fn is_asked_for(&self, name: &ServiceName) -> bool {
        self.only.is_empty() || self.only.contains(name)
    }
}

/// What was started, for a command that finds nobody else to ask.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    /// The files that Compose was given; none before it was.
    files: Vec<PathBuf>,
    /// The network that was made.
    network: String,
}

/// Writes down what is about to be made: whatever happens next, `hms down` finds it.
pub(crate) fn remember(project: &Project, files: Vec<PathBuf>) -> Result<(), Failure> {
    let record = Record { files, network: network_name(project) };
    let text = serde_json::to_string(&record).unwrap_or_default();
    write_file(&record_file(project), &text, false)
        .map_err(|error| crate::project::unreadable(&record_file(project), &error))
}

fn record_file(project: &Project) -> PathBuf {
    project.state.join("compose.json")
}

/// Containers that run.
#[derive(Debug)]
pub(crate) struct Containers {
    compose: Compose,
    plan: Plan,
    folder: PathBuf,
    /// What runs programs that end with us, and how it knows that we did.
    shepherd: (PathBuf, PathBuf),
    states: Mutex<BTreeMap<String, State>>,
}

#[derive(Debug, Clone)]
struct State {
    seen: Seen,
    /// Unix seconds.
    since: i64,
    /// Whether somebody stopped it, rather than that it ended.
    stopped: bool,
}

impl Containers {
    /// Joins and starts them. Answers when Compose has, which is when every sidecar is ready and every container has been started.
    pub(crate) async fn start(
        docker: &Docker,
        (project, client): (&Project, &Client),
        plan: Plan,
        facts: Facts<'_>,
    ) -> Result<Self, Failure> {
        let overriding = join::join(project, client, &plan, facts).await?;
        remember(project, vec![plan.file.clone(), overriding.clone()])?;
        let compose = docker.compose(&[&plan.file, &overriding]);
        let containers = Self {
            compose,
            folder: join::folder(project),
            shepherd: (facts.proxy.to_path_buf(), facts.lifeline.to_path_buf()),
            states: Mutex::default(),
            plan: plan.clone(),
        };
        let mut words = vec!["up", "--detach"];
        // Without names Compose also starts what is not joined.
        words.extend(plan.only.iter().map(ServiceName::name));
        if let Err(failure) = containers.compose.run(&words, STARTING).await {
            let said = containers.last_lines().await;
            return Err(failure.log(said));
        }
        containers.look(None).await;
        Ok(containers)
    }

    /// Whether a service is one of them.
    pub(crate) fn has(&self, service: &str) -> bool {
        self.plan.compose.containers.iter().any(|container| container.name.to_string() == service)
    }

    /// The services that serve something.
    pub(crate) fn serving(&self) -> Vec<String> {
        let serving = self
            .plan
            .compose
            .containers
            .iter()
            .filter(|container| container.port.is_some() && self.plan.is_asked_for(&container.name));
        serving.map(|container| container.name.to_string()).collect()
    }

    /// Stops a service's container; its sidecar stays, and answers for it.
    pub(crate) async fn stop(&self, service: &str) -> Result<(), Failure> {
        self.compose.run(&["stop", service], STOPPING).await?;
        self.look(Some(&Happened { service: service.to_owned(), action: "stop".to_owned() })).await;
        Ok(())
    }

    /// Starts it again.
    pub(crate) async fn start_again(&self, service: &str) -> Result<(), Failure> {
        self.compose.run(&["start", service], STOPPING).await?;
        self.look(Some(&Happened { service: service.to_owned(), action: "start".to_owned() })).await;
        Ok(())
    }

    /// Follows what happens to the containers, whoever does it, for as long as this process lives.
    pub(crate) async fn follow(&self) {
        loop {
            match self.compose.events(&self.shepherd.0, &self.shepherd.1) {
                Ok(mut events) => {
                    // What happened before is seen, what happens from now on is heard.
                    self.look(None).await;
                    while let Some(happened) = events.next().await {
                        self.bring_along(&happened).await;
                        self.look(Some(&happened)).await;
                    }
                }
                Err(error) => tracing::debug!(%error, "no events of containers"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// A sidecar that starts again has a new network, and its application lives in the old one, in which nothing is left.
    async fn bring_along(&self, happened: &Happened) {
        let Some(service) = happened.service.strip_suffix(SIDECAR).filter(|_| happened.action == "start") else {
            return;
        };
        let runs = self.states.lock().get(service).is_some_and(|state| state.seen.state == "running");
        if runs && self.plan.names().contains(&service) {
            tracing::warn!(service, "its sidecar was started again, and it follows");
            if let Err(failure) = self.compose.run(&["restart", "--no-deps", service], STOPPING).await {
                tracing::warn!(service, %failure, why = failure.why(), "it could not be started again");
            }
        }
    }

    /// What the containers of a service and of its sidecar said last.
    async fn last_lines(&self) -> Vec<String> {
        let said = self.compose.run(&["logs", "--no-color", "--tail", "8"], STOPPING).await.unwrap_or_default();
        said.lines().map(crate::output::clean).collect()
    }

    /// Looks at the containers, after something happened to one.
    async fn look(&self, happened: Option<&Happened>) {
        const WORDS: [&str; 7] = ["create", "start", "stop", "die", "kill", "destroy", "restart"];
        if happened.is_some_and(|happened| !WORDS.contains(&happened.action.as_str())) {
            return;
        }
        let seen = match self.compose.containers().await {
            Ok(seen) => seen,
            Err(failure) => return tracing::debug!(%failure, why = failure.why(), "containers are not seen"),
        };
        let now = jiff::Timestamp::now().as_second();
        let mut states = self.states.lock();
        states.retain(|service, _| seen.iter().any(|seen| seen.service == *service));
        for seen in seen {
            let before = states.get(&seen.service);
            let stopping = happened.is_some_and(|it| it.service == seen.service && it.action == "stop");
            let running = seen.state == "running";
            let stopped = !running && (stopping || before.is_some_and(|before| before.stopped));
            let since = before.filter(|before| before.seen.state == seen.state && before.seen.id == seen.id);
            let since = since.map_or(now, |before| before.since);
            states.insert(seen.service.clone(), State { seen, since, stopped });
        }
    }

    /// What runs, as units are reported.
    pub(crate) fn reports(&self) -> Vec<UnitReport> {
        let states = self.states.lock();
        let report = |container: &hms_formats::compose::Container| {
            let state = states.get(container.name.name());
            let service = self.plan.mesh.services.get(&container.name);
            let phase = match state.map(|state| (state.seen.state.as_str(), state.stopped)) {
                Some(("running", _)) => "running",
                Some(("exited" | "dead", false)) => "exited",
                Some(("exited" | "dead", true)) => "stopped",
                _ => "starting",
            };
            let code = state.map(|state| state.seen.exit_code).and_then(|code| u8::try_from(code).ok());
            UnitReport {
                service: container.name.to_string(),
                name: container.name.to_string(),
                phase: phase.to_owned(),
                version: service.and_then(|service| service.version.clone()),
                since: state.map(|state| state.since).unwrap_or_default(),
                app_pid: None,
                app_port: Some(container.port.unwrap_or_default()),
                exit_code: code.filter(|_| phase == "exited"),
                proxy_pid: None,
                inbound: None,
                outbound: None,
                upstreams: BTreeMap::new(),
                log: format!("docker compose logs {}", container.name.name()),
                last_lines: Vec::new(),
                command: state.map(|state| state.seen.image.clone()).unwrap_or_default(),
                proxy_folder: self.folder.join(container.name.name()).display().to_string(),
                capture: Some(Capture {
                    mode: Mode::Joined,
                    why: format!("container {}", short(state.map_or("", |state| &state.seen.id))),
                    fix: String::new(),
                }),
                host_ports: Vec::new(),
                publish: None,
                container: state.map(|state| state.seen.id.clone()).unwrap_or_default(),
            }
        };
        self.plan.compose.containers.iter().map(report).collect()
    }
}

/// As docker shows it.
fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Follows containers in the background.
pub(crate) fn keep_following(containers: &std::sync::Arc<Containers>) -> tokio::task::JoinHandle<()> {
    let containers = std::sync::Arc::clone(containers);
    tasks::spawn("containers", async move { containers.follow().await })
}

/// What containers of the project said last, for a start that took too long.
pub(crate) async fn last_lines(settings: &Settings, project: &Project) -> Vec<String> {
    let Some(record) = record(project) else { return Vec::new() };
    let Ok(docker) = Docker::find(settings).await else { return Vec::new() };
    let files: Vec<&Path> = record.files.iter().map(PathBuf::as_path).collect();
    let said = docker.compose(&files).run(&["logs", "--no-color", "--tail", "8"], STOPPING).await.unwrap_or_default();
    said.lines().map(crate::output::clean).collect()
}

fn record(project: &Project) -> Option<Record> {
    serde_json::from_str(&std::fs::read_to_string(record_file(project)).ok()?).ok()
}

/// Whether containers of the project may run.
pub(crate) fn are_known(project: &Project) -> bool {
    record_file(project).is_file()
}

/// Where proxies of this machine listen for those in containers: any port of the address at which these find the control plane.
pub(crate) fn address(project: &Project) -> Option<SocketAddr> {
    let mut address: SocketAddr =
        ControlRecord::read(project).filter(|_| are_known(project)).and_then(|record| record.grpc.parse().ok())?;
    address.set_port(0);
    (!address.ip().is_loopback() && !address.ip().is_unspecified()).then_some(address)
}

/// Ends the containers of the project, whoever started them; nothing if there are none. The record stays until all are gone.
pub(crate) async fn down(settings: &Settings, project: &Project) -> Result<bool, Failure> {
    let Some(record) = record(project) else { return Ok(false) };
    let docker = Docker::find(settings).await?;
    // Compose wants the file of the author; if that is gone it says so, and `docker compose -p NAME down` is what is left.
    let files: Vec<&Path> = record.files.iter().map(PathBuf::as_path).filter(|file| file.is_file()).collect();
    // Containers that were not started by us are not ours to end.
    if !files.is_empty() {
        docker.compose(&files).run(&["down", "--remove-orphans"], STOPPING).await?;
    }
    docker.remove_network(&record.network).await?;
    drop(std::fs::remove_file(record_file(project)));
    Ok(true)
}
