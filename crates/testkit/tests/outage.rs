//! The control plane dies; the data plane does not notice.

use std::sync::Arc;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{scenario, wait};
use http::Method;
use serde_json::json;
use tokio::sync::watch;

const MESH: &str = "\
services:
  calc-svc: {routes: [GET /echo, {match: GET /status/204, rate_limit: 2/h}]}
  portal: {}
  stranger: {}
allow:
  - {from: [portal, gateway], to: calc-svc}
";

fn load(http: Http) -> Load {
    let http = Arc::new(http);
    Load::start(100, move |_| {
        let http = Arc::clone(&http);
        async move {
            let answer = http.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        }
    })
}

#[test]
fn traffic_goes_on_without_a_control_plane_and_a_restarted_sidecar_still_enforces() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let mut control = mesh.control(&[]).await;
        let rest = mesh.rest();
        let _applied = rest.apply(MESH).await;
        let domain = rest.get("/v1/summary").await["trust_domain"].as_str().expect("a domain").to_owned();
        let app = App::start("calc").await;
        let mut server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let stranger = Proxy::start(&mesh, Plan::client("stranger")).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        client.until_reaches("calc-svc", "/echo").await;
        gateway.until_ready().await;
        let edge = Edge::of(&mesh, &gateway).await;
        edge.until_passes().await;
        let denied = wait::until("the stranger knows the service", Duration::from_secs(10), || async {
            let answer = stranger.caller("calc-svc").get("/echo").await?;
            if answer.status == 403 { Ok(answer) } else { Err(format!("{} {}", answer.status, answer.text())) }
        });
        assert_eq!(denied.await.header("x-hms-error"), "HMS-3201");

        let load = load(client.caller("calc-svc"));
        load.go_on_for(100).await;
        // A renewal before the outage: what is kept for a restart is kept again under the new key.
        mesh.rest().post("/v1/certificates/rotate", &serde_json::json!({"service": "calc-svc"})).await;
        load.go_on_for(50).await;
        control.kill().await;
        load.go_on_for(200).await;
        load.finish().await.assert_no_failures("the control plane was killed");

        // The called sidecar dies as well and comes back at its address, with nobody to ask.
        let inbound = server.address("inbound");
        server.process.kill().await;
        let plan = Plan { inbound, ..Plan::of("calc-svc", app.address()) };
        let server = Proxy::start_unattested(&mesh, plan, &domain).await;
        server.until_ready().await;
        client.until_reaches_within("calc-svc", "/echo", Duration::from_secs(40)).await;
        let denied = stranger.caller("calc-svc").get("/echo").await.expect("an answer");
        assert_eq!((denied.status, denied.header("x-hms-error")), (403, "HMS-3201"), "the allow rule still holds");
        edge.still_enforces().await;
        // A caller restarted meanwhile finds the service by what it kept.
        let Proxy { mut process, .. } = client;
        process.kill().await;
        let client = Proxy::start_unattested(&mesh, Plan::client("portal"), &domain).await;
        client.until_reaches("calc-svc", "/echo").await;

        // It comes back; what was registered is there before anybody has said a word.
        let _again = mesh.control(&[]).await;
        let rest = mesh.rest();
        let view = rest.until_service("calc-svc", "healthy", 1).await;
        assert_eq!(view["endpoints"][0]["address"], inbound.to_string());
        // What a supervisor does when it sees a new control plane; see the next scenario for a real one.
        for proxy in [&server, &client, &stranger, &gateway] {
            proxy.attest(&mesh).await;
        }
        until_attached(&mesh, 4).await;
        client.until_reaches("calc-svc", "/echo").await;
        edge.until_passes().await;
    });
}

/// Waits until so many proxies hold a stream to the control plane.
async fn until_attached(mesh: &Mesh, wanted: usize) {
    let rest = mesh.rest();
    wait::until("the proxies are attached", Duration::from_secs(40), || async {
        let listed = rest.get("/v1/proxies").await;
        let count = listed["items"].as_array().map_or(0, Vec::len);
        if count == wanted { Ok(()) } else { Err(listed.to_string()) }
    })
    .await;
}

