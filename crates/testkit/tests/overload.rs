//! More than a proxy can take: it refuses, waits or ends politely, and serves again at once when it can.

use std::net::SocketAddr;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{self, limit_open_files, open_files, processor_time};
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, tasks, wait};
use http::Method;
use nix::sys::signal::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
/// A part of the loopback network that is not 127.0.0.1: another source.
const STRANGER: [u8; 4] = [127, 0, 0, 2];

/// A control plane, one service before an application of ours, and one caller that reaches it.
struct Pair {
    mesh: Mesh,
    app: App,
    server: Proxy,
    client: Proxy,
}

impl Pair {
    async fn start(client: Plan) -> Self {
        let mesh = Mesh::new();
        let _runs = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {calc-svc: {routes: [GET /echo, GET /slow]}, portal: {}}").await;
        let app = App::start("calc").await;
        let server = Proxy::start(&mesh, Plan::of("calc-svc", app.address())).await;
        let client = Proxy::start(&mesh, client).await;
        client.until_reaches("calc-svc", "/echo").await;
        Self { mesh, app, server, client }
    }
}

/// A connection from another source that does nothing.
async fn stranger(to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((STRANGER, 0)))?;
    socket.connect(to).await
}

/// The part of one processor that a process uses for a second.
async fn load_over_a_second(pid: u32) -> f64 {
    let (begun, before) = (Instant::now(), processor_time(pid));
    wait::until_true("a second has passed", SECOND * 5, || begun.elapsed() >= SECOND).await;
    processor_time(pid).saturating_sub(before).as_secs_f64() / begun.elapsed().as_secs_f64()
}

async fn open_connections(proxy: &Proxy) -> f64 {
    proxy.metrics().await.sum("hms_connections_open", &[])
}

#[test]
fn at_the_bound_callers_wait_and_are_served_when_there_is_a_place_again() {
    scenario(Duration::from_mins(1), async {
        let pair = Pair::start(Plan { descriptors: Some(256), ..Plan::client("portal") }).await;
        let outbound = pair.client.address("outbound");
        let mut silent = Vec::new();
        for _ in 0..1000 {
            silent.push(TcpStream::connect(outbound).await.expect("the kernel's queue takes it"));
        }
        let full = wait::until("the bound is reached", SECOND * 10, || async {
            let open = open_connections(&pair.client).await;
            if open >= 90.0 { Ok(open) } else { Err(open.to_string()) }
        });
        let full = full.await;
        assert!(full <= 96.0, "(256 - 64) / 2 are taken, not {full}");
        let load = load_over_a_second(pair.client.process.pid()).await;
        assert!(load < 0.2, "a full proxy waits without work, but used {load} of a processor");
        pair.client.until_ready().await;

        let waiting = tasks::spawn(async move { Http::through(outbound, "calc-svc").get("/echo").await });
        let begun = Instant::now();
        drop(silent);
        let answer = waiting.await.unwrap().expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(begun.elapsed() < SECOND, "it took {:?}", begun.elapsed());
        figure("full proxy: processor", load);
        figure("full proxy: serves again after", format!("{:?}", begun.elapsed()));
    });
}

#[test]
fn running_out_of_descriptors_costs_no_processor_and_is_over_with_its_cause() {
    scenario(Duration::from_mins(1), async {
        let pair = Pair::start(Plan::client("portal")).await;
        let (pid, outbound) = (pair.client.process.pid(), pair.client.address("outbound"));
        // Behind its back, so that no bound of its own protects it: accept itself fails.
        limit_open_files(pid, u64::try_from(open_files(pid)).unwrap() + 8);
        let mut silent = Vec::new();
        for _ in 0..64 {
            silent.push(TcpStream::connect(outbound).await.expect("the kernel's queue takes it"));
        }
        wait::until_true("it says so", SECOND * 5, || pair.client.process.output().contains("accepting pauses")).await;
        let before = pair.client.process.output().matches("accepting pauses").count();
        let load = load_over_a_second(pid).await;
        assert!(load < 0.2, "it used {load} of a processor");
        let lines = pair.client.process.output().matches("accepting pauses").count() - before;
        assert!(lines <= 2, "at most one line per second, not {lines}");

        let begun = Instant::now();
        drop(silent);
        let answer = Http::through(outbound, "calc-svc").get("/echo").await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(begun.elapsed() < SECOND, "it took {:?}", begun.elapsed());
        figure("no descriptors: processor", load);
        figure("no descriptors: serves again after", format!("{:?}", begun.elapsed()));
    });
}

