//! A new version that gets more and more of the calls, and everything back when it is no good.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use serde_json::{Value, json};
use tokio::time::Instant;

const MESH: &str = "services: {pay-svc: {}, portal: {}}";
const CANARY: &str = "/v1/services/pay-svc/canary";
const SPLIT: &str = "/v1/services/pay-svc/split";
const SOON: Duration = Duration::from_secs(20);

/// Two versions of one service, and a caller.
struct Stack {
    mesh: Mesh,
    /// v1 and v2.
    apps: [App; 2],
    calls: Http,
    proxies: [Proxy; 3],
    control: Process,
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let apps = [App::start("one").await, App::start("two").await];
        let version = |version: &str, app: &App| {
            let mut plan = Plan::of("pay-svc", app.address()).workload(version);
            plan.arguments = vec!["--workload-version".to_owned(), version.to_owned()];
            plan
        };
        let first = Proxy::start(&mesh, version("v1", &apps[0])).await;
        let second = Proxy::start(&mesh, version("v2", &apps[1])).await;
        let mut plan = Plan::client("portal");
        plan.upstreams = vec!["pay-svc".to_owned()];
        let client = Proxy::start(&mesh, plan).await;
        let calls = client.caller("pay-svc");
        wait::until("both versions are called", SOON, || async {
            let answer = calls.get("/echo").await?;
            if apps.iter().all(|app| app.hits() > 0) { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        Self { mesh, apps, calls, proxies: [first, second, client], control }
    }

    /// Calls for `path`, sixty a second.
    fn load(&self, path: &'static str) -> Load {
        let calls = self.calls.clone();
        Load::start(60, move |_| {
            let calls = calls.clone();
            async move {
                let answer = calls.get(path).await?;
                if answer.status == 200 { Ok(()) } else { Err(answer.status.to_string()) }
            }
        })
    }

    async fn until(&self, phase: &str, step: u64) -> Value {
        wait::until(&format!("it is {phase} on step {step}"), SOON * 2, || async {
            let canary = self.mesh.rest().get(CANARY).await;
            if canary["phase"] == phase && canary["step"] == step { Ok(canary) } else { Err(canary.to_string()) }
        })
        .await
    }

    async fn shares(&self) -> Value {
        let split = self.mesh.rest().get(SPLIT).await;
        let shares = split["shares"].as_array().cloned().unwrap_or_default();
        shares.iter().map(|share| json!([share["version"], share["weight"]])).collect()
    }
}

#[test]
fn a_good_version_climbs_to_everything_and_no_call_is_lost() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let load = stack.load("/echo");
        let asked = ["canary", "start", "pay-svc", "--to", "v2", "--steps", "10,50,100", "--hold", "2s"];
        let gates = ["--max-5xx", "1%", "--max-errors", "0", "--min-requests", "10"];
        let refused = stack.mesh.try_hms(&[&asked[..], &gates].concat()).await;
        assert!(refused.code == 2 && refused.err.contains("HMS-1006"), "nobody is there to ask: {refused:?}");
        assert_eq!(stack.shares().await, json!([]));
        let begun = Instant::now();
        let said = stack.mesh.try_hms(&[&asked[..], &gates, &["-y", "--wait"]].concat()).await;
        figure("three steps of 2 s each, s", begun.elapsed().as_secs());
        assert_eq!(said.code, 0, "{said:?}");
        assert!(said.out.contains("canary of v2 is promoted: every step was good"), "{said:?}");
        for step in ["step 1 of 3", "step 2 of 3", "step 3 of 3"] {
            assert!(said.err.contains(step), "{step}: {said:?}");
        }
        assert_eq!(stack.shares().await, json!([["v1", 0], ["v2", 1_000_000]]));
        let before = stack.apps[0].hits();
        load.go_on_for(100).await;
        load.finish().await.assert_no_failures("while a canary climbed");
        assert_eq!(stack.apps[0].hits(), before, "v1 gets nothing any more");
        let again = stack.mesh.try_hms(&["canary", "abort", "pay-svc"]).await;
        assert!(again.code == 7 && again.err.contains("is promoted"), "{again:?}");
    });
}

