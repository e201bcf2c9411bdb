//! One service on the laptop: its proxy, its application, and the task that keeps both.
//!
//! The proxy is kept alive for as long as the supervisor lives; an application that ends stays ended until somebody starts it
//! again, so its exit code and last lines can be read.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_formats::mesh_yaml::HealthFile;
use hms_model::listener::Role;
use hms_model::names::ServiceName;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use super::app::{self, App};
use super::environment::AppView;
use super::intercept::Mode;
use super::ipc::UnitReport;
use super::journal::Journal;
use super::ports::loopback;
use super::sidecar::{self, Ports, Sidecar, Surroundings};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::{processes, tasks};

/// While an application starts, its port is looked at this often.
const LOOK: Duration = Duration::from_millis(20);
/// Otherwise this often: is there a new control plane to attest to?
const PACE: Duration = Duration::from_millis(500);
/// An application that listens elsewhere for so long will not come round.
const ELSEWHERE: Duration = Duration::from_secs(5);
/// Waits between restarts of a proxy that keeps ending: doubling from the first to the last.
const REVIVE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What a unit consists of.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The service.
    pub(crate) service: ServiceName,
    /// The workload's id: unique within the service, the same over restarts, so the registry sees one workload.
    pub(crate) workload: String,
    /// The workload's version.
    pub(crate) version: Option<String>,
    /// Its failure domain.
    pub(crate) zone: Option<String>,
    /// What it is called where units of one service are told apart: `calc-svc`, `calc-svc@v2`.
    pub(crate) label: String,
    /// Sidecar or gateway.
    pub(crate) role: Role,
    /// The application; a gateway has none.
    pub(crate) app: Option<app::Plan>,
    /// Where the application should listen.
    pub(crate) port: u16,
    /// Whether it must listen; a pure client never does and is never waited for.
    pub(crate) must_listen: bool,
    /// When it counts as healthy, and how long it may take.
    pub(crate) health: HealthFile,
    /// Other services, each with a listener of its own.
    pub(crate) upstreams: Vec<String>,
    /// Where a gateway listens.
    pub(crate) https: Option<SocketAddr>,
    /// Where the application's own port is open on the laptop, around the mesh.
    pub(crate) publish: Option<u16>,
    /// Whether there is a mesh at all, and not only the program.
    pub(crate) meshed: bool,
}

impl Plan {
    /// How the application is captured.
    fn capture(&self) -> Mode {
        self.app.as_ref().map_or(Mode::None, |app| app.capture.mode)
    }
}

/// How a unit fares.
#[derive(Debug, Clone)]
pub(crate) enum Phase {
    /// Proxy and application start.
    Starting,
    /// Both run; a server listens.
    Running,
    /// Somebody stopped the application.
    Stopped,
    /// The application ended by itself.
    Exited(u8),
    /// It cannot be started.
    Failed(Failure),
}

impl Phase {
    /// One word.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopped => "stopped",
            Self::Exited(_) => "exited",
            Self::Failed(_) => "failed",
        }
    }
}

/// The state of a unit.
#[derive(Debug, Clone)]
pub(crate) struct Status {
    /// The phase.
    pub(crate) phase: Phase,
    /// Unix seconds since when.
    pub(crate) since: i64,
    /// Since when, to measure.
    pub(crate) since_instant: Instant,
    /// The application's process.
    pub(crate) app_pid: Option<u32>,
    /// The proxy's process and ports.
    pub(crate) proxy: Option<(u32, Ports)>,
}

/// What a unit can be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End the application.
    Stop,
    /// Start it.
    Start,
    /// Replace the proxy's process.
    RestartProxy,
    /// End everything, politely.
    Finish,
}

/// An order, and who waits for it.
type Letter = (Order, oneshot::Sender<Result<(), Failure>>);

/// A running unit, from outside.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    /// Its plan.
    pub(crate) plan: Arc<Plan>,
    /// Its journal.
    pub(crate) journal: Journal,
    status: watch::Receiver<Status>,
    letters: mpsc::Sender<Letter>,
}

