use std::convert::Infallible;

use axum::body::Bytes;

use super::*;

/// Method, path, body, status, and what the detail says.
type Case = (Method, &'static str, Value, u16, &'static str);

/// Input that is wrong in its content.
fn cases() -> Vec<Case> {
    let (post, put) = (Method::POST, Method::PUT);
    let endpoints = "/v1/services/a/endpoints";
    let at = |host: &str| json!({ "host": host, "port": 80 });
    let file = |text: &str| route_file("route.yaml", text);
    vec![
        (post.clone(), endpoints, json!([]), 400, "a list where an object"),
        (post.clone(), endpoints, json!({}), 400, "missing field `host`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7" }), 400, "missing field `port`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "prot": 1 }), 400, "`/prot`: unknown field"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "port": 65536 }), 400, "`/port`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "port": -1 }), 400, "`/port`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "port": 1.5 }), 400, "`/port`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "port": "80" }), 400, "`/port`"),
        (post.clone(), endpoints, json!({ "host": "10.0.0.7", "port": 0 }), 400, "port from 1"),
        (post.clone(), endpoints, at("example.com"), 400, "no IP address"),
        (post.clone(), endpoints, at("10.0.0.256"), 400, "no IP address"),
        (post.clone(), endpoints, at("0.0.0.0"), 400, "no workload serves"),
        (post.clone(), endpoints, at("169.254.169.254"), 400, "no workload serves"),
        (post.clone(), endpoints, json!({ "host": "::1", "port": 1, "health": "fine" }), 400, "`/health`"),
        (post.clone(), endpoints, json!({ "host": "::1", "port": 1, "id": "../x" }), 400, "`/id`"),
        (post.clone(), endpoints, json!({ "host": "::1", "port": 1, "version": "a b" }), 400, "version"),
        (post.clone(), "/v1/services/A_B/endpoints", at("10.0.0.7"), 400, "no service's name"),
        (post.clone(), "/v1/services/a%2fb/endpoints", at("10.0.0.7"), 400, "no service's name"),
        (post.clone(), "/v1/services/%2e%2e/endpoints", at("10.0.0.7"), 400, "no service's name"),
        (post.clone(), "/v1/services/a%ff/endpoints", at("10.0.0.7"), 400, "UTF-8"),
        (post.clone(), "/v1/services/p%C3%A4y/endpoints", at("10.0.0.7"), 400, "no service's name"),
        (put.clone(), "/v1/services/a/endpoints/a%20b", at("10.0.0.7"), 400, "no id"),
        (put.clone(), "/v1/services/a/endpoints/%2f", at("10.0.0.7"), 400, "no id"),
        (put.clone(), "/v1/services/a/endpoints/1", json!({ "id": "2", "host": "::1", "port": 1 }), 400, "another id"),
        (Method::DELETE, "/v1/services/a/endpoints/1", Value::Null, 404, "no endpoint"),
        (Method::GET, "/v1/services/ghost", Value::Null, 404, "no service `ghost`"),
        (Method::GET, "/v1/breakers/ghost", Value::Null, 404, "no service `ghost`"),
        (Method::GET, "/v1/services/ghost.svc.example.com", Value::Null, 400, "no service's name"),
        (post.clone(), "/v1/services/ghost/state", json!({ "desired": "stopped" }), 404, "no service"),
        (post.clone(), "/v1/services/ghost/state", json!({ "desired": "gone" }), 400, "`/desired`"),
        (post.clone(), "/v1/route-files", json!({ "files": [{ "name": "x" }] }), 400, "`/files/0`"),
        (post.clone(), "/v1/route-files", file("service: calc-svc\nrutes: []\n"), 400, "rutes"),
        (post.clone(), "/v1/route-files", file("service: Calc\nroutes: [GET /x]\n"), 400, "Calc"),
        (post.clone(), "/v1/route-files", file("service: a\nroutes: [GTE /x]\n"), 400, "GTE"),
        (
            post.clone(),
            "/v1/route-files",
            file("service: a\nroutes: [GET /x]\nrate_limit: 1/fortnight\n"),
            400,
            "fortnight",
        ),
        (post.clone(), "/v1/route-files", file("\tservice: a"), 400, ""),
        (post.clone(), "/v1/route-files", file(&"[".repeat(10_000)), 400, ""),
        (put.clone(), "/v1/routes", json!({ "a": { "service": "b", "routes": ["GET /x"] } }), 400, "belongs to"),
        (put.clone(), "/v1/routes", json!([]), 400, ""),
        (put.clone(), "/v1/mesh", json!({ "file": "mesh.yaml", "text": "servces: {}" }), 400, "servces"),
        (put, "/v1/mesh", json!({ "text": "" }), 400, "missing field `file`"),
        (post.clone(), "/v1/jwt", json!({}), 400, "missing field `sub`"),
        (post.clone(), "/v1/jwt", json!({ "sub": "" }), 400, "`/sub`"),
        (post.clone(), "/v1/jwt", json!({ "sub": "a\r\nb" }), 400, "`/sub`"),
        (post.clone(), "/v1/jwt", json!({ "sub": "a", "ttl_seconds": 0 }), 400, "`/ttl_seconds`"),
        (post.clone(), "/v1/jwt", json!({ "sub": "a", "ttl_seconds": u64::MAX }), 400, "`/ttl_seconds`"),
        (post.clone(), "/v1/jwt", json!({ "sub": "a", "roles": ["x", ""] }), 400, "`/roles/1`"),
        (post.clone(), "/v1/join-tokens", json!({ "service": "a b" }), 400, "`/service`"),
        (post.clone(), "/v1/join-tokens", json!({ "service": "gateway.hms-system" }), 400, "own namespace"),
        (post.clone(), "/v1/join-tokens", json!({ "service": "a", "ttl_seconds": 86_401 }), 400, "`/ttl_seconds`"),
        (post.clone(), "/v1/certificates/rotate", json!({ "validity_seconds": 1 }), 400, "out of bounds"),
        (post.clone(), "/v1/certificates/rotate", json!({ "service": "ghost" }), 404, "no service"),
        (post.clone(), "/v1/attestations", attestation(2_147_483_647, "a", "sidecar"), 422, "no process"),
        (post.clone(), "/v1/attestations", attestation(1, "a", "node"), 400, "`/role`"),
        (post.clone(), "/v1/attestations", attestation(1, "a", "egress"), 400, "`/service`"),
        (post.clone(), "/v1/attestations", attestation(1, "a", "gateway"), 400, "`/service`"),
        (post, "/v1/attestations", attestation(1, "control.hms-system", "sidecar"), 400, "`/service`"),
    ]
}

