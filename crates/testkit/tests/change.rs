//! Changes of the configuration as people make them: planned, applied, looked at, removed and undone.

use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::divided::{Divided, split};
use hms_testkit::mesh::Said;
use hms_testkit::{figure, scenario, wait};
use serde_json::Value;

const SOON: Duration = Duration::from_secs(20);

struct Stack {
    divided: Divided,
    calls: Http,
}

impl Stack {
    async fn start() -> Self {
        let divided = Divided::start().await;
        let calls = divided.caller.caller("pay-svc");
        Self { divided, calls }
    }

    /// Only the second or only the first answers.
    async fn is_answered_by(&self, place: usize) {
        wait::until("the calls go where they should", SOON, || async {
            let before = self.divided.apps[place].hits();
            for _ in 0..10 {
                let answer = self.calls.get("/echo").await?;
                if answer.status != 200 {
                    return Err(answer.text());
                }
            }
            let got = self.divided.apps[place].hits() - before;
            if got == 10 { Ok(()) } else { Err(format!("{got} of 10")) }
        })
        .await;
    }

    async fn fails(&self, arguments: &[&str], code: i32, says: &str) -> Said {
        let said = self.divided.mesh.try_hms(arguments).await;
        assert!(said.code == code && said.err.contains(says), "{arguments:?}: {said:?}");
        said
    }

    async fn shares(&self) -> Value {
        self.divided.mesh.rest().get("/v1/services/pay-svc/split").await["shares"].clone()
    }
}

#[test]
fn a_change_is_planned_applied_told_and_undone_with_every_proxy() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mesh = &stack.divided.mesh;
        mesh.write("split.yaml", split(100));
        let planned = mesh.hms(&["apply", "--dry-run", "split.yaml"]).await;
        assert_eq!(planned, "+ split pay-svc\n");
        assert_eq!(stack.shares().await, serde_json::json!([]), "a dry run changes nothing");
        let said = mesh.try_hms(&["diff", "split.yaml"]).await;
        assert_eq!(said.code, 3, "{said:?}");
        assert!(said.out.starts_with("--- /dev/null\n+++ split pay-svc (then)\n"), "{}", said.out);

        let said = mesh.try_hms(&["apply", "--timeout", "20s", "split.yaml"]).await;
        assert!(
            said.code == 0 && said.out.contains("applied pay-svc") && said.err.contains("3 proxies have it"),
            "{said:?}"
        );
        stack.is_answered_by(1).await;
        let said = mesh.try_hms(&["diff", "split.yaml"]).await;
        assert_eq!((said.code, said.out.as_str()), (0, ""), "{said:?}");
        mesh.write("other.yaml", split(40));
        let said = mesh.try_hms(&["diff", "other.yaml"]).await;
        assert!(said.out.contains("\n-  weight: 100\n+  weight: 40\n"), "{}", said.out);
        mesh.write("other.yaml", split(0));
        let _applied = mesh.hms(&["apply", "other.yaml"]).await;
        stack.is_answered_by(0).await;

        let history = mesh.hms_json(&["history"]).await;
        let newest = &history["items"][0];
        assert_eq!(
            (&newest["actor"], &newest["changes"][0]["change"]),
            (&"admin".into(), &"changed".into()),
            "{history}"
        );
        let shown = mesh.hms(&["history"]).await;
        assert!(shown.lines().nth(1).is_some_and(|row| row.contains("~ split pay-svc")), "{shown}");

        let said = mesh.try_hms(&["rollback"]).await;
        assert!(said.code == 0 && said.out.starts_with("~ split pay-svc\n"), "{said:?}");
        assert!(said.err.contains("3 proxies have it"), "{said:?}");
        figure("rollback", said.err.trim());
        stack.is_answered_by(1).await;
        let number = newest["revision"].to_string();
        let planned = mesh.hms(&["rollback", "--to", &number, "--dry-run"]).await;
        assert!(planned.contains("-  weight: 100\n"), "{planned}");
        stack.is_answered_by(1).await;
        let back = mesh.hms_json(&["rollback", "--to", &number]).await;
        assert_eq!(back["to"], newest["revision"]);
        stack.is_answered_by(0).await;
        let _again = stack.fails(&["rollback", "--to", &number], 7, "what holds already").await;
        let _never = stack.fails(&["rollback", "--to", "999999"], 1, "no revision 999999").await;
    });
}

#[test]
fn what_is_configured_can_be_shown_and_removed_by_name_and_by_file() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mesh = &stack.divided.mesh;
        mesh.write("split.yaml", split(100));
        mesh.write("route.yaml", "service: pay-v1\nroutes: [GET /pay]\n");
        let _applied = mesh.hms(&["apply", "split.yaml", "route.yaml"]).await;
        let all = mesh.hms(&["get"]).await;
        for row in ["declaration  pay-v2", "route        pay-v1", "split        pay-svc"] {
            assert!(all.lines().any(|line| line.trim_end() == row), "{row}: {all}");
        }
        let routes = mesh.hms(&["get", "routes"]).await;
        assert!(routes.contains("pay-v1") && routes.contains("/pay"), "{routes}");
        let yaml = mesh.hms(&["get", "split", "pay-svc"]).await;
        assert!(yaml.contains("service: pay-v2\n") && yaml.contains("weight: 100\n"), "{yaml}");
        let document = mesh.hms_json(&["get", "split", "pay-svc"]).await;
        assert_eq!((&document["kind"], &document["resource"]), (&"Resource".into(), &"split".into()));
        let _typo = stack.fails(&["get", "splitt"], 1, "did you mean `split`?").await;
        let _lives = stack.fails(&["delete", "service", "pay-v1"], 7, "still runs").await;
        let _trust = stack.fails(&["delete", "trust", "mesh"], 7, "stays").await;

        let planned = mesh.hms(&["delete", "split", "pay-svc", "--dry-run"]).await;
        assert_eq!(planned, "- split pay-svc\n");
        assert_ne!(stack.shares().await, serde_json::json!([]));
        let said = mesh.try_hms(&["delete", "split", "pay-svc"]).await;
        assert!(said.code == 0 && said.err.contains("3 proxies have it"), "{said:?}");
        assert_eq!(stack.shares().await, serde_json::json!([]));
        let _gone = stack.fails(&["delete", "-f", "split.yaml", "route.yaml"], 1, "no split `pay-svc`").await;
        let removed = mesh.hms(&["delete", "-f", "route.yaml"]).await;
        assert_eq!(removed, "- route pay-v1\n", "the service stays, it runs");
        let _undone = mesh.hms(&["rollback"]).await;
        let routes = mesh.hms(&["get", "route", "pay-v1"]).await;
        assert!(routes.contains("/pay"), "{routes}");
    });
}
