use hms_wire::proto::hms::v1;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tokio::sync::mpsc;

use super::*;
use crate::live::{ProxyHello, Session};
use hms_model::listener::Role;

fn connect(world: &World, id: &str) -> (Session, mpsc::Receiver<v1::ControlMessage>) {
    world.context.parts().live.connect(ProxyHello {
        id: id.to_owned(),
        role: Role::Sidecar,
        release: "0.1.0".to_owned(),
        level: 1,
        admin: Some("127.0.0.1:4191".parse().unwrap()),
        process: 7,
        identity: world.context.identity(&ServiceName::new("calc-svc").unwrap()).unwrap(),
    })
}

fn calc() -> v1::ServiceName {
    v1::ServiceName { namespace: "default".to_owned(), name: "calc-svc".to_owned() }
}

async fn register(world: &World) {
    let body = json!({ "host": "10.0.0.7", "port": 1 });
    world.call(Method::POST, "/v1/services/calc-svc/endpoints", Some(body)).await;
}

#[tokio::test]
async fn a_breaker_is_as_open_as_the_worst_caller_sees_it() {
    let world = World::new().await;
    register(&world).await;
    let (one, _) = connect(&world, "one");
    let (two, _) = connect(&world, "two");
    for (session, phase, reason) in
        [(&one, v1::BreakerPhase::Open, "3 x connect refused"), (&two, v1::BreakerPhase::HalfOpen, "probing")]
    {
        session.report(v1::proxy_message::Kind::Breaker(v1::BreakerState {
            service: Some(calc()),
            phase: phase.into(),
            reason: reason.to_owned(),
            next_probe_ms: 20_000,
            endpoints: vec![v1::EndpointState {
                id: "api".to_owned(),
                address: "10.0.0.7:1".to_owned(),
                phase: phase.into(),
                reason: reason.to_owned(),
                consecutive_failures: 3,
                next_probe_ms: 20_000,
            }],
        }));
    }
    let breaker = world.get("/v1/breakers/calc-svc").await;
    assert_eq!((&breaker["phase"], &breaker["reason"]), (&json!("OPEN"), &json!("3 x connect refused")));
    assert!((1..=20_000).contains(&breaker["next_probe_ms"].as_u64().unwrap()));
    assert_eq!(breaker["seen_by"].as_array().unwrap().len(), 2);
    assert_eq!(breaker["seen_by"][0]["endpoints"][0]["consecutive_failures"], 3);
    assert_eq!(world.get("/v1/summary").await["breaker"], "OPEN");
    drop(one);
    assert_eq!(world.get("/v1/breakers/calc-svc").await["phase"], "HALF-OPEN");
    drop(two);
    let closed = world.get("/v1/breakers").await["items"][0].clone();
    assert_eq!(
        (&closed["phase"], &closed["reason"], &closed["next_probe_ms"]),
        (&json!("CLOSED"), &json!(""), &Value::Null)
    );
}

#[tokio::test]
async fn connected_proxies_are_shown_and_found_by_prometheus() {
    let world = World::new().await;
    let (session, _messages) = connect(&world, "calc-1");
    let identity = world.context.identity(&ServiceName::new("calc-svc").unwrap()).unwrap().to_string();
    session.report(v1::proxy_message::Kind::Certificate(v1::CertificateState {
        identity: identity.clone(),
        serial: "2a".to_owned(),
        not_before: 1_800_000_000,
        not_after: 1_800_086_400,
        rotates_at: 1_800_028_800,
        failures: 0,
    }));
    let proxy = world.get("/v1/proxies").await["items"][0].clone();
    assert_eq!(
        (&proxy["id"], &proxy["role"], &proxy["identity"]),
        (&json!("calc-1"), &json!("sidecar"), &json!(identity))
    );
    let targets = world.get("/v1/prometheus/targets").await;
    assert_eq!(targets[0]["targets"], json!(["127.0.0.1:4191"]));
    assert_eq!(targets[0]["labels"]["service"], "calc-svc");
    let certificate = world.get("/v1/certificates").await["items"][0].clone();
    assert_eq!(certificate["not_before"], "2027-01-15T08:00:00Z");
    assert_eq!(world.get("/v1/summary").await["proxies"], 1);
}

#[tokio::test]
async fn a_rotation_says_who_did_and_who_did_not() {
    let world = World::new().await;
    let (session, mut messages) = connect(&world, "calc-1");
    let answer = async {
        let Some(v1::control_message::Kind::Rotate(rotate)) = messages.recv().await.unwrap().kind else { panic!() };
        assert_eq!(rotate.validity_seconds, 3600);
        let rotated = v1::Rotated { request_id: rotate.request_id, error: "no authority".to_owned() };
        session.report(v1::proxy_message::Kind::Rotated(rotated));
    };
    let body = json!({ "service": "calc-svc", "validity_seconds": 3600 });
    let (rotated, ()) = tokio::join!(world.call(Method::POST, "/v1/certificates/rotate", Some(body)), answer);
    assert_eq!(rotated.json()["rotated"][0]["error"], "no authority");
}

