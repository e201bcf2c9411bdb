//! Calls that are divided among the versions of a service.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use http::Method;
use serde_json::{Value, json};
use tokio::time::Instant;

const MESH: &str = "services: {pay-svc: {routes: [GET /*]}, other-svc: {routes: [GET /other]}, portal: {}}";
const SPLIT: &str = "/v1/services/pay-svc/split";
const SOON: Duration = Duration::from_secs(20);

/// Two versions of one service, another service, and a caller.
struct Stack {
    mesh: Mesh,
    /// v1, v2, and the other service.
    apps: [App; 3],
    calls: Http,
    client: Proxy,
    proxies: Vec<Proxy>,
    _control: Process,
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let apps = [App::start("one").await, App::start("two").await, App::start("other").await];
        let version = |version: &str, app: &App| {
            let mut plan = Plan::of("pay-svc", app.address()).workload(version);
            plan.arguments = vec!["--workload-version".to_owned(), version.to_owned()];
            plan
        };
        let mut proxies = vec![
            Proxy::start(&mesh, version("v1", &apps[0])).await,
            Proxy::start(&mesh, version("v2", &apps[1])).await,
        ];
        proxies.push(Proxy::start(&mesh, Plan::of("other-svc", apps[2].address())).await);
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["pay-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let calls = client.caller("pay-svc");
        wait::until("both versions are called", SOON, || async {
            let answer = calls.get("/echo").await?;
            if apps[..2].iter().all(|app| app.hits() > 0) { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        Self { mesh, apps, calls, client, proxies, _control: control }
    }

    async fn split(&self, shares: Value) -> Value {
        self.mesh.rest().put(SPLIT, &json!({ "shares": shares })).await
    }

    /// Waits until every proxy has a revision, as `hms shift` does.
    async fn until_everywhere(&self, split: &Value) {
        let revision = split["revision"].as_u64().expect("a revision");
        wait::until("every proxy has it", SOON, || async {
            let proxies = self.mesh.rest().get("/v1/proxies").await;
            let items = proxies["items"].as_array().expect("items");
            let behind = items.iter().any(|proxy| proxy["revision_acked"].as_u64().is_none_or(|own| own < revision));
            if behind { Err(proxies.to_string()) } else { Ok(()) }
        })
        .await;
    }

    /// How many of so many calls each application got. Every one must be answered.
    async fn counts(&self, calls: u32) -> [u64; 3] {
        let before = self.apps.each_ref().map(App::hits);
        for _ in 0..calls {
            let answer = self.calls.get("/echo").await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let after = self.apps.each_ref().map(App::hits);
        [0, 1, 2].map(|place| after[place] - before[place])
    }
}

#[test]
fn each_version_gets_its_share_and_one_without_gets_none() {
    scenario(Duration::from_mins(4), async {
        let stack = Stack::start().await;
        let shares = |v1: u32, v2: u32| json!([{"version": "v1", "weight": v1}, {"version": "v2", "weight": v2}]);
        for (v1, v2) in [(90, 10), (50, 50), (100, 0), (1, 99)] {
            const CALLS: u32 = 1500;
            stack.until_everywhere(&stack.split(shares(v1, v2)).await).await;
            let [one, two, _] = stack.counts(CALLS).await;
            let part = f64::from(v1) / 100.0;
            let deviation = (f64::from(CALLS) * part * (1.0 - part)).sqrt();
            let off = (f64::from(u32::try_from(one).expect("few")) - f64::from(CALLS) * part).abs();
            figure(&format!("{v1}/{v2} of {CALLS}"), format!("{one}, {two}"));
            assert!(off <= 5.0 * deviation, "{v1}/{v2}: {one}, {two}");
        }
        // A third version that nobody gave a share is never called, whatever happens to the others.
        let forgotten = App::start("forgotten").await;
        let mut plan = Plan::of("pay-svc", forgotten.address()).workload("v0");
        plan.arguments = vec!["--workload-version".to_owned(), "v0".to_owned()];
        let _proxy = Proxy::start(&stack.mesh, plan).await;
        stack.mesh.rest().until_service("pay-svc", "healthy", 3).await;
        let _split = stack.counts(200).await;
        assert_eq!(forgotten.hits(), 0);
        let cleared = stack.mesh.rest().send(Method::DELETE, SPLIT, "").await;
        assert_eq!(cleared.status, 200, "{}", cleared.text());
        stack.until_everywhere(&cleared.json()).await;
        let _every = stack.counts(100).await;
        assert!(forgotten.hits() > 0, "without a split every version is called");
    });
}

#[test]
fn a_change_is_everywhere_at_once_and_loses_no_call() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let calls = stack.calls.clone();
        let load = Load::start(200, move |_| {
            let calls = calls.clone();
            async move {
                let answer = calls.get("/echo").await?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            }
        });
        let mut slowest = Duration::ZERO;
        for round in 0..20_u32 {
            let v2 = (round * 37) % 101;
            let begun = Instant::now();
            let split =
                stack.split(json!([{"version": "v1", "weight": 100 - v2}, {"version": "v2", "weight": v2}])).await;
            stack.until_everywhere(&split).await;
            slowest = slowest.max(begun.elapsed());
            load.go_on_for(20).await;
        }
        // And a service of its own takes a part.
        let other = stack.split(json!([{"version": "v1", "weight": 1}, {"service": "other-svc", "weight": 1}])).await;
        stack.until_everywhere(&other).await;
        load.go_on_for(200).await;
        load.finish().await.assert_no_failures("while calls were divided anew");
        assert!(stack.apps[2].hits() > 20, "the other service has its part: {}", stack.apps[2].hits());
        figure("slowest of 20 changes until every proxy has it, ms", slowest.as_millis());
        drop((stack.proxies, stack.client));
    });
}

#[test]
fn a_version_that_dies_leaves_its_share_to_the_others() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        // Nearly everything to the one that dies.
        let split = stack.split(json!([{"version": "v1", "weight": 1}, {"version": "v2", "weight": 99}])).await;
        stack.until_everywhere(&split).await;
        let Stack { mesh, apps, calls, proxies, client, _control } = stack;
        let [one, two, other] = apps;
        let _address = two.stop().await;
        let before = one.hits();
        for _ in 0..100 {
            let answer = calls.get("/echo").await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert_eq!(one.hits() - before, 100);
        let shown = mesh.rest().get(SPLIT).await;
        wait::until("the dead version is shown", SOON, || async {
            let shown = mesh.rest().get(SPLIT).await;
            if shown["shares"][1]["endpoints"] == 0 { Ok(()) } else { Err(shown.to_string()) }
        })
        .await;
        assert_eq!(shown["shares"][1]["weight"], 99);
        drop((mesh, other, proxies, client));
    });
}

