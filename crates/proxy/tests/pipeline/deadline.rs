//! The time that callers have left: told by proxies, and kept to by the calls that an application makes meanwhile.

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hms_model::policy::TrafficPolicy;
use http::{Method, StatusCode};
use tokio::task::JoinHandle;

use crate::quick;
use crate::stage::{self, Answer, Answered, Stage, Upstream};

const EXPECTED: &str = "x-envoy-expected-rq-timeout-ms";
const OWN: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const OTHER: &str = "00-5bf92f3577b34da6a3ce929d0e0e4737-00f067aa0ba902b7-01";

/// Nothing of its own would end a call within a test.
fn patient() -> TrafficPolicy {
    let mut policy = quick();
    policy.timeouts.request = None;
    policy
}

/// A request to the application beside the proxy.
fn called(stage: &Rc<Stage>, left: &'static str) -> JoinHandle<Answered> {
    let stage = Rc::clone(stage);
    tokio::task::spawn_local(async move { stage.called("/", &[(EXPECTED, left), ("traceparent", OWN)]).await })
}

async fn call(stage: &Stage, trace: &str) -> Answered {
    stage.call_with(Method::GET, "calc-svc", "/", &[("traceparent", trace)], Bytes::new()).await
}

#[test]
fn a_request_ends_with_the_time_that_its_callers_proxy_told() {
    stage::run(async {
        let app = Upstream::start(|_| Answer::Hang).await;
        let stage = Rc::new(Stage::new().app(&app).service("caller", patient(), &[]).build());
        let answer = called(&stage, "60").await.ok();
        assert_eq!(answer.as_ref().map(|own| own.status), Some(StatusCode::GATEWAY_TIMEOUT));
        assert_eq!(answer.as_ref().and_then(|own| own.field("x-hms-error")).as_deref(), Some("HMS-3013"));
        stage.until("the application sees its connection closed", || app.left() == 1).await;
        assert!(app.heads()[0].contains("x-envoy-expected-rq-timeout-ms: 60"), "it may know as well");
    });
}

#[test]
fn calls_of_the_same_trace_have_no_more_time_and_others_have_their_own() {
    stage::run(async {
        let app = Upstream::start(|_| Answer::Hang).await;
        let calc = Upstream::start(|index| if index < 3 { Answer::Hang } else { Answer::Status(200) }).await;
        let services =
            Stage::new().app(&app).service("caller", patient(), &[]).service("calc-svc", patient(), &[&calc]);
        let stage = Rc::new(services.build());
        for round in 1..=3 {
            let request = called(&stage, "80");
            stage.until("the application works on it", || app.count() == round).await;
            let ended = call(&stage, OWN).await;
            assert_eq!(
                (ended.status, ended.field("x-hms-error").as_deref()),
                (StatusCode::GATEWAY_TIMEOUT, Some("HMS-3013"))
            );
            stage.until("the called service sees its connection closed", || calc.left() == round).await;
            assert_eq!(request.await.map(|own| own.status).ok(), Some(StatusCode::GATEWAY_TIMEOUT));
        }
        assert_eq!(stage.breaker("calc-svc"), "CLOSED", "so little time says nothing about it");
        let request = called(&stage, "60000");
        stage.until("the application works on it", || app.count() == 4).await;
        assert_eq!(call(&stage, OTHER).await.status, StatusCode::OK);
        assert_eq!(call(&stage, OWN).await.status, StatusCode::OK, "there is time enough");
        request.abort();
    });
}

#[test]
fn whose_request_has_ended_calls_as_it_likes() {
    stage::run(async {
        let app = Upstream::start(|_| Answer::Status(200)).await;
        let calc = Upstream::start(|_| Answer::Held).await;
        let services =
            Stage::new().app(&app).service("caller", patient(), &[]).service("calc-svc", patient(), &[&calc]);
        let stage = Rc::new(services.build());
        assert_eq!(called(&stage, "40").await.map(|own| own.status).ok(), Some(StatusCode::OK));
        let late = Rc::clone(&stage);
        let calling = tokio::task::spawn_local(async move { call(&late, OWN).await });
        stage.until("it is called", || calc.count() == 1).await;
        let begun = tokio::time::Instant::now();
        stage.until("that time would be over", || begun.elapsed() > Duration::from_millis(80)).await;
        assert!(!calling.is_finished());
        calc.release();
        assert_eq!(calling.await.map(|own| own.status).ok(), Some(StatusCode::OK));
    });
}

#[test]
fn what_an_application_hands_on_is_told_to_no_server_outside_of_the_mesh() {
    stage::run(async {
        let calc = Upstream::start(|_| Answer::Status(200)).await;
        let stage = Stage::new().service("calc-svc", patient(), &[&calc]).build();
        let answer = stage.call_with(Method::GET, "calc-svc", "/", &[(EXPECTED, "1")], Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert!(!calc.heads()[0].contains("x-envoy"), "{:?}", calc.heads());
    });
}
