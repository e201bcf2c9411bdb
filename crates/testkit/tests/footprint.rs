//! What a request and a connection cost the kernel: system calls, and resident memory.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{self, Process};
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, figure, scenario, wait};
use nix::sys::signal::Signal;
use tokio::net::TcpStream;
use tokio::process::Command;

/// System calls of one request in one proxy.
const MOST_CALLS: u64 = 7;
/// Resident memory of a connection without a request, in KiB.
const IDLE_CONNECTION_KIB: u64 = 4;

/// A proxy of the release build that calls `calc-svc`, and the one in front of `calc-svc`.
struct Pair {
    _mesh: Mesh,
    _control: Process,
    _app: App,
    server: Proxy,
    client: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {calc-svc: {routes: [GET /echo]}, portal: {}}").await;
        let app = App::start("calc").await;
        let release = |plan: Plan| Plan { program: binaries::release_proxy(), ..plan };
        let server = Proxy::start(&mesh, release(Plan::of("calc-svc", app.address()))).await;
        let client = Proxy::start(&mesh, release(Plan::client("portal"))).await;
        client.until_reaches("calc-svc", "/echo").await;
        Self { _mesh: mesh, _control: control, _app: app, server, client }
    }
}

/// Counts the system calls of a proxy from when it is attached until it is told to stop.
async fn traced(proxy: &Proxy) -> Process {
    let mut command = Command::new("strace");
    command.args(["-c", "-f", "-U", "calls,name", "-p", &proxy.process.pid().to_string()]);
    let tracer = Process::start(command, proxy.folder.join("strace.log"));
    wait::until("strace is attached", Duration::from_secs(10), || {
        let text = tracer.output();
        std::future::ready(if text.contains("attached") { Ok(()) } else { Err(text) })
    })
    .await;
    tracer
}

/// Ends a count; the sum.
async fn counted(mut tracer: Process) -> u64 {
    processes::signal(tracer.pid(), Signal::SIGINT);
    let _code = tracer.ended(Duration::from_secs(10)).await;
    let text = tracer.output();
    let total = text.lines().find_map(|line| line.trim().strip_suffix(" total")?.trim().parse().ok());
    assert!(total.is_some(), "no total in {text}");
    total.unwrap_or_default()
}

#[test]
fn a_request_costs_at_most_seven_system_calls_in_each_proxy() {
    const REQUESTS: u64 = 2000;
    scenario(Duration::from_mins(2), async {
        let pair = Pair::start().await;
        let caller = pair.client.caller("calc-svc");
        for proxy in [&pair.client, &pair.server] {
            assert_eq!(caller.get("/echo").await.expect("an answer").status, 200);
            let tracer = traced(proxy).await;
            for _ in 0..REQUESTS {
                assert_eq!(caller.get("/echo").await.expect("an answer").status, 200);
            }
            let calls = counted(tracer).await;
            let each = format!("{}.{:02}", calls / REQUESTS, calls % REQUESTS * 100 / REQUESTS);
            figure(&format!("system calls per request in {}", proxy.plan.service), each);
            assert!(calls >= 4 * REQUESTS, "two reads and two writes at least, or nothing was counted: {calls}");
            assert!(calls <= MOST_CALLS * REQUESTS, "{calls} for {REQUESTS} requests");
        }
    });
}

#[test]
fn a_thousand_idle_connections_cost_a_proxy_little_memory() {
    const CONNECTIONS: u64 = 1000;
    scenario(Duration::from_mins(1), async {
        let pair = Pair::start().await;
        let resident = || processes::resident_kib(pair.client.process.pid());
        let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", pair.client.process.pid())).unwrap().count();
        let (before, open) = (resident(), descriptors());
        let mut connections = Vec::new();
        for _ in 0..CONNECTIONS {
            connections.push(TcpStream::connect(pair.client.address("outbound")).await.expect("a connection"));
        }
        // Of those that were open before, some are closed meanwhile.
        let all = || descriptors() + 8 >= open + connections.len();
        wait::until_true("all are accepted", Duration::from_secs(10), all).await;
        let grown = resident().saturating_sub(before);
        figure("resident memory of an idle connection", format!("{} bytes", grown * 1024 / CONNECTIONS));
        assert!(grown <= IDLE_CONNECTION_KIB * CONNECTIONS, "{grown} KiB for {CONNECTIONS}");
    });
}