impl Handle {
    /// Its state now.
    pub(crate) fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// A view that can wait for changes.
    pub(crate) fn watch(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Gives an order and waits until it is carried out.
    pub(crate) async fn order(&self, order: Order) -> Result<(), Failure> {
        let (sender, receiver) = oneshot::channel();
        let gone = || Failure::new(Exit::Conflict, 1107, format!("{} has ended", self.plan.service));
        self.letters.send((order, sender)).await.map_err(|_closed| gone())?;
        receiver.await.map_err(|_closed| gone())?
    }

    /// Waits until the application runs, has ended or cannot be started.
    pub(crate) async fn settled(&self) -> Status {
        let mut watch = self.watch();
        let settled = watch.wait_for(|status| !matches!(status.phase, Phase::Starting)).await;
        settled.map_or_else(|_| self.status(), |status| status.clone())
    }

    /// For other commands.
    pub(crate) fn report(&self) -> UnitReport {
        let status = self.status();
        let ports = status.proxy.as_ref().map(|(_, ports)| ports);
        UnitReport {
            service: self.plan.service.to_string(),
            name: self.plan.label.clone(),
            phase: status.phase.word().to_owned(),
            version: self.plan.version.clone(),
            since: status.since,
            app_pid: status.app_pid,
            app_port: self.plan.app.is_some().then_some(self.plan.port),
            exit_code: if let Phase::Exited(code) = status.phase { Some(code) } else { None },
            proxy_pid: status.proxy.as_ref().map(|(pid, _)| *pid),
            inbound: ports.and_then(|ports| ports.inbound),
            outbound: ports.and_then(|ports| ports.outbound),
            upstreams: ports.map(|ports| ports.upstreams.clone()).unwrap_or_default(),
            log: self.journal.path().display().to_string(),
            last_lines: self.journal.last_lines(),
            command: self.plan.app.as_ref().map(|app| app.program.display()).unwrap_or_default(),
            proxy_folder: sidecar::folder_name(&self.plan.service, &self.plan.workload),
            capture: self.plan.app.as_ref().map(|app| app.capture.clone()),
            host_ports: self.plan.app.as_ref().map(|app| app.host_ports.clone()).unwrap_or_default(),
            publish: self.plan.publish,
            container: String::new(),
        }
    }
}

/// Starts a unit. Its first state is [`Phase::Starting`].
pub(crate) fn start(around: Arc<Surroundings>, plan: Plan, journal: Journal) -> Handle {
    let (letters, inbox) = mpsc::channel(16);
    let plan = Arc::new(plan);
    let status = Status {
        phase: Phase::Starting,
        since: jiff::Timestamp::now().as_second(),
        since_instant: Instant::now(),
        app_pid: None,
        proxy: None,
    };
    let (publish, status) = watch::channel(status);
    let unit = Unit {
        around,
        plan: Arc::clone(&plan),
        journal: journal.clone(),
        publish,
        sidecar: None,
        ports: None,
        app: None,
        looks: 0,
        elsewhere_since: None,
        revive: None,
        revivals: 0,
    };
    tasks::spawn("unit", unit.live(inbox));
    Handle { plan, journal, status, letters }
}

/// The inside of a unit.
struct Unit {
    around: Arc<Surroundings>,
    plan: Arc<Plan>,
    journal: Journal,
    publish: watch::Sender<Status>,
    sidecar: Option<Sidecar>,
    /// The ports of the first proxy; its successors take the same, because the application knows them.
    ports: Option<Ports>,
    app: Option<App>,
    looks: u32,
    elsewhere_since: Option<Instant>,
    revive: Option<Instant>,
    revivals: u32,
}

impl Unit {
    async fn live(mut self, mut inbox: mpsc::Receiver<Letter>) {
        if let Err(failure) = self.begin().await {
            self.enter(Phase::Failed(failure));
        }
        loop {
            let pace = if self.is_starting() { LOOK } else { PACE };
            tokio::select! {
                letter = inbox.recv() => {
                    let Some((order, reply)) = letter else { return self.finish().await };
                    let result = self.obey(order).await;
                    // The one who asked may have left.
                    drop(reply.send(result));
                    if order == Order::Finish {
                        return;
                    }
                }
                () = sidecar_ended(&mut self.sidecar) => self.lost_sidecar(),
                code = app_ended(&mut self.app) => self.lost_app(code),
                () = tokio::time::sleep(pace) => self.tick().await,
            }
        }
    }

    async fn begin(&mut self) -> Result<(), Failure> {
        if self.plan.meshed {
            self.start_sidecar().await?;
        }
        if self.plan.app.is_none() {
            self.enter(Phase::Running);
            return Ok(());
        }
        self.start_app()
    }

