//! The file that joins the services of a Compose file to the mesh (`docker compose -f compose.yaml -f THIS`, Compose 2.24 or later).

use std::fmt::Write as _;

use super::written::{literal, quoted};
use super::{ComposeFile, Container, MOVED, Membership, SIDECAR};
use crate::mesh_yaml::{MeshFile, ServiceFile};

/// The image in which sidecars run unless the file names another: a C library, and nothing of ours.
const IMAGE: &str = "debian:12-slim";
/// Where other proxies find a sidecar.
const INBOUND: u16 = 15006;
/// Where it serves health and metrics, on its loopback alone.
const ADMIN: u16 = 15020;
/// Asks the sidecar whether it is ready, with what every image of Debian has.
const READY: &str = "exec 3<>/dev/tcp/127.0.0.1/15020 && \
                     printf 'GET /ready HTTP/1.1\\r\\nhost: localhost\\r\\nconnection: close\\r\\n\\r\\n' >&3 && read -r _ status _ <&3 && \
                     test $$status = 200";

/// What sidecars are told of the mesh they join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// The proxy's program on the host.
    pub proxy: String,
    /// The folder on the host that holds a folder per service: its token, the roots, and what it keeps.
    pub folder: String,
    /// Where containers reach the control plane, `IP:PORT`.
    pub control: String,
    /// The mesh's trust domain.
    pub trust_domain: String,
    /// The network that all sidecars share with the control plane, by the engine's name for it.
    pub network: String,
    /// Whose the folders are.
    pub user: u32,
}

impl ComposeFile {
    /// The override. It is the same text whenever the files and `joining` are the same.
    pub fn overriding(&self, mesh: &MeshFile, joining: &Joining) -> String {
        let mut out = String::from(
            "# Made by `hms up -f`, which writes it again at every start: it joins the containers to the mesh.\n\
             # By hand: docker compose -f YOUR-FILE -f THIS-FILE …, while the mesh is up. docs/guide/compose.md\n",
        );
        // Writing to a String cannot fail; so everywhere below.
        let _ =
            write!(out, "networks:\n  hms-mesh: {{name: {}, external: true}}\nservices:\n", literal(&joining.network));
        for container in &self.containers {
            application(&mut out, container);
            self.sidecar(&mut out, container, mesh.services.get(&container.name), joining);
        }
        out
    }

    /// The container that owns the network.
    fn sidecar(&self, out: &mut String, container: &Container, service: Option<&ServiceFile>, joining: &Joining) {
        let name = container.name.name();
        let folder = format!("{}/{name}", joining.folder);
        let _ = write!(
            out,
            "  {name}{SIDECAR}:\n    image: {}\n    entrypoint: [\"/hms/hms-proxy\"]\n    command:\n",
            self.image.as_deref().map_or_else(|| literal(IMAGE), quoted)
        );
        for word in arguments(container, service, joining) {
            let _ = writeln!(out, "      - {}", literal(&word));
        }
        let _ = write!(
            out,
            "    user: \"0:0\"\n    cap_drop: [ALL]\n    cap_add: [NET_ADMIN, SETGID, SETUID]\n    \
             security_opt: [\"no-new-privileges:true\"]\n    read_only: true\n    restart: unless-stopped\n    \
             stop_grace_period: 8s\n    volumes:\n      - {{type: bind, source: {}, target: /hms/hms-proxy, read_only: true, \
             bind: {{create_host_path: false}}}}\n      - {{type: bind, source: {}, target: /run/hms, \
             bind: {{create_host_path: false}}}}\n",
            literal(&joining.proxy),
            literal(&folder),
        );
        let _ = writeln!(
            out,
            "    healthcheck: {{test: [\"CMD\", \"bash\", \"-c\", {}], interval: 1s, timeout: 3s, retries: 60}}",
            quoted(READY)
        );
        if let Some(profiles) = &container.network.profiles {
            let _ = writeln!(out, "    profiles: {profiles}");
        }
        if !container.network.moved.iter().any(|(key, _)| *key == "hostname") {
            let _ = writeln!(out, "    hostname: {}", quoted(name));
        }
        let elsewhere = ["networks", "network_mode", "expose"];
        for (key, value) in container.network.moved.iter().filter(|(key, _)| !elsewhere.contains(key)) {
            let _ = writeln!(out, "    {key}: {value}");
        }
        networks(out, container);
    }
}

/// The application: its network is its sidecar's, and it starts when that is ready.
fn application(out: &mut String, container: &Container) {
    let name = container.name.name();
    let sidecar = quoted(&format!("service:{name}{SIDECAR}"));
    let _ = write!(
        out,
        "  {name}:\n    network_mode: {sidecar}\n    \
         depends_on: {{{name}{SIDECAR}: {{condition: service_healthy, restart: true}}}}\n"
    );
    for (key, _) in &container.network.moved {
        if let Some((_, reset)) = MOVED.iter().find(|(moved, reset)| moved == key && !reset.is_empty()) {
            let _ = writeln!(out, "    {key}: {reset}");
        }
    }
}

/// The networks of the service, in which its name stands for its sidecar, and the mesh's.
fn networks(out: &mut String, container: &Container) {
    let name = container.name.name();
    out.push_str("    networks:\n");
    for Membership { name: network, said } in &container.network.joined {
        let mut aliases = format!("[{}]", quoted(name));
        let mut keys = String::new();
        for (key, value) in said {
            match value.strip_prefix('[').filter(|_| key == "aliases").filter(|rest| *rest != "]") {
                Some(rest) => aliases = format!("[{}, {rest}", quoted(name)),
                None if key == "aliases" => {}
                None => {
                    let _ = write!(keys, ", {}: {value}", quoted(key));
                }
            }
        }
        let _ = writeln!(out, "      {}: {{aliases: {aliases}{keys}}}", quoted(network));
    }
    out.push_str("      hms-mesh: {}\n");
}

/// The sidecar's command line.
fn arguments(container: &Container, service: Option<&ServiceFile>, joining: &Joining) -> Vec<String> {
    let name = &container.name;
    let version = service.and_then(|service| service.version.as_deref());
    let mut pairs = vec![
        ("--service", format!("{}.{}", name.name(), name.namespace())),
        ("--workload-id", version.map_or_else(|| "1".to_owned(), |version| format!("{version}-1"))),
        ("--control", format!("https://{}", joining.control)),
        ("--bundle", "/run/hms/roots.pem".to_owned()),
        ("--join-token-file", "/run/hms/token".to_owned()),
        ("--trust-domain", joining.trust_domain.clone()),
        ("--runtime-dir", "/run/hms/state".to_owned()),
        ("--inbound", format!("0.0.0.0:{INBOUND}")),
        ("--admin", format!("127.0.0.1:{ADMIN}")),
        ("--app", container.port.map_or_else(|| "none".to_owned(), |port| format!("127.0.0.1:{port}"))),
        ("--capture", "joined".to_owned()),
        ("--user", joining.user.to_string()),
        ("--drain", "5".to_owned()),
        ("--access-log", "-".to_owned()),
    ];
    if !container.published.is_empty() {
        let ports: Vec<String> = container.published.iter().map(u16::to_string).collect();
        pairs.push(("--open", ports.join(",")));
    }
    if let Some(version) = version {
        pairs.push(("--workload-version", version.to_owned()));
    }
    if let Some(service) = service {
        pairs.push(("--health-every", service.health.every.as_millis().to_string()));
        if let Some(path) = &service.health.path {
            pairs.push(("--health-path", path.clone()));
        }
        if let Some(zone) = &service.zone {
            pairs.push(("--zone", zone.clone()));
        }
    }
    pairs.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
}