/// As the story has it.
const CANARY: &str = "# canary-split.yaml
apiVersion: split.smi-spec.io/v1alpha2
kind: TrafficSplit
metadata:
  name: payment-split
spec:
  service: payment-svc
  backends:
  - service: payment-svc-v1   # stable
    weight: 90
  - service: payment-svc-v2   # canary
    weight: 10
";

#[test]
fn the_storys_own_file_gives_a_tenth_to_the_canary_and_a_wrong_one_changes_nothing() {
    scenario(Duration::from_mins(2), async {
        const CALLS: u32 = 1000;
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {payment-svc-v1: {}, payment-svc-v2: {}, grant-svc: {}}").await;
        let apps = [App::start("stable").await, App::start("canary").await];
        let _first = Proxy::start(&mesh, Plan::of("payment-svc-v1", apps[0].address())).await;
        let _second = Proxy::start(&mesh, Plan::of("payment-svc-v2", apps[1].address())).await;
        for service in ["payment-svc-v1", "payment-svc-v2"] {
            mesh.rest().until_service(service, "healthy", 1).await;
        }
        mesh.write("canary-split.yaml", CANARY);
        assert_eq!(mesh.hms(&["lint", "canary-split.yaml"]).await, "√ 1 file, 0 errors, 0 warnings\n");
        let said = mesh.hms(&["apply", "canary-split.yaml"]).await;
        assert!(said.contains("applied payment-svc"), "{said}");
        // Nothing of its own answers for the name that is called.
        let mut plan = Plan::client("grant-svc");
        plan.upstreams = vec!["payment-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let calls = client.caller("payment-svc");
        wait::until("the canary is called too", SOON, || async {
            let answer = calls.get("/echo").await?;
            if apps.iter().all(|app| app.hits() > 0) { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let before = apps.each_ref().map(App::hits);
        for _ in 0..CALLS {
            let answer = calls.get("/pay").await.expect("an answer");
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        let canary = apps[1].hits() - before[1];
        figure("the canary's calls of 1000", canary);
        // Five standard deviations of the binomial distribution around 100.
        assert!((53..=147).contains(&canary), "{canary}");
        mesh.write("wrong.yaml", CANARY.replace("weight: 10", "weight: ten"));
        mesh.write("route.yaml", "service: grant-svc\nroutes: [GET /grant]\n");
        let said = mesh.try_hms(&["apply", "route.yaml", "wrong.yaml"]).await;
        assert!(said.code != 0 && said.err.contains("HMS-2104") && said.err.contains("wrong.yaml:12"), "{said:?}");
        let grant = mesh.rest().get("/v1/services/grant-svc").await;
        assert_eq!(grant["routes"], json!([]), "all or none");
        let split = mesh.rest().get("/v1/services/payment-svc/split").await;
        assert_eq!(split["shares"][1]["weight"], 10);
        let shown = mesh.hms(&["shift", "payment-svc"]).await;
        assert!(shown.contains("payment-svc-v2") && shown.contains("10%"), "{shown}");
    });
}

#[test]
fn a_split_that_makes_no_sense_is_refused_and_changes_nothing() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let good = stack.split(json!([{"version": "v1", "weight": 1}])).await;
        for (shares, part) in [
            (json!([]), "1 to 32"),
            (json!([{"version": "v1", "weight": 0}]), "must have a weight"),
            (json!([{"version": "v1", "weight": 1}, {"version": "v1", "weight": 2}]), "same endpoints"),
            (json!([{"weight": 1}, {"version": "v1", "weight": 2}]), "same endpoints"),
            (json!([{"version": "v 1", "weight": 1}]), "no version"),
            (json!([{"version": "v1", "weight": 1_000_001}]), "0 to 1000000"),
            (json!([{"service": "nobody-svc", "weight": 1}]), "nobody-svc"),
        ] {
            let body = json!({ "shares": shares }).to_string();
            let answer = stack.mesh.rest().send(Method::PUT, SPLIT, body).await;
            assert!((400..500).contains(&answer.status), "{shares}: {}", answer.text());
            assert!(answer.text().contains(part), "{shares}: {}", answer.text());
        }
        let now = stack.mesh.rest().get(SPLIT).await;
        assert_eq!(now["shares"], good["shares"]);
    });
}
