//! The supervisor: owns the units of one `hms up` or `hms run`, answers questions about them, and ends them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use hms_model::listener::Role;
use nix::sys::signal::Signal;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::UnixListener;
use tokio::signal::unix::{Signal as SignalStream, SignalKind, signal};
use tokio::sync::{Notify, OnceCell};
use tokio::task::JoinHandle;

use super::containers::Containers;
use super::ipc::{self, Answer, Ask};
use super::lifeline::Lifeline;
use super::records::{self, Kind, Paths};
use super::sidecar::{Surroundings, find_program};
use super::unit::{self, Handle, Order, Phase};
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes::{self, ProcessId};
use crate::project::Project;
use crate::settings::Settings;
use crate::tasks;
use crate::views::Service;

/// A running supervisor.
#[derive(Debug)]
pub(crate) struct Supervisor {
    inner: Arc<Inner>,
    lifeline: Lifeline,
    paths: Paths,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct Inner {
    project: Project,
    settings: Settings,
    units: Mutex<BTreeMap<String, Handle>>,
    containers: Mutex<Option<Arc<Containers>>>,
    shutdown: Notify,
}

impl Supervisor {
    /// Announces this process as a supervisor of the project, and answers questions from now on.
    /// `data` is where its control plane keeps things, if not in the project's state.
    pub(crate) fn open(
        project: &Project,
        settings: &Settings,
        kind: Kind,
        data: Option<&Path>,
    ) -> Result<Self, Failure> {
        let failed = |error: std::io::Error| {
            Failure::new(Exit::Failed, 1009, "the supervisor cannot use its folder")
                .at(project.supervisors_dir().display().to_string())
                .because(error.to_string())
        };
        // Orphans of a killed shepherd come to us instead of to init, so they can be ended.
        if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
            tracing::debug!(%error, "no child subreapers on this kernel");
        }
        let paths = records::announce(project, kind, data).map_err(failed)?;
        let lifeline = Lifeline::open(paths.lifeline.clone()).map_err(failed)?;
        let listener = UnixListener::bind(&paths.socket).map_err(failed)?;
        let inner = Arc::new(Inner {
            project: project.clone(),
            settings: settings.clone(),
            units: Mutex::default(),
            containers: Mutex::default(),
            shutdown: Notify::new(),
        });
        let server = tasks::spawn("supervisor", serve(Arc::clone(&inner), listener));
        Ok(Self { inner, lifeline, paths, server })
    }

    /// What every proxy of this supervisor shares.
    pub(crate) fn surroundings(&self, trust_domain: String) -> Result<Arc<Surroundings>, Failure> {
        Ok(Arc::new(Surroundings {
            project: self.inner.project.clone(),
            settings: self.inner.settings.clone(),
            program: find_program(&self.inner.settings)?,
            trust_domain,
            lifeline: self.lifeline.path().to_path_buf(),
            inbound: super::containers::address(&self.inner.project),
            tried: OnceCell::new(),
        }))
    }

    /// Starts a unit.
    pub(crate) fn add(&self, around: &Arc<Surroundings>, plan: unit::Plan, journal: super::journal::Journal) -> Handle {
        let name = plan.label.clone();
        let handle = unit::start(Arc::clone(around), plan, journal);
        self.inner.units.lock().insert(name, handle.clone());
        handle
    }

    /// Answers for containers as well from now on.
    pub(crate) fn adopt(&self, containers: Arc<Containers>) {
        *self.inner.containers.lock() = Some(containers);
    }

    /// The units, in the order of their names.
    pub(crate) fn units(&self) -> Vec<Handle> {
        self.inner.units()
    }

    /// Waits until another command asks to end.
    pub(crate) async fn asked_to_end(&self) {
        self.inner.shutdown.notified().await;
    }

    /// Ends everything: the gateways drain, then each sidecar drains and its application ends, then what they called out by.
    pub(crate) async fn finish(self) {
        let (gateways, others): (Vec<Handle>, Vec<Handle>) =
            self.units().into_iter().partition(|handle| handle.plan.role == Role::Gateway);
        let (egress, sidecars) = others.into_iter().partition(|handle| handle.plan.role == Role::Egress);
        for group in [gateways, sidecars, egress] {
            for result in join_all(group.iter().map(|handle| handle.order(Order::Finish))).await {
                if let Err(failure) = result {
                    tracing::debug!(%failure, "unit had ended already");
                }
            }
        }
        self.server.abort();
        drop(self.lifeline);
        self.paths.remove();
    }
}

impl Inner {
    fn units(&self) -> Vec<Handle> {
        self.units.lock().values().cloned().collect()
    }

    /// The programs of a service, or with its version after an `@` the one of that.
    fn programs(&self, name: &str) -> Result<Vec<Handle>, Failure> {
        let units = self.units.lock();
        let programs = || units.iter().filter(|(_, unit)| unit.plan.app.is_some());
        let meant = |label: &str, unit: &Handle| label == name || unit.plan.service.to_string() == name;
        let found: Vec<Handle> =
            programs().filter(|(label, unit)| meant(label, unit)).map(|(_, unit)| unit.clone()).collect();
        if found.is_empty() {
            return Err(super::plan::unknown_service(name, programs().map(|(label, _)| label.clone())));
        }
        Ok(found)
    }

