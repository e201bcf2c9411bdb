//! Programs that know nothing of the mesh and get there all the same: as root and as an ordinary user, with namespaces and without.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::{Mesh, Said, User};
use hms_testkit::processes::{self, signal};
use hms_testkit::{binaries, figure, scenario, wait};
use nix::sys::signal::Signal;

const LIMIT: Duration = Duration::from_mins(3);
const SOON: Duration = Duration::from_secs(20);
/// Answers with what it knows about the caller and itself.
const SERVER: &str = r#"
import http.server, json, os, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    def do_GET(self):
        body = json.dumps({"service": os.environ["HMS_SERVICE"], "path": self.path, "uid": os.getuid(),
                           "headers": dict(self.headers)}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;
const RUN: &str = "/usr/bin/python3 server.py";

/// A mesh with `payment-svc`, and `more` in `mesh.yaml`.
async fn mesh(user: User, way: &str, more: &str) -> Mesh {
    let mesh = Mesh::of(user);
    mesh.write("server.py", SERVER);
    mesh.write("client.py", "import time\nwhile True: time.sleep(1000)\n");
    let file = format!(
        "intercept: {way}\nservices:\n  payment-svc: {{run: {RUN}, routes: [GET /pay, GET /node, GET /go]}}\n{more}"
    );
    mesh.write("mesh.yaml", file);
    let _shown = mesh.up().await;
    mesh
}

/// A client that stays, to look at the mesh from within it.
const CALLER: &str = "  caller: {run: /usr/bin/python3 client.py}\n";

impl Caller for Mesh {
    async fn exec(&self, words: &[&str]) -> Said {
        self.try_hms(&[&["exec", "caller", "--"], words].concat()).await
    }
}

trait Caller {
    /// Runs a program beside `caller`.
    async fn exec(&self, words: &[&str]) -> Said;
}

/// How a service is captured, as `hms status` tells.
async fn way_of(mesh: &Mesh, service: &str) -> (String, String) {
    let status = mesh.hms_json(&["status"]).await;
    let units = status["units"].as_array().cloned().unwrap_or_default();
    let unit = units.into_iter().find(|unit| unit["service"] == service).unwrap_or_default();
    let text = |field: &str| unit["capture"][field].as_str().unwrap_or_default().to_owned();
    (text("mode"), text("why") + &text("fix"))
}

#[test]
fn a_stock_curl_reaches_a_service_on_port_80_with_nothing_set_for_it() {
    for (user, way) in [
        (User::Same, "netns"),
        (User::Ordinary, "netns"),
        (User::Same, "notify"),
        (User::Ordinary, "notify"),
        (User::Confined, "auto"),
    ] {
        scenario(LIMIT, async {
            let mesh = mesh(user, way, "").await;
            for family in ["-4", "-6"] {
                let arguments = ["curl", "-sS", "--max-time", "20", family, "http://payment-svc/pay?x=1"];
                let said = mesh.try_hms(&[&["run", "probe", "--intercept", way, "--"], &arguments[..]].concat()).await;
                assert_eq!(said.code, 0, "{user:?} {way} {family}: {said:?}\n{}", mesh.logs());
                assert_eq!(
                    (&said.json()["service"], &said.json()["path"]),
                    (&"payment-svc".into(), &"/pay?x=1".into())
                );
            }
            let mut expected = way;
            let (mode, why) = way_of(&mesh, "payment-svc").await;
            if user == User::Confined {
                expected = "notify";
                assert!(why.contains("HMS-1201") && why.contains("user.max_user_namespaces=15000"), "{why}");
            }
            assert_eq!(mode, expected);
        });
    }
}

#[test]
fn a_captured_program_keeps_its_user_its_folder_its_streams_and_its_exit_code_and_learns_nothing_of_the_mesh() {
    const LOOK: &str =
        "id -u; pwd; cat; grep CapEff /proc/self/status; env | grep -i -E 'proxy|_URL'; echo no >&2; exit 7";
    for (user, way) in [(User::Ordinary, "netns"), (User::Ordinary, "notify"), (User::Same, "netns")] {
        scenario(LIMIT, async {
            let mesh = mesh(user, way, "").await;
            let mut command = mesh.command("sh");
            let run =
                format!("echo said | '{}' run probe --intercept {way} -- sh -c \"$0\"", binaries::hms().display());
            command.args(["-c", &run, LOOK]);
            let said = mesh.run(command).await;
            let lines: Vec<&str> = said.out.lines().collect();
            let own = nix::unistd::geteuid().as_raw();
            let id = if user == User::Ordinary && own == 0 { 1000 } else { own }.to_string();
            let folder = mesh.project().canonicalize().unwrap().display().to_string();
            assert_eq!(lines.get(..3), Some(&[id.as_str(), folder.as_str(), "said"][..]), "{said:?}");
            assert_eq!((lines.len(), said.code), (4, 7), "no variable leads to the mesh: {said:?}");
            assert!(said.err.contains("no"), "{said:?}");
            if id != "0" {
                assert!(lines[3].ends_with("0000000000000000"), "no capability: {said:?}");
            }
        });
    }
}

#[test]
fn a_terminal_and_its_keys_reach_a_captured_program() {
    for way in ["netns", "notify"] {
        scenario(LIMIT, async {
            let mesh = mesh(User::Ordinary, way, "").await;
            // Ctrl-C arrives once the program has said that it listens to it.
            let program = "trap 'echo caught; exit 5' INT; tty; echo armed; while :; do sleep 0.05; done";
            let run = format!("'{}' run probe --intercept {way} -- sh -c \"{program}\"", binaries::hms().display());
            let terminal = r#"
import os, pty, sys
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "exec " + sys.argv[1]])
seen, pressed = b"", False
while True:
    try: part = os.read(fd, 1000)
    except OSError: break
    if not part: break
    seen += part
    if b"armed" in seen and not pressed:
        pressed = True
        os.write(fd, b"\x03")
print(seen.decode(), "code", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"#;
            let mut command = mesh.command("/usr/bin/python3");
            command.args(["-c", terminal, &run]);
            let said = mesh.run(command).await;
            assert!(said.out.contains("/dev/pts/") && said.out.contains("caught"), "{way}: {said:?}");
            assert!(said.out.trim_end().ends_with("code 5"), "{way}: {said:?}");
        });
    }
}

