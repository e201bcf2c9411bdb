//! Requests that wait for a connection: bounded, in order, and nobody waits for somebody who left.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hms_model::policy::{Limits, TrafficPolicy};
use hms_model::port::AppProtocol;
use http::{Method, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::quick;
use crate::stage::{self, Answer, Answered, Stage, Upstream};

fn policy(connections: u32, pending: u32) -> TrafficPolicy {
    TrafficPolicy { limits: Limits { requests: 100, connections, pending }, ..quick() }
}

/// Asks for a path, and goes on.
fn ask(stage: &Rc<Stage>, path: &'static str) -> JoinHandle<Answered> {
    let stage = Rc::clone(stage);
    tokio::task::spawn_local(async move { stage.call(Method::GET, "calc-svc", path, Bytes::new()).await })
}

fn waiting(stage: &Stage) -> u64 {
    stage.counted("hms_pending_total{")
}

#[test]
fn the_oldest_waiting_is_served_first_on_the_connection_that_there_is() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Held).await;
        let stage = Rc::new(Stage::new().service("calc-svc", policy(1, 10), &[&calc]).build());
        let mut asked = vec![ask(&stage, "/0")];
        stage.until("the first has the connection", || calc.count() == 1).await;
        for (number, path) in ["/1", "/2", "/3", "/4"].into_iter().enumerate() {
            asked.push(ask(&stage, path));
            let waited = u64::try_from(number).unwrap_or_default() + 1;
            stage.until("it waits", || waiting(&stage) == waited).await;
        }
        for own in asked {
            calc.release();
            assert_eq!(own.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        }
        assert_eq!(calc.seen(), ["GET /0", "GET /1", "GET /2", "GET /3", "GET /4"]);
        assert_eq!(calc.connections(), 1);
    });
}

#[test]
fn no_more_wait_than_the_limit_allows_and_the_refusal_says_so() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Held).await;
        let stage = Rc::new(Stage::new().service("calc-svc", policy(1, 2), &[&calc]).build());
        let mut asked = vec![ask(&stage, "/0")];
        stage.until("the first has the connection", || calc.count() == 1).await;
        asked.extend([ask(&stage, "/1"), ask(&stage, "/2")]);
        stage.until("two wait", || waiting(&stage) == 2).await;
        let refused = ask(&stage, "/3").await.ok();
        let refused = refused.as_ref();
        assert_eq!(refused.map(|answer| answer.status), Some(StatusCode::SERVICE_UNAVAILABLE));
        assert_eq!(refused.and_then(|answer| answer.field("x-hms-error")).as_deref(), Some("HMS-3007"));
        let text = refused.map(Answered::text).unwrap_or_default();
        assert!(text.contains("limits.pending of calc-svc is reached: 2 wait for one of 1 connections"), "{text}");
        assert_eq!(stage.counted("hms_pending_refused_total{"), 1);
        for own in asked {
            calc.release();
            assert_eq!(own.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        }
        assert_eq!((calc.count(), calc.connections()), (3, 1));
    });
}

#[test]
fn whose_caller_leaves_frees_its_place() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Held).await;
        let stage = Rc::new(Stage::new().service("calc-svc", policy(1, 1), &[&calc]).build());
        let first = ask(&stage, "/0");
        stage.until("the first has the connection", || calc.count() == 1).await;
        let ended = |stage: &Stage| stage.counted("istio_requests_total{");
        stage.break_off("GET /left HTTP/1.1\r\nhost: calc-svc\r\n\r\n").await;
        assert_eq!(ended(&stage), 1, "it has gone");
        let second = ask(&stage, "/2");
        stage.until("another one waits in its place", || waiting(&stage) >= 1 && !second.is_finished()).await;
        calc.release();
        assert_eq!(first.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        calc.release();
        assert_eq!(second.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        assert_eq!(calc.seen(), ["GET /0", "GET /2"]);
    });
}

