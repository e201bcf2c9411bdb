//! What gRPC says in its own words is the application's business, and costs us nothing (reliability B9).

use std::time::Duration;

use bytes::Bytes;
use hms_testkit::http2::{Http2, leaver};
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::{Process, resident_kib};
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario};
use http::Request;

/// An application that speaks gRPC, its sidecar and one that calls it.
struct Pair {
    caller: Proxy,
    server: Proxy,
    _control: Process,
    _mesh: Mesh,
}

impl Pair {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {greet-svc: {routes: [POST /*]}, portal: {}}").await;
        let (address, _counted) = leaver::start(u32::MAX).await;
        let server = Proxy::start(&mesh, Plan::of("greet-svc", address)).await;
        let caller = Proxy::start(&mesh, Plan::client("portal")).await;
        let _there = mesh.rest().until_service("greet-svc", "healthy", 1).await;
        caller.until_ready().await;
        Self { caller, server, _control: control, _mesh: mesh }
    }

    fn resident(&self) -> u64 {
        resident_kib(self.caller.process.pid()) + resident_kib(self.server.process.pid())
    }
}

fn call(fields: &[(&str, &str)]) -> Request<()> {
    let request = Request::post("http://greet-svc/demo.Greeter/Hello").header("content-type", "application/grpc");
    fields.iter().fold(request, |request, (name, value)| request.header(*name, *value)).body(()).expect("a request")
}

#[test]
fn calls_that_are_odd_pass_and_cost_no_memory() {
    scenario(Duration::from_mins(3), async {
        let pair = Pair::start().await;
        let http = Http2::plain(pair.caller.address("outbound")).await.expect("HTTP/2");
        let ended = |answer: hms_testkit::client::Answer| {
            let trailers = answer.trailers.expect("trailers");
            (answer.status, trailers.get("grpc-status").map(|status| status.as_bytes().to_vec()))
        };
        let good = (200, Some(b"0".to_vec()));
        let plain = http.send(call(&[]), Bytes::from_static(&[0; 5])).await.expect("an answer");
        assert_eq!(ended(plain), good);
        let before = pair.resident();
        let huge = http.send(call(&[]), Bytes::from_static(&[0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3])).await;
        assert_eq!(ended(huge.expect("an answer")), good, "a message that announces 4 GiB");
        for (name, value) in [("grpc-timeout", "99999999H"), ("grpc-encoding", "unknown")] {
            let answer = http.send(call(&[(name, value)]), Bytes::from_static(&[0; 5])).await.expect("an answer");
            assert_eq!(ended(answer), good, "{name}: {value}");
        }
        let grown = pair.resident().saturating_sub(before);
        figure("odd calls of gRPC", format!("+{grown} KiB in two proxies"));
        assert!(grown <= 1024, "{grown} KiB");
    });
}

#[test]
fn a_stream_of_tiny_messages_is_no_attack_between_proxies() {
    scenario(Duration::from_mins(3), async {
        let pair = Pair::start().await;
        let http = Http2::plain(pair.caller.address("outbound")).await.expect("HTTP/2");
        let before = pair.resident();
        let answer = http.send_in_pieces(call(&[]), &[0; 5], 50_000).await.expect("an answer");
        assert_eq!(answer.status, 200);
        let grown = pair.resident().saturating_sub(before);
        figure("50 000 messages of 5 bytes", format!("+{grown} KiB in two proxies"));
        // What waits is bounded by its windows, but a piece this small is kept in much more than its bytes.
        assert!(grown <= 24 * 1024, "{grown} KiB");
    });
}