#[test]
fn nothing_survives_the_end_of_any_of_our_processes() {
    for way in ["netns", "notify"] {
        scenario(LIMIT, async {
            let mesh = mesh(User::Ordinary, way, CALLER).await;
            // What the program leaves behind: a daemon that forked twice, deaf to polite requests.
            let daemon = "trap '' TERM; (setsid sh -c 'trap \"\" TERM; while :; do sleep 1000; done' &) ; sleep 1000";
            let strays = || mesh.processes_with("sleep 1000").len() + mesh.processes_with("setsid").len();
            let start = || {
                let mut command = mesh.command(binaries::hms());
                command.args(["run", "probe", "--intercept", way, "--", "sh", "-c", daemon]);
                processes::Process::start(command, mesh.root().join("probe.log"))
            };
            let there = |name: &'static str| {
                // Not those that only have these words among their own: `hms` and the shepherd.
                let sleep = mesh.processes_with("sleep 1000");
                let count = sleep.iter().filter(|one| one.command.trim() == "sleep 1000").count();
                std::future::ready(if count >= 2 { Ok(()) } else { Err(format!("{name}: {count}")) })
            };
            for victim in ["shepherd", "inside", "hms"] {
                let mut run = start();
                wait::until("the program and its daemon run", SOON, || there(victim)).await;
                let ours: Vec<u32> = mesh
                    .processes_with("__shepherd")
                    .into_iter()
                    .filter(|one| one.command.contains("trap"))
                    .map(|one| one.pid)
                    .collect();
                let pid = match victim {
                    "shepherd" => *ours.first().unwrap(),
                    "inside" => *ours.last().unwrap(),
                    _ => run.pid(),
                };
                signal(pid, Signal::SIGKILL);
                let _code = run.ended(SOON).await;
                wait::until("everything of the program is gone", SOON, || {
                    let left = strays();
                    std::future::ready(if left == 0 { Ok(()) } else { Err(format!("{way} {victim}: {left} left")) })
                })
                .await;
            }
        });
    }
}

#[test]
fn capture_outlives_the_proxy_by_kill_and_by_restart() {
    for way in ["netns", "notify"] {
        scenario(LIMIT, async {
            let mesh = mesh(User::Ordinary, way, CALLER).await;
            let call = || async {
                let said = mesh.exec(&["curl", "-sS", "--max-time", "20", "http://payment-svc/pay"]).await;
                assert!(said.code == 0 && said.json()["service"] == "payment-svc", "{way}: {said:?}\n{}", mesh.logs());
            };
            call().await;
            for service in ["caller", "payment-svc"] {
                let _said = mesh.hms(&["proxy", "restart", service]).await;
                call().await;
            }
            let proxies = mesh.processes_with("--service caller.default");
            let victim = proxies.iter().find(|one| one.command.contains("--role")).unwrap().pid;
            signal(victim, Signal::SIGKILL);
            // Its connection waits in the kernel until there is a proxy again.
            call().await;
        });
    }
}