    async fn start_sidecar(&mut self) -> Result<(), Failure> {
        let plan = &self.plan;
        let proxy = sidecar::Plan {
            role: plan.role,
            service: plan.service.clone(),
            workload: plan.workload.clone(),
            version: plan.version.clone(),
            zone: plan.zone.clone(),
            app: plan.app.as_ref().map(|_| loopback(plan.port)),
            upstreams: plan.upstreams.clone(),
            https: plan.https,
            health: plan.health.clone(),
            capture: plan.capture(),
            publish: plan.publish,
        };
        let sidecar = Sidecar::start(&self.around, &proxy, &self.journal, self.ports.as_ref()).await?;
        self.ports = Some(sidecar.ports().clone());
        let process = sidecar.process().pid;
        self.publish.send_modify(|status| status.proxy = Some((process, sidecar.ports().clone())));
        self.sidecar = Some(sidecar);
        Ok(())
    }

    /// Starts another process, which takes the listeners from the present one. If it fails, that one goes on.
    async fn restart_sidecar(&mut self) -> Result<(), Failure> {
        let old = self.sidecar.take();
        if let Err(failure) = self.start_sidecar().await {
            self.sidecar = old;
            return Err(failure);
        }
        if let Some(old) = old {
            tasks::spawn("former proxy", old.finished());
        }
        Ok(())
    }

    fn start_app(&mut self) -> Result<(), Failure> {
        let Some(plan) = self.plan.app.clone() else { return Ok(()) };
        let outbound = self.ports.as_ref().and_then(|ports| ports.outbound);
        let outbound = outbound.or_else(|| (!self.plan.meshed).then(|| loopback(self.plan.port))).ok_or_else(|| {
            Failure::new(Exit::Failed, 1105, format!("the proxy of {} has no outbound listener", self.plan.service))
        })?;
        let mode = plan.capture.mode;
        if !mode.is_private() && processes::is_listened_on(self.plan.port) {
            let holder = processes::holder(self.plan.port);
            return Err(super::ports::taken(&self.plan.service.to_string(), self.plan.port, holder.as_ref())
                .fix("stop that process, or choose another port with -p"));
        }
        let service = self.plan.service.to_string();
        let upstreams = self.ports.as_ref().map(|ports| ports.upstreams.clone()).unwrap_or_default();
        let view = AppView {
            service: &service,
            version: self.plan.version.as_deref(),
            port: self.plan.port,
            outbound,
            upstreams: &upstreams,
        };
        let proxy = sidecar::runtime_dir(&self.around, &self.plan.service, &self.plan.workload);
        let around = (&*self.around, proxy.as_path(), &self.journal);
        let app = App::start(&service, &plan, &view.variables(mode), self.plan.port, around)?;
        self.app = Some(app);
        self.elsewhere_since = None;
        self.enter(if self.plan.must_listen { Phase::Starting } else { Phase::Running });
        Ok(())
    }

    async fn obey(&mut self, order: Order) -> Result<(), Failure> {
        match order {
            Order::Start if self.app.is_some() => Ok(()),
            Order::Start => self.start_app(),
            Order::Stop => {
                self.stop_app().await;
                self.enter(Phase::Stopped);
                Ok(())
            }
            Order::RestartProxy => self.restart_sidecar().await,
            Order::Finish => {
                self.finish().await;
                Ok(())
            }
        }
    }

    async fn stop_app(&mut self) {
        if let Some(mut app) = self.app.take() {
            app.stop().await;
        }
    }

    /// The proxy first, so that requests it still holds are answered.
    async fn finish(&mut self) {
        if let Some(mut sidecar) = self.sidecar.take() {
            sidecar.stop().await;
        }
        self.stop_app().await;
        let folder = format!("{}-{}", self.plan.service, self.plan.workload);
        // Keys and last-good configuration are of no use without the workload.
        drop(std::fs::remove_dir_all(self.around.project.proxies_dir().join(folder)));
    }

    fn lost_sidecar(&mut self) {
        self.sidecar = None;
        let (first, last) = REVIVE;
        let wait = first.saturating_mul(1 << self.revivals.min(10)).min(last);
        self.revivals = self.revivals.saturating_add(1);
        self.revive = Some(Instant::now() + wait);
        tracing::warn!(service = %self.plan.service, "proxy ended; started again");
    }

    fn lost_app(&mut self, code: u8) {
        self.app = None;
        let phase = if self.is_starting() { Phase::Failed(self.ended_early(code)) } else { Phase::Exited(code) };
        self.enter(phase);
    }

