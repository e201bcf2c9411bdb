use super::*;

#[tokio::test]
async fn whoever_has_no_token_gets_nothing_but_health() {
    let world = World::new().await;
    let wrong = [
        None,
        Some(String::new()),
        Some("Bearer".to_owned()),
        Some("Bearer ".to_owned()),
        Some("Bearer 0".to_owned()),
        Some(format!("Bearer {}", TOKEN.to_uppercase())),
        Some(format!("Bearer  {TOKEN}")),
        Some(format!("Bearer {TOKEN} ")),
        Some(format!("Basic {TOKEN}")),
        Some(TOKEN.to_owned()),
    ];
    let before = world.state();
    for operation in &world.operations {
        for credentials in &wrong {
            let mut request = Request::builder().method(operation.method.clone()).uri(sample(operation.path));
            request = request.header(header::HOST, "localhost:15014");
            if let Some(credentials) = credentials {
                request = request.header(header::AUTHORIZATION, credentials);
            }
            let answer = world.send(request.body(Body::from("{}")).unwrap()).await;
            if operation.open {
                assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{}", operation.path);
            } else {
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} {credentials:?}", operation.path);
                assert!(answer.headers.contains_key(header::WWW_AUTHENTICATE));
                answer.problem();
            }
        }
    }
    assert_eq!(world.state(), before);
}

#[tokio::test]
async fn the_scheme_is_read_in_either_case_and_two_tokens_are_none() {
    let world = World::new().await;
    let request = |times: usize| {
        let mut request = Request::builder().uri("/v1/services").header(header::HOST, "localhost");
        for _ in 0..times {
            request = request.header(header::AUTHORIZATION, format!("bearer {TOKEN}"));
        }
        request.body(Body::empty()).unwrap()
    };
    assert_eq!(world.send(request(1)).await.status, StatusCode::OK);
    assert_eq!(world.send(request(2)).await.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_request_that_was_meant_for_another_host_is_refused_before_anything_else() {
    let world = World::new().await;
    for host in ["evil.com", "evil.com:15014", "127.0.0.1.evil.com", "169.254.169.254", "gateway.local", ""] {
        for path in ["/v1/services", "/healthz/ready", "/metrics", "/nowhere"] {
            let request = asking(Method::GET, path).body(Body::empty()).unwrap();
            let (mut parts, body) = request.into_parts();
            parts.headers.insert(header::HOST, host.parse().unwrap());
            let answer = world.send(Request::from_parts(parts, body)).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{host} {path}");
            assert_eq!(answer.json()["code"], "HMS-4202");
        }
    }
    let without = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
    assert_eq!(world.send(without).await.status, StatusCode::FORBIDDEN);
    let twice = asking(Method::GET, "/v1/services").header(header::HOST, "localhost").body(Body::empty()).unwrap();
    assert_eq!(world.send(twice).await.status, StatusCode::FORBIDDEN);
    let absolute = asking(Method::GET, "http://evil.com/v1/services").body(Body::empty()).unwrap();
    assert_eq!(world.send(absolute).await.status, StatusCode::FORBIDDEN);
}

#[tokio::test]
async fn a_page_from_elsewhere_can_do_nothing_even_with_the_token() {
    let world = World::new().await;
    let with =
        |name: &str, value: &str| asking(Method::GET, "/v1/services").header(name, value).body(Body::empty()).unwrap();
    for origin in
        ["http://evil.com", "null", "http://127.0.0.1:3000", "https://127.0.0.1:15014", "http://localhost:15014"]
    {
        let answer = world.send(with("origin", origin)).await;
        assert_eq!((answer.status, &answer.json()["code"]), (StatusCode::FORBIDDEN, &json!("HMS-4203")), "{origin}");
    }
    for site in ["cross-site", "same-site", "anything"] {
        assert_eq!(world.send(with("sec-fetch-site", site)).await.status, StatusCode::FORBIDDEN, "{site}");
    }
    assert_eq!(world.send(with("origin", "http://127.0.0.1:15014")).await.status, StatusCode::OK);
    assert_eq!(world.send(with("sec-fetch-site", "same-origin")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn a_wrong_method_learns_the_right_ones() {
    let world = World::new().await;
    for (method, path, allow) in [
        (Method::POST, "/healthz/ready", "GET,HEAD"),
        (Method::DELETE, "/v1/services", "GET,HEAD"),
        (Method::OPTIONS, "/v1/mesh", "PUT"),
        (Method::GET, "/v1/services/a/endpoints/1", "PUT,DELETE"),
        (Method::PATCH, "/v1/routes", "GET,HEAD,PUT"),
    ] {
        let answer = world.call(method, path, None).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
        assert_eq!(answer.headers[header::ALLOW], allow, "{path}");
        answer.problem();
    }
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_and_every_answer_is_kept_by_nobody() {
    let world = World::new().await;
    for path in ["/", "/v1", "/v1/", "/v1/services/", "/v2/services", "/v1/services/a/b", "/v1/../metrics", "//metrics"]
    {
        let answer = world.call(Method::GET, path, None).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        answer.problem();
    }
    let answer = world.call(Method::GET, "/v1/services", None).await;
    assert_eq!(answer.headers[header::CACHE_CONTROL], "no-store");
    assert_eq!(answer.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
}

#[tokio::test]
async fn a_head_request_gets_the_head() {
    let world = World::new().await;
    let answer = world.call(Method::HEAD, "/v1/services", None).await;
    assert_eq!((answer.status, answer.text.as_str()), (StatusCode::OK, ""));
}
