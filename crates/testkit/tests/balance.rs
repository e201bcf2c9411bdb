//! Where calls go when more is said of balancing than one word: keys, sessions, zones.

use std::time::Duration;

use bytes::Bytes;
use hms_testkit::apps::App;
use hms_testkit::client::{Answer, Http};
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use http::Method;

const SOON: Duration = Duration::from_secs(20);

/// Four instances of a service, two in each of two zones, and two workloads that call it from the first zone.
struct Stack {
    mesh: Mesh,
    apps: Vec<App>,
    calls: [Http; 2],
    _proxies: Vec<Proxy>,
    _control: Process,
}

impl Stack {
    async fn start(balance: &str) -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let file =
            format!("services: {{calc-svc: {{routes: [GET /*], balance: {balance}}}, portal: {{}}, desk: {{}}}}");
        let _applied = mesh.rest().apply(&file).await;
        let (mut apps, mut proxies) = (Vec::new(), Vec::new());
        for number in 0..4 {
            let app = App::start(&format!("calc-{number}")).await;
            let plan = Plan::of("calc-svc", app.address()).workload(&number.to_string());
            proxies.push(Proxy::start(&mesh, in_zone(plan, if number < 2 { "a" } else { "b" })).await);
            apps.push(app);
        }
        mesh.rest().until_service("calc-svc", "healthy", 4).await;
        let mut clients = Vec::new();
        for name in ["portal", "desk"] {
            let mut plan = in_zone(Plan::client(name), "a");
            plan.upstreams = vec!["calc-svc".to_owned()];
            let client = Proxy::start(&mesh, plan).await;
            client.until_reaches("calc-svc", "/echo").await;
            clients.push(client);
        }
        mesh.rest().until_acked(SOON).await;
        let calls = [clients[0].caller("calc-svc"), clients[1].caller("calc-svc")];
        proxies.extend(clients);
        Self { mesh, apps, calls, _proxies: proxies, _control: control }
    }

    fn hits(&self) -> Vec<u64> {
        self.apps.iter().map(App::hits).collect()
    }

    /// The instance that a call of one of the two callers with a field goes to, and what it answered.
    async fn call(&self, caller: usize, field: (&str, &str)) -> (usize, Answer) {
        let before = self.hits();
        let answer = self.calls[caller].send(Method::GET, "/echo", &[field], Bytes::new()).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", answer.text());
        let gone = before.iter().zip(self.hits()).position(|(before, after)| after > *before);
        (gone.expect("somebody was called"), answer)
    }

    /// Stops an instance's application and waits until that is known.
    async fn stop(&mut self, place: usize) {
        self.apps.remove(place).stop().await;
        let service = "/v1/services/calc-svc";
        wait::until("the instance is known to be down", SOON, || async {
            let view = self.mesh.rest().get(service).await;
            let endpoints = view["endpoints"].as_array().expect("endpoints");
            let healthy = endpoints.iter().filter(|endpoint| endpoint["health"] == "healthy").count();
            if healthy == self.apps.len() { Ok(()) } else { Err(view.to_string()) }
        })
        .await;
        self.mesh.rest().until_acked(SOON).await;
    }
}

fn in_zone(mut plan: Plan, zone: &str) -> Plan {
    plan.arguments.extend(["--zone".to_owned(), zone.to_owned()]);
    plan
}

#[test]
fn equal_keys_go_to_one_instance_whoever_calls_and_only_a_dead_ones_keys_move() {
    scenario(Duration::from_mins(3), async {
        for policy in ["ring_hash", "maglev"] {
            let mut stack = Stack::start(&format!("{{policy: {policy}, key: {{header: x-user}}}}")).await;
            let users: Vec<String> = (0..40).map(|user| format!("user-{user}")).collect();
            let mut homes = Vec::new();
            for user in &users {
                let (home, _) = stack.call(0, ("x-user", user)).await;
                assert_eq!(stack.call(1, ("x-user", user)).await.0, home, "another caller, the same instance");
                homes.push(home);
            }
            let each: Vec<usize> = (0..4).map(|place| homes.iter().filter(|home| **home == place).count()).collect();
            figure(&format!("40 keys among four by {policy}"), format!("{each:?}"));
            assert!(each.iter().all(|count| *count > 0), "{each:?}");
            stack.stop(3).await;
            for (user, home) in users.iter().zip(&homes) {
                let (first, second) =
                    (stack.call(0, ("x-user", user)).await.0, stack.call(1, ("x-user", user)).await.0);
                assert_eq!(first, second, "{user}");
                assert!(*home == 3 || *home == first, "{user} moved from {home} to {first}");
            }
        }
    });
}

#[test]
fn a_session_stays_and_gets_a_new_cookie_when_its_instance_dies() {
    scenario(Duration::from_mins(2), async {
        let mut stack = Stack::start("{affinity: {cookie: {name: calc-session, ttl: 1h}}}").await;
        let (home, answer) = stack.call(0, ("x-first", "yes")).await;
        let set = answer.header("set-cookie").to_owned();
        let (session, attributes) = set.split_once("; ").expect("attributes");
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Max-Age=3600");
        for caller in [0, 1, 0, 1, 0, 1, 0, 1] {
            let (place, answer) = stack.call(caller, ("cookie", session)).await;
            assert_eq!(place, home, "whoever brings the cookie");
            assert_eq!(answer.header("set-cookie"), "", "it stays as it is");
        }
        stack.stop(home).await;
        let (_, answer) = stack.call(0, ("cookie", session)).await;
        let moved = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
        assert!(moved.starts_with("calc-session=") && moved != session, "{moved}");
        let (place, answer) = stack.call(1, ("cookie", &moved)).await;
        assert_eq!(answer.header("set-cookie"), "");
        assert_eq!(stack.call(0, ("cookie", &moved)).await.0, place);
    });
}

#[test]
fn calls_stay_in_their_zone_and_none_fails_when_it_dies() {
    scenario(Duration::from_mins(2), async {
        let mut stack = Stack::start("{policy: round_robin, zones: prefer}").await;
        let before = stack.hits();
        for number in 0..100 {
            let (place, _) = stack.call(number % 2, ("x-n", "1")).await;
            assert!(place < 2, "{place} is in the other zone");
        }
        let spent: Vec<u64> = stack.hits().iter().zip(before).map(|(after, before)| after - before).collect();
        figure("100 calls from zone a to two instances in a and two in b", format!("{spent:?}"));
        assert!(spent[0] > 0 && spent[1] > 0, "{spent:?}");
        // Both at once and without a word to anybody: the callers find out.
        let (one, other) = (stack.apps.remove(0), stack.apps.remove(0));
        tokio::join!(one.stop(), other.stop());
        for number in 0..60 {
            let _another_zone = stack.call(number % 2, ("x-n", "1")).await;
        }
    });
}