    async fn obey(&self, question: Ask) -> Result<Answer, Failure> {
        match question {
            Ask::Status => {
                let containers = self.containers.lock().as_ref().map(|containers| containers.reports());
                let units = self.units().iter().map(Handle::report).chain(containers.into_iter().flatten()).collect();
                Ok(Answer { units, ..Answer::default() })
            }
            Ask::Stop { service } => self.stop(&service).await,
            Ask::Start { service } => self.start(&service).await,
            Ask::Restart { service } => {
                self.stop(&service).await?;
                self.start(&service).await
            }
            Ask::RestartProxy { service } => self.restart_proxy(&service).await,
            Ask::Shutdown => {
                self.shutdown.notify_one();
                Ok(Answer { said: "stopping".to_owned(), ..Answer::default() })
            }
        }
    }

    /// The containers, if a service is one of them.
    fn containers(&self, service: &str) -> Option<Arc<Containers>> {
        self.containers.lock().clone().filter(|containers| containers.has(service))
    }

    async fn stop(&self, service: &str) -> Result<Answer, Failure> {
        if let Some(containers) = self.containers(service) {
            containers.stop(service).await?;
            self.tell_control(service, "stopped").await;
            return Ok(Answer { said: format!("{service} stopped"), ..Answer::default() });
        }
        let units = self.programs(service)?;
        for unit in &units {
            unit.order(Order::Stop).await?;
        }
        self.tell_control(service, "stopped").await;
        let units = units.iter().map(Handle::report).collect();
        Ok(Answer { said: format!("{service} stopped"), units, ..Answer::default() })
    }

    async fn restart_proxy(&self, service: &str) -> Result<Answer, Failure> {
        if self.containers(service).is_some() {
            return Err(Failure::new(Exit::Failed, 1107, format!("the proxy of {service} is a container"))
                .because("a container that starts again has a new network, and its application must follow")
                .fix(format!("docker compose -f FILE -f .hms/compose.override.yaml restart {service}-hms")));
        }
        let unit = self.units.lock().get(service).cloned();
        let unit = unit.ok_or_else(|| super::plan::unknown_service(service, std::iter::empty::<String>()))?;
        let begun = tokio::time::Instant::now();
        unit.order(Order::RestartProxy).await?;
        let said = format!("the proxy of {service} was restarted in {:.1}s", begun.elapsed().as_secs_f64());
        Ok(Answer { said, units: vec![unit.report()], ..Answer::default() })
    }

    async fn start(&self, service: &str) -> Result<Answer, Failure> {
        if let Some(containers) = self.containers(service) {
            let begun = tokio::time::Instant::now();
            self.tell_control(service, "started").await;
            containers.start_again(service).await?;
            self.await_healthy(service).await;
            let said = format!("{service} ready {:.1}s", begun.elapsed().as_secs_f64());
            return Ok(Answer { said, ..Answer::default() });
        }
        let units = self.programs(service)?;
        let begun = tokio::time::Instant::now();
        self.tell_control(service, "started").await;
        for unit in &units {
            unit.order(Order::Start).await?;
        }
        for unit in &units {
            match unit.settled().await.phase {
                Phase::Failed(failure) => return Err(failure),
                Phase::Exited(code) => {
                    return Err(Failure::new(Exit::Failed, 1104, format!("{} ended at once", unit.plan.label))
                        .because(format!("exit code {code}"))
                        .log(unit.journal.last_lines()));
                }
                Phase::Running => self.await_healthy(service).await,
                Phase::Starting | Phase::Stopped => {}
            }
        }
        let said = format!("{service} ready {:.1}s", begun.elapsed().as_secs_f64());
        Ok(Answer { said, units: units.iter().map(Handle::report).collect(), ..Answer::default() })
    }

    /// Waits until the mesh has noticed that a program runs again. Without a control plane there is nobody to ask, and its
    /// callers' proxies find out by themselves.
    async fn await_healthy(&self, service: &str) {
        /// Its proxy looks several times a second.
        const PATIENCE: Duration = Duration::from_secs(5);
        let service = service_of(service);
        let Ok(client) = Client::find(&self.settings, &self.project) else { return };
        let path = format!("/v1/services/{}", crate::client::segment(service));
        let wait = async {
            while client.get::<Service>(&path).await.is_ok_and(|service| service.state != "healthy") {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(PATIENCE, wait).await.is_err() {
            tracing::warn!(service, "it listens, but its proxy has not reported it healthy yet");
        }
    }

    /// Tells the control plane what was asked for. Without one the proxy's own look at the application must do.
    async fn tell_control(&self, service: &str, desired: &str) {
        if service_of(service) != service {
            // One of several versions; its proxy tells.
            return;
        }
        let told = async {
            let client = Client::find(&self.settings, &self.project)?;
            let path = format!("/v1/services/{}/state", crate::client::segment(service));
            client.post::<serde_json::Value>(&path, &json!({"desired": desired})).await
        };
        if let Err(failure) = told.await {
            tracing::warn!(service, %failure, why = failure.why(), "control plane was not told");
        }
    }
}

/// The service of `calc-svc@v2`.
fn service_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(service, _)| service)
}

