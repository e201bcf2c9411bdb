//! The seeds' small pieces, with their names, signatures and answers.

use std::path::Path;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::{Mesh, Said};
use hms_testkit::{binaries, scenario};
use serde_json::json;

/// Runs a Python script in the passport folder against the control plane of `mesh`.
async fn python(mesh: &Mesh, script: &str) -> Said {
    let mut python = mesh.command(binaries::python());
    let token = mesh.state_dir().join("control/admin.token");
    python
        .args(["-c", script])
        .env("HMS_SERVER", format!("http://{}", mesh.rest_address()))
        .env("HMS_TOKEN_FILE", token);
    mesh.run(python).await
}

#[test]
fn the_passport_registry_answers_like_the_seeds() {
    scenario(Duration::from_mins(1), async {
        let mesh = Mesh::example("passport");
        let _control = mesh.control(&["--store", "memory"]).await;
        let (first, second) = (App::start("first").await, App::start("second").await);
        let script = format!(
            "from registry import register, lookup\n\
             from sidecar import call\n\
             print(lookup('fee-payment'))\n\
             register('photo-check', '10.0.0.7', 5000)\n\
             register('fee-payment', '127.0.0.1', {})\n\
             print(lookup('photo-check'))\n\
             print(call('fee-payment', '/slow/0'))\n\
             register('fee-payment', '127.0.0.1', {})\n\
             print(call('fee-payment', '/slow/0'))\n\
             try:\n\
             \x20   call('nobody')\n\
             except RuntimeError as error:\n\
             \x20   print(error)\n",
            first.address().port(),
            second.address().port()
        );
        let said = python(&mesh, &script).await;
        let lines: Vec<&str> = said.out.lines().collect();
        let wanted = ["None", "{'host': '10.0.0.7', 'port': 5000}", "late", "late", "No such service"];
        assert_eq!(lines, wanted, "{said:?}");
        assert_eq!((first.hits(), second.hits()), (1, 1), "the new address replaces the old one");
        // In memory: nothing but keys and the token is kept.
        assert!(!mesh.state_dir().join("control/mesh.db").exists());
    });
}

#[test]
fn the_passport_example_runs_in_the_mesh() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("passport");
        mesh.up().await;
        let answer = mesh.gateway_with_token().await.get("/check").await.expect("an answer");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "photo accepted, fee paid, passport in the mail"),
            "{}",
            mesh.logs()
        );
    });
}

#[test]
fn routes_travel_in_the_shape_of_routes_json() {
    scenario(Duration::from_mins(1), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let table = json!({
            "calc-svc": {"service": "calc-svc", "routes": ["GET /sum/{a}/{b}"], "rate_limit": "20 req/min"},
            "hello-svc": {"service": "hello-svc", "routes": ["GET /hello"]},
        });
        mesh.write("routes.json", table.to_string());
        mesh.hms(&["routes", "import", "routes.json"]).await;
        let out = mesh.hms(&["routes", "export"]).await;
        let exported: serde_json::Value = serde_json::from_str(&out).expect("JSON");
        assert_eq!(exported, table);
        // What was exported goes in again and changes nothing.
        let before = mesh.rest().get("/v1/routes").await;
        mesh.write("routes.json", out);
        mesh.hms(&["routes", "import", "routes.json"]).await;
        assert_eq!(mesh.rest().get("/v1/routes").await, before);
    });
}

#[test]
fn gateway_yaml_and_mesh_config_yaml_are_read_beside_the_route_files() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::example("hello");
        mesh.write("gateway.yaml", "hosts: [gateway.local, shop.localhost]\njwt: {issuer: dev, audience: shop}\n");
        mesh.up().await;
        let rest = mesh.rest();
        assert_eq!(rest.get("/v1/summary").await["gateway"]["hosts"], json!(["gateway.local", "shop.localhost"]));
        let token = |audience: &'static str| {
            let rest = rest.clone();
            async move {
                let answer = rest.post("/v1/jwt", &json!({"sub": "lena", "audience": audience})).await;
                answer["token"].as_str().expect("a token").to_owned()
            }
        };
        let other = mesh.gateway().bearer(&token("bank").await).get("/sum/2/3").await.expect("an answer");
        assert_eq!((other.status, other.header("x-hms-error")), (401, "HMS-3108"), "{}", other.text());
        let answer = mesh.gateway().bearer(&token("shop").await).get("/sum/2/3").await.expect("an answer");
        // The seed's output: {"sum": 5, "x-trace-id": "7f23ab"}
        let text = answer.text();
        let id = text.strip_prefix("{\"sum\":5,\"x-trace-id\":\"").and_then(|rest| rest.strip_suffix("\"}"));
        let id = id.unwrap_or_else(|| panic!("not the seed's output: {text}"));
        assert!(id.len() == 6 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{text}");
        assert!(answer.header("x-trace-id").starts_with(id));
        let shop = mesh.state_dir();
        assert!(Path::new(&shop).join("curl/.curlrc").is_file());
    });
}
