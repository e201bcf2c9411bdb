//! WebSocket through a pair of proxies and through the gateway is what it is without them, to the last byte and the way it ends.
#![expect(clippy::unwrap_used, reason = "a stack that does not start fails its test")]

use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::http1::End;
use hms_testkit::http1::raw::Raw;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::scenario;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::websocket::{self, CLOSE, FAIL, WELCOME, ask, frame};
use hms_testkit::{figure, wait};
use http::Method;

const MESH: &str = "services: {chat: {routes: [GET /*], breaker: {errors: 1000}}, portal: {}}";

/// An application that speaks WebSocket, and every way to it.
struct Stack {
    app: SocketAddr,
    mesh: Mesh,
    client: Proxy,
    gateway: Proxy,
    root: String,
    token: String,
    pinned: SocketAddr,
    _server: Proxy,
    _control: Process,
}

/// A way to the application.
#[derive(Debug, Clone, Copy)]
enum Way {
    Direct,
    Sidecars,
    Gateway,
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let app = websocket::start().await;
        let server = Proxy::start(&mesh, Plan::of("chat", app)).await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["chat".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let gateway = Proxy::start(&mesh, Plan::gateway()).await;
        let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let token = mesh.jwt().await;
        let pinned = client.ports["upstreams"]["chat"].as_str().unwrap().parse().unwrap();
        let stack = Self { app, mesh, client, gateway, root, token, pinned, _server: server, _control: control };
        let outside = Http::tls(stack.gateway.address("https"), "gateway.local", &stack.root).bearer(&stack.token);
        for (way, http) in [("a sidecar", stack.client.caller("chat")), ("the gateway", outside)] {
            wait::until(&format!("{way} leads there"), Duration::from_secs(20), || async {
                // Only the application says so.
                let answer = http.get("/no").await?;
                if answer.text() == "no" { Ok(()) } else { Err(answer.text()) }
            })
            .await;
        }
        stack
    }

    async fn open(&self, way: Way) -> Raw {
        match way {
            Way::Direct => Raw::plain(self.app).await,
            Way::Sidecars => Raw::plain(self.pinned).await,
            Way::Gateway => Raw::tls(self.gateway.address("https"), "gateway.local", &self.root).await,
        }
    }

    fn asks(&self, way: Way, path: &str) -> Vec<u8> {
        match way {
            Way::Direct | Way::Sidecars => ask(path, "chat", ""),
            Way::Gateway => ask(path, "gateway.local", &format!("Authorization: Bearer {}\r\n", self.token)),
        }
    }

    /// Asks, sends these pieces without waiting for anything, and reads to the end: all that came, and how it ended.
    async fn talk(&self, way: Way, path: &str, pieces: &[Vec<u8>]) -> (Vec<u8>, End) {
        let mut raw = self.open(way).await;
        let mut first = self.asks(way, path);
        // What follows at once must not overtake the handshake.
        if let Some(piece) = pieces.first() {
            first.extend(piece);
        }
        let _taken_or_not = raw.send(&first).await;
        for piece in pieces.iter().skip(1) {
            let _taken_or_not = raw.send(piece).await;
        }
        let (said, end) = raw.rest().await;
        (said.to_vec(), end)
    }

    /// The same without the head of the answer, which is not the application's alone.
    async fn frames(&self, way: Way, path: &str, pieces: &[Vec<u8>]) -> (String, End) {
        let (said, end) = self.talk(way, path, pieces).await;
        let head = said.windows(4).position(|window| window == b"\r\n\r\n").map_or(0, |at| at + 4);
        let line = said.split(|byte| *byte == b'\r').next().unwrap_or_default().to_vec();
        (format!("{}\n{}", line.escape_ascii(), said[head..].escape_ascii()), end)
    }
}

/// A path, what is tried there, and what is sent.
type Case = (&'static str, &'static str, Vec<Vec<u8>>);

