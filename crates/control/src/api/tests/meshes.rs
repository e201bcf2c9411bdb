use super::*;

const MESH: &str = "\
version: 1
services:
  hello-svc:
    dir: hello
    routes: hello/route.yaml
    retry: {retries: 1}
tracing:
  in_json_body: true
";

fn project(mesh: &str, more: &[(&str, &str)]) -> Value {
    let files: Vec<Value> = more.iter().map(|(name, text)| json!({ "name": name, "text": text })).collect();
    json!({ "file": "mesh.yaml", "text": mesh, "files": files })
}

const HELLO: (&str, &str) = ("hello/route.yaml", "service: hello-svc\nroutes: [GET /hello]\n");

async fn issuer(world: &World) -> Value {
    world.get("/v1/summary").await["jwt"]["issuer"].clone()
}

#[tokio::test]
async fn a_project_is_applied_as_a_whole() {
    let world = World::new().await;
    let answer = world.call(Method::PUT, "/v1/mesh", Some(project(MESH, &[HELLO]))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(answer.json()["registered"], json!(["hello-svc"]));
    let view = world.context.parts().registry.view();
    assert!(view.mesh.telemetry.in_json_body);
    let hello = &view.mesh.services[&ServiceName::new("hello-svc").unwrap()];
    assert_eq!(hello.service.policy.retry.retries, 1);
    assert_eq!(hello.service.identities.len(), 1);
    assert_eq!(view.mesh.gateway.issuers[0].issuer, "hms-dev");
    assert_eq!(issuer(&world).await, "hms-dev");
}

#[tokio::test]
async fn a_project_with_a_mistake_changes_nothing() {
    let world = World::new().await;
    world.call(Method::PUT, "/v1/mesh", Some(project(MESH, &[HELLO]))).await;
    let before = world.state();
    for (mesh, files) in [
        (MESH.replace("retries", "retriez"), vec![HELLO]),
        (MESH.to_owned(), vec![("hello/route.yaml", "service: hello-svc\nroutes: [FETCH /hello]\n")]),
        (MESH.to_owned(), vec![HELLO, ("gateway.yaml", "nonsense: 1\n")]),
        (MESH.to_owned(), vec![HELLO, ("mesh-config.yaml", "tracing: {in_json_body: false}\n")]),
    ] {
        let answer = world.call(Method::PUT, "/v1/mesh", Some(project(&mesh, &files))).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{mesh} {files:?}: {}", answer.text);
        assert!(!answer.json()["findings"].as_array().unwrap().is_empty());
        assert_eq!(world.state(), before);
    }
}

#[tokio::test]
async fn the_keys_of_another_issuer_come_with_the_project() {
    let world = World::new().await;
    let mesh = format!(
        "{MESH}gateway:\n  jwt:\n    issuer: https://login.example.com\n    jwks: keys/jwks.json\n    audience: shop\n"
    );
    let missing = world.call(Method::PUT, "/v1/mesh", Some(project(&mesh, &[HELLO]))).await;
    assert_eq!(missing.status, StatusCode::BAD_REQUEST, "{}", missing.text);
    assert!(missing.problem().contains("were not sent"), "{}", missing.text);
    let keys = world.context.parts().jwt.key_set().to_string();
    let files = [HELLO, ("./keys/jwks.json", keys.as_str())];
    let answer = world.call(Method::PUT, "/v1/mesh", Some(project(&mesh, &files))).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let view = world.context.parts().registry.view();
    let [issuer] = view.mesh.gateway.issuers.as_slice() else { panic!("{:?}", view.mesh.gateway) };
    assert_eq!(
        (issuer.issuer.as_str(), issuer.audiences.as_slice()),
        ("https://login.example.com", &["shop".to_owned()][..])
    );
    assert_eq!(issuer.keys.len(), 1);
    let broken = [HELLO, ("keys/jwks.json", r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#)];
    let answer = world.call(Method::PUT, "/v1/mesh", Some(project(&mesh, &broken))).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(!answer.text.contains("c2VjcmV0"));
}

#[tokio::test]
async fn variables_are_those_of_the_caller() {
    let world = World::new().await;
    let mesh = "version: 1\nservices:\n  hello-svc:\n    retry: {retries: \"${TRIES}\"}\n";
    let mut body = project(mesh, &[]);
    let unset = world.call(Method::PUT, "/v1/mesh", Some(body.clone())).await;
    assert_eq!(unset.status, StatusCode::BAD_REQUEST);
    body["variables"] = json!({ "TRIES": "4" });
    let set = world.call(Method::PUT, "/v1/mesh", Some(body)).await;
    assert_eq!(set.status, StatusCode::OK, "{}", set.text);
    let view = world.context.parts().registry.view();
    assert_eq!(view.mesh.services[&ServiceName::new("hello-svc").unwrap()].service.policy.retry.retries, 4);
}

#[tokio::test]
async fn a_project_without_a_mesh_file_is_its_route_files() {
    let world = World::new().await;
    let body = json!({ "file": "mesh.yaml", "text": null, "files": [{ "name": HELLO.0, "text": HELLO.1 }] });
    let answer = world.call(Method::PUT, "/v1/mesh", Some(body)).await;
    assert_eq!(answer.json()["registered"], json!(["hello-svc"]), "{}", answer.text);
}
