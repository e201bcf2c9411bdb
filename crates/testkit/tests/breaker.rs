//! A sick service is left alone at once, and used again without anybody's help.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};

/// Ten times the promised 5 ms: the machine runs other tests at the same time.
const INSTANT: Duration = Duration::from_millis(50);
/// Ejected for 30 s ± 10 %, and some time to notice.
const HEALED: Duration = Duration::from_secs(36);

/// One service before an application of ours, and one caller.
struct Pair {
    mesh: Mesh,
    app: App,
    server: Proxy,
    client: Proxy,
}

impl Pair {
    async fn start(mesh_yaml: &str) -> Self {
        let mesh = Mesh::new();
        let _runs = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(mesh_yaml).await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        client.until_reaches("calc-svc", "/echo").await;
        Self { mesh, app, server, client }
    }

    async fn attempts(&self) -> f64 {
        self.server.metrics().await.sum("istio_requests_total", &["reporter=\"destination\""])
    }
}

async fn status(http: &Http, path: &str) -> (u16, String) {
    let answer = http.get(path).await.expect("an answer");
    (answer.status, answer.header("x-hms-error").to_owned())
}

#[test]
fn calls_to_a_dead_application_are_refused_at_once_and_pass_again_when_it_is_back() {
    scenario(Duration::from_mins(2), async {
        let pair = Pair::start("services: {calc-svc: {routes: [GET /echo], breaker: {open: 2s}}}").await;
        let calls = pair.client.caller("calc-svc");
        let Pair { mesh, app, server, client } = pair;
        let address = app.stop().await;
        for _ in 0..2 {
            let answer = calls.get("/echo").await.expect("an answer");
            assert_eq!(answer.status, 503, "{}", answer.text());
        }
        let before = server.metrics().await.sum("istio_requests_total", &["reporter=\"destination\""]);
        let third = calls.get("/echo").await.expect("an answer");
        assert_eq!((third.status, third.header("x-hms-error")), (503, "HMS-3001"), "{}", third.text());
        assert!(third.took < INSTANT, "the third call took {:?}", third.took);
        figure("open breaker answers in", format!("{:?}", third.took));
        let after = server.metrics().await.sum("istio_requests_total", &["reporter=\"destination\""]);
        assert!((after - before).abs() < 0.5, "no attempt reached the other proxy: {before} then {after}");

        let view = mesh.rest().until_breaker("calc-svc", "OPEN", Duration::from_secs(5)).await;
        assert!(!view["reason"].as_str().unwrap_or_default().is_empty(), "{view}");
        let shown = mesh.hms(&["breaker", "show", "calc-svc"]).await;
        assert!(shown.starts_with("calc-svc OPEN"), "{shown}");

        let _again = App::start_at("calc", address).await;
        client.until_reaches("calc-svc", "/echo").await;
        let _closed = mesh.rest().until_breaker("calc-svc", "CLOSED", HEALED).await;
    });
}

#[test]
fn three_gateway_failures_open_the_breaker_and_a_probe_without_traffic_closes_it() {
    scenario(Duration::from_mins(2), async {
        let yaml = "services: {calc-svc: {routes: [GET /echo], retry: {retries: 0}, breaker: {open: 2s}}}";
        let pair = Pair::start(yaml).await;
        let calls = pair.client.caller("calc-svc");
        for _ in 0..3 {
            assert_eq!(status(&calls, "/status/503").await, (503, String::new()), "the application's own answer");
        }
        let (hits, attempts) = (pair.app.hits(), pair.attempts().await);
        let mut slowest = Duration::ZERO;
        for _ in 0..20 {
            let answer = calls.get("/echo").await.expect("an answer");
            assert_eq!((answer.status, answer.header("x-hms-error")), (503, "HMS-3001"), "{}", answer.text());
            assert!(!answer.header("retry-after").is_empty(), "a refused caller is told when to come back");
            slowest = slowest.max(answer.took);
        }
        assert!(slowest < INSTANT, "{slowest:?}");
        figure("open breaker answers in (slowest of 20)", format!("{slowest:?}"));
        assert_eq!(pair.app.hits(), hits, "nothing reached the application");
        assert!((pair.attempts().await - attempts).abs() < 0.5, "nothing reached its proxy");

        let view = pair.mesh.rest().until_breaker("calc-svc", "OPEN", Duration::from_secs(5)).await;
        assert!(view["reason"].as_str().is_some_and(|reason| reason.starts_with("3×")), "{view}");
        assert!(view["next_probe_ms"].as_u64().is_some_and(|left| left <= 2200), "a countdown: {view}");
        let state = pair.client.metrics().await.sum("hms_breaker_state", &["calc-svc"]);
        assert!(state > 0.5, "the caller's metrics say open");
        // Nobody calls meanwhile: the probe runs by itself.
        let closed = pair.mesh.rest().until_breaker("calc-svc", "CLOSED", Duration::from_secs(10)).await;
        assert_eq!(closed["reason"], "");
        assert_eq!(status(&calls, "/echo").await.0, 200);
    });
}