#[test]
fn a_version_that_fails_loses_everything_by_itself_within_seconds_although_retries_hide_it() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let mesh = &stack.mesh;
        let _shifted = mesh.hms(&["shift", "pay-svc", "v2=0"]).await;
        // Callers would get v1's answer, by a second try.
        stack.apps[1].break_down();
        let load = stack.load("/echo");
        load.go_on_for(100).await;
        let begun = Instant::now();
        let asked = ["canary", "start", "pay-svc", "--to", "v2", "--weight", "20", "--hold", "5m", "--max-5xx", "1%"];
        let said = mesh.try_hms(&[&asked[..], &["-y", "--wait"]].concat()).await;
        let took = begun.elapsed();
        figure("until everything was given back, ms", took.as_millis());
        assert!(said.code == 1 && said.out.contains("canary of v2 is aborted"), "{said:?}");
        assert!(took < Duration::from_secs(10), "{took:?}");
        let split = mesh.rest().get(SPLIT).await;
        assert_eq!(
            (&split["shares"][0]["weight"], &split["shares"][1]["weight"]),
            (&json!(1_000_000), &json!(0)),
            "{split}"
        );
        mesh.rest().until_acked(SOON).await;
        let before = stack.apps[1].hits();
        load.go_on_for(200).await;
        assert_eq!(stack.apps[1].hits(), before, "nothing is left on v2");
        let ledger = load.finish().await;
        figure("calls, and those that failed", format!("{}, {}", ledger.entries.len(), ledger.failed().len()));
        let status = mesh.try_hms(&["canary", "status", "pay-svc"]).await;
        assert!(status.code == 3 && status.out.contains("failed"), "{status:?}");
    });
}

#[test]
fn a_control_plane_that_is_killed_in_the_middle_goes_on_and_somebody_elses_change_stops_it() {
    scenario(Duration::from_mins(3), async {
        let mut stack = Stack::start().await;
        let load = stack.load("/echo");
        let asked =
            json!({"to": "v2", "steps": [10, 50, 100], "hold_ms": 2000, "max_5xx_percent": 1, "min_requests": 10});
        let _begun = stack.mesh.rest().put(CANARY, &asked).await;
        let _second = stack.until("running", 2).await;
        stack.control.kill().await;
        stack.control = stack.mesh.control(&[]).await;
        for proxy in &stack.proxies {
            // What a supervisor does when it sees a new control plane.
            proxy.attest(&stack.mesh).await;
        }
        assert_eq!(stack.shares().await, json!([["v1", 500_000], ["v2", 500_000]]));
        let promoted = stack.until("promoted", 3).await;
        assert_eq!(promoted["why"], "every step was good");
        assert_eq!(stack.shares().await, json!([["v1", 0], ["v2", 1_000_000]]));

        // Another one, the other way, which somebody stops, and then divides the calls.
        let asked = ["canary", "start", "pay-svc", "--to", "v1", "--weight", "30", "--hold", "10m", "-y"];
        let _begun = stack.mesh.hms(&asked).await;
        let _paused = stack.mesh.hms(&["canary", "pause", "pay-svc"]).await;
        let shown = stack.mesh.hms(&["canary", "status", "pay-svc"]).await;
        assert!(shown.contains("paused") && shown.contains("30%") && shown.contains("instances"), "{shown}");
        let _shifted = stack.mesh.hms(&["shift", "pay-svc", "v1=40"]).await;
        let _stopped = stack.until("stopped", 1).await;
        assert_eq!(stack.shares().await, json!([["v1", 400_000], ["v2", 600_000]]), "what somebody said stands");
        let status = stack.mesh.try_hms(&["canary", "status", "pay-svc"]).await;
        assert!(status.code == 7 && status.out.contains("somebody else"), "{status:?}");

        // And one that is taken back by hand.
        let _begun = stack.mesh.hms(&["canary", "start", "pay-svc", "--to", "v1", "--weight", "60", "-y"]).await;
        assert_eq!(stack.shares().await, json!([["v1", 600_000], ["v2", 400_000]]));
        let said = stack.mesh.try_hms(&["canary", "abort", "pay-svc"]).await;
        assert!(said.code == 0 && said.err.contains("3 proxies have it"), "{said:?}");
        assert_eq!(stack.shares().await, json!([["v1", 400_000], ["v2", 600_000]]));
        load.finish().await.assert_no_failures("all the while");
    });
}