#[test]
fn two_programs_listen_on_the_same_port_and_both_are_reached() {
    scenario(LIMIT, async {
        let service = |name: &str| format!("  {name}-svc: {{run: {RUN}, port: 8000, routes: [GET /{name}]}}\n");
        let more = service("fee") + &service("tax") + CALLER;
        let mesh = mesh(User::Ordinary, "netns", &more).await;
        for name in ["fee", "tax"] {
            let service = format!("{name}-svc");
            let url = format!("http://{service}.mesh/{name}");
            let said = mesh.exec(&["curl", "-sS", "--max-time", "20", &url]).await;
            assert_eq!(said.json()["service"], service, "{said:?}");
        }
    });
}

#[test]
fn the_laptops_own_ports_are_reached_where_listed_and_the_programs_port_where_published() {
    scenario(LIMIT, async {
        let database = App::start("database").await;
        let port = database.address().port();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let published = free.local_addr().unwrap().port();
        drop(free);
        let more = format!(
            "  caller: {{run: /usr/bin/python3 client.py, host_ports: [{port}]}}\n  \
             open-svc: {{run: {RUN}, routes: [GET /raw], publish: {published}}}\n"
        );
        let mesh = mesh(User::Ordinary, "netns", &more).await;
        for host in ["127.0.0.1", "[::1]"] {
            let said = mesh.exec(&["curl", "-sS", "--max-time", "20", &format!("http://{host}:{port}/echo")]).await;
            assert!(said.code == 0 && said.json()["app"] == "database", "{host}: {said:?}");
        }
        let refused =
            mesh.try_hms(&["exec", "open-svc", "--", "curl", "-sS", &format!("http://127.0.0.1:{port}/")]).await;
        assert_eq!(refused.code, 7, "others see a loopback of their own: {refused:?}");
        wait::until("the refusal is explained", SOON, || {
            let logs = mesh.logs();
            let told = logs.contains("HMS-1207") && logs.contains(&format!("host_ports: [{port}]"));
            std::future::ready(if told { Ok(()) } else { Err(logs) })
        })
        .await;

        let around =
            mesh.curl(&std::collections::BTreeMap::new(), &[&format!("http://127.0.0.1:{published}/raw")]).await;
        assert_eq!(around.json()["service"], "open-svc", "{around:?}");
        let status = mesh.hms(&["status", "-o", "wide"]).await;
        assert!(status.contains("bypass the mesh"), "{status}");
    });
}

#[test]
fn what_is_no_question_for_a_name_does_not_leave_over_udp() {
    const TRY: &str = r#"
import socket
for family, host in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
    try:
        socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (host, 443))
        print("sent")
    except PermissionError: print("refused")
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); one.bind(("127.0.0.1", 0))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
other.sendto(b"home", one.getsockname()); print(one.recv(9).decode())
other.sendmsg([b"pie", b"ces"], [], 0, one.getsockname()); print(one.recv(9).decode())
"#;
    for way in ["netns", "notify"] {
        scenario(LIMIT, async {
            let mesh = mesh(User::Ordinary, way, CALLER).await;
            let said = mesh.exec(&["/usr/bin/python3", "-c", TRY]).await;
            assert_eq!(said.out, "refused\nrefused\nhome\npieces\n", "{way}: {said:?}");
        });
    }
}

#[test]
fn an_address_without_a_name_is_captured_and_one_that_is_nobodys_is_refused() {
    for way in ["netns", "notify"] {
        scenario(LIMIT, async {
            let mesh = mesh(User::Ordinary, way, CALLER).await;
            let curl = ["curl", "-sS", "--max-time", "20", "-H", "Host: payment-svc"];
            for url in ["http://192.0.2.7/pay", "http://[2001:db8::7]:8080/pay"] {
                let said = mesh.exec(&[&curl[..], &[url]].concat()).await;
                assert!(said.code == 0 && said.json()["service"] == "payment-svc", "{way} {url}: {said:?}");
            }
            for url in ["http://240.200.0.1/pay", "http://[fd48:4d53:6d65:7368::ffff]/pay"] {
                let said = mesh.exec(&[&curl[..], &[url]].concat()).await;
                assert!(matches!(said.code, 7 | 52 | 56), "{way} {url}: {said:?}");
            }
        });
    }
}

