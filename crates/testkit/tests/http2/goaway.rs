//! Connections end all the time, and no request with them (reliability B8).

use std::time::Duration;

use bytes::Bytes;
use hms_testkit::http2::wire::{GOAWAY, headers};
use hms_testkit::http2::{Http2, leaver};
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, tasks};
use http::Request;

use crate::stack::Stack;

const REQUESTS: u64 = 10_000;
/// Clients at the same time.
const CLIENTS: u64 = 20;

#[test]
fn an_upstream_that_leaves_every_50_streams_loses_no_request() {
    scenario(Duration::from_mins(5), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {greet-svc: {routes: [POST /*]}, portal: {}}").await;
        let (address, counted) = leaver::start(50).await;
        let _server = Proxy::start(&mesh, Plan::of("greet-svc", address)).await;
        let caller = Proxy::start(&mesh, Plan::client("portal")).await;
        let _there = mesh.rest().until_service("greet-svc", "healthy", 1).await;
        caller.until_ready().await;
        let mut clients = Vec::new();
        for _ in 0..CLIENTS {
            let http = Http2::plain(caller.address("outbound")).await.expect("HTTP/2");
            clients.push(tasks::spawn(async move {
                let mut failed = Vec::new();
                for _ in 0..REQUESTS / CLIENTS {
                    let request = Request::post("http://greet-svc/demo.Greeter/Hello");
                    let request = request.header("content-type", "application/grpc").header("te", "trailers");
                    let answer = http.send(request.body(()).expect("a request"), Bytes::from_static(&[0; 5])).await;
                    let good = answer.as_ref().is_ok_and(|answer| {
                        let ended = answer.trailers.as_ref().and_then(|trailers| trailers.get("grpc-status"));
                        answer.status == 200 && ended.is_some_and(|status| status == "0")
                    });
                    if !good {
                        failed.push(format!("{answer:?}"));
                    }
                }
                failed
            }));
        }
        let mut failed = Vec::new();
        for client in clients {
            failed.extend(client.await.expect("no panic"));
        }
        figure("connections that the upstream left", counted.left());
        assert!(failed.is_empty(), "{} of {REQUESTS} failed, first {:?}", failed.len(), failed.first());
        assert!(counted.answered() >= REQUESTS, "{}", counted.answered());
        // The last ones are still open.
        assert!(counted.left() >= REQUESTS / 50 * 3 / 4, "{}", counted.left());
    });
}

#[test]
fn a_gateway_that_stops_finishes_what_is_under_way_and_names_the_last_stream() {
    scenario(Duration::from_mins(2), async {
        let mut stack = Stack::start().await;
        let mut raw = stack.begun().await;
        assert!(raw.send(&headers(1, true, &stack.block("GET", "/slow/1500"))).await);
        hms_testkit::wait::until_true("the application has it", Duration::from_secs(10), || {
            stack.app.hits_of("/slow/1500") == 1
        })
        .await;
        hms_testkit::processes::signal(stack.gateway.process.pid(), nix::sys::signal::Signal::SIGTERM);
        let mut last = Vec::new();
        let mut answered = false;
        while let Some(seen) = raw.next().await {
            match seen.kind {
                GOAWAY => last.push(u32::from_be_bytes(seen.payload[..4].try_into().unwrap())),
                // Our answer to its PING lets it name the last stream.
                hms_testkit::http2::wire::PING if seen.flags == 0 => {
                    let pong = hms_testkit::http2::wire::frame(seen.kind, 1, 0, &seen.payload);
                    assert!(raw.send(&pong).await);
                }
                hms_testkit::http2::wire::DATA if seen.flags & 1 == 1 => answered = true,
                _ => {}
            }
        }
        assert!(answered, "what was under way was finished");
        assert_eq!(last, [0x7fff_ffff, 1], "first everything, then the last stream");
        assert_eq!(stack.gateway.process.ended(Duration::from_secs(10)).await, Some(0));
    });
}
