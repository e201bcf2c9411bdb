use super::*;

const ROUTE: &str = "service: calc-svc\nroutes: [GET /sum]\n";

fn files(dry_run: bool, texts: &[&str]) -> Value {
    let files: Vec<Value> = texts.iter().map(|text| json!({"name": "file.yaml", "text": text})).collect();
    json!({ "files": files, "dry_run": dry_run })
}

fn split(weight: u32) -> String {
    format!(
        "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {{name: s}}\nspec:\n  service: pay-svc\n  \
         backends:\n  - {{service: pay-v1, weight: {}}}\n  - {{service: pay-v2, weight: {weight}}}\n",
        100 - weight
    )
}

fn named(changes: &Value) -> Vec<String> {
    let text = |change: &Value, member: &str| change[member].as_str().unwrap().to_owned();
    let one = |change: &Value| format!("{} {} {}", text(change, "change"), text(change, "kind"), text(change, "name"));
    changes.as_array().unwrap().iter().map(one).collect()
}

impl World {
    async fn post(&self, path: &str, body: Value) -> Value {
        let answer = self.call(Method::POST, path, Some(body)).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        answer.json()
    }
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let world = World::new().await;
    let before = world.state();
    let planned = world.post("/v1/apply", files(true, &[ROUTE, &split(10)])).await;
    assert_eq!(world.state(), before);
    let expected =
        ["added declaration calc-svc", "added declaration pay-svc", "added route calc-svc", "added split pay-svc"];
    assert_eq!(named(&planned["changes"]), expected);
    assert_eq!(planned["changes"][3]["before"], Value::Null);
    assert_eq!(planned["changes"][3]["after"]["shares"][1], json!({"service": "pay-v2", "weight": 10}));
    let applied = world.post("/v1/apply", files(false, &[ROUTE, &split(10)])).await;
    assert_eq!(named(&applied["changes"]), expected);
    assert!(applied["changes"][3].get("after").is_none(), "what it says was not asked for");
    let again = world.post("/v1/apply", files(true, &[ROUTE, &split(10)])).await;
    assert_eq!(again["changes"], json!([]), "the same again is no change");
}

#[tokio::test]
async fn going_back_is_a_new_revision_that_says_what_an_old_one_said() {
    let world = World::new().await;
    let first = world.post("/v1/apply", files(false, &[&split(10)])).await;
    let second = world.post("/v1/apply", files(false, &[&split(50), ROUTE])).await;
    let history = world.get("/v1/revisions").await;
    assert_eq!(history["items"][0]["revision"], second["revision"]);
    assert_eq!(history["items"][1]["revision"], first["revision"]);
    let changed = ["added declaration calc-svc", "added route calc-svc", "changed split pay-svc"];
    assert_eq!(named(&history["items"][0]["changes"]), changed);
    assert_eq!(history["items"][0]["actor"], "admin");

    let planned = world.post("/v1/rollback", json!({"dry_run": true})).await;
    assert_eq!((&planned["to"], &planned["revision"]), (&first["revision"], &second["revision"]));
    let back = world.post("/v1/rollback", json!({"to": first["revision"]})).await;
    assert!(back["revision"].as_u64() > second["revision"].as_u64());
    let gone = ["removed declaration calc-svc", "removed route calc-svc", "changed split pay-svc"];
    assert_eq!(named(&back["changes"]), gone);
    let split = world.get("/v1/resources/split/pay-svc").await;
    assert_eq!(split["spec"]["shares"][1]["weight"], 10);
    let again = world.call(Method::POST, "/v1/rollback", Some(json!({"to": back["revision"]}))).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "{}", again.text);
    let nowhere = world.call(Method::POST, "/v1/rollback", Some(json!({"to": 9_999_999}))).await;
    assert_eq!(nowhere.status, StatusCode::NOT_FOUND, "{}", nowhere.text);
    // Without a number it is what was there before, which undoes the going back.
    let forth = world.post("/v1/rollback", json!({})).await;
    assert_eq!(forth["to"], second["revision"]);
    assert_eq!(world.get("/v1/resources/route/calc-svc").await["kind"], "route");
}

#[tokio::test]
async fn going_back_leaves_living_workloads_their_service() {
    let world = World::new().await;
    let first = world.post("/v1/apply", files(false, &[&split(10)])).await;
    let _second = world.post("/v1/apply", files(false, &[ROUTE])).await;
    let at = json!({"host": "127.0.0.1", "port": 9, "id": "1"});
    let registered = world.call(Method::POST, "/v1/services/calc-svc/endpoints", Some(at)).await;
    assert!(registered.status.is_success(), "{}", registered.text);
    let back = world.post("/v1/rollback", json!({"to": first["revision"]})).await;
    assert_eq!(named(&back["changes"]), ["removed route calc-svc"]);
    let service = world.get("/v1/services/calc-svc").await;
    assert_eq!(service["endpoints"].as_array().map(Vec::len), Some(1), "{service}");
}

#[tokio::test]
async fn going_back_opens_no_service_that_was_closed() {
    const TARGET: &str = "apiVersion: access.smi-spec.io/v1alpha2\nkind: TrafficTarget\nmetadata: {name: t}\nspec:
  destination: {kind: ServiceAccount, name: calc-svc}\n  sources: [{kind: ServiceAccount, name: hello-svc}]\n";
    let world = World::new().await;
    let first = world.post("/v1/apply", files(false, &[&split(10)])).await;
    let _second = world.post("/v1/apply", files(false, &[ROUTE, TARGET])).await;
    let at = json!({"host": "127.0.0.1", "port": 9, "id": "1"});
    let registered = world.call(Method::POST, "/v1/services/calc-svc/endpoints", Some(at)).await;
    assert!(registered.status.is_success(), "{}", registered.text);
    let closed = world.get("/v1/resources/declaration/calc-svc").await;
    assert!(closed.to_string().contains("hello-svc"), "{closed}");
    let _back = world.post("/v1/rollback", json!({"to": first["revision"]})).await;
    let still = world.get("/v1/resources/declaration/calc-svc").await;
    assert!(still.to_string().contains("hello-svc"), "{still}");
    // And what a file laid over a service is not silently left there.
    let refused = world.call(Method::POST, "/v1/delete", Some(files(false, &[TARGET]))).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{}", refused.text);
    assert!(refused.text.contains("hms rollback"), "{}", refused.text);
}

