//! The passport story: a service moves to another address under load, and nobody notices.

use std::sync::Arc;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::client::Http;
use hms_testkit::ledger::Load;
use hms_testkit::mesh::Mesh;
use hms_testkit::rest::Rest;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario};
use serde_json::json;
use tokio::time::Instant;

const RATE: u32 = 200;
/// The goal is 200 ms; ten times that on a machine that runs other tests.
const PUSH: Duration = Duration::from_secs(2);

/// A constant load of GETs; every answer must come from an application.
fn load(http: Http) -> Load {
    let http = Arc::new(http);
    Load::start(RATE, move |id| {
        let http = Arc::clone(&http);
        async move {
            let answer = http.get(&format!("/echo?id={id}")).await?;
            match answer.status {
                200 if answer.json()["path"] == format!("/echo?id={id}") => Ok(()),
                200 => Err("an answer to another request".to_owned()),
                status => Err(format!("{status} {}", answer.header("x-hms-error"))),
            }
        }
    })
}

/// How long it takes from now until every proxy has acked what is the newest now.
async fn pushed(rest: &Rest) -> Duration {
    let begun = Instant::now();
    rest.until_acked(Duration::from_secs(10)).await;
    begun.elapsed()
}

#[test]
fn a_service_moves_to_another_sidecar_under_load_and_no_request_fails() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let rest = mesh.rest();
        let _applied = rest.apply("services: {fee-payment: {routes: [GET /echo]}, photo-check: {}}").await;
        let (old, new) = (App::start("old").await, App::start("new").await);
        let mut first = Proxy::start(&mesh, Plan::of("fee-payment", old.address()).workload("old")).await;
        let caller = Proxy::start(&mesh, Plan::client("photo-check")).await;
        caller.until_reaches("fee-payment", "/echo").await;

        let load = load(caller.caller("fee-payment"));
        load.go_on_for(200).await;
        let _second = Proxy::start(&mesh, Plan::of("fee-payment", new.address()).workload("new")).await;
        let _both = rest.until_service("fee-payment", "healthy", 2).await;
        load.go_on_for(200).await;
        // The old one leaves politely: it deregisters, its callers are told, it finishes what it has.
        let code = first.process.terminate().await;
        assert_eq!(code, Some(0), "{}", first.process.output());
        let took = pushed(&rest).await;
        let _one = rest.until_service("fee-payment", "healthy", 1).await;
        let hits = old.hits();
        load.go_on_for(400).await;
        assert_eq!(old.hits(), hits, "the old address is not called after the push");
        let ledger = load.finish().await;
        ledger.assert_no_failures("moving a service");
        assert!(new.hits() > 300, "the new one serves: {}", new.hits());
        assert!(took < PUSH, "{took:?}");
        figure("slowest request while moving", format!("{:?}", ledger.slowest()));
    });
}

#[test]
fn registering_again_replaces_the_old_address_within_two_seconds() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let rest = mesh.rest();
        let _applied = rest.apply("services: {fee-payment: {routes: [GET /echo]}, photo-check: {}}").await;
        let (old, new) = (App::start("old").await, App::start("new").await);
        let path = "/v1/services/fee-payment/endpoints";
        let at = |app: &App| json!({"host": "127.0.0.1", "port": app.address().port()});
        let _first = rest.post(path, &at(&old)).await;
        let caller = Proxy::start(&mesh, Plan::client("photo-check")).await;
        caller.until_reaches("fee-payment", "/echo").await;

        let load = load(caller.caller("fee-payment"));
        load.go_on_for(200).await;
        let mut slowest = Duration::ZERO;
        for (to, from) in [(&new, &old), (&old, &new), (&new, &old)] {
            let _moved = rest.post(path, &at(to)).await;
            let took = pushed(&rest).await;
            slowest = slowest.max(took);
            load.go_on_for(20).await;
            // What was sent before the push may still arrive; what is sent from here on must not.
            let hits = from.hits();
            load.go_on_for(200).await;
            assert_eq!(from.hits(), hits, "the old address is not called after the push was acked");
        }
        load.finish().await.assert_no_failures("replacing an address");
        figure("push to proxies (goal 200 ms)", format!("{slowest:?}"));
        assert!(slowest < PUSH, "{slowest:?}");
        let view = rest.until_service("fee-payment", "healthy", 1).await;
        assert_eq!(view["endpoints"][0]["address"], new.address().to_string());
    });
}

#[test]
fn an_instance_that_vanishes_is_forgotten_within_15_seconds_and_costs_no_request() {
    scenario(Duration::from_mins(2), async {
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let rest = mesh.rest();
        let _applied = rest.apply("services: {fee-payment: {routes: [GET /echo]}, photo-check: {}}").await;
        let (one, two) = (App::start("one").await, App::start("two").await);
        let mut first = Proxy::start(&mesh, Plan::of("fee-payment", one.address()).workload("one")).await;
        let _second = Proxy::start(&mesh, Plan::of("fee-payment", two.address()).workload("two")).await;
        let _both = rest.until_service("fee-payment", "healthy", 2).await;
        let caller = Proxy::start(&mesh, Plan::client("photo-check")).await;
        caller.until_reaches("fee-payment", "/echo").await;
        let load = load(caller.caller("fee-payment"));
        load.go_on_for(200).await;
        first.process.kill().await;
        let begun = Instant::now();
        let _one = rest.until_service("fee-payment", "healthy", 1).await;
        figure("a vanished instance left after", format!("{:?}", begun.elapsed()));
        assert!(begun.elapsed() < Duration::from_secs(16));
        load.go_on_for(200).await;
        load.finish().await.assert_no_failures("kill -9 of one of two");
    });
}