    async fn tick(&mut self) {
        if self.revive.is_some_and(|at| Instant::now() >= at) {
            self.revive = None;
            match self.start_sidecar().await {
                Ok(()) => {}
                Err(failure) => {
                    tracing::warn!(service = %self.plan.service, %failure, why = failure.why(), "proxy cannot be started");
                    self.lost_sidecar();
                }
            }
        }
        if self.is_starting() {
            return self.look_for_listener();
        }
        self.learn_pid();
        if let Some(sidecar) = &mut self.sidecar {
            self.revivals = 0;
            sidecar.attest(&self.around, &attested_plan(&self.plan)).await;
        }
    }

    /// Whether the application listens where it should, does so elsewhere, or takes too long.
    fn look_for_listener(&mut self) {
        let Some(app) = &self.app else { return };
        if app.is_listened_on(self.plan.port, self.plan.capture().is_private()) {
            self.enter(Phase::Running);
            return;
        }
        let since = self.publish.borrow().since_instant;
        let waited = since.elapsed();
        self.looks = self.looks.wrapping_add(1);
        // Reading every process's sockets is work; twice a second is often enough for this.
        if self.looks.is_multiple_of(25) || waited > self.plan.health.start_within {
            let elsewhere = app.listening();
            let stubborn =
                !elsewhere.is_empty() && self.elsewhere_since.get_or_insert_with(Instant::now).elapsed() >= ELSEWHERE;
            if stubborn || waited > self.plan.health.start_within {
                let failure = self.listens_elsewhere(&elsewhere, waited);
                self.enter(Phase::Failed(failure));
            }
        }
    }

    /// A program that is not waited for had no process of its own yet when it began to run.
    fn learn_pid(&self) {
        let known = self.publish.borrow().app_pid;
        if let (Some(app), Some(pid)) = (&self.app, known)
            && !app.is_known(pid)
        {
            let pid = app.pid();
            self.publish.send_if_modified(|status| status.app_pid.replace(pid) != Some(pid));
        }
    }

    fn ended_early(&self, code: u8) -> Failure {
        let service = &self.plan.service;
        Failure::new(Exit::Failed, 1104, format!("{service} ended before it listened"))
            .at(self.command())
            .because(format!("exit code {code}; expected a listener on $PORT={}", self.plan.port))
            .log(self.journal.last_lines())
            .fix(format!("run it by hand: cd {} && PORT={} {}", self.folder(), self.plan.port, self.command()))
    }

    fn listens_elsewhere(&self, elsewhere: &[SocketAddr], waited: Duration) -> Failure {
        let (service, port) = (&self.plan.service, self.plan.port);
        let seconds = waited.as_secs();
        let message = format!("{service} started but nothing listens on $PORT={port} after {seconds}s");
        let failure = Failure::new(Exit::Failed, 1104, message).at(self.command()).log(self.journal.last_lines());
        match elsewhere.first() {
            Some(address) => {
                let all: Vec<String> = elsewhere.iter().map(SocketAddr::to_string).collect();
                failure
                    .because(format!("it listens on {}", all.join(", ")))
                    .fix(format!("set port: {}, or pass --port $PORT to the program", address.port()))
            }
            None => failure.because("it listens nowhere").fix("start_within: 60s, if it only needs longer"),
        }
    }

    fn command(&self) -> String {
        self.plan.app.as_ref().map(|app| app.program.display()).unwrap_or_default()
    }

    fn folder(&self) -> String {
        self.plan.app.as_ref().map(|app| app.folder.display().to_string()).unwrap_or_default()
    }

    fn is_starting(&self) -> bool {
        matches!(self.publish.borrow().phase, Phase::Starting)
    }

    fn enter(&self, phase: Phase) {
        let app_pid = self.app.as_ref().map(App::pid);
        self.publish.send_modify(|status| {
            status.phase = phase;
            status.since = jiff::Timestamp::now().as_second();
            status.since_instant = Instant::now();
            status.app_pid = app_pid;
        });
    }
}

/// What attestation needs of a plan.
fn attested_plan(plan: &Plan) -> sidecar::Plan {
    sidecar::Plan {
        role: plan.role,
        service: plan.service.clone(),
        workload: plan.workload.clone(),
        version: None,
        zone: None,
        app: None,
        upstreams: Vec::new(),
        https: None,
        health: HealthFile::default(),
        capture: Mode::None,
        publish: None,
    }
}

async fn sidecar_ended(sidecar: &mut Option<Sidecar>) {
    match sidecar {
        Some(sidecar) => {
            sidecar.ended().await;
        }
        None => std::future::pending().await,
    }
}

async fn app_ended(app: &mut Option<App>) -> u8 {
    match app {
        Some(app) => app.ended().await,
        None => std::future::pending().await,
    }
}
