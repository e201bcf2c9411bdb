//! A proxy is replaced by another process of itself, or killed, while requests come.

use std::sync::Arc;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{self, Process};
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, settings, wait};
use http::Method;
use nix::sys::signal::Signal;

const SECOND: Duration = Duration::from_secs(1);
const BODY: &[u8] = &[b'b'; 2048];

struct Pair {
    mesh: Mesh,
    _control: Process,
    _app: App,
    server: Proxy,
    client: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let routes = "services: {calc-svc: {routes: [GET /echo, POST /echo, GET /slow, POST /slow]}, portal: {}}";
        let _applied = mesh.rest().apply(routes).await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        client.until_reaches("calc-svc", "/echo").await;
        Self { mesh, _control: control, _app: app, server, client }
    }
}

/// GET and POST in turn; every answer must be the application's to exactly this request.
fn load(http: Http, rate: u32) -> Load {
    let http = Arc::new(http);
    Load::start(rate, move |id| {
        let http = Arc::clone(&http);
        async move {
            let path = format!("/echo?id={id}");
            let (method, body) = if id % 2 == 0 { (Method::GET, &[][..]) } else { (Method::POST, BODY) };
            let answer =
                http.send(method.clone(), &path, &[], body).await.map_err(|error| format!("{method} {error}"))?;
            match answer.status {
                200 if answer.json()["path"] == path && answer.json()["body"] == body.len() => Ok(()),
                200 => Err("an answer to another request".to_owned()),
                status => Err(format!("{method} {status} {}", answer.header("x-hms-error"))),
            }
        }
    })
}

/// Its process is gone after it has finished, and said that nothing was lost.
async fn finished(mut old: Process) {
    assert_eq!(old.ended(SECOND * 20).await, Some(0), "{}", old.output());
}

#[test]
fn a_proxy_restarted_again_and_again_under_load_loses_no_request() {
    let (restarts, rate) = if settings::full_size() { (20, 500) } else { (5, 200) };
    scenario(Duration::from_mins(5), async {
        let mut pair = Pair::start().await;
        let load = load(pair.client.caller("calc-svc"), rate);
        let mut old = Vec::new();
        for _ in 0..restarts {
            // The called side and the calling side, each while the other serves.
            let (inbound, outbound) = (pair.server.ports["inbound"].clone(), pair.client.ports["outbound"].clone());
            old.push(pair.server.restart(&pair.mesh).await);
            load.go_on_for(u64::from(rate) / 4).await;
            old.push(pair.client.restart(&pair.mesh).await);
            load.go_on_for(u64::from(rate) / 4).await;
            assert_eq!(inbound, pair.server.ports["inbound"]);
            assert_eq!(outbound, pair.client.ports["outbound"]);
            let service = pair.mesh.rest().get("/v1/services/calc-svc").await;
            assert_eq!(service["state"], "healthy", "the registration stays: {service}");
        }
        for process in old {
            finished(process).await;
        }
        let ledger = load.finish().await;
        figure("restarts", restarts * 2);
        figure("requests", ledger.entries.len());
        figure("failed", ledger.failed().len());
        figure("slowest", format!("{:?}", ledger.slowest()));
        ledger.assert_no_failures("restarting proxies");
        let endpoints = pair.mesh.rest().get("/v1/services/calc-svc").await;
        assert_eq!(endpoints["endpoints"].as_array().map(Vec::len), Some(1), "{endpoints}");
    });
}

