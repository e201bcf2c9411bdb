//! A docker program without an engine.

use std::os::unix::fs::PermissionsExt as _;

use hms_testkit::mesh::{Mesh, Said};
use hms_testkit::processes::Process;
use serde_json::{Value, json};
use tokio::process::Command;

use super::stage::Stage;

const DOCKER: &str = include_str!("docker.py");
/// The cable of the first container.
pub(crate) const CABLE: &str = "v10";

impl Stage {
    /// With a docker program that has no engine.
    pub(crate) fn new() -> Self {
        let mut mesh = Mesh::new();
        let folder = mesh.root().join("bin");
        std::fs::create_dir(&folder).unwrap();
        let program = folder.join("docker");
        std::fs::write(&program, DOCKER).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        mesh.search_first(&folder);
        Self::write(mesh, "none", false)
    }

    /// Nothing is left, in the engine neither.
    pub(crate) async fn all_down(&self) {
        self.down().await;
        assert_eq!(self.state(), json!({"networks": [], "containers": {}}));
    }

    /// What the docker without an engine remembers.
    fn state(&self) -> Value {
        let path = self.mesh.root().join("bin/engine/state.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    /// One of its containers.
    pub(crate) fn container(&self, name: &str) -> Value {
        self.state()["containers"][name].clone()
    }

    /// Runs a program in the network of one.
    pub(crate) async fn in_container(&self, container: &Value, words: &[&str]) -> Said {
        let mut command = self.mesh.command("docker");
        let number = format!("{:0<64}", "caller");
        assert_eq!(container["address"], self.container("caller")["address"]);
        command.args(["exec", "-i", &number]).args(words);
        self.mesh.run(command).await
    }

    /// How curl ends that dials a container's port from the host.
    pub(crate) async fn raw(&self, container: &Value, port: u16) -> i32 {
        let mut command = self.mesh.command("curl");
        let address = container["address"].as_str().unwrap();
        command.args(["-sS", "-m", "10", &format!("http://{address}:{port}/sum/1/1")]);
        self.mesh.run(command).await.code
    }

    /// The host's resolver, which knows one name.
    pub(crate) fn host_names(&self) -> Process {
        let mut command: Command = self.mesh.command("dnsmasq");
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--no-hosts", "--no-resolv", "--port=53"]);
        command.args(["--user=root", "--group=root", "--local=/#/", "--host-record=www.example.test,192.0.2.80"]);
        command.arg("--pid-file=");
        Process::start(command, self.mesh.root().join("host-names.log"))
    }
}
