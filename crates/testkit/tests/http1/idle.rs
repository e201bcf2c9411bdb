//! Thousands of connections that say nothing: all are held, at a small price, and requests beside them are answered.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::http1::message::Kind;
use hms_testkit::http1::raw::{Raw, connector};
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{own_open_files, resident_kib};
use hms_testkit::settings::full_size;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use http::Method;

const MESH: &str = "services: {calc-svc: {routes: [GET /*]}, portal: {}}";
const HOST: &str = "gateway.local";
const SECOND: Duration = Duration::from_secs(1);
/// KiB that one of them may hold.
const PLAIN: u64 = 8;
const TLS: u64 = 32;

/// How many.
fn count() -> u16 {
    if full_size() { 9500 } else { 2000 }
}

/// An address of the loopback network for the connection of this number: no source has more than its share.
fn source(number: u16) -> [u8; 4] {
    let [high, low] = (number / 500).to_be_bytes();
    [127, 1, high, low + 1]
}

async fn until_open(proxy: &Proxy, least: u16) {
    wait::until("all of them are taken", SECOND * 30, || async {
        let open = proxy.metrics().await.sum("hms_connections_open", &[]);
        if open >= f64::from(least) { Ok(()) } else { Err(open.to_string()) }
    })
    .await;
}

fn held(name: &str, before: u64, proxy: &Proxy, most: u64) {
    let grown = resident_kib(proxy.process.pid()).saturating_sub(before);
    let each = f64::from(u32::try_from(grown).unwrap()) / f64::from(count());
    figure(&format!("memory of each of {} idle {name} connections", count()), format!("{each:.1} KiB"));
    assert!(grown <= most * u64::from(count()), "{name}: {each:.1} KiB each");
}

#[test]
fn idle_connections_to_a_sidecar_are_held_and_cheap() {
    scenario(Duration::from_mins(3), async {
        own_open_files(20_000);
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let _server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        client.until_reaches("calc-svc", "/echo").await;
        let outbound = client.address("outbound");
        let before = resident_kib(client.process.pid());
        let mut connections: Vec<Raw> = Vec::new();
        for number in 0..count() {
            connections.push(Raw::plain_from(source(number), outbound).await);
        }
        until_open(&client, count()).await;
        held("plain", before, &client, PLAIN);
        // Each of them still works.
        let ask = "GET /echo HTTP/1.1\r\nHost: calc-svc\r\n\r\n";
        for connection in connections.iter_mut().step_by(97) {
            assert!(connection.send(ask).await);
            assert_eq!(connection.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
        }
        let beside = Http::through(outbound, "calc-svc").get("/echo").await.expect("an answer");
        assert_eq!(beside.status, 200, "{}", beside.text());
    });
}

#[test]
fn idle_connections_to_a_gateway_are_held_and_cheap() {
    scenario(Duration::from_mins(3), async {
        own_open_files(20_000);
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let _server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        let https = gateway.address("https");
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let token = mesh.jwt().await;
        let http = Http::tls(https, HOST, &root).bearer(&token);
        wait::until("the gateway passes a call", SECOND * 20, || async {
            let answer = http.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let connector = connector(&root);
        let before = resident_kib(gateway.process.pid());
        let ask = format!("GET /echo HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n\r\n");
        let mut connections: Vec<Raw> = Vec::new();
        for number in 0..count() {
            let mut raw = Raw::tls_from(source(number), https, HOST, &connector).await;
            // One request, so that it is idle between requests and not before the first: the gateway waits 75 s for the next.
            assert!(raw.send(&ask).await);
            assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
            connections.push(raw);
        }
        until_open(&gateway, count()).await;
        held("TLS", before, &gateway, TLS);
        let beside = http.get("/echo").await.expect("an answer");
        assert_eq!(beside.status, 200, "{}", beside.text());
    });
}
