//! What people are told of what they configured: whether it is accepted, whether what it refers to is there, who has it; and rules that
//! do nothing.

use std::time::Duration;

use hms_testkit::divided::{Divided, split};
use hms_testkit::mesh::Said;
use hms_testkit::processes::signal;
use hms_testkit::{binaries, scenario, wait};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A route about `parent` whose second rule stands behind its first.
fn route(name: &str, parent: &str, backend: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata:\n  name: {name}\nspec:\n  parentRefs:\n  - group: \"\"\n    \
         kind: Service\n    name: {parent}\n  rules:\n  - name: all\n    backendRefs:\n    - {{name: {backend}, port: 80}}\n  - name: never\n    \
         matches:\n    - path: {{type: PathPrefix, value: /}}\n    backendRefs:\n    - {{name: {backend}, port: 80}}\n"
    )
}

struct Stack(Divided);

impl Stack {
    async fn start() -> Self {
        Self(Divided::start().await)
    }

    /// A resource's status, once its first condition that does not hold is this one; `Programmed` where all hold.
    async fn until(&self, path: &str, reason: &str) -> Value {
        wait::until(&format!("{path} is {reason}"), SOON, || async {
            let status = self.0.mesh.rest().get(&format!("/v1/resources/{path}")).await["status"].clone();
            let conditions: Vec<&Value> = status["conditions"].as_array().into_iter().flatten().collect();
            let fault =
                conditions.iter().find(|condition| condition["status"] == "False").or_else(|| conditions.last());
            if fault.is_some_and(|fault| fault["reason"] == reason) { Ok(status) } else { Err(status.to_string()) }
        })
        .await
    }

    async fn shell(&self, line: &str) -> Said {
        let mut command = self.0.mesh.command("sh");
        let hms = binaries::hms();
        command.args(["-c", &line.replace("hms ", &format!("{} ", hms.display()))]);
        self.0.mesh.run(command).await
    }
}

#[test]
fn a_change_is_programmed_when_the_proxies_that_it_concerns_have_it() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let (mesh, rest) = (&stack.0.mesh, stack.0.mesh.rest());
        mesh.write("split.yaml", split(10));
        let _applied = mesh.hms(&["apply", "split.yaml"]).await;
        let first = stack.until("split/pay-svc", "Programmed").await;
        assert_eq!((&first["programmed"], &first["proxies"]), (&json!(1), &json!(1)), "its one caller: {first}");
        let row = mesh.hms(&["get", "splits"]).await;
        assert!(row.lines().nth(1).is_some_and(|row| row.ends_with("90/10  PROGRAMMED 1/1")), "{row}");

        // A proxy that hangs has nothing new, and is named.
        signal(stack.0.caller.process.pid(), Signal::SIGSTOP);
        let files = json!({"files": [{"name": "split.yaml", "text": split(50)}]});
        let revision = rest.post("/v1/apply", &files).await["revision"].clone();
        let pending = stack.until("split/pay-svc", "Pending").await;
        assert_eq!((&pending["programmed"], &pending["observedRevision"]), (&json!(0), &revision), "{pending}");
        let words = pending["conditions"][2]["message"].as_str().unwrap();
        assert!(words.starts_with("0 of 1 proxies have it; portal"), "{words}");
        let row = mesh.hms(&["get", "splits"]).await;
        assert!(row.contains("50/50  PENDING 0/1"), "{row}");
        signal(stack.0.caller.process.pid(), Signal::SIGCONT);
        let done = stack.until("split/pay-svc", "Programmed").await;
        assert_eq!((&done["programmed"], &done["observedRevision"]), (&json!(1), &revision), "{done}");
        assert!(
            done["conditions"][2]["lastTransitionTime"].as_str()
                >= first["conditions"][2]["lastTransitionTime"].as_str()
        );
        // What becomes of other services is nothing to it.
        rest.post("/v1/apply", &json!({"files": [{"name": "r.yaml", "text": "service: other\nroutes: [GET /o]\n"}]}))
            .await;
        assert_eq!(stack.until("split/pay-svc", "Programmed").await["observedRevision"], revision);
    });
}

