//! What a sidecar in a container needs from this machine: a private folder with a token and the roots, and the override that tells
//! Compose of it.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use hms_formats::compose::Joining;
use serde::Deserialize;
use serde_json::json;

use super::Plan;
use crate::client::Client;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::laptop::sidecar::find_program;
use crate::project::{Project, private_dir, write_file};
use crate::settings::Settings;

/// The folder of the project that holds what is made for other programs.
const MADE: &str = ".hms";
/// The override in it.
const OVERRIDE: &str = "compose.override.yaml";

/// What containers are told of the mesh.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'f> {
    /// The proxy's program.
    pub(crate) proxy: &'f Path,
    /// Where the control plane takes proxies, `IP:PORT`.
    pub(crate) control: &'f str,
    /// The supervisor's lifeline.
    pub(crate) lifeline: &'f Path,
    /// The mesh's trust domain.
    pub(crate) trust_domain: &'f str,
}

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// The engine's name for the network that a project's sidecars share with its control plane.
pub(crate) fn network_name(project: &Project) -> String {
    format!("hms-{}", project.id)
}

/// The folder with a folder per sidecar.
pub(super) fn folder(project: &Project) -> PathBuf {
    project.run.join("containers")
}

fn joining(project: &Project, facts: Facts<'_>) -> Joining {
    Joining {
        proxy: facts.proxy.display().to_string(),
        folder: folder(project).display().to_string(),
        control: facts.control.to_owned(),
        trust_domain: facts.trust_domain.to_owned(),
        network: network_name(project),
        user: nix::unistd::geteuid().as_raw(),
    }
}

/// The override as it would be, where nothing runs: what only a running mesh knows is a variable.
pub(crate) fn dry_run(settings: &Settings, project: &Project, plan: &Plan) -> Result<String, Failure> {
    let proxy = find_program(settings)?;
    let (control, trust_domain) = ("CONTROL", "TRUST-DOMAIN");
    let facts = Facts { proxy: &proxy, lifeline: Path::new(""), control, trust_domain };
    Ok(plan.compose.overriding(&plan.mesh, &joining(project, facts)))
}

/// Makes the folders and the override; the path of the override.
pub(super) async fn join(
    project: &Project,
    client: &Client,
    plan: &Plan,
    facts: Facts<'_>,
) -> Result<PathBuf, Failure> {
    reachable(project, facts)?;
    let root = client.text("/v1/ca/root").await?;
    for container in &plan.compose.containers {
        let own = folder(project).join(container.name.name());
        private_dir(&own)?;
        // A certificate that was kept is shown first; the token is for a sidecar without one.
        let service = format!("{}.{}", container.name.name(), container.name.namespace());
        let token: Token = client.post("/v1/join-tokens", &json!({"service": service})).await?;
        write(&own.join("token"), &token.token, false)?;
        write(&own.join("roots.pem"), &root, false)?;
    }
    let made = project.root.join(MADE);
    std::fs::create_dir_all(&made).map_err(|error| crate::project::unreadable(&made, &error))?;
    // Nothing in there is for version control.
    write(&made.join(".gitignore"), "*\n", true)?;
    let path = made.join(OVERRIDE);
    write(&path, &plan.compose.overriding(&plan.mesh, &joining(project, facts)), true)?;
    Ok(path)
}

/// Whether containers can reach the control plane that serves.
fn reachable(project: &Project, facts: Facts<'_>) -> Result<(), Failure> {
    let address = facts.control.parse::<std::net::SocketAddr>();
    if address.is_ok_and(|address| !address.ip().is_loopback()) {
        return Ok(());
    }
    Err(Failure::new(Exit::Conflict, 1404, "containers cannot reach the control plane")
        .at(facts.control.to_owned())
        .because(format!(
            "it was started without them, and listens where only this machine's own processes are: {}",
            project.id
        ))
        .fix("hms down, then hms up -f compose.yaml"))
}

fn write(path: &Path, text: &str, public: bool) -> Result<(), Failure> {
    write_file(path, text, public).map_err(|error| crate::project::unreadable(path, &error))
}

/// Where a control plane listens for containers, if it can.
pub(crate) fn is_local(address: IpAddr) -> bool {
    std::net::TcpListener::bind((address, 0)).is_ok()
}
