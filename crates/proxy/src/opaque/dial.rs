//! Getting an endpoint of a service on the line: another one as long as that helps, which is before a byte has passed.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hms_traffic::outlier::{FailureKind, Outcome};
use hms_traffic::retry::{self, Attempted, Body, Decision, Failure, Next, NotProcessed};
use http::Method;

use crate::attempt;
use crate::endpoint::{self, Opening};
use crate::pipeline::affinity::Wish;
use crate::pipeline::split;
use crate::refusal::{Reason, Refusal};
use crate::runtime::upstream::{InFlight, Upstream, UpstreamEndpoint};
use crate::transport::buffer::ReadBuffer;
use crate::transport::connect::ConnectError;
use crate::transport::tls_stream::Stream;
use crate::transport::waiting::Place;
use crate::worker::Worker;

/// An endpoint whose application has accepted.
#[derive(Debug)]
pub struct Dialled {
    pub(super) stream: Stream,
    /// What was read of it already.
    pub(super) read: ReadBuffer,
    pub(super) endpoint: Arc<UpstreamEndpoint>,
    pub(super) attempts: u32,
    /// Counts as under way there, with a place among the connections.
    pub(super) held: (InFlight, Place),
}

/// Dials endpoints of `upstream` until one has its application on the line. Whatever failed has not seen a byte, so any may be
/// tried again, within the bounds that requests have.
pub async fn dial(worker: &Rc<Worker>, asked: &Arc<Upstream>, port: u16) -> Result<Dialled, Refusal> {
    let runtime = worker.shared.current.load();
    let (upstream, pick) = split::follow(worker, &runtime, asked).await?;
    drop(runtime);
    // The same port there, or the only one it has.
    let other = || upstream.service.port(port).or_else(|| upstream.service.port(0)).map(|port| port.number);
    let port = if Arc::ptr_eq(asked, &upstream) { port } else { other().unwrap_or(port) };
    let upstream = &upstream;
    let policy = &upstream.service.policy;
    let mut now = worker.now();
    let deadline = policy.timeouts.request.map(|timeout| now.plus(timeout));
    upstream.cells.budget.record_request(now);
    let wish = Wish::of_connection(worker, upstream);
    let mut tried: Vec<usize> = Vec::new();
    let mut attempts = 0;
    loop {
        let chosen = attempt::choose(worker, upstream, (pick, wish), &tried, now);
        let chosen = chosen.and_then(|index| upstream.endpoints.get(index).map(|endpoint| (index, endpoint)));
        let Some((index, endpoint)) = chosen else { return Err(attempt::refuse(upstream, pick, worker.now())) };
        attempts += 1;
        let under_way = endpoint.begin();
        let failed = match endpoint::open_opaque(worker, upstream, endpoint, port).await {
            Opening::Open(stream, place) => {
                attempt::note(worker, upstream, endpoint, Outcome::Success, worker.now());
                let (read, endpoint) = (ReadBuffer::default(), Arc::clone(endpoint));
                return Ok(Dialled { stream, read, endpoint, attempts, held: (under_way, place) });
            }
            Opening::NotConnected(error) => not_connected(upstream, &error),
            Opening::Declined(code) => declined(upstream, code),
            Opening::Refused(refusal) => Failed { outcome: Outcome::Ignored, why: None, refusal },
        };
        attempt::note(worker, upstream, endpoint, failed.outcome, worker.now());
        let Some(why) = failed.why else { return Err(failed.refusal) };
        tried.push(index);
        let attempted = Attempted {
            method: &Method::CONNECT,
            tries: attempts,
            failure: Failure::NotProcessed(why),
            body: Body::Untouched,
            next: if attempt::has_other(worker, upstream, pick, &tried) { Next::Other } else { Next::Same },
            deadline,
            usual: Duration::ZERO,
            idempotency_key: false,
            is_retry: false,
        };
        let decision = {
            let mut dice = worker.dice.borrow_mut();
            retry::decide(&attempted, &policy.retry, &upstream.cells.budget, worker.now(), &mut dice)
        };
        match decision {
            Decision::Stop(_) => return Err(failed.refusal),
            Decision::Retry { .. } if attempt::is_open(worker, upstream) => return Err(failed.refusal),
            Decision::Retry { after, avoid_tried } => {
                worker.metrics.retry(&upstream.host);
                tokio::time::sleep(after).await;
                now = worker.now();
                if !avoid_tried {
                    tried.clear();
                }
            }
        }
    }
}

/// What came of one endpoint.
struct Failed {
    outcome: Outcome,
    /// `None` where another try would not help.
    why: Option<NotProcessed>,
    refusal: Refusal,
}

fn not_connected(upstream: &Upstream, error: &ConnectError) -> Failed {
    tracing::debug!(service = %upstream.service.name, message = %error.message, "endpoint not reached");
    let why = match error.kind {
        FailureKind::ConnectTimeout => NotProcessed::ConnectTimeout,
        FailureKind::Tls => NotProcessed::Tls,
        _ => NotProcessed::ConnectRefused,
    };
    let sentence = format!("no endpoint of {} could be reached", upstream.called());
    let refusal = Refusal::new(Reason::ConnectFailed, sentence);
    Failed { outcome: Outcome::GatewayFailure(error.kind), why: Some(why), refusal }
}

/// Its proxy answered: only a dead application says something about the endpoint.
fn declined(upstream: &Upstream, code: u16) -> Failed {
    let name = upstream.called();
    match Reason::from_number(code) {
        Some(Reason::AppDown) => Failed {
            outcome: Outcome::GatewayFailure(FailureKind::AppDown),
            why: Some(NotProcessed::AppDown),
            refusal: Refusal::new(Reason::AppDown, format!("the application of {name} accepts no connections")),
        },
        // A proxy of a later release may have reasons of its own.
        reason => Failed {
            outcome: Outcome::Ignored,
            why: None,
            refusal: Refusal::new(
                reason.unwrap_or(Reason::ConnectFailed),
                format!("the proxy of {name} refused: HMS-{code:04}"),
            ),
        },
    }
}