#[test]
fn what_leads_nowhere_and_what_is_never_reached_is_told_with_its_place() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mesh = &stack.0.mesh;
        mesh.write("routes.yaml", [route("pay", "pay-svc", "pay-v1"), route("lost", "pay-v1", "ghost")].join("---\n"));
        let said = mesh.try_hms(&["lint", "routes.yaml"]).await;
        let shadow = "the rule `never` of the route `pay` is never reached";
        assert!(said.code == 3 && said.out.contains(shadow) && said.out.contains("routes.yaml:14"), "{said:?}");
        let said = mesh.try_hms(&["apply", "routes.yaml"]).await;
        assert_eq!(said.code, 0, "{said:?}");
        let why = "`all` of the route `pay` (routes.yaml:11) takes every request that it would";
        for words in ["HMS-2180", shadow, "routes.yaml:14", why, "requests are led to `ghost`, which does not exist"] {
            assert!(said.err.contains(words), "{words}: {said:?}");
        }
        let check = mesh.try_hms(&["check", "--only", "configuration"]).await;
        assert!(check.code == 3 && check.out.contains(&format!("HMS-2180 {shadow} (routes.yaml:14)")), "{check:?}");
        let status = mesh.hms(&["status"]).await;
        assert!(status.contains(&format!("HMS-2180 {shadow} (routes.yaml:14)")), "{status}");

        let led = stack.until("httproute/pay", "Programmed").await;
        assert_eq!(led["conditions"][0]["message"], "`pay-svc` takes it");
        let lost = stack.until("httproute/lost", "BackendNotFound").await;
        assert_eq!(lost["conditions"][1]["message"], "there is no service `ghost`");
        mesh.write("ghost.yaml", route("nowhere", "ghost", "pay-v1"));
        let _warned = mesh.hms(&["apply", "ghost.yaml"]).await;
        let nowhere = stack.until("httproute/nowhere", "NoMatchingParent").await;
        assert_eq!(nowhere["conditions"][2]["reason"], "Invalid", "nobody is sent it: {nowhere}");
        let rows = mesh.hms(&["get", "httproutes"]).await;
        for row in [
            "ghost: 2 rules    NoMatchingParent 0/0",
            "pay-v1: 2 rules   BackendNotFound ",
            "pay-svc: 2 rules  PROGRAMMED 1/1",
        ] {
            assert!(rows.lines().any(|line| line.contains(row)), "{row}: {rows}");
        }

        // A service that routes name stays until they are gone.
        let said = mesh.try_hms(&["delete", "service", "pay-svc"]).await;
        assert!(said.code == 7 && said.err.contains("the route `pay` is about it (routes.yaml:11)"), "{said:?}");
        assert!(said.err.contains("hms delete httproute pay"), "{said:?}");
        let _removed = mesh.hms(&["delete", "httproute", "pay"]).await;
        let _removed = mesh.hms(&["delete", "service", "pay-svc"]).await;
        let check = mesh.try_hms(&["check", "--only", "configuration"]).await;
        assert!(!check.out.contains(shadow), "what is gone is not complained about: {check:?}");
    });
}

#[test]
fn what_is_shown_can_be_applied_again_and_changed() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mesh = &stack.0.mesh;
        mesh.write("all.yaml", [split(10), route("pay", "pay-svc", "pay-v1")].join("---\n"));
        let _applied = mesh.hms(&["apply", "all.yaml"]).await;
        let before = mesh.rest().get("/v1/summary").await["revision"].clone();
        for what in ["split pay-svc", "httproutes", "services", "gateway", "defaults"] {
            for format in ["yaml", "json"] {
                let said = stack.shell(&format!("hms get {what} -o {format} | hms apply --dry-run -f -")).await;
                assert!(said.code == 0 && said.out.is_empty(), "{what} {format}: {said:?}");
                assert!(said.err.contains("nothing would change"), "{what} {format}: {said:?}");
            }
        }
        let said = stack.shell("hms get split pay-svc | hms apply -").await;
        assert_eq!((said.code, &mesh.rest().get("/v1/summary").await["revision"]), (0, &before), "{said:?}");
        let said = stack.shell("hms get split pay-svc | sed 's/weight: 90/weight: 30/' | hms apply -f -").await;
        assert!(said.code == 0 && said.out.contains("applied pay-svc"), "{said:?}");
        let row = mesh.hms(&["get", "splits"]).await;
        assert!(row.contains("30/10  PROGRAMMED 1/1"), "{row}");
        let said = stack.shell("hms get split pay-svc | sed 's/weight: 30/wieght: 30/' | hms apply -f -").await;
        assert!(said.code == 1 && said.err.contains("unknown key `wieght`; did you mean `weight`?"), "{said:?}");
        assert!(said.err.contains("wieght: 30"), "its line is shown: {said:?}");
        let diff = stack
            .shell(
                "hms get split pay-svc > shown.yaml; sed -i 's/weight: 10/weight: 70/' shown.yaml; hms diff shown.yaml",
            )
            .await;
        assert!(diff.code == 3 && diff.out.contains("\n-  weight: 10\n+  weight: 70\n"), "{diff:?}");
    });
}
