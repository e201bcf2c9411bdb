//! Nobody works for a caller that has given up: the time of the first hop is the time of all.

use std::time::Duration;

use hms_testkit::hop::Hop;
use hms_testkit::mesh::Mesh;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, wait};
use tokio::time::Instant;

/// What the first hop is given.
const GIVEN: Duration = Duration::from_millis(300);
/// Far from that, and farther from the fifteen seconds that every other hop has of its own.
const SOON: Duration = Duration::from_secs(3);
const SERVICES: [&str; 3] = ["front-svc", "middle-svc", "last-svc"];

/// portal → front → middle → last, each with a sidecar of its own. Front and middle go on with a call whose caller has left, so nothing
/// but a deadline ends it.
#[test]
fn when_the_first_of_three_hops_gives_up_all_of_them_stop() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let services = "front-svc: {routes: [GET /front], timeout: 300ms}, middle-svc: {routes: [GET /middle]}, last-svc: {routes: [GET /last]}";
        let _applied = mesh.rest().apply(&format!("services: {{{services}, portal: {{}}}}")).await;
        let (mut hops, mut proxies) = (Vec::new(), Vec::new());
        for name in SERVICES {
            let hop = Hop::start().await;
            proxies.push(Proxy::start(&mesh, Plan::of(name, hop.address())).await);
            hops.push(hop);
        }
        for ((hop, proxy), next) in hops.iter().zip(&proxies).zip(SERVICES.iter().skip(1)) {
            hop.calls(proxy.caller(next));
            hop.be_stubborn();
        }
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        client.until_reaches(SERVICES[0], "/order").await;
        let [front, middle, last] = hops.as_slice() else { panic!("three hops") };
        let before = (front.called().len(), middle.called().len());
        let received = hops.iter().map(Hop::received).collect::<Vec<_>>();
        last.get_stuck();
        let begun = Instant::now();
        let answer = client.caller(SERVICES[0]).get("/order").await.expect("an answer");
        let took = begun.elapsed();
        figure("deadline: the caller of 300 ms is answered after, ms", took.as_millis());
        assert_eq!((answer.status, answer.header("x-hms-error")), (504, "HMS-3006"), "{}", answer.text());
        assert!(took >= GIVEN && took < SOON, "{took:?}");
        let over = || front.called().len() > before.0 && middle.called().len() > before.1 && !last.left().is_empty();
        wait::until_true("all have stopped", SOON, over).await;
        let left = last.left()[0];
        figure("deadline: the last application worked for, ms", left.as_millis());
        assert!(left < SOON, "{left:?}");
        for (name, hop, before) in [("front", front, before.0), ("middle", middle, before.1)] {
            let called = hop.called().remove(before);
            figure(&format!("deadline: the call of {name} ended after, ms"), called.took.as_millis());
            assert_eq!((called.status, called.code.as_str()), (504, "HMS-3013"), "{name}: {called:?}");
            assert!(called.took < SOON, "{name}: {called:?}");
        }
        let again = hops.iter().zip(received).map(|(hop, before)| hop.received() - before).collect::<Vec<_>>();
        assert_eq!(again, [1, 1, 1], "asked once each");
    });
}
