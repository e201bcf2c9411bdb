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

const RULE: &str = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: tax}\nspec:
  host: mef.irs.gov\n  trafficPolicy: {tls: {mode: SIMPLE}}\n";

/// A problem's status and its text.
async fn refused(world: &World, path: &str, texts: &[&str]) -> (StatusCode, String) {
    let before = world.state();
    let answer = world.call(Method::POST, path, Some(files(texts))).await;
    assert_eq!(world.state(), before, "{}", answer.text);
    answer.problem();
    (answer.status, answer.text)
}

fn intentions(sources: &str) -> String {
    format!("Kind: service-intentions\nName: pay\nSources: [{sources}]\n")
}

#[tokio::test]
async fn who_is_denied_by_an_intention_does_not_stay_among_those_who_may() {
    let world = World::new().await;
    let _first = world
        .posted("/v1/apply", files(&[&intentions("{Name: web, Action: allow}, {Name: api, Action: allow}")]))
        .await;
    let more = intentions("{Name: web, Action: allow}, {Name: api, Action: allow}, {Name: jobs, Action: allow}");
    let _more = world.posted("/v1/apply", files(&[&more])).await;
    for less in [
        "{Name: web, Action: allow}, {Name: jobs, Action: allow}, {Name: api, Action: deny}",
        "{Name: web, Action: allow}, {Name: jobs, Action: allow}",
        "{Name: web, Action: allow}, {Name: jobs, Action: allow}, \
         {Name: api, Permissions: [{Action: allow, HTTP: {PathExact: /a}}]}",
    ] {
        let (status, text) = refused(&world, "/v1/apply", &[&intentions(less)]).await;
        assert_eq!(status, StatusCode::CONFLICT, "{text}");
        assert!(text.contains("`api` may call `pay`") && text.contains("(file.yaml:3)"), "{text}");
        assert!(text.contains("hms get declaration pay -o yaml"), "{text}");
    }
    // The way that is named.
    let mut shown = world.get("/v1/resources/declaration/pay").await;
    let rules = shown["spec"]["authorization"]["allow"].as_array_mut().unwrap();
    rules.retain(|rule| !rule.to_string().contains("api"));
    let list = json!({"apiVersion": "hms/v1", "kind": "ResourceList", "items": [shown]}).to_string();
    let _taken = world.posted("/v1/apply", files(&[&list])).await;
    let _now = world
        .posted(
            "/v1/apply",
            files(&[&intentions("{Name: web, Action: allow}, {Name: jobs, Action: allow}, {Name: api, Action: deny}")]),
        )
        .await;
    let declared = world.get("/v1/resources/declaration/pay").await;
    assert_eq!(declared["spec"]["authorization"]["allow"].as_array().map(Vec::len), Some(2), "{declared}");
    // Both at once would leave it open which holds.
    let (status, text) = refused(&world, "/v1/apply", &[&list, &more]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("two of these files say what `declaration/default/pay` is"), "{text}");
}

#[tokio::test]
async fn tls_to_a_host_outside_is_not_lost_because_nothing_is_said_of_it() {
    let world = World::new().await;
    let _both = world.posted("/v1/apply", files(&[ENTRY, RULE])).await;
    let (status, text) = refused(&world, "/v1/apply", &[ENTRY]).await;
    assert_eq!(status, StatusCode::CONFLICT, "{text}");
    assert!(text.contains("`tax` (mef.irs.gov) is listed with TLS"), "{text}");
    let again = world.posted("/v1/apply", files(&[ENTRY, RULE])).await;
    assert_eq!(again["changes"], json!([]));
    let off = RULE.replace("SIMPLE", "DISABLE");
    let _said = world.posted("/v1/apply", files(&[ENTRY, &off])).await;
    assert!(!world.get("/v1/resources/egress/mesh").await.to_string().contains("\"tls\""));
}