#[test]
fn a_new_control_plane_finds_the_supervised_mesh_as_it_was_and_nobody_lifts_a_finger() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("passport");
        let mut control = mesh.control(&[]).await;
        // `up` finds the control plane that is there, and brings everything else.
        let _said = mesh.up().await;
        let before = mesh.rest().get("/v1/services").await;
        let gateway = Arc::new(mesh.gateway_with_token().await);
        let calls = Arc::clone(&gateway);
        let load = Load::start(50, move |_| {
            let calls = Arc::clone(&calls);
            async move {
                let answer = calls.get("/check").await?;
                if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
            }
        });
        load.go_on_for(50).await;
        control.kill().await;
        load.go_on_for(100).await;
        let _again = mesh.control(&[]).await;
        until_attached(&mesh, 3).await;
        load.go_on_for(50).await;
        load.finish().await.assert_no_failures("the control plane was killed and replaced");
        let after = mesh.rest().get("/v1/services").await;
        let endpoints = |list: &serde_json::Value| {
            let items = list["items"].as_array().into_iter().flatten();
            items.map(|item| (item["name"].clone(), item["endpoints"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(endpoints(&before), endpoints(&after));
        let _down = mesh.hms(&["down"]).await;
    });
}

/// The gateway as a client from outside sees it.
struct Edge {
    known: Http,
    unknown: Http,
}

impl Edge {
    async fn of(mesh: &Mesh, gateway: &Proxy) -> Self {
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let unknown = Http::tls(gateway.address("https"), "gateway.local", &root);
        Self { known: unknown.clone().bearer(&mesh.jwt().await), unknown }
    }

    async fn until_passes(&self) {
        wait::until("the gateway passes a call", Duration::from_secs(20), || async {
            let answer = self.known.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{} {}", answer.status, answer.text())) }
        })
        .await;
    }

    async fn still_enforces(&self) {
        for (http, path, status) in
            [(&self.known, "/echo", 200), (&self.unknown, "/echo", 401), (&self.known, "/nowhere", 404)]
        {
            let answer = http.get(path).await.expect("an answer");
            assert_eq!(answer.status, status, "{path}: {}", answer.text());
        }
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(self.known.get("/status/204").await.expect("an answer").status);
        }
        assert_eq!(statuses, [204, 204, 429], "the rate limit of the last-good file holds");
    }
}

#[test]
fn a_proxy_that_never_had_a_configuration_fails_closed_and_fast() {
    scenario(Duration::from_mins(1), async {
        let mesh = Mesh::new();
        let mut control = mesh.control(&[]).await;
        let domain = mesh.rest().get("/v1/summary").await["trust_domain"].as_str().expect("a domain").to_owned();
        control.kill().await;
        let proxy = Proxy::start_unattested(&mesh, Plan::client("portal"), &domain).await;
        let answer = proxy.caller("calc-svc").get("/echo").await.expect("an answer");
        assert_eq!((answer.status, answer.header("x-hms-error")), (503, "HMS-3009"), "{}", answer.text());
        assert!(answer.took < Duration::from_secs(2), "{:?}", answer.took);
        let ready = Http::plain(proxy.address("admin")).get("/ready").await.expect("an answer");
        assert_eq!(ready.status, 503);
    });
}

#[test]
fn an_acknowledged_change_survives_every_kill() {
    const ROUNDS: usize = 12;
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let mut acknowledged = 0;
        let mut domain = None;
        for round in 0..ROUNDS {
            let mut control = mesh.control(&[]).await;
            let summary = mesh.rest().get("/v1/summary").await;
            assert_eq!(*domain.get_or_insert_with(|| summary["trust_domain"].clone()), summary["trust_domain"]);
            let there = services(&mesh).await;
            // The one that was under way may have been written without anybody having been told.
            assert!(
                (acknowledged..=acknowledged + 1).contains(&there),
                "round {round}: {acknowledged} against {there}"
            );
            let (told, mut count) = watch::channel(there);
            // Changes go on until the process dies in the middle of one, each round after another number of them.
            let goal = there + (round * 7) % 13;
            let ((), reached) = tokio::join!(
                async {
                    let _reached = count.wait_for(|count| *count >= goal).await.is_ok();
                    control.kill().await;
                },
                change_until_it_dies(&mesh, told)
            );
            acknowledged = reached;
        }
        let _last = mesh.control(&[]).await;
        let there = services(&mesh).await;
        assert!(there >= acknowledged && there > ROUNDS, "{acknowledged} against {there}");
    });
}

async fn services(mesh: &Mesh) -> usize {
    mesh.rest().get("/v1/services").await["items"].as_array().map_or(0, Vec::len)
}

/// Registers one service after the other; returns how many are acknowledged when no answer comes any more.
async fn change_until_it_dies(mesh: &Mesh, told: watch::Sender<usize>) -> usize {
    let (address, token) = (mesh.rest_address(), mesh.token());
    let http = Http::plain(address).bearer(&token);
    loop {
        let number = *told.borrow();
        let text = format!("service: svc-{number}\nroutes: [GET /of/{number}]\n");
        let body = json!({"files": [{"name": "route.yaml", "text": text}]}).to_string();
        let fields = [("content-type", "application/json")];
        match http.send(Method::POST, "/v1/route-files", &fields, body).await {
            Ok(answer) => {
                assert_eq!(answer.status, 200, "{}", answer.text());
                let _before = told.send_replace(number + 1);
            }
            Err(_dead) => return number,
        }
    }
}