#[test]
fn a_place_that_becomes_free_with_its_connection_serves_the_next() {
    stage::run(async {
        let calc = Upstream::start(|index| if index == 0 { Answer::Held } else { Answer::Status(200) }).await;
        let mut policy = policy(1, 10);
        policy.keep_alive = hms_model::policy::KeepAlive::Off;
        let stage = Rc::new(Stage::new().service("calc-svc", policy, &[&calc]).build());
        let first = ask(&stage, "/0");
        stage.until("the first has the connection", || calc.count() == 1).await;
        let second = ask(&stage, "/1");
        stage.until("it waits", || waiting(&stage) == 1).await;
        calc.release();
        for own in [first, second] {
            assert_eq!(own.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        }
        assert_eq!(calc.connections(), 2);
    });
}

#[test]
fn an_idle_connection_to_another_endpoint_is_no_reason_to_wait() {
    stage::run(async {
        let (one, other) =
            (Upstream::start(|_| Answer::Status(200)).await, Upstream::start(|_| Answer::Status(200)).await);
        let mut policy = policy(1, 10);
        policy.balance = hms_model::policy::balance::Algorithm::RoundRobin.into();
        let stage = Rc::new(Stage::new().service("calc-svc", policy, &[&one, &other]).build());
        for _ in 0..4 {
            assert_eq!(ask(&stage, "/").await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        }
        assert_eq!((one.count(), other.count()), (2, 2));
    });
}

#[test]
fn who_waits_too_long_is_refused_and_nobody_is_blamed() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Hang).await;
        let mut policy = policy(1, 10);
        policy.timeouts.request = Some(Duration::from_secs(15));
        let stage = Rc::new(Stage::new().service("calc-svc", policy, &[&calc]).build());
        let _first = ask(&stage, "/0");
        stage.until("the first has the connection", || calc.count() == 1).await;
        for _ in 0..3 {
            let refused = ask(&stage, "/1").await.ok();
            assert_eq!(refused.as_ref().and_then(|answer| answer.field("x-hms-error")).as_deref(), Some("HMS-3007"));
            let text = refused.as_ref().map(Answered::text).unwrap_or_default();
            assert!(text.contains("none of 1 became free in time"), "{text}");
        }
        assert_eq!((stage.breaker("calc-svc"), calc.count()), ("CLOSED", 1));
    });
}

#[test]
fn a_request_whose_time_ends_while_it_waits_blames_nobody() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Held).await;
        let mut policy = policy(1, 10);
        policy.timeouts.request = Some(Duration::from_millis(50));
        policy.outlier.consecutive = 2;
        let stage = Rc::new(Stage::new().service("calc-svc", policy, &[&calc]).build());
        let upload = "POST / HTTP/1.1\r\nhost: calc-svc\r\ncontent-length: 5\r\n\r\nab";
        // Its time does not run out while its body is on its way.
        let _sending = stage.send(upload).await;
        stage.until("it has the connection", || calc.accepted() == 1).await;
        for _ in 0..4 {
            let refused = ask(&stage, "/1").await.ok();
            assert_eq!(refused.as_ref().and_then(|answer| answer.field("x-hms-error")).as_deref(), Some("HMS-3007"));
        }
        assert_eq!(stage.breaker("calc-svc"), "CLOSED");
    });
}

/// A server of HTTP/2 that takes two requests at a time on one connection, and answers when it is told to.
struct Narrow {
    address: std::net::SocketAddr,
    connections: Rc<Cell<usize>>,
    requests: Rc<Cell<usize>>,
    held: Rc<Semaphore>,
}

impl Narrow {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let (connections, requests) = (Rc::<Cell<usize>>::default(), Rc::<Cell<usize>>::default());
        let own = Self { address, connections, requests, held: Rc::new(Semaphore::new(0)) };
        let (connections, requests, held) =
            (Rc::clone(&own.connections), Rc::clone(&own.requests), Rc::clone(&own.held));
        tokio::task::spawn_local(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.set(connections.get() + 1);
                tokio::task::spawn_local(take_two(stream, Rc::clone(&requests), Rc::clone(&held)));
            }
        });
        own
    }
}

/// Serves one connection of it.
async fn take_two(stream: TcpStream, requests: Rc<Cell<usize>>, held: Rc<Semaphore>) {
    let mut builder = h2::server::Builder::new();
    let handshake = builder.max_concurrent_streams(2).handshake::<_, Bytes>(stream);
    let Ok(mut connection) = handshake.await else { return };
    while let Some(Ok((_, mut reply))) = connection.accept().await {
        requests.set(requests.get() + 1);
        let held = Rc::clone(&held);
        tokio::task::spawn_local(async move {
            held.acquire().await.expect("never closed").forget();
            drop(reply.send_response(http::Response::new(()), true));
        });
    }
}

#[test]
fn whoever_waits_takes_the_room_that_becomes_free_on_a_connection_for_many() {
    stage::run(async {
        let narrow = Narrow::start().await;
        let calc = Upstream::at(narrow.address);
        let services = Stage::new().service("calc-svc", policy(1, 10), &[&calc]).speaking(AppProtocol::Http2);
        let stage = Rc::new(services.build());
        let first = ask(&stage, "/0");
        stage.until("it is known how many it takes", || narrow.requests.get() == 1).await;
        let mut asked = vec![first, ask(&stage, "/1")];
        stage.until("it has as many as it takes", || narrow.requests.get() == 2).await;
        asked.extend([ask(&stage, "/2"), ask(&stage, "/3")]);
        stage.until("two wait", || waiting(&stage) == 2).await;
        assert_eq!(narrow.requests.get(), 2);
        narrow.held.add_permits(1);
        stage.until("one of them has its room", || narrow.requests.get() == 3).await;
        narrow.held.add_permits(3);
        for own in asked {
            assert_eq!(own.await.map(|answer| answer.status).ok(), Some(StatusCode::OK));
        }
        assert_eq!(narrow.connections.get(), 1);
    });
}