#[test]
fn the_default_breaker_heals_within_35_seconds_and_its_countdown_is_shown() {
    scenario(Duration::from_mins(2), async {
        let pair = Pair::start("services: {calc-svc: {routes: [GET /echo], retry: {retries: 0}}}").await;
        let calls = pair.client.caller("calc-svc");
        for _ in 0..3 {
            let _failed = status(&calls, "/status/502").await;
        }
        assert_eq!(status(&calls, "/echo").await, (503, "HMS-3001".to_owned()));
        let open = pair.mesh.rest().until_breaker("calc-svc", "OPEN", Duration::from_secs(5)).await;
        let left = open["next_probe_ms"].as_u64().expect("a countdown");
        assert!((20_000..=33_000).contains(&left), "30 s ± 10 %: {open}");
        let shown = pair.mesh.hms(&["breaker", "show", "calc-svc"]).await;
        assert!(shown.contains("calc-svc OPEN") && shown.contains("s left") && shown.contains("portal"), "{shown}");
        let begun = tokio::time::Instant::now();
        pair.client.until_reaches_within("calc-svc", "/echo", HEALED).await;
        figure("default breaker healed after", format!("{:?}", begun.elapsed()));
        let _closed = pair.mesh.rest().until_breaker("calc-svc", "CLOSED", Duration::from_secs(5)).await;
    });
}

#[test]
fn an_applications_own_500_never_opens_the_breaker() {
    scenario(Duration::from_mins(2), async {
        let yaml = "services: {calc-svc: {routes: [GET /echo], retry: {retries: 0}}}";
        let pair = Pair::start(yaml).await;
        let calls = pair.client.caller("calc-svc");
        for _ in 0..12 {
            assert_eq!(status(&calls, "/status/500").await, (500, String::new()));
        }
        assert_eq!(status(&calls, "/echo").await.0, 200, "one buggy path does not close a service");
    });
}

#[test]
fn a_sick_endpoint_is_left_alone_while_its_neighbour_serves() {
    scenario(Duration::from_mins(2), async {
        let pair = Pair::start("services: {calc-svc: {routes: [GET /echo], breaker: {open: 60s}}}").await;
        let second = App::start("calc-2").await;
        let _other = Proxy::start(&pair.mesh, Plan::of("calc-svc", second.address()).workload("2")).await;
        let _two = pair.mesh.rest().until_service("calc-svc", "healthy", 2).await;
        let calls = pair.client.caller("calc-svc");
        wait::until("both endpoints are called", Duration::from_secs(20), || async {
            let _answer = calls.get("/echo").await?;
            if second.hits() > 0 { Ok(()) } else { Err("only the first one".to_owned()) }
        })
        .await;
        // The first one's proxy dies without a word; every call is still answered by the second one.
        let Pair { mut server, mesh, .. } = pair;
        server.process.kill().await;
        for _ in 0..50 {
            assert_eq!(status(&calls, "/echo").await.0, 200, "retries hide it");
        }
        let _one = mesh.rest().until_service("calc-svc", "healthy", 1).await;
    });
}

#[test]
fn a_stopped_service_of_the_lab_is_open_and_starts_again() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::example("hello");
        mesh.up().await;
        let gateway = mesh.gateway_with_token().await;
        assert_eq!(status(&gateway, "/sum/2/3").await.0, 200);
        mesh.hms(&["stop", "calc-svc"]).await;
        let (first, second) = (status(&gateway, "/sum/2/3").await, status(&gateway, "/sum/2/3").await);
        assert_eq!((first.0, second.0), (503, 503));
        let third = gateway.get("/sum/2/3").await.expect("an answer");
        assert_eq!((third.status, third.header("x-hms-error")), (503, "HMS-3001"), "{}", third.text());
        assert!(third.took < INSTANT, "{:?}", third.took);
        let view = mesh.hms_json(&["breaker", "show", "calc-svc"]).await;
        assert!(view["phase"] == "OPEN" && view["reason"] != "", "{view}");
        let shown = mesh.hms(&["services"]).await;
        assert!(shown.contains("unhealthy") || shown.contains("stopped"), "its registration stays: {shown}");
        mesh.hms(&["start", "calc-svc"]).await;
        wait::until("traffic flows again", HEALED, || async {
            let answer = gateway.get("/sum/2/3").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let _closed = mesh.rest().until_breaker("calc-svc", "CLOSED", Duration::from_secs(10)).await;
    });
}
