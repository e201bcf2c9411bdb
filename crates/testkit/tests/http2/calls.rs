//! gRPC calls: their deadlines, their status, their streams, and how often they are executed.
#![expect(clippy::unwrap_used, reason = "a stack that does not start fails its test")]

use std::time::Duration;

use hms_testkit::client::Answer;
use hms_testkit::http2::Http2;
use hms_testkit::http2::grpc::GrpcApp;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{Process, resident_kib};
use hms_testkit::scenario;
use hms_testkit::settings::full_size;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, wait};
use http::Request;
use tokio::time::Instant;

/// A gRPC service with as many instances as asked for, and a caller of it.
struct Stack {
    apps: Vec<GrpcApp>,
    client: Proxy,
    servers: Vec<Proxy>,
    mesh: Mesh,
    _control: Process,
}

impl Stack {
    async fn start(service: &str, instances: usize) -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(&format!("services: {{calc-svc: {service}, portal: {{}}}}")).await;
        let (mut apps, mut servers) = (Vec::new(), Vec::new());
        for number in 0..instances {
            let app = GrpcApp::start().await;
            let plan = Plan::of("calc-svc", app.address()).workload(&number.to_string());
            servers.push(Proxy::start(&mesh, plan).await);
            apps.push(app);
        }
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let stack = Self { apps, client, servers, mesh, _control: control };
        wait::until("every instance is called", Duration::from_secs(20), || async {
            let answer = stack.call("/echo/Unary", None, "?").await?;
            let all = stack.apps.iter().all(|app| app.executed() > 0);
            if status(&answer) == "0" && all { Ok(()) } else { Err(format!("{answer:?}")) }
        })
        .await;
        stack
    }

    fn executed(&self) -> usize {
        self.apps.iter().map(GrpcApp::executed).sum()
    }

    async fn connect(&self) -> Http2 {
        Http2::plain(self.client.address("outbound")).await.unwrap()
    }

    async fn call(&self, path: &str, timeout: Option<&str>, body: &str) -> Result<Answer, String> {
        Http2::plain(self.client.address("outbound")).await?.send(request(path, timeout), body.to_owned()).await
    }
}

fn request(path: &str, timeout: Option<&str>) -> Request<()> {
    let request = Request::post(format!("http://calc-svc{path}")).header("content-type", "application/grpc");
    let request = request.header("te", "trailers");
    timeout.into_iter().fold(request, |request, timeout| request.header("grpc-timeout", timeout)).body(()).unwrap()
}

/// The call's status, wherever it stands.
fn status(answer: &Answer) -> String {
    let trailer = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
    let field = trailer.or_else(|| answer.headers.get("grpc-status"));
    field.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
}

#[test]
fn a_calls_deadline_is_kept_and_passed_on_shorter() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{}", 1).await;
        let answer = stack.call("/echo/Unary", Some("10S"), "x").await.unwrap();
        let left = answer.header("x-timeout").to_owned();
        let left = hms_testkit::http2::grpc::timeout(&left).unwrap_or_else(|| panic!("{left}"));
        assert!(left <= Duration::from_secs(10) && left > Duration::from_secs(8), "{left:?}");
        let answer = stack.call("/echo/Unary", None, "x").await.unwrap();
        assert_eq!((status(&answer).as_str(), answer.header("x-timeout")), ("0", "none"));
        for path in ["/echo/Never", "/echo/Hang"] {
            let begun = Instant::now();
            let answer = stack.call(path, Some("500m"), "x").await.unwrap();
            assert_eq!((answer.status, status(&answer).as_str()), (200, "4"), "{path}: {answer:?}");
            let took = begun.elapsed();
            assert!(took >= Duration::from_millis(450) && took < Duration::from_secs(5), "{path}: {took:?}");
        }
        wait::until_true("the application is told", Duration::from_secs(10), || {
            // `Never` waits for nothing and is not told; `Hang` is.
            stack.apps[0].open() <= 1
        })
        .await;
    });
}

#[test]
fn a_timeout_that_is_none_is_an_invalid_argument() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start("{}", 1).await;
        let before = stack.executed();
        for timeout in ["99999999999H", "10", "S", "-1S", "1s"] {
            let answer = stack.call("/echo/Unary", Some(timeout), "x").await.unwrap();
            assert_eq!((answer.status, status(&answer).as_str()), (200, "3"), "{timeout}");
            assert_eq!(answer.header("x-hms-error"), "HMS-3310");
        }
        assert_eq!(stack.executed(), before);
        assert_eq!(status(&stack.call("/echo/Unary", Some("99999999H"), "x").await.unwrap()), "0");
    });
}