fn attestation(process: u32, service: &str, role: &str) -> Value {
    json!({ "process_id": process, "service": service, "role": role })
}

#[tokio::test]
async fn wrong_input_is_answered_with_a_clear_problem_and_changes_nothing() {
    let world = World::new().await;
    let before = world.state();
    let cases = cases();
    assert!(cases.len() >= 50);
    for (method, path, body, status, says) in cases {
        let body = Some(body).filter(|body| !body.is_null());
        let shown = format!("{method} {path} {body:?}");
        let answer = world.call(method, path, body).await;
        assert_eq!(answer.status.as_u16(), status, "{shown}: {}", answer.text);
        assert!(answer.problem().contains(says), "{shown}: {}", answer.text);
        assert_eq!(world.state(), before, "{shown}");
    }
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_its_place() {
    let world = World::new().await;
    for (body, says) in [
        (&b""[..], "line 1"),
        (b"{", "line 1"),
        (b"{\"host\": \"10.0.0.7\",\n \"port\": 1,}", "line 2"),
        (b"{\"host\": \"10.0.0.7\", \"port\": 1} x", "trailing"),
        (b"{\"host\": \"10.0.0.7\", \"port\": 1, \"port\": 2}", "duplicate field `port`"),
        (b"{\"host\": \"\xff\"}", ""),
        (b"\xef\xbb\xbf{}", ""),
        (b"{\"host\": NaN}", ""),
        (b"{\"host\": \"::1\", \"port\": 1e400}", "out of range"),
    ] {
        let request = asking(Method::POST, "/v1/services/a/endpoints").header(header::CONTENT_TYPE, "application/json");
        let answer = world.send(request.body(Body::from(body)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.problem().contains(says), "{}", answer.text);
    }
    let deep = "[".repeat(100_000);
    let request = asking(Method::PUT, "/v1/routes").header(header::CONTENT_TYPE, "application/json");
    assert_eq!(world.send(request.body(Body::from(deep)).unwrap()).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_body_of_another_type_is_refused() {
    let world = World::new().await;
    for kind in
        ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "", "text/json; application/json"]
    {
        let request = asking(Method::POST, "/v1/jwt").header(header::CONTENT_TYPE, kind);
        let answer = world.send(request.body(Body::from(r#"{"sub":"a"}"#)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
        answer.problem();
    }
    let request = asking(Method::POST, "/v1/jwt").header(header::CONTENT_TYPE, "Application/JSON; charset=utf-8");
    assert_eq!(world.send(request.body(Body::from(r#"{"sub":"a"}"#)).unwrap()).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_body_beyond_a_mebibyte_is_refused_whether_it_says_so_or_not() {
    let world = World::new().await;
    let post = || asking(Method::POST, "/v1/route-files").header(header::CONTENT_TYPE, "application/json");
    let declared = post().header(header::CONTENT_LENGTH, "1048577").body(Body::empty()).unwrap();
    let absurd = post().header(header::CONTENT_LENGTH, "18446744073709551615").body(Body::empty()).unwrap();
    let pieces = std::iter::repeat_n(Ok::<_, Infallible>(Bytes::from_static(&[b' '; 4096])), 300);
    let streamed = post().body(Body::from_stream(futures_util::stream::iter(pieces))).unwrap();
    for request in [declared, absurd, streamed] {
        let answer = world.send(request).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.headers[header::CONNECTION], "close");
        answer.problem();
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_never_comes_is_not_waited_for() {
    let world = World::new().await;
    let never = futures_util::stream::pending::<Result<Bytes, Infallible>>();
    let request = asking(Method::POST, "/v1/jwt").header(header::CONTENT_TYPE, "application/json");
    let answer = world.send(request.body(Body::from_stream(never)).unwrap()).await;
    assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT);
    answer.problem();
}

#[tokio::test]
async fn what_an_answer_repeats_of_a_request_is_short_and_harmless() {
    let world = World::new().await;
    let long = format!("/v1/services/{}", "x".repeat(10_000));
    let answer = world.call(Method::GET, &long, None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.text.len() < 2000);
    let answer = world.call(Method::GET, "/v1/services/%1b%5b2J%0a", None).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.text.contains('\u{1b}') && answer.problem().contains("\\u{1b}[2J\\n"));
}
