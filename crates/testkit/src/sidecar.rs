//! A proxy that the test owns, in front of a workload that the test owns.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use crate::client::Http;
use crate::mesh::Mesh;
use crate::processes::Process;
use crate::{binaries, wait};

/// What a proxy should be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The program; the debug build unless a test measures the release build.
    pub program: PathBuf,
    /// `sidecar`, `gateway` or `egress`.
    pub role: &'static str,
    /// The service.
    pub service: String,
    /// Unique within the service.
    pub workload: String,
    /// Where the application listens; none for a client.
    pub app: Option<SocketAddr>,
    /// Services that get a listener of their own.
    pub upstreams: Vec<String>,
    /// Where other proxies connect.
    pub inbound: SocketAddr,
    /// How many files the process may have open; none for what the test itself may.
    pub descriptors: Option<u64>,
    /// Further arguments.
    pub arguments: Vec<String>,
}

impl Plan {
    /// A sidecar before an application.
    pub fn of(service: &str, app: SocketAddr) -> Self {
        Self { app: Some(app), ..Self::client(service) }
    }

    /// A sidecar of a program that only calls.
    pub fn client(service: &str) -> Self {
        Self {
            program: binaries::hms_proxy(),
            role: "sidecar",
            service: service.to_owned(),
            workload: "1".to_owned(),
            app: None,
            upstreams: Vec::new(),
            inbound: SocketAddr::from(([127, 0, 0, 1], 0)),
            descriptors: None,
            arguments: Vec::new(),
        }
    }

    /// A gateway.
    pub fn gateway() -> Self {
        Self { role: "gateway", ..Self::client("gateway.hms-system") }
    }

    /// An egress gateway.
    pub fn egress() -> Self {
        Self { role: "egress", ..Self::client("egress.hms-system") }
    }

    /// The same as another workload of the service.
    #[must_use]
    pub fn workload(mut self, workload: &str) -> Self {
        workload.clone_into(&mut self.workload);
        self
    }
}

impl Plan {
    /// Starts a process of this proxy.
    fn spawn(&self, mesh: &Mesh, trust_domain: &str, folder: &Path) -> Process {
        let socket = mesh.run_dir().join("control.sock");
        let mut command = match self.descriptors {
            None => mesh.command(&self.program),
            Some(most) => {
                // It becomes the program, so the process is the proxy's.
                let mut limited = mesh.command("prlimit");
                limited.arg(format!("--nofile={most}:{most}")).arg(&self.program);
                limited
            }
        };
        command
            .args(["--role", self.role, "--service", &self.service, "--trust-domain", trust_domain])
            .args(["--workload-id", &self.workload, "--access-log", "-", "--drain", "5"])
            .args(["--control", &format!("unix:{}", socket.display())])
            .args(["--inbound", &self.inbound.to_string()])
            .args(&self.arguments)
            .arg("--runtime-dir")
            .arg(folder);
        command.args(["--app", &self.app.map_or_else(|| "none".to_owned(), |address| address.to_string())]);
        if self.role == "gateway" {
            command.args(["--https", "127.0.0.1:0"]);
        }
        for upstream in &self.upstreams {
            command.args(["--upstream", &format!("{upstream}=127.0.0.1:0")]);
        }
        Process::start(command, mesh.root().join(format!("proxy-{}-{}.log", self.service, self.workload)))
    }
}

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// Its process.
    pub process: Process,
    /// What it was asked to be.
    pub plan: Plan,
    /// Its private folder.
    pub folder: PathBuf,
    /// What it wrote into `ports.json`.
    pub ports: Value,
}

impl Proxy {
    /// Starts a proxy and attests it; returns when it listens.
    pub async fn start(mesh: &Mesh, plan: Plan) -> Self {
        let trust_domain = mesh.rest().get("/v1/summary").await["trust_domain"].as_str().unwrap().to_owned();
        let proxy = Box::pin(Self::start_unattested(mesh, plan, &trust_domain)).await;
        proxy.attest(mesh).await;
        proxy
    }

