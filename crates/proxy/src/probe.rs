//! Asking on purpose: whether our own application accepts connections, and whether an ejected endpoint is well again.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_model::listener::Role;
use hms_traffic::outlier::{Admission, Outcome, Transition};
use hms_traffic::probe::{Answer, Streak};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::app_probe;
use crate::endpoint;
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::tasks;
use crate::timer::within;
use crate::transport::waiting;
use crate::worker::Worker;

/// How often an application that does not listen is tried: often, because somebody waits for it.
const WAITING: Duration = Duration::from_millis(50);
/// How often the ejected endpoints are looked over.
const LOOK: Duration = Duration::from_millis(100);
/// How often the kept connections are looked over.
const SWEEP: Duration = Duration::from_secs(1);

/// Watches our own application and tells of every change.
pub async fn watch_app(worker: Rc<Worker>, changes: watch::Sender<bool>) {
    let shared = &worker.shared;
    let Some(address) = shared.settings.app else { return };
    if matches!(shared.settings.role, Role::Gateway | Role::Egress) {
        // Its application is its own door, which is open as long as this process is.
        shared.app.note(true);
        changes.send_replace(true);
        return shared.drain.begun().await;
    }
    let mut streak = Streak::default();
    let mut changed = shared.current.watch();
    loop {
        let asked = app_probe::plan(shared);
        let (answer, begun) = (app_probe::ask(shared, address, &asked).await, Instant::now());
        streak.observe(answer, &asked);
        let well = streak.is_healthy();
        if shared.app.note(well) {
            tracing::info!(%address, well, ?answer, "application");
            changes.send_replace(well);
        }
        let pause = if answer == Answer::Absent || streak.is_starting() { WAITING } else { asked.interval };
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(begun + pause) => break,
                () = shared.app.suspected() => break,
                () = shared.drain.begun() => return,
                // Another configuration may ask something else, and then at once.
                alive = changed.changed() => if alive.is_err() || app_probe::plan(shared) != asked { break },
            }
        }
    }
}

/// Probes ejected endpoints when their time is up, without waiting for a request to try them (ruling R3).
pub async fn watch_ejected(worker: Rc<Worker>) {
    while !worker.shared.drain.is_draining() {
        tokio::time::sleep(LOOK).await;
        let (runtime, now) = (worker.shared.current.load(), worker.now());
        for upstream in runtime.upstreams.values() {
            for endpoint in &upstream.endpoints {
                let health = &endpoint.cells.health;
                if health.force_probe_due(now) && health.admit(now) == Admission::Probe {
                    let probing = probe(Rc::clone(&worker), Arc::clone(upstream), Arc::clone(endpoint));
                    tasks::spawn_local("probe", probing);
                }
            }
        }
    }
}

/// Closes this thread's connections that nobody will use again, or that are idle while somebody waits for one.
pub async fn sweep_pool(worker: Rc<Worker>) {
    let mut swept = worker.now();
    while !worker.shared.drain.is_draining() {
        // Listening before looking, so that nobody who begins to wait is missed.
        let bell = waiting::bell();
        worker.pool.borrow_mut().let_go();
        let left = SWEEP.saturating_sub(worker.now().saturating_since(swept));
        if !left.is_zero() && within(left, bell).await.is_some() {
            continue;
        }
        swept = worker.now();
        let runtime = worker.shared.current.load();
        let generation = worker.shared.holder.current().map_or(0, |own| own.generation);
        let alive = |key: u64| {
            key == 0
                || worker.shared.outside.has_endpoint(key)
                || runtime.upstreams.values().any(|u| u.endpoints.iter().any(|e| e.cells.key == key))
        };
        worker.pool.borrow_mut().sweep(generation, alive);
    }
}

async fn probe(worker: Rc<Worker>, upstream: Arc<Upstream>, endpoint: Arc<UpstreamEndpoint>) {
    let outcome = match endpoint::probe(&worker, &upstream, &endpoint).await {
        Ok(()) => Outcome::Success,
        Err(kind) => Outcome::GatewayFailure(kind),
    };
    let now = worker.now();
    let transition = {
        let mut dice = worker.dice.borrow_mut();
        endpoint.cells.health.observe(outcome, now, &upstream.service.policy.outlier, &mut dice)
    };
    if transition == Some(Transition::Restored) {
        endpoint.cells.since.begin(now);
    }
    tracing::info!(service = %upstream.service.name, endpoint = %endpoint.endpoint.id, ?outcome, ?transition, "probed");
    let _told = worker.shared.breakers.try_send(upstream.service.name.clone()).is_ok();
}