#[test]
fn node_and_a_static_go_program_are_captured_as_well() {
    const NODE: &str = "fetch('http://payment-svc/node').then(r => r.text()).then(console.log)";
    const GO: &str = r#"package main
import ("io"; "net/http"; "os")
func main() {
	a, e := http.Get("http://payment-svc/go")
	if e != nil { panic(e) }
	io.Copy(os.Stdout, a.Body)
}
"#;
    scenario(LIMIT, async {
        let build = tempfile::tempdir().unwrap();
        std::fs::write(build.path().join("main.go"), GO).unwrap();
        let mut go = tokio::process::Command::new("go");
        go.args(["build", "-o", "client", "main.go"]).current_dir(build.path()).env("CGO_ENABLED", "0");
        assert!(go.status().await.unwrap().success(), "go build");
        let program = std::fs::read(build.path().join("client")).unwrap();
        for way in ["netns", "notify"] {
            let mesh = mesh(User::Ordinary, way, CALLER).await;
            mesh.write("client", &program);
            std::fs::set_permissions(
                mesh.project().join("client"),
                std::os::unix::fs::PermissionsExt::from_mode(0o755),
            )
            .unwrap();
            let node = mesh.exec(&["node", "-e", NODE]).await;
            assert!(node.code == 0 && node.json()["path"] == "/node", "{way}: {node:?}");
            let go = mesh.exec(&["./client"]).await;
            assert!(go.code == 0 && go.json()["path"] == "/go", "{way}: {go:?}");
        }
    });
}

/// Asks 1000 times over one connection and 300 times over new ones; the medians in microseconds.
const LATENCY: &str = r#"
import socket, sys, time
ASK = b"GET /pay HTTP/1.1\r\nHost: payment-svc\r\n\r\n"
def connect():
    s = socket.create_connection((sys.argv[1], int(sys.argv[2]))); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1); return s
def once(s):
    s.sendall(ASK); seen = b""
    while b"}}" not in seen:
        part = s.recv(65536)
        if not part: raise SystemExit("closed: %r" % seen)
        seen += part
    if b" 200 " not in seen: raise SystemExit(repr(seen))
def median(n, act):
    times = []
    for _ in range(n):
        begun = time.perf_counter(); act(); times.append(time.perf_counter() - begun)
    return round(sorted(times)[n // 2] * 1e6)
kept = connect()
def new():
    s = connect(); once(s); s.close()
print(median(1000, lambda: once(kept)), median(300, new))
"#;

#[test]
fn without_the_mesh_programs_run_alone() {
    scenario(LIMIT, async {
        let mesh = Mesh::of(User::Ordinary);
        mesh.write("server.py", SERVER);
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        drop(free);
        mesh.write(
            "mesh.yaml",
            format!("services:\n  payment-svc: {{run: {RUN}, port: {port}, routes: [GET /pay]}}\n"),
        );
        let mut command = mesh.command(binaries::hms());
        command.args(["run", "probe", "--", "sh", "-c", "echo $PPID $PORT; exit 3"]).env("HMS_DISABLE", "1");
        let said = mesh.run(command).await;
        assert_eq!((said.code, said.out.split_whitespace().count()), (3, 2), "{said:?}");
        assert!(mesh.processes().is_empty(), "nothing was started beside it");
        let mut command = mesh.command(binaries::hms());
        command.arg("up").env("HMS_DISABLE", "1");
        let mut up = processes::Process::start(command, mesh.root().join("up.log"));
        let url = format!("http://127.0.0.1:{port}/pay");
        wait::until("the program answers", SOON, || async {
            let said = mesh.curl(&std::collections::BTreeMap::new(), &[&url]).await;
            if said.code == 0 { Ok(()) } else { Err(format!("{said:?} {}", up.output())) }
        })
        .await;
        assert!(mesh.processes_with("--role").is_empty(), "no proxy");
        assert_eq!(up.terminate().await, Some(0), "{}", up.output());
        mesh.until_nothing_runs().await;
    });
}

#[test]
fn setting_up_and_passing_through_take_little_time() {
    scenario(LIMIT, async {
        let mesh = mesh(User::Ordinary, "netns", CALLER).await;
        let mut times = Vec::new();
        for _ in 0..10 {
            let begun = tokio::time::Instant::now();
            let mut shepherd = mesh.command(binaries::hms_proxy());
            shepherd.args(["__shepherd", "--mode", "netns", "--", "true"]);
            assert_eq!(mesh.run(shepherd).await.code, 0);
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let median = times[times.len() / 2];
        let status = mesh.hms_json(&["status"]).await;
        let units = status["units"].as_array().cloned().unwrap_or_default();
        let caller = units.into_iter().find(|unit| unit["service"] == "caller").unwrap();
        let outbound = caller["outbound"].as_str().unwrap().replace(':', " ");
        let captured = mesh.exec(&["/usr/bin/python3", "-c", LATENCY, "payment-svc", "80"]).await;
        let mut direct = mesh.command("/usr/bin/python3");
        direct.args(["-c", LATENCY]).args(outbound.split(' '));
        let direct = mesh.run(direct).await;
        for (what, said) in [("captured", &captured), ("at the proxy's own listener", &direct)] {
            assert_eq!(said.code, 0, "{said:?}");
            figure(&format!("a request {what}, p50 µs on a kept and on a new connection"), said.out.trim());
        }
        figure("setting up a captured program, p50 ms", median.as_millis());
        assert!(median < Duration::from_secs(1), "{times:?}");
    });
}
