//! Starting a proxy, and knowing where it listens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hms_formats::mesh_yaml::HealthFile;
use hms_model::listener::Role;
use hms_model::names::ServiceName;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::OnceCell;

use super::intercept::{Mode, Tried};
use super::journal::{Journal, Source};
use super::ports::loopback;
use crate::client::{Client, ControlRecord};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes::ProcessId;
use crate::project::{Project, private_dir};
use crate::settings::Settings;

/// The proxy's program.
const PROGRAM: &str = "hms-proxy";
/// How long a proxy may take to open its listeners.
const START: Duration = Duration::from_secs(10);
/// How long a proxy may take to finish its requests.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);
/// How long a proxy that was replaced may take to end; it gives itself 15 s.
const REPLACED: Duration = Duration::from_secs(20);
/// How often its port file is looked for.
const POLL: Duration = Duration::from_millis(5);

/// Where a proxy listens, as it writes into `ports.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ports {
    /// For other proxies.
    pub(crate) inbound: Option<SocketAddr>,
    /// For its application.
    pub(crate) outbound: Option<SocketAddr>,
    /// Health and metrics.
    pub(crate) admin: Option<SocketAddr>,
    /// For the outside, at a gateway.
    pub(crate) https: Option<SocketAddr>,
    /// One per upstream service.
    #[serde(default)]
    pub(crate) upstreams: BTreeMap<String, SocketAddr>,
    /// The proxy that wrote it.
    pub(crate) pid: u32,
}

/// What a proxy should be.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Sidecar or gateway.
    pub(crate) role: Role,
    /// Whose proxy it is.
    pub(crate) service: ServiceName,
    /// Its workload, unique within the service.
    pub(crate) workload: String,
    /// The workload's version.
    pub(crate) version: Option<String>,
    /// The workload's failure domain.
    pub(crate) zone: Option<String>,
    /// Where the application listens; none for a client.
    pub(crate) app: Option<SocketAddr>,
    /// Services that get a listener of their own.
    pub(crate) upstreams: Vec<String>,
    /// Where a gateway listens.
    pub(crate) https: Option<SocketAddr>,
    /// When the application counts as healthy.
    pub(crate) health: HealthFile,
    /// How the application is captured.
    pub(crate) capture: Mode,
    /// Where its own port is open on the laptop.
    pub(crate) publish: Option<u16>,
}

/// What every proxy of a supervisor shares.
#[derive(Debug)]
pub(crate) struct Surroundings {
    /// The project.
    pub(crate) project: Project,
    /// The supervisor's settings.
    pub(crate) settings: Settings,
    /// The program.
    pub(crate) program: PathBuf,
    /// The project's trust domain.
    pub(crate) trust_domain: String,
    /// The supervisor's lifeline.
    pub(crate) lifeline: PathBuf,
    /// Where other proxies connect, if some of them are not on this machine's loopback.
    pub(crate) inbound: Option<SocketAddr>,
    /// How programs can be captured here, once that was tried.
    pub(crate) tried: OnceCell<Tried>,
}

/// A running proxy.
#[derive(Debug)]
pub(crate) struct Sidecar {
    child: Child,
    process: ProcessId,
    ports: Ports,
    attested_by: Option<ProcessId>,
}

impl Sidecar {
    /// Starts a proxy and waits until it listens. With `before`, it takes the ports its predecessor had, because the
    /// application knows them.
    pub(crate) async fn start(
        around: &Surroundings,
        plan: &Plan,
        journal: &Journal,
        before: Option<&Ports>,
    ) -> Result<Self, Failure> {
        let runtime = runtime_dir(around, &plan.service, &plan.workload);
        private_dir(&runtime)?;
        let ports_file = runtime.join("ports.json");
        // What a predecessor wrote would be read as this one's.
        drop(std::fs::remove_file(&ports_file));
        let mut child = command(around, plan, &runtime, before).spawn().map_err(|error| {
            Failure::new(Exit::Failed, 1105, format!("cannot start the proxy of {}", plan.service))
                .at(around.program.display().to_string())
                .because(error.to_string())
        })?;
        let pid = child.id().unwrap_or_default();
        if let Some(stdout) = child.stdout.take() {
            journal.follow(Source::Proxy, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            journal.follow(Source::Proxy, stderr);
        }
        let process = ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 });
        let mut attested_by = None;
        attest(around, plan, process, &mut attested_by).await;
        let ports = tokio::select! {
            ports = wait_for_ports(&ports_file, pid) => ports,
            status = child.wait() => Err(ended(status.ok())),
        };
        match ports {
            Ok(ports) => Ok(Self { child, process, ports, attested_by }),
            Err(why) => {
                // A proxy without listeners is of no use to anybody.
                drop(child.kill().await);
                Err(Failure::new(Exit::Failed, 1105, format!("the proxy of {} did not start", plan.service))
                    .because(why)
                    .fix(format!("tail {}", journal.path().display())))
            }
        }
    }

    /// Where it listens.
    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    /// Its process.
    pub(crate) fn process(&self) -> ProcessId {
        self.process
    }

    /// Waits until it ends. Safe to drop and call again.
    pub(crate) async fn ended(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Tells the control plane what this process is, once per control plane: a new one knows nothing of its predecessor's
    /// attestations.
    pub(crate) async fn attest(&mut self, around: &Surroundings, plan: &Plan) {
        attest(around, plan, self.process, &mut self.attested_by).await;
    }

    /// A successor has its listeners: waits until it has finished what it had and ended.
    pub(crate) async fn finished(mut self) {
        if tokio::time::timeout(REPLACED, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.process.pid, "a proxy that was replaced did not end by itself");
            self.stop().await;
        }
    }

    /// Finishes its requests, at most [`DRAIN`], then ends.
    pub(crate) async fn stop(&mut self) {
        self.process.signal(Signal::SIGTERM);
        // It has its own, equal limit; the second is for getting there.
        if tokio::time::timeout(DRAIN + Duration::from_secs(1), self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.process.pid, "proxy did not drain in time; killed");
            drop(self.child.kill().await);
        }
    }
}