#[tokio::test]
async fn requests_are_shown_line_by_line_to_a_bounded_number_of_readers() {
    let world = World::new().await;
    let (session, _messages) = connect(&world, "calc-1");
    let open = async || {
        let request = asking(Method::GET, "/v1/tap/calc-svc").body(Body::empty()).unwrap();
        world.router.clone().call(request).await.unwrap()
    };
    let mut streams = Vec::new();
    for _ in 0..STREAMS {
        streams.push(open().await);
    }
    assert_eq!(streams[0].headers()[header::CONTENT_TYPE], "application/x-ndjson");
    let refused = world.call(Method::GET, "/v1/tap/-", None).await;
    assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
    refused.problem();
    let event = v1::TapEvent {
        source: "gateway".to_owned(),
        destination: "calc-svc".to_owned(),
        method: "GET".to_owned(),
        path: "/sum/2/3".to_owned(),
        status: 200,
        ..v1::TapEvent::default()
    };
    session.report(v1::proxy_message::Kind::Tap(v1::TapEvents { events: vec![event], dropped: 2 }));
    let frame = streams.pop().unwrap().into_body().frame().await.unwrap().unwrap().into_data().unwrap();
    let line = std::str::from_utf8(&frame).unwrap();
    assert!(line.ends_with('\n'));
    let shown: Value = serde_json::from_str(line).unwrap();
    assert_eq!((&shown["path"], &shown["proxy"], &shown["dropped"]), (&json!("/sum/2/3"), &json!("calc-1"), &json!(2)));
    drop(streams);
    assert_eq!(open().await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_token_of_the_built_in_issuer_verifies_with_its_published_keys() {
    let world = World::new().await;
    let body = json!({ "sub": "lena", "roles": ["ops"], "ttl_seconds": 60, "audience": "shop" });
    let issued = world.call(Method::POST, "/v1/jwt", Some(body)).await.json();
    let keys: jsonwebtoken::jwk::JwkSet = serde_json::from_value(world.get("/v1/jwks").await).unwrap();
    let mut validation = Validation::new(Algorithm::ES256);
    validation.set_audience(&["shop"]);
    validation.set_issuer(&["hms-dev"]);
    let key = DecodingKey::from_jwk(&keys.keys[0]).unwrap();
    let decoded = jsonwebtoken::decode::<Value>(issued["token"].as_str().unwrap(), &key, &validation).unwrap();
    assert_eq!((&decoded.claims["sub"], &decoded.claims["roles"]), (&json!("lena"), &json!(["ops"])));
    assert!(issued["expires_at"].as_str().unwrap().ends_with('Z'));
}

#[tokio::test]
async fn roots_join_tokens_and_attestations_are_given_out() {
    let world = World::new().await;
    for path in ["/v1/ca/root", "/v1/ca/edge"] {
        let answer = world.call(Method::GET, path, None).await;
        assert!(answer.text.starts_with("-----BEGIN CERTIFICATE-----\n") && !answer.text.contains("PRIVATE"));
    }
    let token = world.call(Method::POST, "/v1/join-tokens", Some(json!({ "service": "calc-svc" }))).await;
    assert_eq!(token.status, StatusCode::CREATED);
    let text = token.json()["token"].as_str().unwrap().to_owned();
    let redeemed = world.context.parts().tokens.redeem(&text, &[7; 32]).await;
    assert_eq!(redeemed, Ok(ServiceName::new("calc-svc").unwrap()));
    let own = std::process::id();
    for (service, role, expected) in
        [("calc-svc", "sidecar", "/ns/default/sa/calc-svc"), ("gateway", "gateway", "/ns/hms-system/sa/gateway")]
    {
        let body = json!({ "process_id": own, "service": service, "role": role });
        let answer = world.call(Method::POST, "/v1/attestations", Some(body)).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{}", answer.text);
        let user = nix::unistd::geteuid().as_raw();
        let (peer, _role) = world.context.parts().attestations.identify(own, user).unwrap();
        assert!(peer.identity.as_str().ends_with(expected));
    }
}

#[tokio::test]
async fn health_and_metrics_need_no_token() {
    let world = World::new().await;
    let open = async |path: &str| {
        let request = Request::builder().uri(path).header(header::HOST, "localhost:15014");
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let before = open("/healthz/ready").await;
    assert_eq!((before.status, before.text.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING"));
    world.context.set_ready(true);
    let after = open("/healthz/ready").await;
    assert_eq!((after.status, after.text.as_str()), (StatusCode::OK, "SERVING"));
    assert_eq!(open("/healthz/live").await.status, StatusCode::OK);
    assert_eq!(open("/v1/version").await.json()["api"], "v1");
    register(&world).await;
    let metrics = open("/metrics").await.text;
    for line in [
        "hms_control_services 1",
        "hms_control_endpoints{health=\"healthy\"} 1",
        "hms_control_proxies{role=\"sidecar\"} 0",
        "hms_control_ca_issued_total 0",
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line}: {metrics}");
    }
    let left = |name: &str| {
        let prefix = format!("hms_control_ca_expiry_seconds{{certificate=\"{name}\"}} ");
        metrics.lines().find_map(|line| line.strip_prefix(&prefix)?.parse::<u64>().ok()).unwrap()
    };
    assert!(left("root") > left("issuer") && left("issuer") > 364 * 86_400 && left("edge-root") > 3600 * 86_400);
    assert!(!metrics.contains("calc-svc"));
}
