//! A project with a Compose file, and the docker that its containers come from.

use std::time::Duration;

use hms_testkit::mesh::{Mesh, Said};
use hms_testkit::{binaries, wait};
use serde_json::{Value, json};

/// How long anything may take.
pub(crate) const SOON: Duration = Duration::from_secs(45);
/// Adds two numbers of the path, and tells what it heard.
const APP: &str = r#"
import http.server, json, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        numbers = [int(part) for part in self.path.split("/") if part.isdigit()]
        body = json.dumps({"sum": sum(numbers), "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("0.0.0.0", int(sys.argv[1])), Handler).serve_forever()
"#;

/// The project.
pub(crate) struct Stage {
    pub(crate) mesh: Mesh,
    /// Whether containers are an engine's.
    pub(crate) engine: bool,
}

impl Stage {
    /// A project in this folder, with this image.
    pub(crate) fn write(mesh: Mesh, image: &str, engine: bool) -> Self {
        let app = |port: &str| {
            json!({"image": image, "command": ["/usr/bin/python3", "-u", "/app/app.py", port], "volumes": [".:/app:ro"],
                   "stop_grace_period": "1s"})
        };
        let mut calc = app("8000");
        calc["expose"] = json!(["8000"]);
        calc["x-hms"] = json!({"routes": ["GET /sum/{a}/{b}"]});
        let mut caller = app("9000");
        caller["ports"] = json!(["127.0.0.1:0:9000"]);
        let file = json!({"x-hms": {"image": image}, "services": {"calc-svc": calc, "caller": caller}});
        mesh.write("compose.yaml", serde_json::to_string_pretty(&file).unwrap());
        mesh.write("app.py", APP);
        Self { mesh, engine }
    }

    /// Everything; what was shown.
    pub(crate) async fn up(&self) -> String {
        self.mesh.hms(&["up", "-f", "compose.yaml", "-d", "--wait", "--ports", "auto"]).await
    }

    /// Nothing is left of it.
    pub(crate) async fn down(&self) {
        let _said = self.mesh.hms(&["down"]).await;
        self.mesh.until_nothing_runs().await;
    }

    /// Runs a program beside `caller`.
    pub(crate) async fn exec(&self, words: &[&str]) -> Said {
        self.mesh.try_hms(&[&["exec", "caller", "--"], words].concat()).await
    }

    /// The status and the body that `caller` gets of the sum of 2 and 3.
    pub(crate) async fn curl(&self, more: &[&str]) -> String {
        // Given twice, the later one counts.
        let words = ["curl", "-sS", "-m", "15", "-i", "-w", "\n%{http_code}", "http://calc-svc/sum/2/3"];
        let said = self.exec(&[&words[..], more].concat()).await;
        let (body, status) = said.out.rsplit_once('\n').unwrap_or(("", &said.err));
        format!("{status} {body}{}", said.err)
    }

    /// Waits until that has this status; the answer.
    pub(crate) async fn until(&self, status: &str) -> String {
        wait::until(&format!("calc-svc answers {status}"), SOON, || async {
            let answer = self.curl(&[]).await;
            if answer.starts_with(status) { Ok(answer) } else { Err(answer) }
        })
        .await
    }

    /// What `hms status` says of a service's container.
    pub(crate) async fn unit(&self, service: &str) -> Value {
        let status = self.mesh.hms_json(&["status"]).await;
        let units = status["units"].as_array().cloned().unwrap_or_default();
        units.into_iter().find(|unit| unit["service"] == service).unwrap_or_default()
    }

    /// Waits until it says so.
    pub(crate) async fn until_phase(&self, service: &str, phase: &str) {
        wait::until(&format!("{service} is {phase}"), SOON, || async {
            let unit = self.unit(service).await;
            if unit["phase"] == phase { Ok(()) } else { Err(unit.to_string()) }
        })
        .await;
    }

    /// `docker stop`, as a person types it.
    pub(crate) async fn docker_stop(&self, service: &str) {
        let unit = self.unit(service).await;
        let number = unit["container"].as_str().unwrap();
        let name = if self.engine { number } else { service };
        let _name = self.docker(&["stop", name]).await;
    }

    /// Runs docker.
    pub(crate) async fn docker(&self, words: &[&str]) -> String {
        let mut command = self.mesh.command("docker");
        command.args(words);
        let said = self.mesh.run(command).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.out
    }
}

impl Drop for Stage {
    /// A test that failed leaves containers, which only docker ends.
    fn drop(&mut self) {
        if std::thread::panicking() {
            let down = std::process::Command::new(binaries::hms())
                .args(["--project"])
                .arg(self.mesh.project())
                .arg("down")
                .envs(self.mesh.command("true").as_std().get_envs().filter_map(|(name, value)| Some((name, value?))))
                .output();
            drop(down);
        }
    }
}