/// The private folder of a proxy.
pub(crate) fn runtime_dir(around: &Surroundings, service: &ServiceName, workload: &str) -> PathBuf {
    around.project.proxies_dir().join(folder_name(service, workload))
}

/// Its name.
pub(crate) fn folder_name(service: &ServiceName, workload: &str) -> String {
    format!("{service}-{workload}")
}

fn command(around: &Surroundings, plan: &Plan, runtime: &Path, before: Option<&Ports>) -> Command {
    let mut command = Command::new(&around.program);
    let unix = format!("unix:{}", around.project.control_socket().display());
    command
        .args(["--role", plan.role.as_str()])
        .args(["--service", &qualified(&plan.service)])
        .args(["--control", &unix, "--trust-domain", &around.trust_domain])
        .args(["--drain", &DRAIN.as_secs().to_string()])
        .args(["--workload-id", &plan.workload])
        .args(["--access-log", "-"])
        .arg("--runtime-dir")
        .arg(runtime)
        .arg("--lifeline")
        .arg(&around.lifeline)
        .args(["--app", &plan.app.map_or_else(|| "none".to_owned(), |address| address.to_string())]);
    if let Some(version) = &plan.version {
        command.args(["--workload-version", version]);
    }
    if let Some(zone) = &plan.zone {
        command.args(["--zone", zone]);
    }
    command.args(["--health-every", &plan.health.every.as_millis().to_string()]);
    if let Some(path) = &plan.health.path {
        command.args(["--health-path", path]);
    }
    if plan.capture.is_transparent() {
        command.args(["--capture", plan.capture.as_str()]);
    }
    if let Some(port) = plan.publish {
        command.args(["--publish", &loopback(port).to_string()]);
    }
    for service in &plan.upstreams {
        let address = before.and_then(|ports| ports.upstreams.get(service));
        let address = address.map_or_else(|| "127.0.0.1:0".to_owned(), SocketAddr::to_string);
        command.args(["--upstream", &format!("{service}={address}")]);
    }
    let fixed = [
        ("--inbound", before.and_then(|ports| ports.inbound).or(around.inbound)),
        ("--outbound", before.and_then(|ports| ports.outbound)),
        ("--admin", before.and_then(|ports| ports.admin)),
        ("--https", before.and_then(|ports| ports.https).or(plan.https)),
    ];
    for (flag, address) in fixed {
        if let Some(address) = address {
            command.args([flag, &address.to_string()]);
        }
    }
    // A group of its own, so keys of the terminal reach the supervisor only; its end is the lifeline's business.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    command
}

/// `NAME.NAMESPACE`, also for the default namespace.
fn qualified(service: &ServiceName) -> String {
    format!("{}.{}", service.name(), service.namespace())
}

async fn wait_for_ports(file: &Path, pid: u32) -> Result<Ports, String> {
    let wait = async {
        loop {
            let text = tokio::fs::read_to_string(file).await.unwrap_or_default();
            if let Ok(ports) = serde_json::from_str::<Ports>(&text)
                && ports.pid == pid
            {
                return ports;
            }
            tokio::time::sleep(POLL).await;
        }
    };
    tokio::time::timeout(START, wait).await.map_err(|_elapsed| format!("no listeners after {} s", START.as_secs()))
}

fn ended(status: Option<ExitStatus>) -> String {
    status.map_or_else(|| "it ended".to_owned(), |status| format!("it ended: {status}"))
}

async fn attest(around: &Surroundings, plan: &Plan, process: ProcessId, attested_by: &mut Option<ProcessId>) {
    let Some(control) = ControlRecord::read(&around.project) else { return };
    if *attested_by == Some(control.process) {
        return;
    }
    let client = Client::new(control.rest, &around.project, around.settings.timeout);
    let body = json!({"process_id": process.pid, "service": qualified(&plan.service), "role": plan.role.as_str()});
    match client.post::<serde_json::Value>("/v1/attestations", &body).await {
        Ok(_) => *attested_by = Some(control.process),
        Err(failure) => {
            tracing::warn!(service = %plan.service, %failure, why = failure.why(), "attestation failed; tried again");
        }
    }
}

/// The proxy's program: beside this one, then on `PATH`.
pub(crate) fn find_program(settings: &Settings) -> Result<PathBuf, Failure> {
    let own = std::env::current_exe().ok();
    let beside = own.as_deref().and_then(Path::parent).map(Path::to_path_buf);
    beside
        .into_iter()
        .chain(settings.search_path())
        .map(|folder| folder.join(PROGRAM))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Failure::new(Exit::Failed, 1007, format!("{PROGRAM} is not installed"))
                .because("it is neither beside hms nor on PATH")
                .fix("cargo build -p hms-proxy   # or install it beside hms")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_file_of_a_proxy_is_read() {
        let text = r#"{"inbound":"127.0.0.1:1","outbound":"127.0.0.1:2","admin":"127.0.0.1:3","https":null,
            "upstreams":{"calc-svc":"127.0.0.1:4"},"pid":7}"#;
        let ports: Ports = serde_json::from_str(text).unwrap();
        assert_eq!(ports.upstreams["calc-svc"].port(), 4);
        assert_eq!((ports.https, ports.pid), (None, 7));
    }

    #[test]
    fn names_are_sent_with_their_namespace() {
        assert_eq!(qualified(&ServiceName::new("calc-svc").unwrap()), "calc-svc.default");
    }
}
