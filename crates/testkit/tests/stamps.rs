//! What the mesh does to every request, switched off and on while it runs.

use std::time::Duration;

use hms_testkit::apps::PYTHON;
use hms_testkit::mesh::Mesh;
use hms_testkit::{figure, scenario, wait};
use tokio::time::Instant;

const MESH: &str = "services:
  pay-svc:
    run: exec /usr/bin/python3 pay.py
    routes: [GET /broken, GET /ready, {match: GET /pay, rate_limit: 1 req/h}]
    breaker: {errors: 100}
  caller: {run: exec sleep 1000}
";

async fn status(mesh: &Mesh, path: &str) -> String {
    let url = format!("http://pay-svc{path}");
    let words =
        ["exec", "caller", "--", "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "--max-time", "20", &url];
    mesh.hms(&words).await
}

#[test]
fn a_limit_may_count_each_caller_or_each_value_of_a_field_on_its_own() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::new();
        mesh.write("pay.py", PYTHON);
        mesh.write(
            "mesh.yaml",
            "services:
  pay-svc:
    run: exec /usr/bin/python3 pay.py
    routes:
    - GET /ready
    - {match: GET /mine, rate_limit: {rate: 1 req/h, each: {header: x-user}}}
    - {match: GET /ours, rate_limit: {rate: 1 req/h, each: identity}}
    - {match: GET /dear, rate_limit: {rate: 5 req/h, cost: 3}}
  caller: {run: exec sleep 1000}
  other: {run: exec sleep 1000}
",
        );
        let _said = mesh.up().await;
        for caller in ["caller", "other"] {
            wait::until("the service answers", Duration::from_secs(20), || async {
                let said = mesh.try_hms(&["exec", caller, "--", "curl", "-sSf", "http://pay-svc/ready"]).await;
                if said.code == 0 { Ok(()) } else { Err(format!("{said:?}")) }
            })
            .await;
        }
        let status = async |caller: &str, path: &str, user: &str| {
            let (url, field) = (format!("http://pay-svc{path}"), format!("x-user: {user}"));
            let curl = ["curl", "-sS", "-o", "/dev/null", "-w", "%{http_code}", "-H", &field, &url];
            mesh.hms(&[&["exec", caller, "--"], curl.as_slice()].concat()).await
        };
        assert_eq!(status("caller", "/mine", "anna").await, "200");
        assert_eq!(status("other", "/mine", "anna").await, "429", "it is hers whoever calls for her");
        assert_eq!(status("caller", "/mine", "ben").await, "200");
        assert_eq!(status("caller", "/ours", "anna").await, "200");
        assert_eq!(status("caller", "/ours", "ben").await, "429");
        assert_eq!(status("other", "/ours", "anna").await, "200");
        assert_eq!(status("caller", "/dear", "anna").await, "200");
        assert_eq!(status("caller", "/dear", "anna").await, "429", "two tokens are left of five, and three asked for");
    });
}

#[test]
fn each_stamp_is_switched_off_and_on_for_every_proxy_and_mtls_is_not() {
    scenario(Duration::from_mins(3), async {
        let mesh = Mesh::new();
        mesh.write("pay.py", PYTHON);
        mesh.write("mesh.yaml", MESH);
        let _said = mesh.up().await;
        wait::until("the service answers", Duration::from_secs(20), || async {
            let status = status(&mesh, "/ready").await;
            if status == "200" { Ok(()) } else { Err(status) }
        })
        .await;
        assert_eq!(status(&mesh, "/pay").await, "200", "the one that may pass");

        assert_eq!(status(&mesh, "/pay").await, "429");
        let begun = Instant::now();
        let said = mesh.hms(&["set", "rate-limit", "off"]).await;
        figure("switched at every proxy", format!("{:?}", begun.elapsed()));
        assert!(said.contains("OFF"), "{said}");
        assert_eq!([status(&mesh, "/pay").await, status(&mesh, "/pay").await], ["200", "200"]);
        let _said = mesh.hms(&["set", "rate-limit", "on"]).await;
        let _fresh = status(&mesh, "/pay").await;
        assert_eq!(status(&mesh, "/pay").await, "429");

        let tries = async || {
            let words = ["exec", "caller", "--", "curl", "-sS", "-i", "--max-time", "20", "http://pay-svc/broken"];
            let said = mesh.hms(&words).await;
            let trace = said.lines().find_map(|line| line.strip_prefix("x-trace-id: ")).expect("a trace").trim();
            let told = mesh.hms_json(&["why", "--trace", trace, "-o", "json"]).await;
            told["items"][0]["tries"].as_array().map(Vec::len)
        };
        assert_eq!(tries().await, Some(3));
        let _said = mesh.hms(&["set", "retry", "off"]).await;
        assert_eq!(tries().await, Some(1));

        let gateway = mesh.gateway();
        assert_eq!(gateway.get("/pay").await.expect("an answer").status, 401);
        let unasked = mesh.try_hms(&["set", "jwt", "off"]).await;
        assert_eq!(unasked.code, 2, "without a terminal somebody must say yes: {unasked:?}");
        let _said = mesh.hms(&["set", "jwt", "off", "-y"]).await;
        assert_eq!(gateway.get("/broken").await.expect("an answer").status, 503, "the service's own answer");
        let _said = mesh.hms(&["set", "jwt", "on"]).await;
        assert_eq!(gateway.get("/broken").await.expect("an answer").status, 401);

        let refused = mesh.try_hms(&["set", "mtls", "off"]).await;
        assert!(refused.code != 0 && refused.err.contains("mtls cannot be switched off"), "{refused:?}");
        let unknown = mesh.try_hms(&["set", "metrics", "off"]).await;
        assert!(unknown.code != 0 && unknown.err.contains("rate-limit"), "{unknown:?}");
        let listed = mesh.hms_json(&["set", "-o", "json"]).await;
        let off: Vec<&str> = listed["stamps"]
            .as_array()
            .expect("stamps")
            .iter()
            .filter(|own| own["on"] == false)
            .filter_map(|own| own["name"].as_str())
            .collect();
        assert_eq!(off, ["retry"]);
    });
}
