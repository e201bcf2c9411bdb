//! Nothing is waited for: not for a greeting, not for a first byte, and what was seen once is known.

use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::tcp::{Caller, GREETING, Manner};
use hms_testkit::{figure, scenario};
use tokio::time::Instant;

use crate::stack::Stack;

/// The shortest of several times to the greeting: what the path costs, without what the machine does besides.
async fn to_greeting(address: std::net::SocketAddr) -> Duration {
    let mut least = Duration::MAX;
    for _ in 0..30 {
        let begun = Instant::now();
        let mut caller = Caller::connect(address).await;
        assert_eq!(caller.read(GREETING.len()).await.as_deref(), Ok(GREETING));
        least = least.min(begun.elapsed());
    }
    least
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once_declared_or_not() {
    scenario(Duration::from_mins(2), async {
        for declared in ["{}", "{protocol: tcp}"] {
            let stack = Stack::start(declared, Manner::Greet).await;
            let direct = to_greeting(stack.app.address()).await;
            let mut first = stack.connect().await;
            assert_eq!(first.read(GREETING.len()).await.as_deref(), Ok(GREETING), "{declared}");
            assert!(first.send(b"HELO a\r\n").await);
            assert_eq!(first.read(8).await.as_deref(), Ok(b"HELO a\r\n".as_slice()), "{declared}");
            let through = to_greeting(stack.pinned).await;
            figure(&format!("greeting through two proxies, {declared}"), format!("{through:?} ({direct:?} direct)"));
            assert!(through < direct + Duration::from_millis(5), "{declared}: {through:?}, {direct:?} direct");
        }
    });
}

#[test]
fn a_caller_that_speaks_first_is_heard_whatever_it_says() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{}", Manner::Echo).await;
        for first in
            [b"*1\r\n$4\r\nPING\r\n".as_slice(), b"GET key\r\n", &[0, 0, 0, 8, 4, 210, 22, 47], &[0x16, 3, 1, 0]]
        {
            let mut caller = stack.connect().await;
            assert!(caller.send(first).await);
            assert_eq!(caller.read(first.len()).await.as_deref(), Ok(first));
            caller.finish().await;
            assert_eq!(caller.rest().await.1, hms_testkit::http1::End::Clean);
        }
        let log = stack.client.process.output();
        assert!(log.contains("\"protocol\":\"tcp\"") && log.contains("\"destination\":\"db\""), "{log}");
        stack.until_counted("istio_tcp_connections_closed_total", &["request_protocol=\"tcp\""], 4.0).await;
    });
}

#[test]
fn http_on_a_port_that_nobody_declared_is_read_as_http() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start("{}", Manner::Echo).await;
        let app = hms_testkit::apps::App::start("web").await;
        drop(stack);
        let mesh = hms_testkit::mesh::Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {db: {}, portal: {}}").await;
        let plan = hms_testkit::sidecar::Plan::of("db", app.address());
        let _server = hms_testkit::sidecar::Proxy::start(&mesh, plan).await;
        let (client, pinned) = crate::stack::caller(&mesh, "portal").await;
        for number in 0..4 {
            let answer = Http::plain(pinned).get(&format!("/echo/{number}")).await.expect("an answer");
            assert_eq!((answer.status, answer.header("x-trace-id").len()), (200, 32), "{}", answer.text());
        }
        let metrics = client.metrics().await;
        let counted = metrics.sum("istio_requests_total", &["request_protocol=\"http\"", "200"]);
        assert!((counted - 5.0).abs() < 0.5, "{}", metrics.text());
    });
}
