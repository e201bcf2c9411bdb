//! Our mesh as a user has it: `hms up` over a project of its own, in folders of its own, on free ports.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::bed::{Entry, Fresh, Hop, Place, Role};
use super::children::{Program, end, finish, until};
use super::interrupt::Interrupt;
use super::kernel::{self, Seen};
use super::options::Programs;
use crate::clock::now;
use crate::tool::exchange::{get, once};
use crate::{Outcome, settings};

/// How long anything may take to be there.
const PATIENCE: Duration = Duration::from_mins(1);
/// How long everything may take to end.
const FAREWELL: Duration = Duration::from_secs(15);
const PROJECT: &str = "bench";
/// How the ids of further proxies end.
const FRESH: &str = "-fresh";

/// A running mesh: a caller, a service, a gRPC service, and a service without a proxy.
pub(crate) struct Mesh {
    root: TempDir,
    /// An application in our own network, for proxies that nobody captures for.
    backend: SocketAddr,
    logged: bool,
    sidecars: Vec<Sidecar>,
}

/// A proxy that `hms up` started.
struct Sidecar {
    service: &'static str,
    process: Seen,
    folder: PathBuf,
    ports: Value,
}

impl Mesh {
    /// Starts it. `logged` is how the product does it: an access log line per request.
    pub(crate) fn up(programs: &Programs, backend: SocketAddr, logged: bool, interrupt: &Interrupt) -> Outcome<Self> {
        // Short, because paths of sockets are.
        let root = tempfile::Builder::new().prefix("hmsb-").tempdir_in("/tmp").map_err(|error| error.to_string())?;
        let mut mesh = Self { root, backend, logged, sidecars: Vec::new() };
        mesh.install(programs)?;
        let mut up = mesh.command(&mesh.root.path().join("bin/hms"));
        finish(up.args(["up", "-d", "--wait", "--ports", "auto"]), PATIENCE, interrupt)?;
        let endpoint = json!({"host": "127.0.0.1", "port": backend.port()});
        mesh.post("/v1/services/plain-svc/endpoints", &endpoint)?;
        for service in ["caller-svc", "bench-svc", "grpc-svc", "sink-svc"] {
            let sidecar = until(service, PATIENCE, interrupt, || mesh.find(service))?;
            mesh.sidecars.push(sidecar);
        }
        for hop in [Hop::Plain, Hop::Pair] {
            if let Some(place) = mesh.place(hop)? {
                until("a call through our proxies", PATIENCE, interrupt, || answers(place.address))?;
            }
        }
        Ok(mesh)
    }

    /// Where load for this way through the mesh goes, and which proxies serve it.
    pub(crate) fn place(&self, hop: Hop) -> Outcome<Option<Place>> {
        let (service, other) = match hop {
            Hop::Plain => ("plain-svc", None),
            Hop::Pair | Hop::PairHttp2 | Hop::Captured => ("bench-svc", Some("bench-svc")),
            Hop::PairGrpc => ("grpc-svc", Some("grpc-svc")),
            Hop::Opaque => ("sink-svc", Some("sink-svc")),
        };
        let caller = self.sidecar("caller-svc")?;
        let address = address(&caller.ports, &["upstreams", service])?;
        let mut pids = vec![caller.process.pid];
        if let Some(other) = other {
            pids.push(self.sidecar(other)?.process.pid);
        }
        if hop == Hop::Captured {
            let entry = self.beside(caller.service)?;
            return Ok(Some(Place { address: dialled(service, &entry)?, pids, entry: Some(entry) }));
        }
        Ok(Some(Place { address, pids, entry: None }))
    }

