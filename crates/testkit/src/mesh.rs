//! A whole mesh in a folder of its own, gone without a trace afterwards.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::process::Command;

use crate::client::Http;
use crate::processes::{self, Process};
use crate::rest::Rest;
use crate::{binaries, settings, wait};

/// The longest a command line may take.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long everything may take to end when a mesh goes out of scope.
const FAREWELL: Duration = Duration::from_secs(20);

/// A project's folder, with own folders for everything else, and the processes that belong to it.
#[derive(Debug)]
pub struct Mesh {
    root: TempDir,
    project: PathBuf,
    user: User,
    variables: BTreeMap<String, String>,
}

/// Who types the commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum User {
    /// Whoever runs the tests.
    #[default]
    Same,
    /// A user without capabilities. If the tests run as such a one, that is the same.
    Ordinary,
    /// One who may not make user namespaces either, as on machines that restrict them.
    Confined,
}

/// The ordinary user.
const ORDINARY: u32 = 1000;
/// Starts its arguments where no further user namespaces can be made, without the capabilities that were needed for that.
const CONFINE: &str = "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --ambient-caps -all --inh-caps -all \
                       --bounding-set -all -- \"$@\"";

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// What it wrote to standard output.
    pub out: String,
    /// What it wrote to standard error.
    pub err: String,
}

impl Said {
    /// Standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }
}

impl Mesh {
    /// A mesh in an empty folder.
    pub fn new() -> Self {
        Self::of(User::Same)
    }

    /// A mesh in an empty folder, whose commands somebody else types.
    pub fn of(user: User) -> Self {
        // Short, because paths of sockets are; in memory where there is room for keys.
        let root = tempfile::Builder::new().prefix("hms-").tempdir_in("/tmp").unwrap();
        let project = root.path().join("lab");
        for folder in ["lab", "r", "s", "d", "c", "h"] {
            std::fs::create_dir(root.path().join(folder)).unwrap();
        }
        if user != User::Same && nix::unistd::geteuid().is_root() {
            let owner = Some(ORDINARY);
            for folder in std::iter::once(root.path().to_path_buf()).chain(children(root.path())) {
                std::os::unix::fs::chown(folder, owner, owner).unwrap();
            }
        }
        Self { root, project, user, variables: BTreeMap::new() }
    }

    /// A mesh in a copy of one of the examples.
    pub fn example(name: &str) -> Self {
        Self::example_of(name, User::Same)
    }

    /// The same, whose commands somebody else types.
    pub fn example_of(name: &str, user: User) -> Self {
        let mesh = Self::of(user);
        copy(&binaries::workspace().join("examples").join(name), &mesh.project);
        mesh
    }

    /// A mesh with this `mesh.yaml`.
    pub fn with_file(text: &str) -> Self {
        let mesh = Self::new();
        mesh.write("mesh.yaml", text);
        mesh
    }

    /// The project's folder.
    pub fn project(&self) -> &Path {
        &self.project
    }

