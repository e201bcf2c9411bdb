//! How large and how quick it is: bounds that a test machine can hold, and the figures behind them.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{binaries, figure, processes, scenario, wait};
use tokio::process::Command;

/// Ruling R11.
const LARGEST: u64 = 10_000_000;
const IDLE_KIB: u64 = 12 * 1024;

#[test]
fn the_data_plane_is_smaller_than_ten_megabytes() {
    scenario(Duration::from_mins(1), async {
        let folder = tempfile::tempdir().expect("a folder");
        let stripped = folder.path().join("hms-proxy");
        let mut strip = Command::new("strip");
        let done = strip.arg("-o").arg(&stripped).arg(binaries::release_proxy()).status().await.expect("strip runs");
        assert!(done.success());
        let size = std::fs::metadata(&stripped).expect("it is there").len();
        figure("hms-proxy, release, stripped", format!("{size} bytes"));
        assert!(size < LARGEST, "{size} bytes");
    });
}

#[test]
fn an_idle_proxy_keeps_less_than_twelve_mebibytes() {
    scenario(Duration::from_mins(1), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {calc-svc: {routes: [GET /echo]}, portal: {}}").await;
        let app = App::start("calc").await;
        let release = |plan: Plan| Plan { program: binaries::release_proxy(), ..plan };
        let server = Proxy::start(&mesh, release(Plan::of("calc-svc", app.address()))).await;
        let client = Proxy::start(&mesh, release(Plan::client("portal"))).await;
        let gateway = Proxy::start(&mesh, release(Plan::gateway())).await;
        gateway.until_ready().await;
        client.until_reaches("calc-svc", "/echo").await;
        for proxy in [&server, &client, &gateway] {
            let resident = processes::resident_kib(proxy.process.pid());
            figure(&format!("idle RSS of {}", proxy.plan.service), format!("{resident} KiB"));
            assert!(resident <= IDLE_KIB, "{}: {resident} KiB", proxy.plan.service);
        }
    });
}

#[test]
fn the_mesh_is_ready_soon_after_its_applications_are() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        let mut up = mesh.command(binaries::hms());
        up.args(["up", "--ports", "auto"]);
        let mut up = processes::Process::start(up, mesh.root().join("up.log"));
        // The first moment at which both applications listen, against the moment `up` says it is ready.
        let listening = wait::until("both applications listen", Duration::from_mins(1), || {
            let logs = ["hello-svc", "calc-svc"].map(|name| {
                let path = mesh.root().join("s/hms");
                let project = std::fs::read_dir(path).ok().and_then(|mut found| found.next()?.ok());
                let log = project.map(|project| project.path().join(format!("sidecar/{name}.log")));
                log.and_then(|log| std::fs::read_to_string(log).ok()).unwrap_or_default()
            });
            let all = logs.iter().all(|log| log.contains("Uvicorn running on"));
            std::future::ready(if all { Ok(tokio::time::Instant::now()) } else { Err(up.output()) })
        })
        .await;
        wait::until("hms up says what to type next", Duration::from_secs(30), || {
            let text = up.output();
            std::future::ready(if text.contains("hms env") { Ok(()) } else { Err(text) })
        })
        .await;
        let took = listening.elapsed();
        figure("from applications ready to `hms up` ready (goal 2 s)", format!("{took:?}"));
        assert!(took < Duration::from_secs(20), "{took:?}");
        processes::signal(up.pid(), nix::sys::signal::Signal::SIGINT);
        let code = up.ended(Duration::from_secs(25)).await;
        assert_eq!(code, Some(130), "{}", up.output());
        mesh.until_nothing_runs().await;
    });
}