#[tokio::test]
async fn an_edited_service_entry_takes_the_place_of_what_it_listed_before() {
    let world = World::new().await;
    let of = |hosts: &str| ENTRY.replace("[mef.irs.gov]", hosts);
    let _three = world.posted("/v1/apply", files(&[&of("[a.irs.gov, b.irs.gov, c.irs.gov]")])).await;
    let reordered = world.posted("/v1/apply", files(&[&of("[c.irs.gov, a.irs.gov, b.irs.gov]")])).await;
    assert_eq!(reordered["findings"], json!([]));
    assert_eq!(world.listed().await, ["tax-1 c.irs.gov", "tax-2 a.irs.gov", "tax-3 b.irs.gov"]);
    let fewer = world.posted("/v1/apply", files(&[&of("[c.irs.gov, b.irs.gov]")])).await;
    assert_eq!(world.listed().await, ["tax-1 c.irs.gov", "tax-2 b.irs.gov"]);
    assert!(fewer["findings"].to_string().contains("a.irs.gov is not listed any more"), "{fewer}");
    let _one = world.posted("/v1/apply", files(&[&of("[b.irs.gov]")])).await;
    assert_eq!(world.listed().await, ["tax b.irs.gov"]);
    let _two = world.posted("/v1/apply", files(&[&of("[b.irs.gov, d.irs.gov]")])).await;
    assert_eq!(world.listed().await, ["tax-1 b.irs.gov", "tax-2 d.irs.gov"]);
}

#[tokio::test]
async fn routes_as_they_are_stored_do_not_claim_the_same_requests() {
    let world = World::new().await;
    let of = |name: &str| format!("service: {name}\nroutes: [GET /sum]\n");
    let _route = world.posted("/v1/apply", files(&[&of("one")])).await;
    let shown = world.get("/v1/resources/route/one").await;
    let mut other = shown.clone();
    other["name"] = json!("two");
    other["spec"]["service"] = json!("two");
    let list = json!({"apiVersion": "hms/v1", "kind": "ResourceList", "items": [shown, other]}).to_string();
    let (status, text) = refused(&world, "/v1/apply", &[&list]).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{text}");
    assert!(text.contains("already belongs to `one`"), "{text}");
}

#[tokio::test]
async fn a_gateway_of_another_day_comes_back_with_the_key_of_today() {
    let world = World::new().await;
    let body = json!({"file": "mesh.yaml", "text": "services: {web: {}}\n", "files": []});
    let answer = world.call(Method::PUT, "/v1/mesh", Some(body)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let mut shown = world.get("/v1/resources/gateway/mesh").await;
    let before = shown["spec"].clone();
    shown["spec"]["issuers"][0]["keys"][0]["id"] = json!("of-yesterday");
    assert_ne!(shown["spec"], before);
    let list = json!({"apiVersion": "hms/v1", "kind": "ResourceList", "items": [shown]}).to_string();
    let applied = world.posted("/v1/apply", files(&[&list])).await;
    assert_eq!(applied["changes"], json!([]));
    assert_eq!(world.get("/v1/resources/gateway/mesh").await["spec"], before);
}

#[tokio::test]
async fn a_declaration_goes_together_with_its_split_and_the_routes_about_it() {
    let world = World::new().await;
    let route = "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: r}\nspec:\n  parentRefs: \
                 [{group: '', kind: Service, name: pay}]\n  rules:\n  - backendRefs: [{name: pay, port: 80}]\n";
    let split = "apiVersion: split.smi-spec.io/v1alpha2\nkind: TrafficSplit\nmetadata: {name: s}\nspec:
  service: pay\n  backends: [{service: pay-v1, weight: 1}]\n";
    let _all = world.posted("/v1/apply", files(&["service: pay\nroutes: [GET /pay]\n", split, route])).await;
    let mut items = Vec::new();
    for path in ["declaration/pay", "split/pay", "httproute/r"] {
        items.push(world.get(&format!("/v1/resources/{path}")).await);
    }
    let list = json!({"apiVersion": "hms/v1", "kind": "ResourceList", "items": items}).to_string();
    let gone = world.posted("/v1/delete", files(&[&list])).await;
    assert_eq!(gone["changes"].as_array().map(Vec::len), Some(4), "{gone}");
}

#[tokio::test]
async fn times_that_an_object_does_not_say_are_named_when_they_are_lost() {
    let world = World::new().await;
    let mesh = "services: {pay: {timeout: 60s, limits: {requests: 7}}}\n";
    let put = json!({"file": "mesh.yaml", "text": mesh});
    let answer = world.call(Method::PUT, "/v1/mesh", Some(put)).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    let resolver = "Kind: service-resolver\nName: pay\nConnectTimeout: 3s\n";
    let applied = world.posted("/v1/apply", files(&[resolver])).await;
    let findings = applied["findings"].to_string();
    assert!(findings.contains("of `pay` what is built in holds again: request 15s (it was 60s)\""), "{findings}");
    let again = world.posted("/v1/apply", files(&[resolver])).await;
    assert_eq!(again["findings"], json!([]));
}