    /// The folder of everything; every process of this mesh carries its name in its environment.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Gives everything in the folder to whoever types, except for files that have another name elsewhere.
    pub(crate) fn hand_over(&self) {
        use std::os::unix::fs::MetadataExt as _;
        if self.is_typed_by_root() || !nix::unistd::geteuid().is_root() {
            return;
        }
        let mut open = vec![self.root.path().to_path_buf()];
        while let Some(path) = open.pop() {
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                open.extend(children(&path));
            }
            if metadata.is_dir() || (metadata.is_file() && metadata.nlink() == 1) {
                std::os::unix::fs::chown(&path, Some(ORDINARY), Some(ORDINARY)).unwrap();
            }
        }
    }

    /// Whether nothing is forbidden to whoever types.
    pub(crate) fn is_typed_by_root(&self) -> bool {
        self.user == User::Same && nix::unistd::geteuid().is_root()
    }

    /// Gives every command a variable.
    pub fn set(&mut self, name: &str, value: &str) {
        self.variables.insert(name.to_owned(), value.to_owned());
    }

    /// Lets every command find programs in this folder first.
    pub fn search_first(&mut self, folder: &Path) {
        self.set("PATH", &format!("{}:{}:/usr/sbin:/sbin", folder.display(), settings::search_path()));
    }

    /// Writes a file of the project.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.project.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// A command that belongs to this mesh, with an environment that says so and nothing of the caller's.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.typed(program.as_ref());
        let folder = |name: &str| self.root.path().join(name);
        let python = binaries::python();
        command
            .env_clear()
            .env("PATH", settings::search_path())
            .env("LANG", "C.UTF-8")
            .env("HOME", folder("h"))
            .env("XDG_RUNTIME_DIR", folder("r"))
            .env("XDG_STATE_HOME", folder("s"))
            .env("XDG_DATA_HOME", folder("d"))
            .env("XDG_CONFIG_HOME", folder("c"))
            .env("VIRTUAL_ENV", python.ancestors().nth(2).unwrap_or(&python))
            .envs(&self.variables)
            .current_dir(&self.project);
        command
    }

    /// The program, started by whoever types.
    fn typed(&self, program: &Path) -> Command {
        let mut words: Vec<std::ffi::OsString> = Vec::new();
        if self.user != User::Same && nix::unistd::geteuid().is_root() {
            let id = ORDINARY.to_string();
            words.extend(["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups", "--"].map(Into::into));
        }
        if self.user == User::Confined {
            let confined = ["unshare", "--user", "--map-current-user", "--keep-caps", "sh", "-c", CONFINE, "sh"];
            words.extend(confined.map(Into::into));
        }
        words.push(program.into());
        let mut command = Command::new(words.remove(0));
        command.args(words);
        command
    }

    /// Runs a program to its end.
    pub async fn run(&self, mut command: Command) -> Said {
        let shown = format!("{command:?}");
        command.stdin(std::process::Stdio::null()).kill_on_drop(true);
        let Ok(output) = tokio::time::timeout(PATIENCE, command.output()).await else {
            panic!("{shown} did not end within {PATIENCE:?}")
        };
        let output = output.unwrap_or_else(|error| panic!("{shown}: {error}"));
        Said {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Runs `hms` with these arguments, whatever comes of it.
    pub async fn try_hms(&self, arguments: &[&str]) -> Said {
        let mut command = self.command(binaries::hms());
        command.args(arguments);
        self.run(command).await
    }

    /// Runs `hms` with these arguments; it must succeed. Returns its standard output.
    pub async fn hms(&self, arguments: &[&str]) -> String {
        let said = self.try_hms(arguments).await;
        let (code, out, err) = (said.code, &said.out, &said.err);
        assert!(code == 0, "hms {arguments:?} exited {code}:\n{out}\n{err}\n{}", self.logs());
        said.out
    }

    /// `hms … -o json`.
    pub async fn hms_json(&self, arguments: &[&str]) -> serde_json::Value {
        let text = self.hms(&[arguments, &["-o", "json"]].concat()).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("hms {arguments:?}: no JSON ({error}): {text}"))
    }

    /// Everything in the project's folder, in the background, on free ports.
    pub async fn up(&self) -> String {
        self.hms(&["up", "-d", "--wait", "--ports", "auto"]).await
    }

    /// A control plane alone, in the foreground of a process that the test owns. Returns when it serves.
    pub async fn control(&self, arguments: &[&str]) -> Process {
        self.control_at("127.0.0.1:0", arguments).await
    }

    /// The same at a REST address of the caller's choice.
    pub async fn control_at(&self, rest: &str, arguments: &[&str]) -> Process {
        let mut command = self.command(binaries::hms());
        command.args(["control", "--rest", rest, "--grpc", "127.0.0.1:0"]).args(arguments);
        let mut process = Process::start(command, self.root.path().join("control.log"));
        wait::until("the control plane serves", Duration::from_secs(20), || {
            let ready = if process.is_running() { self.control_record(process.pid()) } else { Err(process.output()) };
            std::future::ready(ready)
        })
        .await;
        process
    }

    fn control_record(&self, pid: u32) -> Result<serde_json::Value, String> {
        let record = self.record("control.json")?;
        if record["pid"] == pid { Ok(record) } else { Err(format!("not that of {pid}: {record}")) }
    }

    /// The folder of sockets and keys.
    pub fn run_dir(&self) -> PathBuf {
        self.only_child("r/hms")
    }

    /// The folder of what survives.
    pub fn state_dir(&self) -> PathBuf {
        self.only_child("s/hms")
    }

    fn only_child(&self, folder: &str) -> PathBuf {
        let folder = self.root.path().join(folder);
        let mut found = children(&folder);
        assert_eq!(found.len(), 1, "one project in {}: {found:?}", folder.display());
        found.remove(0)
    }

    /// A record in the runtime folder.
    pub fn record(&self, name: &str) -> Result<serde_json::Value, String> {
        let project = children(&self.root.path().join("r/hms")).pop().ok_or("no runtime folder")?;
        let path = project.join(name);
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// The operator's token.
    pub fn token(&self) -> String {
        let path = self.state_dir().join("control/admin.token");
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).trim().to_owned()
    }

    /// The control plane's REST API.
    pub fn rest(&self) -> Rest {
        Rest::new(self.rest_address(), &self.token())
    }

    /// Where the control plane serves REST.
    pub fn rest_address(&self) -> SocketAddr {
        let record = self.record("control.json").unwrap_or_else(|why| panic!("no control plane: {why}"));
        record["rest"].as_str().unwrap().parse().unwrap()
    }

    /// Where the gateway listens.
    pub fn gateway_address(&self) -> SocketAddr {
        let record = self.record("gateway.json").unwrap_or_else(|why| panic!("no gateway: {why}"));
        record["https"].as_str().unwrap().parse().unwrap()
    }

    /// The roots a client of the gateway must trust.
    pub fn edge_root(&self) -> String {
        std::fs::read_to_string(self.state_dir().join("certs/edge-root.pem")).unwrap()
    }

    /// A client of the gateway, without a token.
    pub fn gateway(&self) -> Http {
        Http::tls(self.gateway_address(), "gateway.local", &self.edge_root())
    }

    /// A client of the gateway with a token of the built-in issuer.
    pub async fn gateway_with_token(&self) -> Http {
        self.gateway().bearer(&self.jwt().await)
    }

    /// A token of the built-in issuer.
    pub async fn jwt(&self) -> String {
        let answer = self.rest().post("/v1/jwt", &serde_json::json!({"sub": "tester"})).await;
        answer["token"].as_str().unwrap().to_owned()
    }

    /// What `eval "$(hms env)"` would export, as a real shell understood it.
    pub async fn env(&self) -> BTreeMap<String, String> {
        let mut shell = self.command("/bin/sh");
        let script = format!("eval \"$('{}' env)\" && env", binaries::hms().display());
        shell.args(["-c", &script]);
        let said = self.run(shell).await;
        assert_eq!(said.code, 0, "{said:?}");
        said.out.lines().filter_map(|line| line.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
    }

    /// The real curl, with the variables of `hms env` and nothing else that could help it.
    pub async fn curl(&self, env: &BTreeMap<String, String>, arguments: &[&str]) -> Said {
        let mut curl = self.command("curl");
        curl.envs(env).args(["-sS", "--max-time", "20"]).args(arguments);
        self.run(curl).await
    }

    /// Every process of this mesh.
    pub fn processes(&self) -> Vec<processes::Seen> {
        processes::marked(self.root.path())
    }

    /// The processes whose command line contains `word`.
    pub fn processes_with(&self, word: &str) -> Vec<processes::Seen> {
        self.processes().into_iter().filter(|one| one.command.contains(word)).collect()
    }

    /// Waits until nothing of this mesh runs.
    pub async fn until_nothing_runs(&self) {
        processes::none_marked(self.root.path(), FAREWELL).await;
    }

    /// The ends of all log files, for failures.
    pub fn logs(&self) -> String {
        let mut text = String::new();
        let folders = ["s/hms"].map(|name| self.root.path().join(name));
        let mut open: Vec<PathBuf> = folders.into_iter().collect();
        while let Some(folder) = open.pop() {
            for entry in std::fs::read_dir(&folder).into_iter().flatten().filter_map(Result::ok) {
                let path = entry.path();
                if path.is_dir() {
                    open.push(path);
                } else if path.extension().is_some_and(|ending| ending == "log") {
                    let log = std::fs::read_to_string(&path).unwrap_or_default();
                    let lines: Vec<&str> = log.lines().collect();
                    let end = lines.get(lines.len().saturating_sub(30)..).unwrap_or_default().join("\n");
                    let _infallible = writeln!(text, "--- {}\n{end}", path.display()).is_ok();
                }
            }
        }
        text
    }
}

impl Default for Mesh {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Mesh {
    /// Asks everything to end, then insists. Something that had to be killed is a failure of its own.
    fn drop(&mut self) {
        for one in self.processes() {
            processes::signal(one.pid, Signal::SIGTERM);
        }
        let mut left = self.processes();
        let looks = FAREWELL.as_millis() / 20;
        for _ in 0..looks {
            if left.is_empty() {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
            left = self.processes();
        }
        for one in &left {
            processes::signal(one.pid, Signal::SIGKILL);
        }
        assert!(std::thread::panicking(), "these processes did not end when they were asked to: {left:?}");
    }
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn copy(from: &Path, to: &Path) {
    let entries = std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    std::fs::create_dir_all(to).unwrap();
    for entry in entries {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if ["__pycache__", ".venv", "node_modules"].iter().any(|skipped| name == *skipped) {
            continue;
        }
        if entry.path().is_dir() {
            copy(&entry.path(), &to.join(name));
        } else {
            std::fs::copy(entry.path(), to.join(name)).unwrap();
        }
    }
}
