//! The real `hms` in a home of its own: exit codes, exact words, and a control plane without proxies.
#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking, as the test does")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

/// A home with a lab in it. What still runs is taken down at the end.
struct Home {
    folder: TempDir,
}

impl Home {
    fn new() -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir_all(home.lab().join("calc_svc")).unwrap();
        home.write(
            "calc_svc/route.yaml",
            "service: calc-svc\nroutes:\n  - GET /sum/{a}/{b}\nrate_limit: \"20 req/min\"\n",
        );
        home
    }

    fn lab(&self) -> PathBuf {
        self.folder.path().join("lab")
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.lab().join(name), text).unwrap();
    }

    fn run_as(&self, program: &str, arguments: &[&str]) -> Output {
        self.command(Path::new(program), arguments).output().unwrap()
    }

    fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .current_dir(self.lab())
            .env_clear()
            .env("HOME", self.folder.path())
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .stdin(Stdio::null());
        command
    }

    /// Runs `hms` several times at once, as so many shells would.
    fn at_once(&self, hms: &Path, lines: &[&str]) -> Vec<Output> {
        let mut children = Vec::new();
        for line in lines {
            let arguments: Vec<&str> = line.split_whitespace().collect();
            let mut command = self.command(hms, &arguments);
            children.push(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
        }
        children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
    }

    fn hms(&self, line: &str) -> Output {
        let arguments: Vec<&str> = line.split_whitespace().collect();
        self.run_as(env!("CARGO_BIN_EXE_hms"), &arguments)
    }

    /// Runs a command that must end with this code; its stdout.
    fn ends(&self, code: i32, line: &str) -> String {
        let output = self.hms(line);
        let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "hms {line}\n{stdout}{stderr}");
        stdout
    }

    /// The folders named after the project in this one.
    fn projects(&self, under: &str) -> usize {
        std::fs::read_dir(self.folder.path().join(under))
            .map_or(0, |entries| entries.filter_map(Result::ok).filter(is_lab).count())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.hms("down");
    }
}

fn is_lab(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("lab-")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn exit_codes_are_those_that_help_lists() {
    let home = Home::new();
    home.ends(0, "-h");
    home.ends(0, "help exit-codes");
    home.ends(0, "completion bash");
    home.ends(0, "explain HMS-1101");
    home.ends(0, "down");
    home.ends(1, "explain HMS-9999");
    home.ends(2, "frobnicate");
    home.ends(2, "down --purge");
    home.ends(2, "--server https://example.org services");
    home.ends(5, "status");
    home.ends(5, "tap calc-svc");
    home.write("calc_svc/route.yaml", "service: calc-svc\nroute: [GET /sum]\n");
    home.ends(3, "lint");
    home.ends(1, "register calc_svc/route.yaml calc_svc/missing.yaml");
}

#[test]
fn lint_points_at_the_mistake_and_changes_nothing() {
    let home = Home::new();
    assert_eq!(home.ends(0, "lint").trim_end(), "+ 1 file, 0 errors, 0 warnings");
    home.write("calc_svc/route.yaml", "service: calc-svc\nroutes: [GET /a]\nrate_limits: 20/min\n");
    let said = home.ends(3, "lint calc_svc/route.yaml");
    assert!(said.contains("calc_svc/route.yaml:3:1") && said.contains("did you mean `rate_limit`?"), "{said}");
    let json: serde_json::Value = serde_json::from_str(&home.ends(3, "lint -o json")).unwrap();
    assert_eq!((json["kind"].as_str(), json["items"][0]["code"].as_str()), (Some("Lint"), Some("HMS-2103")));
    assert_eq!(home.projects(".local/state/hms"), 0, "nothing was written");
}

#[test]
fn a_simulation_ends_by_its_bounds_and_repeats_to_the_byte() {
    let home = Home::new();
    let scenario = |bound: &str| {
        format!(
            "duration: 5s\nservices: {{pay: {{instances: 3, fails: 10%}}}}\nload: [{{to: pay, rps: 100}}]\nbounds: {{pay: {{{bound}}}}}\n"
        )
    };
    home.write("kept.yaml", &scenario("amplification: <= 1.25, success: \">= 95%\""));
    home.write("crossed.yaml", &scenario("success: \"100%\""));
    home.write("wrong.yaml", &scenario("succes: \"100%\"").replace("fails:", "failing:"));
    let said = home.ends(0, "sim kept.yaml");
    assert!(said.contains("+ pay amplification: <= 1.25: 1."), "{said}");
    assert_eq!(said, home.ends(0, "sim kept.yaml"));
    assert_ne!(said, home.ends(0, "sim kept.yaml --seed 2"));
    let crossed = home.ends(3, "sim crossed.yaml");
    assert!(crossed.contains("HMS-2152, crossed at") && crossed.contains("calls failed: 503"), "{crossed}");
    let json: serde_json::Value = serde_json::from_str(&home.ends(3, "sim crossed.yaml -o json")).unwrap();
    assert_eq!((json["kind"].as_str(), json["bounds"][0]["kept"].as_bool()), (Some("Simulation"), Some(false)));
    let output = home.hms("sim wrong.yaml");
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("2 errors, nothing was changed") && stderr.contains("did you mean `success`?"), "{stderr}");
    home.ends(1, "sim missing.yaml");
    assert_eq!(home.projects(".local/state/hms"), 0, "nothing was written");
}