#[test]
fn a_new_process_that_never_becomes_ready_leaves_the_old_one_in_place() {
    scenario(Duration::from_mins(1), async {
        let pair = Pair::start().await;
        let caller = pair.client.caller("calc-svc");
        // It asks for the sockets and dies with them.
        let socket = pair.client.folder.join("takeover.sock");
        for _ in 0..3 {
            let mut stream = tokio::net::UnixStream::connect(&socket).await.unwrap();
            let hello = tokio::io::AsyncWriteExt::write_all(&mut stream, b"sidecar portal\n");
            hello.await.unwrap();
            drop(stream);
            let answer = caller.get("/echo").await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        pair.client.until_ready().await;
    });
}

#[test]
fn a_killed_proxy_costs_only_what_cannot_be_repeated() {
    scenario(Duration::from_mins(1), async {
        let Pair { mesh, _control, _app: app, mut server, client } = Pair::start().await;
        let second = App::start("calc").await;
        let plan = Plan::of("calc-svc", second.address()).workload("2");
        let _other = Proxy::start(&mesh, plan).await;
        let _both = mesh.rest().until_service("calc-svc", "healthy", 2).await;
        let caller = client.caller("calc-svc");
        let calls: Vec<_> = (0..24)
            .map(|n| {
                let (caller, method) = (caller.clone(), if n % 2 == 0 { Method::GET } else { Method::POST });
                hms_testkit::tasks::spawn(async move {
                    let answer = caller.send(method.clone(), "/slow/1500", &[], "x").await.expect("an answer");
                    (method, answer.status)
                })
            })
            .collect();
        let under_way = || app.hits_of("/slow/1500") + second.hits_of("/slow/1500") == 24;
        wait::until_true("all are under way", SECOND * 5, under_way).await;
        let lost = app.hits_of("/slow/1500");
        assert!(lost > 0, "both are used");
        server.process.kill().await;
        let (mut get, mut post) = (0, 0);
        for call in calls {
            let (method, status) = call.await.unwrap();
            match (method, status) {
                (_, 200) => {}
                (Method::GET, _) => get += 1,
                (_, 502) => post += 1,
                other => panic!("{other:?}"),
            }
        }
        figure("under way at the killed one", lost);
        figure("of these, POSTs that failed", post);
        assert_eq!(get, 0, "what is safe to repeat was repeated");
        assert!(post > 0 && post <= lost, "{post} of {lost}");
    });
}

#[test]
fn the_supervisor_restarts_every_proxy_under_load_and_revives_one_that_was_killed() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::example("hello");
        let route = mesh.project().join("calc_svc/route.yaml");
        let text = std::fs::read_to_string(&route).expect("the example's route");
        // More than the example allows.
        mesh.write("calc_svc/route.yaml", text.replace("20 req/min", "60000 req/min"));
        let _up = mesh.up().await;
        let gateway = Arc::new(mesh.gateway_with_token().await);
        let load = Load::start(50, move |id| {
            let gateway = Arc::clone(&gateway);
            async move {
                let answer = gateway.get(&format!("/sum/{id}/1")).await?;
                match answer.status {
                    200 if answer.json()["sum"] == id + 1 => Ok(()),
                    status => Err(format!("{status} {}", answer.header("x-hms-error"))),
                }
            }
        });
        load.go_on_for(50).await;
        let before = mesh.processes_with("hms-proxy").len();
        let restarted = mesh.hms_json(&["proxy", "restart", "--all"]).await;
        let items = restarted["items"].as_array().expect("a list");
        let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap_or_default()).collect();
        assert_eq!(names, ["calc-svc", "gateway.hms-system", "hello-svc"]);
        assert!(items.iter().all(|item| item["was"] != item["is"]), "{restarted}");
        let said = mesh.hms(&["proxy", "restart", "calc-svc"]).await;
        assert!(said.contains("the proxy of calc-svc was restarted"), "{said}");
        wait::until_true("the former processes have ended", SECOND * 30, || {
            mesh.processes_with("hms-proxy").len() == before
        })
        .await;
        load.go_on_for(50).await;
        load.finish().await.assert_no_failures("restarting every proxy");

        let unknown = mesh.try_hms(&["proxy", "restart", "calk-svc"]).await;
        assert!(unknown.code != 0 && unknown.err.contains("did you mean `calc-svc`?"), "{unknown:?}");
        let killed = mesh.processes_with("--service calc-svc.default").pop().expect("its proxy");
        processes::signal(killed.pid, Signal::SIGKILL);
        let gateway = mesh.gateway_with_token().await;
        wait::until("the supervisor has started another", SECOND * 20, || async {
            let now = mesh.processes_with("--service calc-svc.default").pop();
            let other = now.filter(|now| now.pid != killed.pid).ok_or_else(|| "none yet".to_owned())?;
            let answer = gateway.get("/sum/2/3").await?;
            if answer.status == 200 { Ok(other) } else { Err(format!("{} {}", answer.status, answer.text())) }
        })
        .await;
        let _down = mesh.hms(&["down"]).await;
        mesh.until_nothing_runs().await;
    });
}
