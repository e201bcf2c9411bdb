//! Requests through the whole pipeline in one process: an in-memory caller, scripted upstreams on real sockets.

mod balance;
mod deadline;
mod egress;
mod http_routes;
mod names;
mod pending;
mod stage;

use bytes::Bytes;
use hms_model::policy::{Limits, Outlier, Retry, TrafficPolicy};
use http::{Method, StatusCode};
use stage::{Answer, Stage, Upstream};
use std::time::Duration;

fn quick() -> TrafficPolicy {
    let retry =
        Retry { backoff_other: Duration::from_millis(1), backoff_same: Duration::from_millis(1), ..Retry::default() };
    let outlier = Outlier { open_for: Duration::from_millis(300), jitter_percent: 0, ..Outlier::default() };
    TrafficPolicy { retry, outlier, ..TrafficPolicy::default() }
}

#[test]
fn a_request_reaches_the_service_its_authority_names() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        let answer =
            stage.call(Method::GET, "calc-svc.default.svc.cluster.local:80", "/sum/2/3?x=1", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(calc.seen(), ["GET /sum/2/3?x=1"]);
        assert_eq!(answer.field("x-trace-id").map(|id| id.len()), Some(32));
        assert!(answer.field("traceparent").is_some());
    });
}

#[test]
fn an_unknown_name_is_answered_with_the_names_there_are() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        let answer = stage.call(Method::GET, "calc", "/", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3403"));
        assert!(answer.text().contains("calc-svc"));
    });
}

#[test]
fn a_retry_goes_to_the_endpoint_that_was_not_tried() {
    stage::run(async {
        let (bad, good) =
            (Upstream::start(|_| Answer::Status(500)).await, Upstream::start(|_| Answer::Status(200)).await);
        let stage = Stage::new().service("calc-svc", quick(), &[&bad, &good]).build();
        // Ten retries a second are always within the budget.
        for _ in 0..10 {
            assert_eq!(stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await.status, StatusCode::OK);
        }
        assert_eq!(good.count(), 10);
    });
}

#[test]
fn a_post_that_may_have_been_processed_is_never_sent_twice() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::CloseAfterReading).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        let answer = stage.call(Method::POST, "calc-svc", "/pay", Bytes::from_static(b"{}")).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY);
        assert_eq!(calc.count(), 1);
    });
}

#[test]
fn a_post_that_was_not_processed_goes_elsewhere_with_its_body() {
    stage::run(async {
        let gone = Upstream::gone().await;
        let good = Upstream::start(|_| Answer::Status(201)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&gone, &good]).build();
        for _ in 0..8 {
            let answer = stage.call(Method::POST, "calc-svc", "/pay", Bytes::from_static(b"{\"id\":1}")).await;
            assert_eq!(answer.status, StatusCode::CREATED);
        }
        assert_eq!(good.count(), 8);
        assert!(good.bodies().iter().all(|body| body == "{\"id\":1}"));
    });
}

#[test]
fn three_failures_open_the_breaker_and_the_next_call_touches_nobody() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(503)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        let first = stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        assert_eq!(first.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(calc.count(), 3, "two retries");
        let second = stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        assert_eq!(second.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(second.field("x-hms-error").as_deref(), Some("HMS-3001"));
        assert!(second.field("retry-after").is_some());
        assert_eq!(calc.count(), 3, "no attempt was made");
    });
}

#[test]
fn an_open_breaker_heals_without_traffic() {
    stage::run(async {
        let calc = Upstream::start(|request| if request < 3 { Answer::Status(503) } else { Answer::Status(200) }).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        stage.until("the breaker is closed", || stage.breaker("calc-svc") == "CLOSED").await;
        assert_eq!(stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await.status, StatusCode::OK);
    });
}

#[test]
fn a_plain_500_of_one_url_does_not_close_the_service() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(500)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        for _ in 0..3 {
            assert_eq!(stage.call(Method::GET, "calc-svc", "/bug", Bytes::new()).await.status.as_u16(), 500);
        }
        assert_eq!(stage.breaker("calc-svc"), "CLOSED");
    });
}

