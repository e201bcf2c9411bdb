//! A request that may not be executed twice is not, wherever its connection breaks; one that may is answered by another instance.

use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::cutter::{Cutter, Towards};
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::settings::full_size;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use http::Method;

const MESH: &str =
    "services: {calc-svc: {routes: [GET /*, POST /*], breaker: {errors: 1000}, balance: random}, portal: {}}";
/// Requests until one comes by the wire that breaks.
const TRIES: usize = 60;

/// Two instances, the first behind a wire that breaks.
struct Stack {
    apps: [App; 2],
    wire: Cutter,
    calls: Http,
    _kept: (Mesh, Process, Vec<Proxy>),
}

impl Stack {
    async fn start() -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply(MESH).await;
        let apps = [App::start("one").await, App::start("two").await];
        let wire = Cutter::start(apps[0].address()).await;
        let first = Proxy::start(&mesh, Plan::of("calc-svc", wire.address())).await;
        let second = Proxy::start(&mesh, Plan::of("calc-svc", apps[1].address()).workload("2")).await;
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let calls = client.caller("calc-svc");
        wait::until("both are called", Duration::from_secs(20), || async {
            let answer = calls.get("/echo").await?;
            if apps.iter().all(|app| app.hits() > 0) { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        Self { apps, wire, calls, _kept: (mesh, control, vec![first, second, client]) }
    }

    /// How often a path was asked for, by both instances together.
    fn executed(&self, path: &str) -> u64 {
        self.apps.iter().map(|app| app.hits_of(path)).sum()
    }
}

/// Whether the wire broke, and where it may have passed the head of an answer already.
fn broke_in_the_answer(wire: &Cutter, towards: Towards) -> bool {
    towards == Towards::Caller && !wire.is_armed()
}

#[test]
fn wherever_a_connection_breaks_no_post_is_executed_twice_and_every_get_is_answered_or_visibly_cut() {
    scenario(Duration::from_mins(10), async {
        let stack = Stack::start().await;
        let step = if full_size() { 1 } else { 23 };
        let (mut cuts, mut refused) = (0, 0);
        for towards in [Towards::Server, Towards::Caller] {
            for after in (1..=600).step_by(step) {
                stack.wire.cut(towards, after);
                for number in 0..TRIES {
                    let path = format!("/echo/{towards:?}/{after}/{number}");
                    let (posted, got) = (format!("{path}/post"), format!("{path}/get"));
                    let answer = stack.calls.send(Method::POST, &posted, &[], vec![b'b'; 100]).await;
                    let executed = stack.executed(&posted);
                    assert!(executed <= 1, "{posted} was executed {executed} times");
                    // An answer that breaks off behind its head shows that it did.
                    let status = answer.as_ref().map_or(0, |answer| answer.status);
                    assert!(matches!(status, 0 | 200 | 502 | 503), "{answer:?}");
                    assert!(status != 200 || executed == 1, "{posted} was answered and not executed");
                    assert!(status != 0 || broke_in_the_answer(&stack.wire, towards), "{answer:?}");
                    refused += usize::from(status != 200);
                    match stack.calls.get(&got).await {
                        Ok(answer) => assert_eq!(answer.status, 200, "{got}: {}", answer.text()),
                        Err(why) => assert!(broke_in_the_answer(&stack.wire, towards), "{got}: {why}"),
                    }
                    if !stack.wire.is_armed() {
                        cuts += 1;
                        break;
                    }
                }
                stack.wire.disarm();
                // Enough good ones among the bad that the instance is not left alone.
                for _ in 0..10 {
                    let answer = stack.calls.get("/echo").await.expect("an answer");
                    assert_eq!(answer.status, 200, "{}", answer.text());
                }
            }
        }
        figure("connections broken; POSTs that got an error", format!("{cuts}; {refused}"));
        assert!(cuts > 20, "{cuts}");
    });
}
