//! What takes long: an upload to a slow reader, events that come one by one. Nothing is kept, nothing is held back.
#![expect(clippy::unwrap_used, reason = "a stack that does not start fails its test")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hms_testkit::http1::raw::Raw;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{Process, resident_kib};
use hms_testkit::settings::full_size;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::tcp::Sum;
use hms_testkit::{figure, scenario, tasks};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// Memory that one upload may cost a proxy.
const UPLOAD_KIB: u64 = 6 * 1024;

/// An application that reads as slowly as it is let, and says one event each time it is told to.
struct App {
    address: SocketAddr,
    /// Pieces that it may read, or events that it is to send.
    turns: Arc<Semaphore>,
}

impl App {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, turns) = (listener.local_addr().unwrap(), Arc::new(Semaphore::new(0)));
        let shared = Arc::clone(&turns);
        let _until_the_end = tasks::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let turns = Arc::clone(&shared);
                let _until_closed = tasks::spawn(async move { serve(stream, &turns).await.is_some() });
            }
        });
        Self { address, turns }
    }
}

async fn serve(mut stream: TcpStream, turns: &Semaphore) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut head = Vec::new();
    let end = loop {
        if let Some(at) = head.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
    };
    let first = String::from_utf8_lossy(&head).into_owned();
    if first.starts_with("GET /events") {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.ok()?;
        for number in 0.. {
            turns.acquire().await.ok()?.forget();
            let event = format!("data: {number}\n\n");
            stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await.ok()?;
        }
    }
    if first.starts_with("GET") {
        return stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.ok();
    }
    let length =
        first.to_ascii_lowercase().split("content-length: ").nth(1)?.split('\r').next()?.parse::<usize>().ok()?;
    let mut body = head.split_off(end);
    let mut sum = Sum::default();
    let mut read = 0;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let whole = body.len() / 8 * 8;
        sum.add(&body[..whole]);
        read += whole;
        body.drain(..whole);
        if read + body.len() >= length {
            sum.add(&body);
            break;
        }
        turns.acquire().await.ok()?.forget();
        let came = stream.read(&mut buffer).await.ok().filter(|came| *came > 0)?;
        body.extend_from_slice(&buffer[..came]);
    }
    let text = format!("{sum:?}");
    stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len()).as_bytes()).await.ok()
}

/// The application and the two proxies before it.
struct Stack {
    app: App,
    client: Proxy,
    server: Proxy,
    pinned: SocketAddr,
    _kept: (Mesh, Process),
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {feed: {routes: [GET /*, POST /*]}, portal: {}}").await;
        let app = App::start().await;
        let server = Proxy::start(&mesh, Plan::of("feed", app.address)).await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["feed".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let pinned = client.ports["upstreams"]["feed"].as_str().unwrap().parse().unwrap();
        let stack = Self { app, client, server, pinned, _kept: (mesh, control) };
        stack.app.turns.add_permits(1000);
        stack.client.until_reaches("feed", "/ready").await;
        stack
    }
}

#[test]
fn a_large_upload_to_a_slow_reader_arrives_whole_and_is_kept_nowhere() {
    scenario(Duration::from_mins(8), async {
        let stack = Stack::start().await;
        let mebibytes = if full_size() { 100 } else { 24 };
        let pids = [stack.client.process.pid(), stack.server.process.pid()];
        let before = pids.map(resident_kib);
        let mut raw = Raw::plain(stack.pinned).await;
        let length = mebibytes << 20;
        let head = format!("POST /upload HTTP/1.1\r\nHost: feed\r\nContent-Length: {length}\r\n\r\n");
        assert!(raw.send(head).await);
        let mut sum = Sum::default();
        let turns = Arc::clone(&stack.app.turns);
        // It may read a piece for each that is sent, so it is always behind.
        for number in 0..mebibytes * 16 {
            let piece: Vec<u8> =
                (0..65_536).map(|at| u8::try_from((at * 13 + number * 5 + at / 251) % 256).unwrap()).collect();
            sum.add(&piece);
            turns.add_permits(3);
            assert!(raw.send(&piece).await, "piece {number}");
        }
        let grown: Vec<u64> =
            pids.iter().zip(before).map(|(pid, was)| resident_kib(*pid).saturating_sub(was)).collect();
        turns.add_permits(length / 1024);
        let answer = raw.answer(hms_testkit::http1::message::Kind::Answer).await.unwrap();
        assert_eq!((answer.status(), answer.text()), (200, format!("{sum:?}")));
        figure("memory of a large upload to a slow reader, KiB", format!("{grown:?}"));
        assert!(grown.iter().all(|grown| *grown <= UPLOAD_KIB), "{grown:?} KiB");
    });
}

#[test]
fn each_event_arrives_before_the_next_is_said() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let left = stack.app.turns.available_permits();
        stack.app.turns.forget_permits(left);
        let mut raw = Raw::plain(stack.pinned).await;
        assert!(raw.send("GET /events HTTP/1.1\r\nHost: feed\r\n\r\n").await);
        for number in 0..50 {
            stack.app.turns.add_permits(1);
            let event = format!("data: {number}\n\n");
            while !String::from_utf8_lossy(raw.got()).contains(&event) {
                let more = tokio::time::timeout(Duration::from_secs(10), raw.read_more()).await;
                assert_eq!(more, Ok(true), "event {number} does not come");
            }
        }
    });
}
