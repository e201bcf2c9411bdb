//! Requests that rules of routes lead.
#![expect(clippy::unwrap_used, reason = "a name that is none fails its test")]

use std::time::Duration;

use bytes::Bytes;
use hms_model::http_route::{
    Actions, Backend, Bound, Fault, FieldCondition, HeaderEdits, HttpMatch, HttpRoute, HttpRule, Mirror, Parent,
    PathCondition, PathRewrite, Portion, Redirect, Rewrite, Scheme, TimeoutOverlay, ValueCondition,
};
use hms_model::names::ServiceName;
use hms_model::policy::{Retry, TrafficPolicy};
use hms_model::split::Share;
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::quick;
use crate::stage::{Answer, Stage, Upstream, run};

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn route(rules: Vec<HttpRule>) -> Vec<HttpRoute> {
    let parents = vec![Parent::Service { service: name("pay-svc"), port: None }];
    vec![HttpRoute { name: name("pay"), parents, hosts: Vec::new(), rules }]
}

fn to(service: &str) -> HttpRule {
    HttpRule::to(vec![Backend::all(name(service))])
}

fn acting(actions: Actions) -> HttpRule {
    HttpRule { actions, ..HttpRule::to(Vec::new()) }
}

fn under(path: &str) -> Vec<HttpMatch> {
    vec![HttpMatch { path: Some(PathCondition::Prefix(path.to_owned())), ..HttpMatch::default() }]
}

fn field(field: &'static str, value: &'static str) -> (HeaderName, HeaderValue) {
    (HeaderName::from_static(field), HeaderValue::from_static(value))
}

async fn upstream() -> Upstream {
    Upstream::start(|_| Answer::Status(200)).await
}

#[test]
fn a_rule_leads_by_header_to_another_service_and_what_fits_none_is_answered_with_what_there_is() {
    run(async {
        let (pay, canary) = (upstream().await, upstream().await);
        let tester = FieldCondition {
            name: HeaderName::from_static("x-user"),
            value: ValueCondition::Exact("tester".to_owned()),
            is_negated: false,
        };
        let matches = vec![HttpMatch { headers: vec![tester], ..HttpMatch::default() }];
        let rules =
            vec![HttpRule { matches, ..to("canary-svc") }, HttpRule { matches: under("/pay"), ..to("pay-svc") }];
        let stage = Stage::new()
            .service("canary-svc", quick(), &[&canary])
            .service("pay-svc", quick(), &[&pay])
            .led(route(rules))
            .build();
        stage.call_with(Method::GET, "pay-svc", "/x", &[("x-user", "tester")], Bytes::new()).await;
        assert_eq!((canary.count(), pay.count()), (1, 0));
        assert_eq!(stage.call(Method::GET, "pay-svc", "/pay/1", Bytes::new()).await.status, StatusCode::OK);
        assert_eq!((canary.count(), pay.count()), (1, 1));
        let none = stage.call(Method::GET, "pay-svc", "/x", Bytes::new()).await;
        assert_eq!((none.status, none.field("x-hms-error").as_deref()), (StatusCode::NOT_FOUND, Some("HMS-3401")));
        assert!(none.text().contains("* /pay[/*]"), "{}", none.text());
    });
}

