//! The discovery stream: keeps one proxy's resources equal to what the view says it should have.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::snapshot::Scope;
use hms_model::spiffe::SpiffeId;
use hms_wire::delta::server::{Desired, Server};
use hms_wire::proto::envoy::service::discovery::v3 as discovery;
use hms_wire::proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryService;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{STALLED, identity_of, role_of, stop};
use crate::compile::Part;
use crate::live::{Live, ProxyKey, RefusedReport};
use crate::registry::{Registry, View};
use crate::tasks;

/// Requests one stream may send per second; acknowledgements follow the pace of our own responses, far below.
const REQUESTS_PER_SECOND: u32 = 500;

/// The service.
#[derive(Debug)]
pub(super) struct Aggregated {
    registry: Registry,
    live: Live,
    stopped: watch::Receiver<bool>,
}

impl Aggregated {
    pub(super) fn new(registry: Registry, live: Live, stopped: watch::Receiver<bool>) -> Self {
        Self { registry, live, stopped }
    }
}

type Answer = Result<discovery::DeltaDiscoveryResponse, Status>;

#[tonic::async_trait]
impl AggregatedDiscoveryService for Aggregated {
    type DeltaAggregatedResourcesStream = ReceiverStream<Answer>;

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<discovery::DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let identity = identity_of(&request)?;
        // One response may wait to be written; the next is made when the proxy has acknowledged it.
        let (answers, receiver) = mpsc::channel(1);
        let stream = Stream {
            identity,
            live: self.live.clone(),
            stopped: self.stopped.clone(),
            server: Server::new(),
            node: None,
            parts: Vec::new(),
            desired: Desired::default(),
            settled: false,
            answered: Answered::Whole,
            waiting_since: None,
        };
        let views = self.registry.watch();
        tasks::spawn("subscriber", stream.run(request.into_inner(), views, answers));
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}

/// How far a proxy's newest subscriptions are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    /// Nothing was sent since.
    Not,
    /// A response that has them is sent.
    UnderWay,
    /// It has everything.
    Whole,
}

/// One proxy's stream.
struct Stream {
    identity: SpiffeId,
    live: Live,
    stopped: watch::Receiver<bool>,
    server: Server,
    node: Option<(ProxyKey, u64)>,
    /// What `desired` was made of: the subscribed scopes and their contents.
    parts: Vec<(Scope, Option<Part>)>,
    desired: Desired,
    /// Whether the proxy has everything of `desired` that it would take.
    settled: bool,
    /// Whether the proxy has what it subscribed to last.
    answered: Answered,
    /// Since when a response waits for its acknowledgement.
    waiting_since: Option<Instant>,
}

impl Stream {
    async fn run(
        mut self,
        mut requests: Streaming<discovery::DeltaDiscoveryRequest>,
        mut views: watch::Receiver<Arc<View>>,
        answers: mpsc::Sender<Answer>,
    ) {
        if let Err(status) = self.converse(&mut requests, &mut views, &answers).await {
            tracing::debug!(identity = %self.identity, %status, "a discovery stream ended");
            // If the proxy does not read, it learns it by the end of the stream.
            drop(answers.try_send(Err(status)));
        }
        if let Some((node, stream)) = &self.node {
            self.live.subscriber_ended(node, *stream);
        }
    }

    async fn converse(
        &mut self,
        requests: &mut Streaming<discovery::DeltaDiscoveryRequest>,
        views: &mut watch::Receiver<Arc<View>>,
        answers: &mpsc::Sender<Answer>,
    ) -> Result<(), Status> {
        let mut pace = Pace::new(Instant::now());
        loop {
            let patience = self.waiting_since.map(|since| since + STALLED);
            tokio::select! {
                request = requests.message() => match request? {
                    Some(request) => {
                        pace.count(Instant::now())?;
                        self.on_request(request)?;
                    }
                    None => return Ok(()),
                },
                changed = views.changed() => changed.map_err(|_gone| Status::unavailable("the control plane stops"))?,
                () = until(patience) => {
                    return Err(Status::deadline_exceeded("a response was not acknowledged for 30 seconds"));
                }
                () = answers.closed() => return Ok(()),
                () = stop(&mut self.stopped) => return Err(Status::unavailable("the control plane stops")),
            }
            let view = Arc::clone(&views.borrow_and_update());
            if let Some(response) = self.respond(&view) {
                match answers.send_timeout(Ok(response), STALLED).await {
                    Ok(()) => self.waiting_since = Some(Instant::now()),
                    Err(mpsc::error::SendTimeoutError::Closed(_)) => return Ok(()),
                    Err(mpsc::error::SendTimeoutError::Timeout(_)) => {
                        return Err(Status::deadline_exceeded("nothing was read for 30 seconds"));
                    }
                }
            }
        }
    }