async fn serve(inner: Arc<Inner>, listener: UnixListener) {
    loop {
        let (question, stream) = ipc::next_question(&listener).await;
        let inner = Arc::clone(&inner);
        tasks::spawn("answer", async move {
            let result = inner.obey(question).await;
            let answer =
                result.unwrap_or_else(|failure| Answer { error: Some(failure.to_json()), ..Answer::default() });
            ipc::answer(stream, &answer).await;
        });
    }
}

/// Signals that ask this process to end.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: SignalStream,
    terminate: SignalStream,
    hang_up: SignalStream,
}

impl Interrupts {
    /// Takes them over from now on.
    pub(crate) fn take() -> Result<Self, Failure> {
        let take = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, 1013, "signals cannot be watched").because(error.to_string())
            })
        };
        Ok(Self {
            interrupt: take(SignalKind::interrupt())?,
            terminate: take(SignalKind::terminate())?,
            hang_up: take(SignalKind::hangup())?,
        })
    }

    /// Waits for the next one; the exit code it stands for.
    pub(crate) async fn next(&mut self) -> Exit {
        tokio::select! {
            _ = self.interrupt.recv() => Exit::Interrupted,
            _ = self.terminate.recv() => Exit::Ok,
            _ = self.hang_up.recv() => Exit::Ok,
        }
    }
}

/// Ends everything politely; a further interrupt kills what is left.
pub(crate) async fn finish_or_kill(supervisor: Supervisor, interrupts: &mut Interrupts) {
    let project = supervisor.inner.project.clone();
    tokio::select! {
        () = supervisor.finish() => {}
        _ = interrupts.next() => kill_descendants(&background(&project)).await,
    }
}

/// The supervisors this process has put in the background: its children until it ends, but everybody's.
fn background(project: &Project) -> Vec<u32> {
    let children = processes::children(std::process::id());
    records::living(project).iter().map(|record| record.process.pid).filter(|pid| children.contains(pid)).collect()
}

/// SIGKILL for every process below this one, until there is none: what the dying have started since the list was read comes
/// to us, their reaper, and dies in the next round. Spares the processes that `spared` names, and what is below those.
async fn kill_descendants(spared: &[u32]) {
    /// Two seconds; only a process that hangs in the kernel outlives that.
    const ROUNDS: u32 = 200;
    const TICK: Duration = Duration::from_millis(10);
    for _ in 0..ROUNDS {
        let mut left = processes::descendants(std::process::id());
        for root in spared {
            let below = processes::descendants(*root);
            left.retain(|pid| pid != root && !below.contains(pid));
        }
        if left.is_empty() {
            return;
        }
        for process in left.into_iter().filter_map(ProcessId::of) {
            process.signal(Signal::SIGKILL);
        }
        tokio::time::sleep(TICK).await;
    }
    tracing::warn!("some processes were killed and are not gone yet");
}

/// Finds the supervisor that has a service's application, and asks it.
pub(crate) async fn ask_owner(project: &Project, service: &str, question: &Ask) -> Result<Answer, Failure> {
    /// Stopping takes up to seven seconds, starting as long as the application needs.
    const PATIENCE: Duration = Duration::from_mins(2);
    let mut known = Vec::new();
    for record in records::living(project) {
        let paths = Paths::of(project, record.process.pid);
        let Ok(status) = ipc::ask(&paths.socket, &Ask::Status, Duration::from_secs(2)).await else { continue };
        let mine = status.units.iter().any(|unit| unit.is_called(service) && unit.app_port.is_some());
        if mine {
            return ipc::ask(&paths.socket, question, PATIENCE).await;
        }
        known.extend(
            status.units.into_iter().filter(|unit| unit.app_port.is_some()).map(|unit| unit.label().to_owned()),
        );
    }
    let failure = super::plan::unknown_service(service, known);
    Err(Failure::new(Exit::Failed, 1107, format!("no supervisor of this project runs {service}"))
        .because(failure.why().to_owned())
        .fix(format!("hms up {service}   # or: hms run {service} -- CMD")))
}

/// Every unit of every living supervisor of a project.
pub(crate) async fn all_units(project: &Project) -> Vec<(records::Record, ipc::UnitReport)> {
    let mut all = Vec::new();
    for record in records::living(project) {
        let paths = Paths::of(project, record.process.pid);
        if let Ok(answer) = ipc::ask(&paths.socket, &Ask::Status, Duration::from_secs(2)).await {
            all.extend(answer.units.into_iter().map(|unit| (record.clone(), unit)));
        }
    }
    all
}