/// A gateway with its own client, which gets a refusal of the token for every request: served all the same.
async fn gateway(mesh: &Mesh, arguments: &[&str]) -> (Proxy, String) {
    let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
    let gateway = Proxy::start(mesh, Plan { arguments, ..Plan::gateway() }).await;
    gateway.until_ready().await;
    let https = gateway.address("https");
    let root = mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
    wait::until("the gateway has its certificate", SECOND * 20, || async {
        Http::tls(https, "gateway.local", &root).get("/").await
    })
    .await;
    (gateway, root)
}

#[test]
fn one_source_gets_a_quarter_of_a_gateway() {
    scenario(Duration::from_mins(1), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let (gateway, root) = gateway(&mesh, &["--max-connections", "40"]).await;
        let https = gateway.address("https");
        let mut held = Vec::new();
        for _ in 0..30 {
            held.push(stranger(https).await.unwrap());
        }
        let mut closed = 0;
        for stream in &mut held[10..] {
            let ended = tokio::time::timeout(SECOND * 4, stream.read(&mut [0])).await.expect("closed, not kept");
            // The end, or a reset: nothing was said on it.
            closed += usize::from(!matches!(ended, Ok(1..)));
        }
        assert_eq!(closed, 20, "of 40 places one source has 10");
        let refused = gateway.metrics().await.sum("hms_connections_refused", &[]);
        assert!((refused - 20.0).abs() < 0.5, "{refused}");
        let answer = Http::tls(https, "gateway.local", &root).get("/").await.expect("another source");
        assert!(answer.status >= 400, "without a token: {}", answer.status);
    });
}

#[test]
fn a_thousand_half_open_handshakes_hurt_nobody_else() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let (gateway, root) = gateway(&mesh, &[]).await;
        let https = gateway.address("https");
        // A new connection each time: the handshake is what is measured.
        let handshakes = async || {
            let mut took = Vec::new();
            for _ in 0..100 {
                let begun = Instant::now();
                let answer = Http::tls(https, "gateway.local", &root).get("/").await.expect("a handshake");
                assert!(answer.status >= 400, "{}", answer.status);
                took.push(begun.elapsed());
            }
            took.sort();
            (took[49], took[98])
        };
        let quiet = handshakes().await;
        let mut half_open = Vec::new();
        for _ in 0..1000 {
            let mut stream = stranger(https).await.unwrap();
            // The beginning of a TLS record, and never its end.
            stream.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
            half_open.push(stream);
        }
        let beside = handshakes().await;
        figure("handshakes p50, p99 alone", format!("{quiet:?}"));
        figure("handshakes p50, p99 beside 1000 half-open ones", format!("{beside:?}"));
        assert!(beside.1 < quiet.1 * 2 + Duration::from_millis(50), "p99 was {:?}, is {:?}", quiet.1, beside.1);

        // Those that had their turn are gone after 5 s, and so are those that waited for one.
        wait::until("every half-open connection is gone", SECOND * 12, || async {
            let open = open_connections(&gateway).await;
            if open < 8.0 { Ok(()) } else { Err(open.to_string()) }
        })
        .await;
        drop(half_open);
    });
}

