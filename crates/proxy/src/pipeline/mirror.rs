//! Copies of requests: sent when the request's body has passed, answered to nobody, dropped before anything else is.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use hms_model::http_route::{Mirror, TimeoutOverlay};
use hms_model::listener::Direction;
use hms_model::message::RequestHead;
use hms_model::policy::Retry;
use hms_traffic::http_route::act;

use super::split::Pick;
use super::{details, named_port};
use crate::attempt::{self, Call, Terms};
use crate::body::{Body, NotCopied};
use crate::telemetry::metrics::NotSent;
use crate::telemetry::record::Exchange;
use crate::transport::{Delivered, Edits, Outcome, Protocol};
use crate::worker::Worker;

/// How long a copy may take, its answer included.
const PATIENCE: Duration = Duration::from_secs(30);
/// Copies under way on one data thread; more are dropped.
const UNDER_WAY: usize = 64;

/// How many copies are under way.
#[derive(Debug, Default)]
pub struct Mirrors(Rc<Cell<usize>>);

/// A copy's place among those under way.
struct Place(Rc<Cell<usize>>);

impl Mirrors {
    fn place(&self) -> Option<Place> {
        if self.0.get() >= UNDER_WAY {
            return None;
        }
        self.0.set(self.0.get() + 1);
        Some(Place(Rc::clone(&self.0)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// A copy that is to be sent.
struct Copy {
    worker: Rc<Worker>,
    mirror: Mirror,
    head: RequestHead,
    edits: Edits,
    _place: Place,
}

/// The same body, which sends copies of the request once it has passed. A body that is too large to be kept is not copied, nor one
/// that turns into something else.
pub(super) fn copies(
    worker: &Rc<Worker>,
    mirrors: &[Mirror],
    head: &RequestHead,
    edits: &Edits,
    mut body: Body,
) -> Body {
    if mirrors.is_empty() || body.offered().is_some() || worker.shared.overload.is_shedding() {
        return body;
    }
    for mirror in mirrors {
        if !act::rolls(mirror.portion, &mut worker.dice.borrow_mut()) {
            continue;
        }
        let Some(place) = worker.mirrors.place() else {
            worker.metrics.mirror_dropped(NotSent::TooMany);
            continue;
        };
        let copy = Copy {
            worker: Rc::clone(worker),
            mirror: mirror.clone(),
            head: head.clone(),
            edits: edits.clone(),
            _place: place,
        };
        body = body.copied(Box::new(move |copied| match copied {
            Ok(bytes) => drop(tokio::task::spawn_local(bounded(copy, bytes))),
            Err(NotCopied::TooLarge) => copy.worker.metrics.mirror_dropped(NotSent::TooLarge),
            Err(NotCopied::Broken) => copy.worker.metrics.mirror_dropped(NotSent::Broken),
        }));
    }
    body
}

/// Sends one copy; an answer that goes on and on would keep its place from others.
async fn bounded(copy: Copy, body: Bytes) {
    let worker = Rc::clone(&copy.worker);
    if tokio::time::timeout(PATIENCE, send(copy, body)).await.is_err() {
        worker.metrics.mirror_dropped(NotSent::Late);
    }
}

/// Sends one copy, once, and reads its answer to nowhere.
async fn send(copy: Copy, body: Bytes) {
    let Copy { worker, mirror, head, edits, .. } = &copy;
    let runtime = worker.shared.current.load();
    let party = worker.own_party();
    let nowhere = std::net::SocketAddr::from(([0, 0, 0, 0], 0));
    let mut exchange = Exchange::begin(worker, Direction::Outbound, &party, nowhere, Some(head), 0);
    let Ok(upstream) = details(worker, &runtime, &mirror.share.service).await else {
        worker.metrics.mirror_dropped(NotSent::Unknown);
        return;
    };
    let never = Retry { retries: 0, ..Retry::default() };
    let shares = [mirror.share.clone()];
    let call = Call {
        head,
        body: Body::full(body),
        edits: edits.clone(),
        protocol: Protocol::Http1,
        port: named_port(&upstream, mirror.port.unwrap_or_default()),
        terms: Terms { retry: Some(&never), timeouts: TimeoutOverlay::default() },
        pick: Pick::of(&mirror.share, &shares),
    };
    let delivered = match attempt::run(worker, &upstream, call, &mut exchange).await {
        Ok(mut response) => {
            exchange.answered(&mut response.head);
            let mut bytes = 0;
            let mut outcome = Outcome::Complete;
            while let Some(frame) = response.body.frame().await {
                match frame {
                    Ok(crate::body::Frame::Data(data)) => bytes += u64::try_from(data.len()).unwrap_or_default(),
                    Ok(crate::body::Frame::Trailers(_)) => {}
                    Err(error) => {
                        outcome = Outcome::UpstreamBroke(error);
                        break;
                    }
                }
            }
            Delivered { bytes, grpc_status: None, outcome }
        }
        Err(refusal) => {
            exchange.reason = Some(refusal.reason);
            let mut response = refusal.into_response(exchange.trace_id().as_str(), exchange.is_grpc());
            exchange.answered(&mut response.head);
            Delivered { bytes: 0, grpc_status: None, outcome: Outcome::Complete }
        }
    };
    exchange.delivered(&delivered);
}