#[test]
fn headers_and_target_are_changed_on_the_way_and_headers_on_the_way_back() {
    run(async {
        let pay = upstream().await;
        let actions = Actions {
            request_headers: HeaderEdits {
                set: vec![field("x-set", "new"), field("x-hms-subject", "root"), field("host", "evil")],
                add: vec![field("x-add", "two")],
                remove: vec![HeaderName::from_static("x-gone")],
            },
            response_headers: HeaderEdits {
                set: vec![field("x-by", "mesh")],
                add: Vec::new(),
                remove: vec![HeaderName::from_static("content-type")],
            },
            rewrite: Some(Rewrite {
                host: Some("inner.example".to_owned()),
                path: Some(PathRewrite::Prefix("/v2".to_owned())),
            }),
            ..Actions::default()
        };
        let rule = HttpRule { matches: under("/v1"), ..acting(actions) };
        let stage = Stage::new().service("pay-svc", quick(), &[&pay]).led(route(vec![rule])).build();
        let lines = [("X-Set", "old"), ("x-add", "one"), ("x-gone", "1"), ("x-kept", "1")];
        let answer = stage.call_with(Method::GET, "pay-svc", "/v1/a?q=1", &lines, Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_eq!(answer.field("x-by").as_deref(), Some("mesh"));
        assert_eq!(pay.seen(), ["get /v2/a?q=1".to_owned().replace("get", "GET")]);
        let heads = pay.heads();
        let head = heads.first().unwrap();
        for line in ["host: inner.example", "x-set: new", "x-add: one, two", "x-kept: 1"] {
            assert!(head.contains(&format!("{line}\r\n")), "{line}: {head}");
        }
        for part in ["x-gone", "old", "root", "evil"] {
            assert!(!head.contains(part), "{part}: {head}");
        }
    });
}

#[test]
fn a_redirect_and_a_fault_ask_nobody() {
    run(async {
        let pay = upstream().await;
        let redirect = Redirect {
            scheme: Some(Scheme::Https),
            host: Some("new.example".into()),
            port: None,
            path: None,
            status: 301,
        };
        let moved =
            HttpRule { matches: under("/old"), ..acting(Actions { redirect: Some(redirect), ..Actions::default() }) };
        let fault = Fault {
            delay: Some((Duration::from_millis(30), Portion::ALL)),
            abort: Some((418, Portion::ALL)),
            trigger: Some(HeaderName::from_static("x-fault")),
        };
        let faulty = HttpRule {
            origin: "pay.yaml:7".to_owned(),
            ..acting(Actions { fault: Some(fault), ..Actions::default() })
        };
        let stage = Stage::new().service("pay-svc", quick(), &[&pay]).led(route(vec![moved, faulty])).build();
        let answer = stage.call(Method::GET, "pay-svc:8080", "/old/a?x=1", Bytes::new()).await;
        assert_eq!(answer.status, StatusCode::MOVED_PERMANENTLY);
        assert_eq!(answer.field("location").as_deref(), Some("https://new.example/old/a?x=1"));
        let begun = tokio::time::Instant::now();
        let answer = stage.call_with(Method::GET, "pay-svc", "/", &[("x-fault", "1")], Bytes::new()).await;
        assert_eq!(answer.status.as_u16(), 418);
        assert!(begun.elapsed() >= Duration::from_millis(30));
        assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3011"));
        assert!(answer.text().contains("pay.yaml:7"), "{}", answer.text());
        assert_eq!(pay.count(), 0);
        assert_eq!(stage.call(Method::GET, "pay-svc", "/", Bytes::new()).await.status, StatusCode::OK);
    });
}

#[test]
fn a_copy_goes_to_the_mirror_once_whatever_becomes_of_it() {
    run(async {
        let (pay, shadow) = (upstream().await, Upstream::start(|_| Answer::Status(500)).await);
        let share = Share { service: name("shadow-svc"), version: String::new(), weight: 1 };
        let mirrors = vec![Mirror { share, port: None, portion: Portion::ALL }];
        let rule = acting(Actions { mirrors, ..Actions::default() });
        let stage = Stage::new()
            .service("shadow-svc", quick(), &[&shadow])
            .service("pay-svc", quick(), &[&pay])
            .led(route(vec![rule]))
            .build();
        let answer = stage.call(Method::POST, "pay-svc", "/a", Bytes::from_static(b"money")).await;
        assert_eq!((answer.status, answer.text().as_str()), (StatusCode::OK, "ok"));
        stage.until("the copy arrives", || shadow.count() == 1).await;
        assert_eq!((shadow.seen(), shadow.bodies()), (pay.seen(), pay.bodies()));
        // What is too large to be kept is not copied; the request itself is whole.
        let large = Bytes::from(vec![b'x'; 70_000]);
        stage.call(Method::POST, "pay-svc", "/b", large.clone()).await;
        assert_eq!(pay.bodies().last().map(String::len), Some(large.len()));
        stage.call(Method::GET, "pay-svc", "/c", Bytes::new()).await;
        stage.until("the next copy arrives", || shadow.count() == 2).await;
        assert_eq!(shadow.seen().last().map(String::as_str), Some("GET /c"), "failed copies are not sent again");
        assert!(stage.metrics().contains("hms_mirrors_dropped_total{reason=\"too_large\"} 1"), "{}", stage.metrics());
    });
}

#[test]
fn a_rules_own_words_on_time_and_retries_hold_instead_of_the_services() {
    run(async {
        let pay = Upstream::start(|index| if index < 2 { Answer::Status(503) } else { Answer::Hang }).await;
        let never = TrafficPolicy { retry: Retry { retries: 0, ..quick().retry }, ..quick() };
        let patient =
            HttpRule { matches: under("/r"), retry: Some(Retry { retries: 1, ..quick().retry }), ..to("pay-svc") };
        let hurried = HttpRule {
            timeouts: TimeoutOverlay {
                request: Some(Bound::After(Duration::from_millis(50))),
                ..TimeoutOverlay::default()
            },
            ..to("pay-svc")
        };
        let stage = Stage::new().service("pay-svc", never, &[&pay]).led(route(vec![patient, hurried])).build();
        assert_eq!(
            stage.call(Method::GET, "pay-svc", "/r", Bytes::new()).await.status,
            StatusCode::SERVICE_UNAVAILABLE
        );
        assert_eq!(pay.count(), 2, "one retry by the rule");
        assert_eq!(stage.call(Method::GET, "pay-svc", "/x", Bytes::new()).await.status, StatusCode::GATEWAY_TIMEOUT);
        assert_eq!(pay.count(), 3, "none by the service");
    });
}

#[test]
fn a_backend_that_may_not_be_called_answers_its_part_with_500_and_nobody_elses() {
    run(async {
        let pay = upstream().await;
        let mut ghost = Backend::all(name("ghost-svc"));
        ghost.refused = Some("ghost-svc does not exist".to_owned());
        let rule = HttpRule::to(vec![ghost, Backend::all(name("pay-svc"))]);
        let stage = Stage::new().service("pay-svc", quick(), &[&pay]).led(route(vec![rule])).build();
        let mut refused = 0;
        for _ in 0..40 {
            let answer = stage.call(Method::GET, "pay-svc", "/", Bytes::new()).await;
            if answer.status == StatusCode::INTERNAL_SERVER_ERROR {
                assert_eq!(answer.field("x-hms-error").as_deref(), Some("HMS-3012"));
                refused += 1;
            }
        }
        // The dice fall the same way each time; 0 or 40 of 40 would be one in 10^12.
        assert!(refused > 0 && refused + pay.count() == 40, "{refused} refused, {} answered", pay.count());
    });
}