#[test]
fn a_request_past_its_time_is_a_504_and_its_connection_is_not_used_again() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Hang).await;
        let mut policy = quick();
        policy.retry.retries = 0;
        policy.timeouts.request = Some(Duration::from_millis(100));
        let stage = Stage::new().service("calc-svc", policy, &[&calc]).build();
        let answer = stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3006"));
        stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        assert_eq!(calc.connections(), 2);
    });
}

#[test]
fn a_caller_that_breaks_off_its_upload_ejects_nobody() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        for _ in 0..5 {
            stage.break_off("POST /up HTTP/1.1\r\nhost: calc-svc\r\ncontent-length: 100\r\n\r\nhalf").await;
        }
        assert_eq!(stage.breaker("calc-svc"), "CLOSED");
        assert_eq!(stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await.status, StatusCode::OK);
    });
}

#[test]
fn connections_are_kept_and_used_again() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        for _ in 0..10 {
            stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        }
        assert_eq!(calc.count(), 10);
        assert_eq!(calc.connections(), 1);
    });
}

#[test]
fn more_at_once_than_a_limit_is_refused_at_once_and_the_limit_is_named() {
    stage::run(async {
        for (limits, named) in [
            (
                Limits { requests: 1, connections: 2, pending: 0 },
                "limits.requests of calc-svc is reached: 1 are under way",
            ),
            (
                Limits { requests: 2, connections: 1, pending: 0 },
                "limits.connections of calc-svc is reached: 1 are open",
            ),
        ] {
            let calc = Upstream::start(|_| Answer::Hang).await;
            let mut policy = quick();
            policy.limits = limits;
            policy.timeouts.request = Some(Duration::from_millis(500));
            let stage = Stage::new().service("calc-svc", policy, &[&calc]).build();
            let (first, second) = tokio::join!(
                stage.call(Method::GET, "calc-svc", "/", Bytes::new()),
                stage.call(Method::GET, "calc-svc", "/", Bytes::new())
            );
            let refused = if first.field("x-hms-error").as_deref() == Some("HMS-3007") { first } else { second };
            assert_eq!(refused.field("x-hms-error").as_deref(), Some("HMS-3007"));
            assert!(refused.text().contains(named), "{}", refused.text());
            assert!(refused.field("retry-after").is_some());
        }
    });
}

#[test]
fn a_service_without_endpoints_says_so() {
    stage::run(async {
        let stage = Stage::new().service("calc-svc", quick(), &[]).build();
        let answer = stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3002"));
    });
}

#[test]
fn broken_heads_are_refused_and_nothing_is_sent_on() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        for head in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: calc-svc\r\nhost: calc-svc\r\n\r\n",
            "GET http://other/ HTTP/1.1\r\nhost: calc-svc\r\n\r\n",
            "GET /%2fadmin HTTP/1.1\r\nhost: calc-svc\r\n\r\n",
            "GET /a/../../b HTTP/1.1\r\nhost: calc-svc\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: u@calc-svc\r\n\r\n",
            "GET / HTTP/1.1\r\nhost: calc-svc\r\nconnection: authorization\r\nauthorization: x\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: calc-svc\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx",
            "CONNECT calc-svc:80 HTTP/1.1\r\nhost: calc-svc:80\r\n\r\n",
        ] {
            let status = stage.raw(head).await;
            assert!((400..500).contains(&status), "{head:?} → {status}");
        }
        assert_eq!(calc.count(), 0);
    });
}

#[test]
fn a_caller_that_was_never_told_to_send_its_body_hears_that_the_connection_ends() {
    stage::run(async {
        let stage = Stage::new().service("calc-svc", quick(), &[]).build();
        let head = "POST / HTTP/1.1\r\nhost: calc-svc\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n";
        let answer = stage.last_answer(head).await;
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    });
}

#[test]
fn series_and_breaker_gauge_tell_what_happened() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", quick(), &[&calc]).build();
        stage.call(Method::GET, "calc-svc", "/", Bytes::new()).await;
        let text = stage.metrics();
        let line = text.lines().find(|line| line.starts_with("istio_requests_total")).expect("a series");
        for part in [
            "reporter=\"source\"",
            "destination_service=\"calc-svc.mesh\"",
            "response_code=\"200\"",
            "source_workload=\"caller\"",
        ] {
            assert!(line.contains(part), "{line}");
        }
    });
}