    fn on_request(&mut self, request: discovery::DeltaDiscoveryRequest) -> Result<(), Status> {
        let events = self.server.on_request(request).map_err(|error| Status::invalid_argument(error.to_string()))?;
        if let Some(node) = events.node {
            let key = (self.identity.clone(), node.id);
            let stream = self.live.subscriber_began(&key);
            self.node = Some((key, stream));
        }
        if events.subscribed.contains(&Scope::Gateway) && role_of(&self.identity) != Role::Gateway {
            tracing::warn!(target: "audit", identity = %self.identity, "refused a gateway's configuration");
            return Err(Status::permission_denied("HMS-4216: only a gateway may have a gateway's configuration"));
        }
        if let Some(acknowledged) = events.acknowledged {
            for refused in &acknowledged.refused {
                let (name, reason) = (&refused.name, &refused.reason);
                tracing::warn!(identity = %self.identity, %name, %reason, "a proxy refused a resource");
            }
            if self.answered == Answered::UnderWay && acknowledged.revision.is_some() {
                self.answered = Answered::Whole;
            }
            self.report();
        }
        // What it acknowledged was made before it asked for more.
        if !events.subscribed.is_empty() {
            self.answered = Answered::Not;
        }
        if let (false, Some((node, stream))) =
            (events.subscribed.is_empty() && events.unsubscribed.is_empty(), &self.node)
        {
            self.live.subscriber_wants(node, *stream, self.server.subscribed());
        }
        self.settled = false;
        Ok(())
    }

    /// The next response, if there is something to say and the proxy is ready to hear it.
    fn respond(&mut self, view: &View) -> Option<discovery::DeltaDiscoveryResponse> {
        if !self.server.is_waiting() {
            self.waiting_since = None;
        }
        let parts = parts_of(view, self.server.subscribed());
        if !same(&parts, &self.parts) {
            self.desired = view.compiled.desired(self.server.subscribed());
            self.parts = parts;
            self.settled = false;
        }
        if self.settled {
            // Nothing of what this proxy has was touched, so it has reached the view without a word.
            self.reached(view.revision.0);
            return None;
        }
        let response = self.server.respond(&self.desired, view.revision.0);
        self.settled = response.is_none() && !self.server.is_waiting() && self.node.is_some();
        if self.settled {
            self.answered = Answered::Whole;
            self.report();
        } else if response.is_some() && self.answered == Answered::Not {
            self.answered = Answered::UnderWay;
        }
        response
    }

    /// Tells what the proxy has reached by its acknowledgements.
    fn report(&self) {
        if let Some((node, stream)) = &self.node {
            let report = |refused: &hms_wire::proto::hms::v1::RefusedResource| RefusedReport {
                name: refused.name.clone(),
                reason: refused.reason.clone(),
            };
            let refused = self.server.refused().map(report).collect();
            let reached = self.server.revision().filter(|_| self.answered == Answered::Whole);
            self.live.subscriber_reached(node, *stream, reached, Some(refused));
        }
    }

    fn reached(&self, revision: u64) {
        if let Some((node, stream)) = &self.node {
            self.live.subscriber_reached(node, *stream, Some(revision), None);
        }
    }
}

/// Counts the requests of a stream per second, so that no proxy makes the control plane work for it alone.
struct Pace {
    second: Instant,
    requests: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { second: now, requests: 0 }
    }

    fn count(&mut self, now: Instant) -> Result<(), Status> {
        if now.saturating_duration_since(self.second) >= Duration::from_secs(1) {
            *self = Self::new(now);
        }
        self.requests += 1;
        if self.requests > REQUESTS_PER_SECOND {
            return Err(Status::resource_exhausted(format!("more than {REQUESTS_PER_SECOND} requests in a second")));
        }
        Ok(())
    }
}

fn parts_of(view: &View, scopes: &BTreeSet<Scope>) -> Vec<(Scope, Option<Part>)> {
    scopes.iter().map(|scope| (scope.clone(), view.compiled.scope(scope).cloned())).collect()
}

/// Whether these are the same scopes with the same contents; contents are shared, so their addresses tell.
fn same(left: &[(Scope, Option<Part>)], right: &[(Scope, Option<Part>)]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(left, right)| {
            left.0 == right.0
                && match (&left.1, &right.1) {
                    (Some(left), Some(right)) => Arc::ptr_eq(left, right),
                    (None, None) => true,
                    _ => false,
                }
        })
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
