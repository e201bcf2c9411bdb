use super::*;

const CALC: &str = "service: calc-svc\nroutes:\n  - GET /sum/{a}/{b}\nrate_limit: \"20 req/min\"\n";

/// S0-5 to S0-9: register, look up, move, look up.
#[tokio::test]
async fn a_service_that_registers_again_is_found_at_its_new_address_only() {
    let world = World::new().await;
    let register = async |name: &str, host: &str, port: u16| {
        let path = format!("/v1/services/{name}/endpoints");
        world.call(Method::POST, &path, Some(json!({ "host": host, "port": port }))).await
    };
    assert_eq!(world.call(Method::GET, "/v1/services/fee-payment", None).await.status, StatusCode::NOT_FOUND);
    assert_eq!(register("photo-check", "10.0.0.7", 5000).await.status, StatusCode::CREATED);
    assert_eq!(register("fee-payment", "10.12.4.23", 6000).await.status, StatusCode::CREATED);
    let lookup = async || {
        let service = world.get("/v1/services/fee-payment").await;
        let endpoints = service["endpoints"].as_array().unwrap().clone();
        endpoints.iter().map(|endpoint| endpoint["address"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(lookup().await, ["10.12.4.23:6000"]);
    let moved = register("fee-payment", "10.27.6.89", 6000).await;
    assert_eq!(moved.json()["address"], "10.27.6.89:6000");
    assert_eq!(lookup().await, ["10.27.6.89:6000"]);
    let service = world.get("/v1/services/fee-payment.default.svc.cluster.local").await;
    assert_eq!(
        (&service["state"], &service["mtls"], &service["breaker"]),
        (&json!("healthy"), &json!("OFF"), &json!("CLOSED"))
    );
    assert_eq!(service["endpoints"][0]["source"], "api");
    assert_eq!(service["endpoints"][0]["identity"], Value::Null);
}

#[tokio::test]
async fn endpoints_with_ids_stand_side_by_side_until_they_are_removed() {
    let world = World::new().await;
    for (id, port, version) in [("a", 1, "v1"), ("b", 2, "v2")] {
        let body = json!({ "id": id, "host": "10.0.0.7", "port": port, "version": version });
        let answer = world.call(Method::POST, "/v1/services/calc-svc/endpoints", Some(body)).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    let service = world.get("/v1/services/calc-svc").await;
    assert_eq!(service["versions"], json!(["v1", "v2"]));
    let body = json!({ "host": "10.0.0.8", "port": 3, "health": "unhealthy" });
    let put = world.call(Method::PUT, "/v1/services/calc-svc/endpoints/a", Some(body)).await;
    assert_eq!((put.status, put.json()["health"].clone()), (StatusCode::OK, json!("unhealthy")));
    let removed = world.call(Method::DELETE, "/v1/services/calc-svc/endpoints/b", None).await;
    assert_eq!((removed.status, removed.text.as_str()), (StatusCode::NO_CONTENT, ""));
    let service = world.get("/v1/services/calc-svc").await;
    assert_eq!((&service["state"], &service["breaker"]), (&json!("unhealthy"), &json!("OPEN")));
    assert_eq!(service["endpoints"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_service_that_was_stopped_gets_no_work_until_it_is_started() {
    let world = World::new().await;
    let body = json!({ "host": "10.0.0.7", "port": 1 });
    world.call(Method::POST, "/v1/services/calc-svc/endpoints", Some(body)).await;
    for (desired, state, reason) in [("stopped", "unhealthy", "stopped"), ("started", "healthy", "")] {
        let body = Some(json!({ "desired": desired }));
        let answer = world.call(Method::POST, "/v1/services/calc-svc/state", body).await;
        assert_eq!(answer.status, StatusCode::NO_CONTENT);
        assert_eq!(world.get("/v1/services/calc-svc").await["state"], state);
        assert_eq!(world.get("/v1/breakers/calc-svc").await["reason"], reason);
    }
}

#[tokio::test]
async fn route_files_are_registered_and_shown() {
    let world = World::new().await;
    let answer = world.call(Method::POST, "/v1/route-files", Some(route_file("calc_svc/route.yaml", CALC))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["registered"], json!(["calc-svc"]));
    assert_eq!(answer.headers[header::ETAG], format!("\"{}\"", body["revision"]).as_str());
    let service = world.get("/v1/services/calc-svc").await;
    assert_eq!((&service["state"], &service["mtls"]), (&json!("waiting"), &json!("ON")));
    assert_eq!(service["routes"][0]["match"], "GET /sum/{a}/{b}");
    assert_eq!(service["routes"][0]["rate_limit"], "20 req/min");
    assert!(service["routes"][0]["origin"].as_str().unwrap().starts_with("calc_svc/route.yaml:3"));
    assert_eq!(world.get("/v1/breakers/calc-svc").await["reason"], "no endpoint is registered");
}

#[tokio::test]
async fn every_mistake_of_all_files_is_told_and_no_file_takes_effect() {
    let world = World::new().await;
    let before = world.state();
    let files = json!({ "files": [
        { "name": "good.yaml", "text": CALC },
        { "name": "bad.yaml", "text": "service: hello-svc\nroutes: [GTE /x, \"GET x\"]\nrate_limits: 1/s\n" },
    ] });
    let answer = world.call(Method::POST, "/v1/route-files", Some(files)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    answer.problem();
    let findings = answer.json()["findings"].as_array().unwrap().clone();
    assert!(findings.len() >= 3, "{findings:?}");
    for finding in &findings {
        assert_eq!(finding["place"]["file"], "bad.yaml", "{finding}");
        assert!(finding["place"]["line"].as_u64().unwrap() > 0);
    }
    assert_eq!(world.state(), before);
}

#[tokio::test]
async fn the_same_requests_cannot_belong_to_two_services() {
    let world = World::new().await;
    world.call(Method::POST, "/v1/route-files", Some(route_file("calc.yaml", CALC))).await;
    let thief = route_file("thief.yaml", "service: thief\nroutes: [\"GET /sum/{x}/{y}\"]\n");
    let answer = world.call(Method::POST, "/v1/route-files", Some(thief)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.problem().contains("already belongs to `calc-svc`"));
    // Its owner may say it again.
    let again = world.call(Method::POST, "/v1/route-files", Some(route_file("calc.yaml", CALC))).await;
    assert_eq!(again.status, StatusCode::OK);
}

#[tokio::test]
async fn a_change_that_was_made_for_an_older_revision_is_refused() {
    let world = World::new().await;
    let first = world.call(Method::POST, "/v1/route-files", Some(route_file("calc.yaml", CALC))).await;
    let tag = first.headers[header::ETAG].clone();
    let send = async |tag: &str, text: &str| {
        let request = asking(Method::POST, "/v1/route-files")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::IF_MATCH, tag)
            .body(Body::from(route_file("calc.yaml", text).to_string()));
        world.send(request.unwrap()).await
    };
    let changed = send(tag.to_str().unwrap(), &CALC.replace("20", "30")).await;
    assert_eq!(changed.status, StatusCode::OK, "{}", changed.text);
    let before = world.state();
    let stale = send(tag.to_str().unwrap(), &CALC.replace("20", "40")).await;
    assert_eq!(stale.status, StatusCode::PRECONDITION_FAILED);
    assert_eq!(stale.headers[header::ETAG], changed.headers[header::ETAG]);
    stale.problem();
    for nonsense in ["42", "\"x\"", "W/\"1\"", "\"-1\"", "\"99999999999999999999\""] {
        assert_eq!(send(nonsense, CALC).await.status, StatusCode::BAD_REQUEST, "{nonsense}");
    }
    assert_eq!(world.state(), before);
    assert_eq!(send("*", CALC).await.status, StatusCode::OK);
}

#[tokio::test]
async fn changes_at_the_same_time_all_take_effect() {
    let world = World::new().await;
    let calls = (0..8).map(|n| {
        let text = format!("service: s{n}\nroutes: [GET /{n}]\n");
        let body = route_file("route.yaml", &text);
        let world = &world;
        async move { world.call(Method::POST, "/v1/route-files", Some(body)).await.status }
    });
    let statuses = futures_util::future::join_all(calls).await;
    assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
    assert_eq!(world.get("/v1/services").await["items"].as_array().unwrap().len(), 8);
}

#[tokio::test]
async fn the_table_of_routes_comes_back_as_it_went_in() {
    let world = World::new().await;
    let table = json!({
        "calc-svc": { "service": "calc-svc", "routes": ["GET /sum/{a}/{b}"], "rate_limit": "20 req/min" },
        "hello-svc": { "service": "hello-svc", "routes": ["GET /hello"], "keep_alive": false },
    });
    let answer = world.call(Method::PUT, "/v1/routes", Some(table.clone())).await;
    assert_eq!(answer.json()["registered"], json!(["calc-svc", "hello-svc"]), "{}", answer.text);
    assert_eq!(world.get("/v1/routes").await, table);
}