#[test]
fn a_control_plane_takes_routes_and_goes_without_a_trace() {
    let home = Home::new();
    home.ends(0, "control -d --store memory --rest 127.0.0.1:0 --grpc 127.0.0.1:0");
    home.ends(7, "control -d --rest 127.0.0.1:0 --grpc 127.0.0.1:0");

    let api = home.run_as(env!("CARGO_BIN_EXE_hms-api"), &["register", "calc_svc/route.yaml"]);
    assert_eq!(text(&api.stdout), "✓ registered calc-svc\n", "exactly, in every locale");
    let hint = "waiting: hms run calc-svc -p 8000 -- uvicorn app:app --port 8000";
    assert!(text(&api.stderr).contains(hint), "{}", text(&api.stderr));

    assert_eq!(home.ends(0, "services -o name"), "calc-svc\n");
    assert!(home.ends(0, "status").contains("SERVICE"), "a table");
    let routes = home.ends(0, "routes export");
    home.write("routes.json", &routes.replace("20 req/min", "30 req/min"));
    home.ends(0, "routes import routes.json");
    assert!(home.ends(0, "routes export").contains("30 req/min"));

    let token = home.ends(0, "jwt issue --sub lena --role admin");
    assert!(home.ends(0, &format!("jwt inspect {token}")).contains("sub: lena"));
    let forged = token.trim().rsplit_once('.').map(|(head, _)| format!("{head}.AAAA")).unwrap();
    home.ends(3, &format!("jwt inspect {forged}"));

    let envoyctl =
        |line: &str| home.run_as(env!("CARGO_BIN_EXE_envoyctl"), &line.split(' ').collect::<Vec<_>>()).status.code();
    assert_eq!(envoyctl("enforce mtls --mode STRICT"), Some(0));
    assert_eq!(envoyctl("certificates rotate --validity 24h"), Some(0));
    assert_eq!(envoyctl("services"), Some(2), "only the seeds' verbs");
    home.ends(7, "enforce mtls --mode PERMISSIVE");

    std::fs::write(token_file(&home), "0".repeat(64)).unwrap();
    home.ends(4, "services");
    home.ends(0, "down --purge -y");
    assert_eq!((home.projects(".local/state/hms"), home.projects("hms")), (0, 0));
}

fn token_file(home: &Home) -> PathBuf {
    let state = home.folder.path().join(".local/state/hms");
    let project = std::fs::read_dir(state).unwrap().filter_map(Result::ok).find(is_lab).unwrap();
    Path::join(&project.path(), "control/admin.token")
}

/// Listens nowhere, but says so as `hms-proxy` does, and keeps a list of those that were started. It captures nothing, and is no
/// shepherd.
const PROXY: &str = r#"#!/bin/sh
case $1 in
  __capture) echo '{"mode": "none", "why": "it is a script"}'; exit ;;
  __shepherd) while [ "$1" != -- ]; do shift; done; shift; exec "$@" ;;
esac
while [ $# -gt 1 ]; do
  case $1 in --service) service=$2 ;; --runtime-dir) run=$2 ;; --https) https=$2 ;; esac
  shift
done
echo "$service" >> "$(dirname "$0")/started"
echo "{\"inbound\":\"127.0.0.1:1\",\"outbound\":\"127.0.0.1:2\",\"admin\":\"127.0.0.1:3\",\"https\":\"$https\",\"upstreams\":{},\"pid\":$$}" > "$run/new"
sed -i 's/"https":""/"https":null/' "$run/new"
mv "$run/new" "$run/ports.json"
exec sleep 1000
"#;

/// A folder with `hms` and that proxy beside it, so that no other crate has to be built.
fn installed() -> TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::hard_link(env!("CARGO_BIN_EXE_hms"), folder.path().join("hms")).unwrap();
    let proxy = folder.path().join("hms-proxy");
    std::fs::write(&proxy, PROXY).unwrap();
    std::fs::set_permissions(&proxy, std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// What the proxies of [`installed`] were started for, in order of name.
fn started(folder: &TempDir) -> Vec<String> {
    let list = std::fs::read_to_string(folder.path().join("started")).unwrap();
    let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
    names.sort();
    names
}

fn all_succeed(outputs: &[Output]) {
    for output in outputs {
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    }
}

#[test]
fn commands_that_race_in_a_fresh_project_share_one_control_plane() {
    let (home, programs) = (Home::new(), installed());
    let hms = programs.path().join("hms");
    let lines = ["run one -- true", "run two -- true", "register calc_svc/route.yaml", "up -d"];
    let outputs = home.at_once(&hms, &lines);
    all_succeed(&outputs);
    let said = outputs.iter().filter(|output| text(&output.stderr).contains("started control plane")).count();
    assert!(said <= 1, "at most one of them can have started it");
    assert_eq!(started(&programs), ["gateway.hms-system", "one.default", "two.default"]);
    home.ends(0, "services");
}

#[test]
fn services_are_started_once_however_many_start_the_project() {
    let (home, programs) = (Home::new(), installed());
    let hms = programs.path().join("hms");
    home.write("mesh.yaml", "services:\n  worker: {run: sleep 1000}\n");
    std::fs::remove_dir_all(home.lab().join("calc_svc")).unwrap();
    let outputs = home.at_once(&hms, &["up -d", "up -d", "up -d"]);
    all_succeed(&outputs);
    let joined = outputs.iter().filter(|output| text(&output.stdout).contains("worker already runs")).count();
    assert_eq!(joined, 2);
    assert_eq!(started(&programs), ["gateway.hms-system", "worker.default"]);
}

#[test]
fn of_two_control_planes_at_once_one_is_refused() {
    let home = Home::new();
    let line = "control -d --store memory --rest 127.0.0.1:0 --grpc 127.0.0.1:0";
    let outputs = home.at_once(Path::new(env!("CARGO_BIN_EXE_hms")), &[line, line]);
    let mut codes: Vec<_> = outputs.iter().map(|output| output.status.code()).collect();
    codes.sort_unstable();
    assert_eq!(codes, [Some(0), Some(7)]);
}