#[test]
fn without_memory_requests_are_refused_until_connections_end() {
    scenario(Duration::from_mins(1), async {
        let mut pair = Pair::start(Plan::client("portal")).await;
        // Less than any process has, so that only the number of connections decides.
        let arguments = vec!["--memory-limit".to_owned(), "1".to_owned()];
        let _ended = pair.client.process.terminate().await;
        pair.client = Proxy::start(&pair.mesh, Plan { arguments, ..Plan::client("portal") }).await;
        pair.client.until_reaches("calc-svc", "/echo").await;
        let outbound = pair.client.address("outbound");
        let few = Http::through(outbound, "calc-svc").get("/echo").await.expect("an answer");
        assert_eq!((few.status, few.header("connection")), (200, "close"), "nothing is kept for later");

        let mut held = Vec::new();
        for _ in 0..16 {
            held.push(TcpStream::connect(outbound).await.unwrap());
        }
        let taken = wait::until("all are taken", SECOND * 5, || async {
            let open = open_connections(&pair.client).await;
            if open >= 16.0 { Ok(open) } else { Err(open.to_string()) }
        });
        let _taken = taken.await;
        let before = pair.app.hits();
        let refused = Http::through(outbound, "calc-svc").get("/echo").await.expect("an answer");
        assert_eq!((refused.status, refused.header("x-hms-error")), (503, "HMS-3010"), "{}", refused.text());
        assert_eq!((refused.header("retry-after"), refused.header("connection")), ("1", "close"));
        assert_eq!(pair.app.hits(), before, "nothing was sent");
        let metrics = pair.client.metrics().await;
        assert!((metrics.sum("hms_memory_level", &[]) - 3.0).abs() < 0.5, "{}", metrics.text());

        drop(held);
        wait::until("it serves again", SECOND * 5, || async {
            let answer = Http::through(outbound, "calc-svc").get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
    });
}

#[test]
fn who_is_told_to_end_finishes_what_it_has() {
    scenario(Duration::from_mins(1), async {
        let mut pair = Pair::start(Plan::client("portal")).await;
        let caller = pair.client.caller("calc-svc");
        let under_way = tasks::spawn(async move { caller.get("/slow/1500").await });
        wait::until_true("the request is under way", SECOND * 5, || pair.app.hits_of("/slow/1500") == 1).await;
        let outbound = pair.client.address("outbound");
        let client = &mut pair.client;
        processes::signal(client.process.pid(), Signal::SIGTERM);
        wait::until("nobody new is taken", SECOND * 5, || async {
            match TcpStream::connect(outbound).await {
                Ok(_) => Err("it still listens".to_owned()),
                Err(_refused) => Ok(()),
            }
        })
        .await;
        let answer = under_way.await.unwrap().expect("an answer");
        assert_eq!((answer.status, answer.header("connection")), (200, "close"), "{}", answer.text());
        let begun = Instant::now();
        assert_eq!(client.process.ended(SECOND * 5).await, Some(0));
        assert!(begun.elapsed() < SECOND, "nothing was left to wait for: {:?}", begun.elapsed());
        drop(pair.mesh);
    });
}

#[test]
fn who_is_told_twice_ends_at_once() {
    scenario(Duration::from_mins(1), async {
        let mut pair = Pair::start(Plan::client("portal")).await;
        let caller = pair.client.caller("calc-svc");
        let under_way = tasks::spawn(async move { caller.get("/slow/20000").await });
        wait::until_true("the request is under way", SECOND * 5, || pair.app.hits_of("/slow/20000") == 1).await;
        let process = &mut pair.client.process;
        processes::signal(process.pid(), Signal::SIGTERM);
        wait::until_true("it drains", SECOND * 5, || process.output().contains("draining")).await;
        let begun = Instant::now();
        assert_eq!(process.terminate().await, Some(0));
        assert!(begun.elapsed() < SECOND, "it took {:?}", begun.elapsed());
        assert!(under_way.await.unwrap().is_err(), "its connection is gone");
        assert!(pair.server.process.is_running());
    });
}