    /// Starts a proxy that no control plane knows of; returns when it listens.
    pub async fn start_unattested(mesh: &Mesh, plan: Plan, trust_domain: &str) -> Self {
        let folder = mesh.root().join("p").join(format!("{}-{}", plan.service, plan.workload));
        private_folder(&folder);
        let ports_file = folder.join("ports.json");
        let _absent_is_fine = std::fs::remove_file(&ports_file).is_ok();
        let process = plan.spawn(mesh, trust_domain, &folder);
        let mut proxy = Self { process, plan, folder, ports: Value::Null };
        proxy.until_listening().await;
        proxy
    }

    /// Starts another process of the same proxy, which takes over the listeners of the running one. Returns the old process, which
    /// finishes what it has and ends.
    pub async fn restart(&mut self, mesh: &Mesh) -> Process {
        let trust_domain = mesh.rest().get("/v1/summary").await["trust_domain"].as_str().unwrap().to_owned();
        let process = self.plan.spawn(mesh, &trust_domain, &self.folder);
        let old = std::mem::replace(&mut self.process, process);
        self.attest(mesh).await;
        self.until_listening().await;
        old
    }

    async fn until_listening(&mut self) {
        let ports_file = self.folder.join("ports.json");
        let process = &mut self.process;
        self.ports = wait::until("the proxy listens", Duration::from_secs(10), || {
            let text = std::fs::read_to_string(&ports_file).unwrap_or_default();
            let ports = serde_json::from_str::<Value>(&text).ok().filter(|ports| ports["pid"] == process.pid());
            let ports = ports.ok_or_else(|| process.output());
            let alive = process.is_running();
            std::future::ready(if alive { ports } else { Err(format!("it ended: {}", process.output())) })
        })
        .await;
    }

    /// Tells the control plane what this process is.
    pub async fn attest(&self, mesh: &Mesh) {
        let service = if self.plan.service.contains('.') {
            self.plan.service.clone()
        } else {
            format!("{}.default", self.plan.service)
        };
        let body = json!({"process_id": self.process.pid(), "service": service, "role": self.plan.role});
        let _nothing = mesh.rest().post("/v1/attestations", &body).await;
    }

    /// One of its addresses: `inbound`, `outbound`, `admin`, `https`.
    pub fn address(&self, name: &str) -> SocketAddr {
        let text = self.ports[name].as_str().unwrap_or_else(|| panic!("no {name} in {}", self.ports));
        text.parse().unwrap()
    }

    /// A client that calls `service` as the application of this proxy would through `HTTP_PROXY`.
    pub fn caller(&self, service: &str) -> Http {
        Http::through(self.address("outbound"), service)
    }

    /// Its metrics page.
    pub async fn metrics(&self) -> Metrics {
        let answer = Http::plain(self.address("admin")).get("/metrics").await.unwrap();
        Metrics(answer.text())
    }

    /// Waits until it says it is ready.
    pub async fn until_ready(&self) {
        let admin = Http::plain(self.address("admin"));
        wait::until(&format!("the proxy of {} is ready", self.plan.service), Duration::from_secs(20), || async {
            let answer = admin.get("/ready").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{}\n{}", answer.text(), self.process.output())) }
        })
        .await;
    }

    /// Waits until calls to `service` arrive, that is, until its route and an endpoint are known here.
    pub async fn until_reaches(&self, service: &str, path: &str) {
        self.until_reaches_within(service, path, Duration::from_secs(20)).await;
    }

    /// The same with a deadline of the caller's choice.
    pub async fn until_reaches_within(&self, service: &str, path: &str, limit: Duration) {
        let caller = self.caller(service);
        wait::until(&format!("{} reaches {service}", self.plan.service), limit, || async {
            let answer = caller.get(path).await?;
            if answer.status < 400 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        })
        .await;
    }
}

/// A page in the Prometheus text format.
#[derive(Debug, Clone)]
pub struct Metrics(String);

impl Metrics {
    /// A page that was read elsewhere.
    pub fn of(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of a family whose labels contain every one of `labels`.
    pub fn sum(&self, family: &str, labels: &[&str]) -> f64 {
        let lines = self.0.lines().filter(|line| {
            let rest = line.strip_prefix(family);
            rest.is_some_and(|rest| rest.starts_with(['{', ' '])) && labels.iter().all(|label| line.contains(label))
        });
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The page.
    pub fn text(&self) -> &str {
        &self.0
    }
}

fn private_folder(path: &Path) {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).unwrap();
}
