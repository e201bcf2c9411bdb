//! What one sick service does to those before it: little, and not longer than it is sick.

use std::sync::Arc;
use std::time::Duration;

use hms_testkit::apps::App;
use hms_testkit::hop::Hop;
use hms_testkit::ledger::{Ledger, Load};
use hms_testkit::mesh::Mesh;
use hms_testkit::processes::Process;
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{figure, scenario, settings, wait};
use tokio::sync::Mutex;
use tokio::time::Instant;

/// A storm has the machine to itself: what is measured here is time.
static ALONE: Mutex<()> = Mutex::const_new(());
const RATE: u32 = 200;
const SERVICES: [&str; 3] = ["front-svc", "middle-svc", "last-svc"];

/// How long the last hop is sick: the promise's minute, or as long as ten open periods of a second.
fn sickness() -> Duration {
    if settings::full_size() { Duration::from_mins(1) } else { Duration::from_secs(10) }
}

/// portal → front → middle → last, each with a sidecar of its own.
struct Chain {
    hops: Vec<Arc<Hop>>,
    client: Proxy,
    _proxies: Vec<Proxy>,
    _control: Process,
    _mesh: Mesh,
}

impl Chain {
    /// A chain with this breaker on every hop; empty for the defaults.
    async fn start(breaker: &str) -> Self {
        let mesh = Mesh::new();
        let control = mesh.control(&[]).await;
        let service = |name| format!("{name}: {{routes: [GET /{name}]{breaker}}}");
        let services = SERVICES.map(service).join(", ");
        let _applied = mesh.rest().apply(&format!("services: {{{services}, portal: {{}}}}")).await;
        let (mut hops, mut proxies) = (Vec::new(), Vec::new());
        for name in SERVICES {
            let hop = Arc::new(Hop::start().await);
            proxies.push(Proxy::start(&mesh, Plan::of(name, hop.address())).await);
            hops.push(hop);
        }
        for ((hop, proxy), next) in hops.iter().zip(&proxies).zip(SERVICES.iter().skip(1)) {
            hop.calls(proxy.caller(next));
        }
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        client.until_reaches(SERVICES[0], "/order").await;
        Self { hops, client, _proxies: proxies, _control: control, _mesh: mesh }
    }

    fn load(&self) -> Load {
        let calls = self.client.caller(SERVICES[0]);
        Load::start(RATE, move |_| {
            let calls = calls.clone();
            async move {
                let answer = calls.get("/order").await?;
                let why = format!("{} {}", answer.status, answer.header("x-hms-error"));
                if answer.status == 200 { Ok(()) } else { Err(why) }
            }
        })
    }
}

/// From a moment of a load to the end of the last call that was sent after it and failed.
fn failing_after(ledger: &Ledger, moment: Duration) -> Duration {
    let failed = ledger.entries.iter().filter(|entry| entry.sent >= moment && entry.outcome.is_err());
    failed.map(|entry| (entry.sent + entry.took).saturating_sub(moment)).max().unwrap_or_default()
}

