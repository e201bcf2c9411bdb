//! Routes in other meshes' YAML, applied as they are written.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use http::Method;
use tokio::time::Instant;

const SOON: Duration = Duration::from_secs(20);

/// As the story has it, to the letter.
const POLICY: &str = "\
# payment-policy.yaml
apiVersion: policy.linkerd.io/v1alpha1
kind: HTTPRoute
metadata:
  name: pay-with-retries
spec:
  destination:
    name: payment-svc
  rules:
  - backends:
    - name: payment-svc
      retries:
        attempts: 3
        perTryTimeout: 1s
";

const CANARY: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: pay-canary}
spec:
  parentRefs: [{group: \"\", kind: Service, name: payment-svc}]
  rules:
  - name: canary
    matches: [{headers: [{name: x-canary, value: \"1\"}]}]
    backendRefs: [{name: payment-next-svc, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /echo}}]
    backendRefs: [{name: payment-svc, port: 80}]
";

#[test]
fn the_storys_own_policy_tries_three_more_times_and_each_for_a_second() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {payment-svc: {}, grant-svc: {}}").await;
        let app = App::start("payment").await;
        let _server = Proxy::start(&mesh, Plan::of("payment-svc", app.address())).await;
        let mut plan = Plan::client("grant-svc");
        plan.upstreams = vec!["payment-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let calls = client.caller("payment-svc");
        wait::until("payment-svc answers", SOON, || async {
            let answer = calls.get("/echo").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        mesh.write("payment-policy.yaml", POLICY);
        let said = mesh.hms(&["apply", "payment-policy.yaml"]).await;
        assert!(said.contains("applied pay-with-retries"), "{said}");
        // A plain 500 is no reason to eject anybody, so that every try is made.
        assert_eq!(calls.get("/status/500").await.expect("an answer").status, 500);
        assert_eq!(app.hits_of("/status/500"), 4, "one try and three more");
        let post = calls.send(Method::POST, "/status/501", &[], "").await.expect("an answer");
        assert_eq!((post.status, app.hits_of("/status/501")), (501, 1), "a POST may have been processed");
        let begun = Instant::now();
        let slow = calls.get("/slow/9000").await.expect("an answer");
        let took = begun.elapsed();
        figure("milliseconds until a service that hangs is given up", took.as_millis());
        assert!(slow.status >= 500, "{}", slow.text());
        assert!((Duration::from_secs(1)..Duration::from_secs(8)).contains(&took), "{took:?}");
        assert!(app.hits_of("/slow/9000") >= 2, "a try that took a second is followed by another");
    });
}

#[test]
fn a_route_of_the_gateway_api_leads_by_a_header_and_answers_404_for_the_rest() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {payment-svc: {}, payment-next-svc: {}, grant-svc: {}}").await;
        let apps = [App::start("stable").await, App::start("next").await];
        let _stable = Proxy::start(&mesh, Plan::of("payment-svc", apps[0].address())).await;
        let _next = Proxy::start(&mesh, Plan::of("payment-next-svc", apps[1].address())).await;
        for service in ["payment-svc", "payment-next-svc"] {
            mesh.rest().until_service(service, "healthy", 1).await;
        }
        mesh.write("pay-canary.yaml", CANARY);
        assert_eq!(mesh.hms(&["lint", "pay-canary.yaml"]).await, "√ 1 file, 0 errors, 0 warnings\n");
        let _said = mesh.hms(&["apply", "pay-canary.yaml"]).await;
        let mut plan = Plan::client("grant-svc");
        plan.upstreams = vec!["payment-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let calls = client.caller("payment-svc");
        let canary = async |path: &str| calls.send(Method::GET, path, &[("x-canary", "1")], "").await;
        wait::until("both are called as the rules say", SOON, || async {
            let answers = [calls.get("/echo").await?, canary("/echo").await?];
            let hits = apps.each_ref().map(App::hits);
            if hits.iter().all(|hits| *hits > 0) { Ok(()) } else { Err(answers[1].text()) }
        })
        .await;
        let before = apps.each_ref().map(App::hits);
        for _ in 0..20 {
            assert_eq!(calls.get("/echo").await.expect("an answer").status, 200);
            assert_eq!(canary("/anything").await.expect("an answer").status, 200);
        }
        assert_eq!(apps.each_ref().map(App::hits), [before[0] + 20, before[1] + 20]);
        let nobody = calls.get("/elsewhere").await.expect("an answer");
        assert_eq!(
            (nobody.status, nobody.header("x-hms-error").starts_with("HMS-3")),
            (404, true),
            "{}",
            nobody.text()
        );
    });
}