/// What clients do: sizes at the edges of the encoding, fragments, pings, closes with and without a reason, and what breaks rules.
fn cases() -> Vec<Case> {
    let close = frame(8, b"\x03\xe8bye");
    let mut cases = vec![
        ("/echo", "close at once", vec![close.clone()]),
        ("/echo", "close without a reason", vec![frame(8, b"")]),
        ("/echo", "ping and pong", vec![frame(9, b"beat"), frame(10, b"alone"), close.clone()]),
        ("/first", "a server that speaks first", vec![close.clone()]),
        ("/first", "a word, then close", vec![frame(1, b"hello"), close.clone()]),
        ("/bye", "a server that leaves", vec![]),
        ("/fail", "a server that fails the connection", vec![frame(1, b"x")]),
    ];
    let mut fragments = frame(1, b"one");
    fragments[0] = 1;
    let mut last = frame(0, b"two");
    last[0] = 0x80;
    cases.push(("/echo", "fragments", vec![fragments, frame(9, b"between"), last, close.clone()]));
    for size in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20] {
        let payload: Vec<u8> = (0..size).map(|at: usize| u8::try_from(at % 251).unwrap()).collect();
        cases.push(("/echo", "a size", vec![frame(2, &payload), close.clone()]));
    }
    let bytes: Vec<Vec<u8>> = [frame(1, b"byte by byte"), close].concat().into_iter().map(|byte| vec![byte]).collect();
    cases.push(("/echo", "byte by byte", bytes));
    cases
}

#[test]
fn every_case_is_the_same_with_and_without_the_mesh() {
    scenario(Duration::from_mins(4), async {
        let stack = Box::pin(Stack::start()).await;
        let mut compared = 0;
        for (path, what, pieces) in cases() {
            let direct = stack.frames(Way::Direct, path, &pieces).await;
            for way in [Way::Sidecars, Way::Gateway] {
                let through = stack.frames(way, path, &pieces).await;
                assert!(through == direct, "{way:?}, {path} {what}: {through:?} instead of {direct:?}");
                compared += 1;
            }
        }
        figure("WebSocket cases compared with a direct connection", compared);
    });
}

#[test]
fn the_last_frame_and_the_end_of_a_server_arrive_while_the_client_goes_on() {
    scenario(Duration::from_mins(3), async {
        let stack = Box::pin(Stack::start()).await;
        for way in [Way::Sidecars, Way::Gateway] {
            for round in 0..40 {
                let flood: [Vec<u8>; 20] = std::array::from_fn(|_| frame(1, &[b'x'; 200]));
                let (said, _) = stack.talk(way, "/fail", &flood).await;
                assert!(said.ends_with(FAIL), "{way:?}, round {round}: {}", said.escape_ascii());
                let (said, end) = stack.talk(way, "/bye", &[]).await;
                assert!(
                    said.ends_with(&[WELCOME, CLOSE].concat()) && end == End::Clean,
                    "{way:?}, round {round}: {end:?}"
                );
            }
        }
    });
}

#[test]
fn a_refusal_is_an_answer_and_the_connection_speaks_http() {
    scenario(Duration::from_mins(2), async {
        use hms_testkit::http1::message::Kind;
        let stack = Box::pin(Stack::start()).await;
        for way in [Way::Sidecars, Way::Gateway] {
            let mut raw = stack.open(way).await;
            for _ in 0..2 {
                assert!(raw.send(stack.asks(way, "/no")).await);
                let answer = raw.answer(Kind::Answer).await.unwrap();
                assert_eq!((answer.status(), answer.text().as_str()), (403, "no"), "{way:?}");
            }
        }
        let mut wrong = stack.asks(Way::Sidecars, "/echo");
        let at = wrong.windows(13).position(|window| window == b"ket-Version: ").unwrap() + 13;
        wrong.splice(at..at + 2, *b"7");
        let mut raw = stack.open(Way::Sidecars).await;
        assert!(raw.send(wrong).await);
        assert_eq!(raw.answer(Kind::Answer).await.unwrap().status(), 400, "a version that nobody speaks");
    });
}

#[test]
fn a_tunnel_is_in_the_metrics_and_outlives_a_drain_only_as_something_broken_off() {
    scenario(Duration::from_mins(2), async {
        let mut stack = Box::pin(Stack::start()).await;
        let mut raw = stack.open(Way::Sidecars).await;
        assert!(raw.send(stack.asks(Way::Sidecars, "/first")).await);
        while !raw.got().ends_with(WELCOME) {
            assert!(raw.read_more().await);
        }
        // One that has ended is a request with its status.
        let _said = stack.talk(Way::Sidecars, "/bye", &[]).await;
        wait::until("the tunnel is counted", Duration::from_secs(10), || async {
            let metrics = stack.client.metrics().await;
            let counted = metrics.sum("istio_requests_total", &["response_code=\"101\""]) >= 1.0;
            if counted { Ok(()) } else { Err(metrics.text().to_owned()) }
        })
        .await;
        let code = stack.client.process.terminate().await;
        assert_eq!(code, Some(0), "{}", stack.mesh.logs());
        assert_eq!(raw.rest().await.1, End::Broken);
    });
}