/// What those calls were answered, and when they were sent.
fn reasons(ledger: &Ledger, moment: Duration) -> String {
    let failed = ledger.entries.iter().filter(|entry| entry.sent >= moment && entry.outcome.is_err());
    let said = failed.map(|entry| {
        format!("{:?} after, took {:?}: {:?}", entry.sent.saturating_sub(moment), entry.took, entry.outcome)
    });
    said.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_last_of_three_hops_that_fails_is_not_flooded_and_serves_again_within_two_seconds() {
    scenario(Duration::from_mins(5), async {
        let _alone = ALONE.lock().await;
        let chain = Chain::start(", breaker: {open: 1s}").await;
        let last = &chain.hops[2];
        let before = last.received();
        let begun = Instant::now();
        let load = chain.load();
        load.go_on_for(u64::from(RATE)).await;
        let (sick_at, sick_received, sick_done) = (begun.elapsed(), last.received(), load.done());
        last.set_sick(true);
        wait::until_true("it was sick for its time", sickness() * 2, || begun.elapsed() >= sick_at + sickness()).await;
        let (received, offered) = (last.received() - sick_received, load.done() - sick_done);
        last.set_sick(false);
        let healed_at = begun.elapsed();
        load.go_on_for(u64::from(RATE) * 5).await;
        let ledger = load.finish().await;
        let all = u64::try_from(ledger.entries.len()).expect("few");
        let recovery = failing_after(&ledger, healed_at);
        figure("storm: received by the sick last hop, of so many offered", format!("{received} of {offered}"));
        figure("storm: received over the whole time", format!("{} of {all}", last.received() - before));
        figure("storm: recovery with breaker.open 1s, ms", recovery.as_millis());
        assert!((last.received() - before) * 100 <= all * 125, "{} of {all}", last.received() - before);
        assert!(received * 100 <= offered * 125, "while it was sick: {received} of {offered}");
        assert!(recovery <= Duration::from_secs(2), "{recovery:?}\n{}", reasons(&ledger, healed_at));
        // Those that were under way when it fell sick may fail.
        let mut earlier = ledger.entries.iter().filter(|entry| entry.sent + entry.took < sick_at);
        assert!(earlier.all(|entry| entry.outcome.is_ok()), "nothing failed before");
    });
}

#[test]
fn with_the_default_breaker_a_chain_serves_again_within_one_open_period() {
    scenario(Duration::from_mins(5), async {
        let _alone = ALONE.lock().await;
        let chain = Chain::start("").await;
        let last = &chain.hops[2];
        let begun = Instant::now();
        let load = chain.load();
        load.go_on_for(u64::from(RATE)).await;
        last.set_sick(true);
        // Long enough for every breaker of the chain to open, at different times.
        load.go_on_for(u64::from(RATE) * 3).await;
        last.set_sick(false);
        let healed_at = begun.elapsed();
        // 30 s, 10 % more by chance, and the beat in which ejected endpoints are looked over.
        let period = Duration::from_millis(33_100);
        wait::until_true("an open period has passed", period * 2, || begun.elapsed() >= healed_at + period).await;
        load.go_on_for(u64::from(RATE)).await;
        let ledger = load.finish().await;
        let recovery = failing_after(&ledger, healed_at);
        figure("storm: recovery with the default breaker, ms", recovery.as_millis());
        assert!(recovery <= period, "{recovery:?}\n{}", reasons(&ledger, healed_at));
    });
}

#[test]
fn of_two_zones_one_dies_and_no_call_fails_that_may_be_tried_again() {
    scenario(Duration::from_mins(5), async {
        let _alone = ALONE.lock().await;
        let mesh = Mesh::new();
        let _control = mesh.control(&[]).await;
        let _applied = mesh.rest().apply("services: {pay-svc: {routes: [GET /*]}, portal: {}}").await;
        let (mut apps, mut proxies) = (Vec::new(), Vec::new());
        for (number, zone) in ["eu-1a", "eu-1a", "eu-1b", "eu-1b"].into_iter().enumerate() {
            let app = App::start(zone).await;
            let mut plan = Plan::of("pay-svc", app.address()).workload(&number.to_string());
            plan.arguments = vec!["--zone".to_owned(), zone.to_owned()];
            proxies.push(Proxy::start(&mesh, plan).await);
            apps.push(app);
        }
        // A caller of no zone, so that both zones are called.
        let client = Proxy::start(&mesh, Plan::client("portal")).await;
        let calls = client.caller("pay-svc");
        wait::until("every instance is called", Duration::from_secs(20), || async {
            let _answer = calls.get("/echo").await?;
            if apps.iter().all(|app| app.hits() > 0) { Ok(()) } else { Err("not yet".to_owned()) }
        })
        .await;
        let load = Load::start(RATE, move |_| {
            let calls = calls.clone();
            async move {
                let answer = calls.get("/echo").await?;
                if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
            }
        });
        load.go_on_for(u64::from(RATE)).await;
        for proxy in proxies.iter_mut().skip(2) {
            proxy.process.kill().await;
        }
        let dead: Vec<u64> = apps.iter().skip(2).map(App::hits).collect();
        load.go_on_for(u64::from(RATE) * 5).await;
        let ledger = load.finish().await;
        figure("a zone dies: slowest call, ms", ledger.slowest().as_millis());
        ledger.assert_no_failures("while a zone died");
        assert!(dead.iter().all(|hits| *hits > 0), "it was called before: {dead:?}");
        drop((mesh, client));
    });
}