#[test]
fn an_answer_without_a_status_has_an_unknown_one() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start("{}", 1).await;
        for path in ["/echo/Mute", "/echo/None"] {
            let answer = stack.call(path, None, "abc").await.unwrap();
            assert_eq!((answer.status, status(&answer).as_str(), answer.text().as_str()), (200, "2", "abc"), "{path}");
        }
        let answer = stack.call("/echo/Busy", None, "abc").await.unwrap();
        assert_eq!((status(&answer).as_str(), answer.body.len()), ("14", 0));
    });
}

#[test]
fn a_call_is_tried_on_a_second_instance_only_if_that_is_allowed_or_safe() {
    scenario(Duration::from_mins(3), async {
        // Nothing says that it may be done twice: whoever was called when the instance broke off gets an error, nobody is executed
        // twice, and who comes later is served.
        let calls = 200;
        for (service, all_succeed) in [("{}", false), ("{retry: {methods: [POST]}}", true)] {
            let stack = Stack::start(service, 2).await;
            let before = stack.executed();
            let connection = stack.connect().await;
            let mut good = 0;
            for number in 0..calls {
                if number == calls / 2 {
                    stack.apps[0].break_off();
                }
                let answer = connection.send(request("/echo/Unary", None), format!("{number}")).await.unwrap();
                good += usize::from(status(&answer) == "0");
                if all_succeed {
                    assert_eq!(status(&answer), "0", "call {number}: {answer:?}");
                }
            }
            let executed = stack.executed() - before;
            figure(&format!("{service}: executed, answered, of {calls}"), format!("{executed}, {good}"));
            assert!(executed >= good && (all_succeed || executed <= calls), "{executed} executed, {good} answered");
            assert!(good >= calls - 3, "{good} of {calls}");
        }
    });
}

#[test]
fn thousands_of_streams_at_once_each_get_their_own_pieces_back() {
    scenario(Duration::from_mins(8), async {
        let stack = Stack::start("{}", 1).await;
        // One caller's proxy has at most 1024 requests to a service under way.
        let (callers, connections, each) = if full_size() { (11, 10, 91) } else { (1, 10, 91) };
        let mut others = Vec::new();
        for number in 1..callers {
            let plan = Plan::client("portal").workload(&format!("c{number}"));
            let other = Proxy::start(&stack.mesh, plan).await;
            other.until_ready().await;
            others.push(other);
        }
        let pids = [stack.client.process.pid(), stack.servers[0].process.pid()];
        let before = pids.map(resident_kib);
        let mut streams = Vec::new();
        for client in others.iter().chain([&stack.client]) {
            for _ in 0..connections {
                let sender = hms_testkit::http2::grpc::sender(client.address("outbound")).await;
                for _ in 0..each {
                    let mut sender = sender.clone().ready().await.unwrap();
                    let (answer, stream) = sender.send_request(request("/echo/Stream", None), false).unwrap();
                    let answer = answer.await.unwrap();
                    assert_eq!(answer.status(), 200, "{answer:?}");
                    streams.push((answer.into_body(), stream));
                }
            }
        }
        assert_eq!(stack.apps[0].open(), callers * connections * each);
        let grown: Vec<u64> =
            pids.iter().zip(before).map(|(pid, before)| resident_kib(*pid).saturating_sub(before)).collect();
        let count = u64::try_from(streams.len()).unwrap();
        figure("open gRPC streams; memory of the proxies, KiB", format!("{count}; {grown:?}"));
        assert!(grown.iter().all(|grown| grown / count <= 64), "{grown:?} KiB for {count} streams");
        for round in 0..2 {
            for (number, (body, stream)) in streams.iter_mut().enumerate() {
                let piece = format!("stream {number} round {round}");
                stream.send_data(piece.clone().into(), false).unwrap();
                let mut got = Vec::new();
                while got.len() < piece.len() {
                    let part = body.data().await.unwrap().unwrap();
                    body.flow_control().release_capacity(part.len()).unwrap();
                    got.extend_from_slice(&part);
                }
                assert_eq!(String::from_utf8(got).unwrap(), piece);
            }
        }
        for (mut body, mut stream) in streams {
            stream.send_data(bytes::Bytes::new(), true).unwrap();
            while let Some(part) = body.data().await {
                assert!(part.unwrap().is_empty());
            }
            let trailers = body.trailers().await.unwrap().unwrap();
            assert_eq!(trailers["grpc-status"], "0");
        }
    });
}
