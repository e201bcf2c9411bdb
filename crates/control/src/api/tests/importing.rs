//! What files of other meshes change beside routes.

use super::*;

const ENTRY: &str = "apiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {name: tax}\nspec:
  hosts: [mef.irs.gov]\n  ports: [{number: 443, name: tls, protocol: TLS}]\n  resolution: DNS\n";

fn files(texts: &[&str]) -> Value {
    let files: Vec<Value> = texts.iter().map(|text| json!({"name": "file.yaml", "text": text})).collect();
    json!({ "files": files })
}

impl World {
    async fn posted(&self, path: &str, body: Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()
    }

    async fn listed(&self) -> Vec<String> {
        let egress = self.get("/v1/egress").await;
        let name = |host: &Value| format!("{} {}", host["label"], host["host"]).replace('"', "");
        egress["hosts"].as_array().unwrap().iter().map(name).collect()
    }
}

#[tokio::test]
async fn a_service_entry_lists_a_host_beside_those_that_are_listed_and_is_taken_away_again() {
    let world = World::new().await;
    let mesh = "services: {web: {port: 8000}}\negress: {default: listed, hosts: {fema: {host: api.fema.gov}}}\n";
    let put = json!({"file": "mesh.yaml", "text": mesh});
    let answer = world.call(Method::PUT, "/v1/mesh", Some(put)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let _applied = world.posted("/v1/apply", files(&[ENTRY])).await;
    assert_eq!(world.listed().await, ["fema api.fema.gov", "tax mef.irs.gov"]);
    assert_eq!(world.get("/v1/egress").await["default"], "listed", "what was said of others stays");
    let again = world.posted("/v1/apply", files(&[ENTRY])).await;
    assert_eq!(again["changes"], json!([]), "the same again is no change");
    let other = ENTRY.replace("name: tax", "name: fema-again").replace("mef.irs.gov", "api.fema.gov");
    let twice = world.call(Method::POST, "/v1/apply", Some(files(&[&other]))).await;
    assert_eq!(twice.status, StatusCode::CONFLICT, "{}", twice.text);
    assert!(twice.text.contains("`fema` lists it"), "{}", twice.text);
    let changed = ENTRY.replace("443", "8443");
    let other = world.call(Method::POST, "/v1/delete", Some(files(&[&changed]))).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.text);
    let _deleted = world.posted("/v1/delete", files(&[ENTRY])).await;
    assert_eq!(world.listed().await, ["fema api.fema.gov"]);
    let gone = world.call(Method::POST, "/v1/delete", Some(files(&[ENTRY]))).await;
    assert_eq!(gone.status, StatusCode::NOT_FOUND, "{}", gone.text);
}

#[tokio::test]
async fn entries_that_consul_printed_become_a_route_a_division_and_policies() {
    const ENTRIES: &str = r#"[
        {"Kind": "service-defaults", "Name": "pay", "Protocol": "grpc"},
        {"Kind": "service-router", "Name": "pay",
         "Routes": [{"Match": {"HTTP": {"PathPrefix": "/v2"}}, "Destination": {"Service": "pay-next"}}]},
        {"Kind": "service-splitter", "Name": "pay",
         "Splits": [{"Weight": 99.5}, {"Weight": 0.5, "Service": "pay-next"}]},
        {"Kind": "service-intentions", "Name": "pay", "Sources": [{"Name": "web", "Action": "allow"}]}
    ]"#;
    let world = World::new().await;
    let _applied = world.posted("/v1/apply", files(&[ENTRIES])).await;
    let declared = world.get("/v1/resources/declaration/pay").await;
    assert_eq!(declared["spec"]["protocol"], "grpc", "{declared}");
    assert!(declared.to_string().contains("web"), "{declared}");
    let split = world.get("/v1/resources/split/pay").await;
    assert_eq!(split["spec"]["shares"][1], json!({"service": "pay-next", "weight": 50}), "{split}");
    let route = world.get("/v1/resources/httproute/pay").await;
    assert!(route.to_string().contains("/v2"), "{route}");
}
