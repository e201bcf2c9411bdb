//! What would become of a request, and what did become of one.

use std::time::Duration;

use hms_testkit::apps::PYTHON;
use hms_testkit::mesh::Mesh;
use hms_testkit::{scenario, wait};
use serde_json::Value;

const MESH: &str = "services:
  pay-svc:
    run: exec /usr/bin/python3 pay.py
    routes: [GET /pay, 'GET /pay/{id}', DELETE /pay]
  caller: {run: exec sleep 1000}
allow:
- {from: caller, to: pay-svc, routes: [GET /pay, 'GET /pay/{id}']}
";
const SOON: Duration = Duration::from_secs(20);

/// The trace that an answer's head names.
fn trace(head: &str) -> &str {
    head.lines().find_map(|line| line.strip_prefix("x-trace-id: ")).expect("a trace").trim()
}

async fn call(mesh: &Mesh, arguments: &[&str]) -> String {
    let words = ["exec", "caller", "--", "curl", "-sS", "-i", "--max-time", "20"];
    mesh.hms(&[&words, arguments].concat()).await
}

fn last(why: &Value) -> &Value {
    why["steps"].as_array().and_then(|steps| steps.last()).expect("a step")
}

#[test]
fn what_would_happen_is_what_does_happen_and_both_name_the_rule() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::new();
        mesh.write("pay.py", PYTHON);
        mesh.write("mesh.yaml", MESH);
        let _said = mesh.up().await;
        wait::until("the service answers", SOON, || async {
            let said = call(&mesh, &["http://pay-svc/pay"]).await;
            if said.starts_with("HTTP/1.1 200") { Ok(()) } else { Err(said) }
        })
        .await;

        // A call that passes.
        let why = mesh.hms_json(&["why", "caller", "pay-svc", "GET", "/pay", "-o", "json"]).await;
        assert_eq!(why["passes"], true, "{why}");
        let said = call(&mesh, &["http://pay-svc/pay"]).await;
        let told = mesh.hms_json(&["why", "--trace", trace(&said), "-o", "json"]).await;
        let items = told["items"].as_array().expect("items");
        let directions: Vec<&str> = items.iter().filter_map(|item| item["direction"].as_str()).collect();
        assert_eq!(directions, ["outbound", "inbound"], "both proxies remember it, the caller's first: {told}");
        assert!(items.iter().all(|item| item["status"] == 200 && item["mtls"] == true), "{told}");
        assert_eq!(items[0]["tries"][0]["outcome"], "200", "{told}");
        assert_eq!(items[1]["route"], "GET /pay", "{told}");

        // One that is denied: the same code before and after, and the line of the rule.
        let denied = mesh.try_hms(&["why", "caller", "pay-svc", "DELETE", "/pay", "-o", "json"]).await;
        assert_eq!(denied.code, 3, "{denied:?}");
        let why: Value = serde_json::from_str(&denied.out).expect("a document");
        assert_eq!((&last(&why)["name"], &last(&why)["code"]), (&"authz".into(), &"HMS-3201".into()), "{why}");
        assert!(last(&why)["origin"].as_str().is_some_and(|origin| origin.ends_with("mesh.yaml:7")), "{why}");
        let said = call(&mesh, &["-X", "DELETE", "http://pay-svc/pay"]).await;
        assert!(said.contains("HMS-3201"), "{said}");
        // The first digits are enough.
        let shown = mesh.hms(&["why", "--trace", &trace(&said)[..8]]).await;
        assert!(shown.contains("403") && shown.contains("HMS-3201"), "{shown}");

        // One that is tried again: each try is told.
        let said = call(&mesh, &["http://pay-svc/pay/broken"]).await;
        let told = mesh.hms_json(&["why", "--trace", trace(&said), "-o", "json"]).await;
        let tries = told["items"][0]["tries"].as_array().expect("tries");
        assert!(tries.len() > 1 && tries.iter().all(|own| own["outcome"] == "503"), "{told}");

        // And what cannot be asked.
        let unknown = mesh.try_hms(&["why", "caller", "pey-svc", "GET", "/"]).await;
        assert_eq!(unknown.code, 3, "{unknown:?}");
        assert!(unknown.out.contains("HMS-3403") && unknown.out.contains("pay-svc"), "{unknown:?}");
        let forgotten = mesh.try_hms(&["why", "--trace", "ffffffffffff"]).await;
        assert!(forgotten.code != 0 && forgotten.err.contains("256"), "{forgotten:?}");
        let wrong = mesh.try_hms(&["why", "--trace", "xyz"]).await;
        assert!(wrong.code != 0 && wrong.err.contains("hex digits"), "{wrong:?}");

        // What is stopped.
        let _stopped = mesh.hms(&["stop", "pay-svc"]).await;
        wait::until("the mesh knows", SOON, || async {
            let why = mesh.try_hms(&["why", "caller", "pay-svc", "GET", "/pay"]).await;
            let known = why.out.contains("HMS-3002") || why.out.contains("HMS-3001");
            if why.code == 3 && known { Ok(()) } else { Err(format!("{why:?}")) }
        })
        .await;
    });
}
