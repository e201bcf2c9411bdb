//! Slow heads, slow bodies and slow readers by the hundred (reliability A7): others do not notice, and each of them is gone in time.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::http1::raw::{Raw, connector};
use hms_testkit::mesh::Mesh;
use hms_testkit::settings::full_size;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, processes, scenario, tasks, wait};
use http::Method;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

/// Answers that are larger than every buffer on their way.
const MESH: &str = "services: {calc-svc: {routes: [GET /*, POST /*], breaker: {errors: 1000}}, portal: {}}";
const HOST: &str = "gateway.local";
const SECOND: Duration = Duration::from_secs(1);
/// How long a connection of each kind may live.
const HEAD: Duration = Duration::from_secs(15);
const BODY: Duration = Duration::from_secs(45);

/// What is slow about a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slow {
    Head,
    Body,
    Read,
}

/// What one needs to connect to the gateway.
#[derive(Clone)]
struct Door {
    https: std::net::SocketAddr,
    connector: tokio_rustls::TlsConnector,
    token: String,
}

/// One slow connection, a few bytes a second, until it is closed. Tells when that was.
async fn crawl(slow: Slow, source: [u8; 4], door: Door, opened: mpsc::UnboundedSender<Slow>) -> (Slow, Duration) {
    let mut raw = Raw::tls_from(source, door.https, HOST, &door.connector).await;
    let token = &door.token;
    let head = |line: &str| format!("{line} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer {token}\r\n");
    let beginning = match slow {
        Slow::Head => head("GET /echo"),
        Slow::Body => head("POST /echo") + "Content-Length: 100000\r\n\r\n",
        Slow::Read => head("GET /bytes/2000000") + "\r\n",
    };
    let begun = Instant::now();
    let mut alive = raw.send(beginning).await;
    let _told = opened.send(slow).is_ok();
    let mut every_second = interval(SECOND);
    while alive {
        let _tick = every_second.tick().await;
        alive = match slow {
            // One more field, one more byte of the body, and an eye on whether it was closed meanwhile.
            Slow::Head => raw.send("x: y\r\n").await && raw.rest_within(Duration::from_millis(1)).await.is_none(),
            Slow::Body => raw.send("b").await && raw.rest_within(Duration::from_millis(1)).await.is_none(),
            // Who does not read does not see the end either; the gateway's own count tells it.
            Slow::Read => begun.elapsed() < BODY,
        };
    }
    (slow, begun.elapsed())
}

/// Latencies of a client that asks again and again, on one connection, for as long as `goes_on`.
async fn probe(http: &Http, mut goes_on: impl FnMut(usize) -> bool) -> (Duration, Duration) {
    let mut took = Vec::new();
    while goes_on(took.len()) {
        let answer = http.get("/echo").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        took.push(answer.took);
    }
    took.sort();
    (took[took.len() / 2], took[took.len() * 99 / 100])
}

#[test]
fn slow_connections_by_the_hundred_hurt_nobody_and_are_gone_in_time() {
    scenario(Duration::from_mins(3), async {
        let each: u8 = if full_size() { 250 } else { 75 };
        let sources: usize = 4;
        processes::own_open_files(20_000);
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = App::start("calc").await;
        let _server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let door = Door { https: gateway.address("https"), connector: connector(&root), token: mesh.jwt().await };
        let http = Http::tls(door.https, HOST, &root).bearer(&door.token);
        wait::until("the gateway passes a call", SECOND * 20, || async {
            let answer = http.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let alone = probe(&http, |count| count < 1000).await;

        let (opened, mut openings) = mpsc::unbounded_channel();
        let mut crawling = Vec::new();
        for slow in [Slow::Head, Slow::Body, Slow::Read] {
            for source in 0..sources {
                for _ in 0..each {
                    let source = [127, 0, 1, u8::try_from(source).unwrap() + 1];
                    crawling.push(tasks::spawn(crawl(slow, source, door.clone(), opened.clone())));
                }
            }
        }
        let all = crawling.len();
        for _ in 0..all {
            let _one = openings.recv().await.expect("each of them begins");
        }
        // The application builds all those answers on this very thread: what it does is no latency of the gateway.
        let readers = u64::from(each) * 4;
        wait::until_true("every answer has begun", SECOND * 20, || app.hits_of("/bytes/2000000") == readers).await;
        let begun = Instant::now();
        let beside = probe(&http, |_| begun.elapsed() < SECOND * 8).await;
        figure(&format!("probe p50, p99 alone, then beside {all} slow connections"), format!("{alone:?}, {beside:?}"));
        assert!(beside.1 < alone.1 * 10 + Duration::from_millis(20), "p99 was {:?}, is {:?}", alone.1, beside.1);

        let mut longest = [Duration::ZERO; 3];
        for one in crawling {
            let (slow, lived) = one.await.unwrap();
            let most = if slow == Slow::Head { HEAD } else { BODY + SECOND * 2 };
            assert!(lived < most, "a slow {slow:?} lived for {lived:?}");
            let longest = &mut longest[slow as usize];
            *longest = lived.max(*longest);
        }
        figure("the longest life of a slow head, body", format!("{:?}", &longest[..2]));
        wait::until("the gateway has given up on all of them", SECOND * 5, || async {
            let open = gateway.metrics().await.sum("hms_connections_open", &[]);
            if open < 8.0 { Ok(()) } else { Err(open.to_string()) }
        })
        .await;
    });
}