#[tokio::test]
async fn resources_are_removed_by_name_or_by_their_file_unless_somebody_needs_them() {
    let world = World::new().await;
    let texts = [ROUTE.to_owned(), split(10), "service: pay-v1\nroutes: [GET /pay]\n".to_owned()];
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let _applied = world.post("/v1/apply", files(false, &texts)).await;
    let needed = world.call(Method::DELETE, "/v1/resources/declaration/pay-v1", None).await;
    assert_eq!(needed.status, StatusCode::CONFLICT, "{}", needed.text);
    assert!(needed.problem().contains("still called"), "{}", needed.text);
    for path in ["/v1/resources/splits", "/v1/resources/split/pay", "/v1/resources/defaults/other"] {
        assert_eq!(world.call(Method::GET, path, None).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    let mistyped = world.call(Method::DELETE, "/v1/resources/split/pay-svk", None).await;
    assert!(mistyped.text.contains("did you mean `pay-svc`?"), "{}", mistyped.text);
    let missing =
        world.call(Method::POST, "/v1/delete", Some(files(false, &[ROUTE, "service: x\nroutes: [GET /x]\n"]))).await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND, "{}", missing.text);
    let planned = world.post("/v1/delete", files(true, &texts[1..2])).await;
    assert_eq!(named(&planned["changes"]), ["removed split pay-svc"]);
    let removed = world.post("/v1/delete", files(false, &texts[..2])).await;
    assert_eq!(named(&removed["changes"]), ["removed route calc-svc", "removed split pay-svc"]);
    let whole = world.call(Method::DELETE, "/v1/resources/declaration/pay-v1", None).await;
    assert_eq!(named(&whole.json()["changes"]), ["removed declaration pay-v1", "removed route pay-v1"]);
    let odd = world.call(Method::DELETE, "/v1/resources/declaration/calc-svc?dryrun=1", None).await;
    assert_eq!(odd.status, StatusCode::BAD_REQUEST, "{}", odd.text);
    let listed = world.get("/v1/resources").await;
    let names: Vec<&str> =
        listed["items"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["calc-svc", "pay-svc"], "{listed}");
}

#[tokio::test]
async fn what_is_shown_and_applied_again_changes_nothing_whatever_its_kind() {
    let world = World::new().await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: \
                 [{group: '', kind: Service, name: calc-svc}]\n  rules: [{backendRefs: [{name: pay-v1, port: 80, weight: 3}]}]\n";
    let mesh = "allow: [{from: gateway, to: calc-svc}]\nservices: {calc-svc: {timeout: 3s}, pay-v1: {}, pay-v2: {}}\negress: {default: listed}\n";
    let body = json!({"file": "mesh.yaml", "text": mesh, "files": []});
    let applied = world.call(Method::PUT, "/v1/mesh", Some(body)).await;
    assert_eq!(applied.status, StatusCode::OK, "{}", applied.text);
    world.post("/v1/apply", files(false, &[ROUTE, &split(10), route])).await;
    let mut texts = Vec::new();
    for name in world.get("/v1/resources").await["items"].as_array().unwrap() {
        let kind = name["kind"].as_str().unwrap();
        let list = world.get(&format!("/v1/resources/{kind}")).await;
        assert!(list["items"][0]["status"]["conditions"][2]["type"] == "Programmed", "{list}");
        let mut document = json!({"apiVersion": "hms/v1", "kind": "ResourceList"});
        document["items"] = list["items"].clone();
        let text = document.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    assert!(texts.len() >= 6, "{texts:?}");
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let before = world.state();
    let applied = world.post("/v1/apply", files(false, &texts)).await;
    assert_eq!(applied["changes"], json!([]));
    assert_eq!(world.state(), before);
}

#[tokio::test]
async fn a_service_that_routes_name_is_not_removed_and_they_are_named() {
    let world = World::new().await;
    world.post("/v1/apply", files(false, &[&split(10)])).await;
    for service in ["pay-v1", "pay-v2"] {
        world.post("/v1/apply", files(false, &[&format!("service: {service}\nroutes: [GET /{service}]\n")])).await;
    }
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: \
                 [{group: '', kind: Service, name: pay-v2}]\n  rules:\n  - backendRefs: [{name: pay-v2, port: 80}]\n";
    world.post("/v1/apply", files(false, &[route])).await;
    let refused = world.call(Method::DELETE, "/v1/resources/declaration/pay-v2", None).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::CONFLICT, "`pay-v2` is still called"));
    let why = "the route `r` leads to it (file.yaml:7); the split of `pay-svc` gives it a share";
    let body = refused.json();
    assert_eq!(
        body["why"].as_str().unwrap().split("; ").collect::<std::collections::BTreeSet<_>>(),
        why.split("; ").collect()
    );
    assert_eq!(body["fix"].as_array().unwrap().len(), 2, "{body}");
    for path in ["split/pay-svc", "httproute/r", "declaration/pay-v2"] {
        let removed = world.call(Method::DELETE, &format!("/v1/resources/{path}"), None).await;
        assert_eq!(removed.status, StatusCode::OK, "{path}: {}", removed.text);
    }
}