    /// Where a program runs that is captured like that of `service`.
    fn beside(&self, service: &str) -> Outcome<Entry> {
        let hms = self.root.path().join("bin/hms");
        let command = self.command(&hms);
        let set = |(name, value): (&OsStr, Option<&OsStr>)| Some((name.to_owned(), value?.to_owned()));
        let words = ["exec", service, "--"].map(OsString::from);
        Ok(Entry {
            words: words.to_vec(),
            runner: hms,
            environment: command.get_envs().filter_map(set).collect(),
            folder: command.get_current_dir().ok_or("a mesh has a folder")?.to_owned(),
        })
    }

    /// The folder with the caller's certificate and key.
    pub(crate) fn identity(&self) -> Outcome<PathBuf> {
        Ok(self.sidecar("caller-svc")?.folder.clone())
    }

    /// One more proxy, started with the flags that `hms up` gave the first; returns when it has served a request.
    pub(crate) fn fresh(&self, role: Role, interrupt: &Interrupt) -> Outcome<Fresh> {
        let model = self.sidecar(model(role))?;
        let folder = self.root.path().join("fresh");
        let _absent_is_fine = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).map_err(|error| error.to_string())?;
        let mut command = self.command(&self.root.path().join("bin/hms-proxy"));
        command.args(renamed(model.process.words.get(1..).unwrap_or_default(), &folder, self.backend));
        let service = model.process.after("--service").unwrap_or_default().to_owned();
        let begin = now();
        let mut program = Program::start(&mut command, &self.root.path().join("fresh.log"))?;
        let attestation = json!({"process_id": program.pid(), "service": service, "role": "sidecar"});
        self.post("/v1/attestations", &attestation)?;
        let file = folder.join("ports.json");
        let ports = until("a new proxy listens", PATIENCE, interrupt, || {
            program.lives()?;
            record(&file)
        })?;
        let place = match role {
            Role::Plain => address(&ports, &["upstreams", "plain-svc"])?,
            Role::Inbound => address(&ports, &["inbound"])?,
        };
        let served = self.serves(role, place, begin, interrupt)?;
        let place = Place { address: place, pids: program.family(), entry: None };
        Ok(Fresh { place, started: served, program })
    }

    /// Has the mesh forget such a proxy at once, after its end: it would be called until its lease runs out.
    pub(crate) fn forget(&self, role: Role, interrupt: &Interrupt) -> Outcome {
        let path = format!("/v1/services/{}", model(role));
        until("a proxy is forgotten", PATIENCE, interrupt, || {
            let view = self.ask("GET", &path, None)?;
            let ids = view.get("endpoints").and_then(Value::as_array).into_iter().flatten();
            let ids: Vec<&str> =
                ids.filter_map(|one| one.get("id")?.as_str()).filter(|id| id.ends_with(FRESH)).collect();
            for id in &ids {
                self.ask("DELETE", &format!("{path}/endpoints/{id}"), None)?;
            }
            if ids.is_empty() { Ok(()) } else { Err(format!("{ids:?} were there")) }
        })
    }

    fn serves(&self, role: Role, place: SocketAddr, begin: Instant, interrupt: &Interrupt) -> Outcome<Duration> {
        match role {
            Role::Plain => until("a new proxy serves", PATIENCE, interrupt, || answers(place))?,
            // It has its certificate when the mesh knows it as a second endpoint.
            Role::Inbound => until("a new proxy is known", PATIENCE, interrupt, || {
                let view = self.ask("GET", "/v1/services/bench-svc", None)?;
                let known = view.to_string().contains(&place.to_string());
                if known { Ok(()) } else { Err(format!("{view}")) }
            })?,
        }
        Ok(begin.elapsed())
    }

    fn sidecar(&self, service: &str) -> Outcome<&Sidecar> {
        self.sidecars.iter().find(|one| one.service == service).ok_or_else(|| format!("no proxy of {service}"))
    }

    fn find(&self, service: &'static str) -> Outcome<Sidecar> {
        let qualified = format!("{service}.default");
        let process = kernel::marked(self.root.path())
            .into_iter()
            .find(|one| one.after("--service") == Some(qualified.as_str()))
            .ok_or_else(|| format!("no proxy of {service} runs"))?;
        let folder = PathBuf::from(process.after("--runtime-dir").unwrap_or_default());
        let ports = record(&folder.join("ports.json"))?;
        Ok(Sidecar { service, process, folder, ports })
    }

    /// Puts programs and project into the folder.
    fn install(&self, programs: &Programs) -> Outcome {
        let failed = |error: std::io::Error| format!("{}: {error}", self.root.path().display());
        for folder in ["lab", "r", "s", "d", "c", "h", "bin", "bin/real"] {
            fs::create_dir(self.root.path().join(folder)).map_err(failed)?;
        }
        // `hms` takes the proxy that lies beside it, so both are put there.
        let bin = self.root.path().join("bin");
        fs::copy(&programs.hms, bin.join("hms")).map_err(failed)?;
        if self.logged {
            fs::copy(&programs.proxy, bin.join("hms-proxy")).map_err(failed)?;
        } else {
            let real = bin.join("real/hms-proxy");
            fs::copy(&programs.proxy, &real).map_err(failed)?;
            let script = bin.join("hms-proxy");
            fs::write(&script, without_log(&real)).map_err(failed)?;
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).map_err(failed)?;
        }
        let project = self.root.path().join("lab/mesh.yaml");
        fs::write(project, mesh_file(&settings::own_program()?)).map_err(failed)
    }

    /// A command with an environment that belongs to this mesh and nothing of the caller's.
    fn command(&self, program: &Path) -> Command {
        let folder = |name: &str| self.root.path().join(name);
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", settings::search_path())
            .env("LANG", "C.UTF-8")
            .env("HOME", folder("h"))
            .env("XDG_RUNTIME_DIR", folder("r"))
            .env("XDG_STATE_HOME", folder("s"))
            .env("XDG_DATA_HOME", folder("d"))
            .env("XDG_CONFIG_HOME", folder("c"))
            .current_dir(folder("lab"));
        command
    }

    fn post(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.ask("POST", path, Some(body))
    }

    /// Asks the control plane's REST API.
    fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Outcome<Value> {
        let control = record(&only_child(&self.root.path().join("r/hms"))?.join("control.json"))?;
        let rest = address(&control, &["rest"])?;
        let token = only_child(&self.root.path().join("s/hms"))?.join("control/admin.token");
        let token = fs::read_to_string(&token).map_err(|error| format!("{}: {error}", token.display()))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: {rest}\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            token.trim(),
            body.len()
        );
        let (status, answer) = once(rest, request.as_bytes()).map_err(|error| format!("{method} {path}: {error}"))?;
        let text = String::from_utf8_lossy(&answer);
        if !(200..300).contains(&status) {
            return Err(format!("{method} {path} answered {status}: {text}"));
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

impl Drop for Mesh {
    /// Ends everything at once: there is nothing to drain, and what it wrote goes with the folder. Looks again until nothing is
    /// left, since a supervisor may have started one more.
    fn drop(&mut self) {
        let limit = now() + FAREWELL;
        loop {
            let left = kernel::marked(self.root.path());
            for one in &left {
                end(one.pid);
            }
            if left.is_empty() || now() > limit {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
    }
}

/// The address that a program there dials when it calls a service by its name.
fn dialled(service: &str, entry: &Entry) -> Outcome<SocketAddr> {
    let place = Place { address: SocketAddr::from(([0, 0, 0, 0], 0)), pids: Vec::new(), entry: Some(entry.clone()) };
    let said = place.client("getent").args(["ahostsv4", service]).output();
    let said = said.map_err(|error| format!("getent: {error}"))?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    let ip = text.split_whitespace().next().and_then(|word| word.parse().ok());
    let ip = ip.ok_or_else(|| format!("{service} has no address: {text}{}", String::from_utf8_lossy(&said.stderr)))?;
    Ok(SocketAddr::new(ip, 80))
}

/// The service whose proxy a further one is made after.
fn model(role: Role) -> &'static str {
    match role {
        Role::Plain => "caller-svc",
        Role::Inbound => "bench-svc",
    }
}

fn mesh_file(backend: &Path) -> String {
    let backend = backend.display();
    format!(
        "version: 1\nproject: {PROJECT}\nservices:\n\
         \x20 caller-svc: {{run: \"exec {backend} backend 127.0.0.1:$PORT\", routes: [\"GET /caller\"]}}\n\
         \x20 bench-svc: {{run: \"exec {backend} backend 127.0.0.1:$PORT\", routes: [\"GET /*\"]}}\n\
         \x20 grpc-svc: {{run: \"exec {backend} backend 127.0.0.1:$PORT grpc\", routes: [\"POST /*\"]}}\n\
         \x20 sink-svc: {{run: \"exec {backend} backend 127.0.0.1:$PORT sink\", protocol: tcp}}\n\
         \x20 plain-svc: {{routes: [\"GET /plain\"]}}\n\
         allow: [{{from: caller-svc, to: \"*\"}}]\n"
    )
}

/// A program that is the proxy, but for one flag that `hms up` always gives.
fn without_log(proxy: &Path) -> String {
    format!(
        "#!/bin/sh\ncount=$#\nwhile [ $count -gt 0 ]; do\n  word=$1; shift; count=$((count - 1))\n  \
         if [ \"$word\" = --access-log ]; then shift; count=$((count - 1)); else set -- \"$@\" \"$word\"; fi\n\
         done\nexec '{}' \"$@\"\n",
        proxy.display()
    )
}

/// The flags of another proxy for a new one: a folder and a name of its own, free ports, and an application that needs no capture.
fn renamed(words: &[String], folder: &Path, app: SocketAddr) -> Vec<String> {
    let mut flags = Vec::new();
    let mut words = words.iter();
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        let value = match flag.as_str() {
            "--capture" => continue,
            "--app" => app.to_string(),
            "--runtime-dir" => folder.display().to_string(),
            "--workload-id" => format!("{value}{FRESH}"),
            _ => value.clone(),
        };
        flags.extend([flag.clone(), value]);
    }
    flags
}

fn answers(address: SocketAddr) -> Outcome {
    match once(address, &get("bench", "/")) {
        Ok((200, _)) => Ok(()),
        Ok((status, body)) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
        Err(error) => Err(error.to_string()),
    }
}

fn record(path: &Path) -> Outcome<Value> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

fn address(value: &Value, keys: &[&str]) -> Outcome<SocketAddr> {
    let found = keys.iter().fold(value, |value, key| value.get(key).unwrap_or(&Value::Null));
    found.as_str().and_then(|text| text.parse().ok()).ok_or_else(|| format!("no address {} in {value}", keys.join(".")))
}

fn only_child(folder: &Path) -> Outcome<PathBuf> {
    let mut entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    entries.find_map(Result::ok).map(|entry| entry.path()).ok_or_else(|| format!("{} is empty", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_proxy_has_a_folder_and_a_name_of_its_own() {
        let words =
            ["--service", "a", "--workload-id", "1", "--runtime-dir", "/old", "--capture", "netns", "--app", "[::1]:1"];
        let flags = renamed(&words.map(str::to_owned), Path::new("/new"), SocketAddr::from(([127, 0, 0, 1], 7)));
        let wanted = ["--service", "a", "--workload-id", "1-fresh", "--runtime-dir", "/new", "--app", "127.0.0.1:7"];
        assert_eq!(flags, wanted);
    }

    #[test]
    fn only_the_flag_of_the_access_log_is_taken_away() {
        let script = without_log(Path::new("/bin/echo"));
        let said =
            Command::new("sh").args(["-c", &script, "x", "--a", "b c", "--access-log", "-", "--d", "e"]).output();
        assert_eq!(String::from_utf8(said.unwrap().stdout).unwrap(), "--a b c --d e\n");
    }
}
