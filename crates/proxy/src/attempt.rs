//! Sending a request to one of a service's endpoints, and again while that helps (rulings R1 to R3).

use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use hms_model::http_route::TimeoutOverlay;
use hms_model::message::RequestHead;
use hms_model::policy::{Retry, Timeouts};
use hms_model::workload::{Health, Transport};
use hms_traffic::balance::{self, Candidate};
use hms_traffic::breaker::ServiceBreaker;
use hms_traffic::clock::Moment;
use hms_traffic::deadline;
use hms_traffic::grpc;
use hms_traffic::outlier::{Admission, FailureKind, Outcome, Phase, Transition};
use hms_traffic::retry::{self, Attempted, Decision, Failure, Next, NotProcessed};
use http::{HeaderName, HeaderValue};

use crate::body::{Body, Patience, Replayable, Source, Waits, answer_within};
use crate::endpoint::{self, Outgoing, Sent};
use crate::filters::forwarded::{ATTEMPT, EXPECTED};
use crate::local_app::{body_idle, incomplete};
use crate::pipeline::affinity::{self, Wish};
use crate::pipeline::shed;
use crate::pipeline::split::Pick;
use crate::refusal::{ERROR_HEADER, Reason, Refusal};
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::telemetry::decisions::{Ended, Try};
use crate::telemetry::record::Exchange;
use crate::transport::waiting::InVain;
use crate::transport::{Edits, Processed, Protocol, Response, grpc_status};
use crate::worker::Worker;

/// A caller that names its operation: doing it twice is doing it once (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// How long a call may take, by its caller (gRPC over HTTP/2).
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// A caller that gives up sooner has not given an endpoint the time to fail.
const FAIR: Duration = Duration::from_secs(1);

/// What one try came to.
enum Tried {
    /// An answer, and how the next decision sees it.
    Answered(Response, Option<Failure>),
    /// No answer.
    Failed(Failure, String),
    /// Not tried, or not the endpoint's doing.
    Refused(Refusal),
}

impl Tried {
    /// What may be a reason to try again.
    fn failure(&self) -> Option<Failure> {
        match self {
            Self::Answered(_, failure) => *failure,
            Self::Failed(failure, _) => Some(*failure),
            Self::Refused(_) => Some(Failure::Shed),
        }
    }

    /// The same for whoever asks later. The request's head came first, then the try began and ended.
    fn told(
        &self,
        endpoint: &UpstreamEndpoint,
        (head, begun, ended): (Moment, Moment, Moment),
        of: (usize, usize),
    ) -> Try {
        let few = |number: usize| u16::try_from(number).unwrap_or(u16::MAX);
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
        Try {
            endpoint: endpoint.cells.key,
            ended: match self {
                Self::Answered(response, _) => Ended::Answered(response.head.status.as_u16()),
                Self::Failed(Failure::Timeout, _) => Ended::TimedOut,
                Self::Failed(Failure::NotProcessed(_), _) => Ended::NotConnected,
                Self::Failed(..) => Ended::Reset,
                Self::Refused(_) => Ended::Refused,
            },
            after: micros(begun.saturating_since(head)),
            took: micros(ended.saturating_since(begun)),
            candidates: few(of.0),
            endpoints: few(of.1),
        }
    }
}

/// A request to a service.
#[derive(Debug)]
pub struct Call<'a> {
    /// Its head as it came.
    pub head: &'a RequestHead,
    /// Its body.
    pub body: Body,
    /// What this hop changes.
    pub edits: Edits,
    /// What it came by.
    pub protocol: Protocol,
    /// The port of the service that is asked for; 0 is the first.
    pub port: u16,
    /// What its route says of time and retries.
    pub terms: Terms<'a>,
    /// Which endpoints it may go to.
    pub pick: Pick<'a>,
}

/// What a route says that differs from the service's own policy.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// Trying again.
    pub retry: Option<&'a Retry>,
    /// Bounds in time.
    pub timeouts: TimeoutOverlay,
}

/// Sends a request to `upstream`.
pub async fn run(
    worker: &Rc<Worker>,
    upstream: &Arc<Upstream>,
    call: Call<'_>,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Call { head, body, mut edits, protocol, port, terms, pick } = call;
    exchange.service = Some(Arc::clone(&upstream.host));
    let policy = &upstream.service.policy;
    let Timeouts { request, attempt, idle, .. } = terms.timeouts.over(policy.timeouts);
    let retrying = terms.retry.unwrap_or(&policy.retry);
    let permit = upstream.cells.concurrency.try_acquire(policy.limits.requests).ok_or_else(|| overloaded(upstream))?;
    exchange.hold(permit);
    let begun = exchange.begun();
    exchange.until(caller_deadline(head, begun)?);
    let inherited = inherited_deadline(worker, exchange)?;
    let own = request.map(|timeout| begun.plus(timeout));
    let deadline = earlier(own, inherited);
    let is_inherited = inherited.is_some() && deadline == inherited;
    upstream.cells.budget.record_request(begun);
    // What an outsider says of itself was struck from the head by an edit.
    let is_retry = !edits.hides(ATTEMPT.as_str().as_bytes()) && head.fields.first(&ATTEMPT).is_some();
    let body = Replayable::new(body.idle_limit(body_idle(head, idle)));
    let wish = Wish::of(worker, upstream, head, exchange.peer);
    let mut tried: Vec<usize> = Vec::new();
    // The first try begins with the request; to look at the clock once is enough.
    let mut now = begun;
    loop {
        let chosen = choose(worker, upstream, (pick, wish), &tried, now);
        let chosen = chosen.and_then(|index| upstream.endpoints.get(index).map(|endpoint| (index, endpoint)));
        let Some((index, endpoint)) = chosen else { return Err(refuse(upstream, pick, worker.now())) };
        let candidates = (worker.candidates.borrow().len(), upstream.endpoints.len());
        exchange.attempts += 1;
        if exchange.attempts > 1 {
            worker.metrics.retry(&upstream.host);
            edits.set(ATTEMPT, HeaderValue::from(exchange.attempts));
        }
        describe(exchange, endpoint);
        let patience = patience(attempt, (deadline, exchange.deadline()), now);
        tell(head, endpoint, patience, exchange.deadline().map(|called| called.saturating_since(now)), &mut edits);
        let outgoing = Outgoing { head, edits: &edits, body: &body, downstream: protocol, port };
        let sending = pin!(endpoint::send(worker, upstream, endpoint, outgoing));
        let called = earlier(exchange.deadline(), deadline.filter(|_| is_inherited));
        let time = Time { begun: now, patience, called };
        let (outcome, ended) = once(worker, upstream, endpoint, sending, &body, &time).await;
        exchange.tried(outcome.told(endpoint, (begun, now, ended), candidates));
        let Some(failure) = outcome.failure() else {
            return answer(outcome, upstream, idle).map(|answer| wish.remember(worker, upstream, index, answer));
        };
        tried.push(index);
        let attempted = Attempted {
            method: &head.method,
            tries: exchange.attempts,
            failure,
            body: if body.can_replay() { retry::Body::Kept } else { retry::Body::Gone },
            next: if has_other(worker, upstream, pick, &tried) { Next::Other } else { Next::Same },
            deadline: earlier(deadline, exchange.deadline()),
            usual: endpoint.cells.latency.value(ended),
            idempotency_key: head.fields.first(&IDEMPOTENCY_KEY).is_some(),
            is_retry,
        };
        match decide(worker, upstream, &attempted, retrying) {
            Decision::Stop(_) => return answer(outcome, upstream, idle),
            Decision::Retry { .. } if is_open(worker, upstream) => return answer(outcome, upstream, idle),
            Decision::Retry { after, avoid_tried } => {
                rescued(worker, upstream, endpoint, failure);
                drop(outcome);
                tokio::time::sleep(after).await;
                now = worker.now();
                if !avoid_tried {
                    tried.clear();
                }
            }
        }
    }
}

fn decide(worker: &Worker, upstream: &Upstream, attempted: &Attempted<'_>, retrying: &Retry) -> Decision {
    let mut dice = worker.dice.borrow_mut();
    retry::decide(attempted, retrying, &upstream.cells.budget, worker.now(), &mut dice)
}

/// Counts a try that another one follows, unless the endpoint had no part in its failure.
fn rescued(worker: &Worker, upstream: &Upstream, endpoint: &UpstreamEndpoint, failure: Failure) {
    if failure != Failure::Shed {
        worker.metrics.rescue(&upstream.host, &endpoint.endpoint.version);
    }
}

/// When the caller of a gRPC call gives up.
fn caller_deadline(head: &RequestHead, begun: Moment) -> Result<Option<Moment>, Refusal> {
    if !head.is_grpc() {
        return Ok(None);
    }
    let Some(value) = head.fields.first(&GRPC_TIMEOUT) else { return Ok(None) };
    let timeout = grpc::read_timeout(value).map_err(|why| Refusal::new(Reason::GrpcTimeout, why.to_string()))?;
    Ok(Some(begun.plus(timeout)))
}

/// When the request must be answered that our application makes this call for, as far as that is known.
fn inherited_deadline(worker: &Worker, exchange: &Exchange<'_>) -> Result<Option<Moment>, Refusal> {
    let inherited = worker.shared.app.deadlines().until(exchange.trace_key());
    if inherited.is_some_and(|inherited| inherited <= exchange.begun()) {
        return Err(Refusal::new(Reason::Deadline, "the caller of the request that this call is for has given up"));
    }
    Ok(inherited)
}

fn earlier(one: Option<Moment>, other: Option<Moment>) -> Option<Moment> {
    [one, other].into_iter().flatten().min()
}

/// How long a try may take: as long as one may, and until a deadline.
fn patience(attempt: Option<Duration>, (deadline, called): (Option<Moment>, Option<Moment>), now: Moment) -> Patience {
    let left = |deadline: Option<Moment>| deadline.map(|deadline| deadline.saturating_since(now));
    let answer = [attempt, left(deadline)].into_iter().flatten().min();
    match left(called) {
        // A gRPC caller counts from its first byte, however long it goes on sending.
        Some(all) => Patience { answer: None, all: Some(answer.map_or(all, |answer| answer.min(all))) },
        None => Patience { answer, all: None },
    }
}

/// Tells the next hop what is left: every gRPC service in gRPC's words, and a proxy of the mesh, nobody else, in Envoy's.
fn tell(
    head: &RequestHead,
    endpoint: &UpstreamEndpoint,
    patience: Patience,
    called: Option<Duration>,
    edits: &mut Edits,
) {
    if let Some(left) = called {
        edits.set_line(&GRPC_TIMEOUT, grpc::write_timeout(left).as_bytes());
    }
    let left = [patience.answer, patience.all].into_iter().flatten().min();
    match (left, &endpoint.endpoint.transport) {
        (Some(left), Transport::Mesh(_)) => edits.set_line(&EXPECTED, deadline::write(left).as_bytes()),
        // Of an earlier try, or handed on by an application that was told itself.
        _ if edits.hides(EXPECTED.as_str().as_bytes()) || head.fields.first(&EXPECTED).is_some() => {
            edits.remove(EXPECTED);
        }
        _ => {}
    }
}

/// When a try began, and how long it may take.
#[derive(Clone, Copy)]
struct Time {
    begun: Moment,
    patience: Patience,
    /// When its caller gives up.
    called: Option<Moment>,
}

/// Waits for one try, tells the endpoint's cells what became of it.
async fn once(
    worker: &Rc<Worker>,
    upstream: &Arc<Upstream>,
    endpoint: &Arc<UpstreamEndpoint>,
    sending: Pin<&mut impl Future<Output = Sent>>,
    body: &Replayable,
    time: &Time,
) -> (Tried, Moment) {
    let Time { begun, patience, called } = *time;
    let sent = answer_within(patience, body, sending, || {}).await.unwrap_or(Sent::TimedOut);
    let now = worker.now();
    // What we gave its proxy was a little less than we had.
    let (sent, is_over) = if is_deadline(&sent, endpoint) { (Sent::TimedOut, true) } else { (sent, false) };
    // So much time an endpoint must have had, or that it did not answer says nothing about it.
    let fair = FAIR.max(endpoint.cells.latency.value(begun).saturating_mul(4));
    let hurried = called.is_some_and(|called| called.saturating_since(begun) < fair && (is_over || now >= called));
    let (outcome, tried) = match (body.source(), sent) {
        // It was not even asked.
        (_, Sent::TimedOut) if body.waits().get() == Waits::Now => {
            (Outcome::Ignored, Tried::Refused(endpoint::in_vain(worker, upstream, InVain::Late)))
        }
        // So little time says nothing about the endpoint.
        (_, Sent::TimedOut) if hurried => {
            let sentence = format!("{} did not answer before the caller's deadline", upstream.service.name);
            (Outcome::Ignored, Tried::Refused(Refusal::new(Reason::Deadline, sentence)))
        }
        // The caller broke off; that says nothing about the endpoint.
        (source @ (Source::Broken | Source::Malformed), Sent::Broken(_) | Sent::TimedOut) => {
            (Outcome::Ignored, Tried::Refused(incomplete(source)))
        }
        (_, sent) => judge(sent, endpoint, upstream.beyond.is_some()),
    };
    // Time in the line is not the endpoint's.
    if matches!(outcome, Outcome::Success | Outcome::AppError5xx) && body.waits().get() == Waits::Never {
        endpoint.cells.latency.observe(now.saturating_since(begun), now);
    }
    note(worker, upstream, endpoint, outcome, now);
    (tried, now)
}

/// Whether the proxy of an endpoint says that our own time is over.
fn is_deadline(sent: &Sent, endpoint: &UpstreamEndpoint) -> bool {
    let Sent::Answered(response) = sent else { return false };
    let code = response.head.fields.first(&ERROR_HEADER).and_then(Reason::from_code);
    code == Some(Reason::Deadline) && endpoint.endpoint.transport != Transport::Plain
}

/// Tells an endpoint's cells what became of a try, and whoever watches breakers if that changes one.
pub(crate) fn note(worker: &Worker, upstream: &Upstream, endpoint: &UpstreamEndpoint, outcome: Outcome, now: Moment) {
    let transition = {
        let mut dice = worker.dice.borrow_mut();
        endpoint.cells.health.observe(outcome, now, &upstream.service.policy.outlier, &mut dice)
    };
    if outcome == Outcome::Ignored {
        // If this was the probe, the next one to ask gets it.
        endpoint.cells.health.abandon(now);
    }
    if let Some(transition) = transition {
        if transition == Transition::Restored {
            endpoint.cells.since.begin(now);
        }
        tracing::info!(service = %upstream.service.name, endpoint = %endpoint.endpoint.id, ?transition, "endpoint changed");
        let _told = worker.shared.breakers.try_send(upstream.service.name.clone()).is_ok();
    }
}

/// What a try says about the endpoint, and about trying again.
fn judge(sent: Sent, endpoint: &UpstreamEndpoint, is_beyond: bool) -> (Outcome, Tried) {
    match sent {
        Sent::TimedOut => {
            let failed = Tried::Failed(Failure::Timeout, format!("{} did not answer in time", endpoint.address));
            (Outcome::GatewayFailure(FailureKind::Timeout), failed)
        }
        Sent::NotConnected(error) => {
            let not_processed = match error.kind {
                FailureKind::ConnectTimeout => NotProcessed::ConnectTimeout,
                FailureKind::Tls => NotProcessed::Tls,
                _ => NotProcessed::ConnectRefused,
            };
            (Outcome::GatewayFailure(error.kind), Tried::Failed(Failure::NotProcessed(not_processed), error.message))
        }
        Sent::Broken(error) => {
            let failure = match error.processed {
                Processed::No => Failure::NotProcessed(NotProcessed::RefusedStream),
                Processed::Maybe => Failure::Reset,
            };
            (Outcome::GatewayFailure(FailureKind::Reset), Tried::Failed(failure, error.message))
        }
        Sent::Refused(refusal) => (Outcome::Ignored, Tried::Refused(refusal)),
        // An egress gateway has tried what there was to try; whatever it brings back says nothing about the gateway.
        Sent::Answered(response) if is_beyond => (Outcome::Success, Tried::Answered(response, None)),
        Sent::Answered(response) => judge_answer(response, endpoint),
    }
}

fn judge_answer(mut response: Response, endpoint: &UpstreamEndpoint) -> (Outcome, Tried) {
    if endpoint.endpoint.transport == Transport::Plain {
        // Only a proxy may speak in the mesh's name.
        response.head.fields.remove(&ERROR_HEADER);
    }
    let is_shed = shed::is_marked(&mut response, endpoint);
    let code = response.head.fields.first(&ERROR_HEADER).and_then(Reason::from_code);
    let status = response.head.status;
    match code {
        Some(Reason::AppDown) => {
            let failure = Failure::NotProcessed(NotProcessed::AppDown);
            (Outcome::GatewayFailure(FailureKind::AppDown), Tried::Answered(response, Some(failure)))
        }
        // Any other answer that a proxy made says nothing about the endpoint, and asking again would not change it.
        Some(Reason::UpstreamReset) => {
            (Outcome::GatewayFailure(FailureKind::BadGateway502), Tried::Answered(response, Some(Failure::Reset)))
        }
        Some(Reason::Timeout) => {
            (Outcome::GatewayFailure(FailureKind::GatewayTimeout504), Tried::Answered(response, Some(Failure::Timeout)))
        }
        Some(_) => (Outcome::Ignored, Tried::Answered(response, None)),
        // An open breaker further on made it.
        None if is_shed => (Outcome::Ignored, Tried::Answered(response, Some(Failure::Shed))),
        None if status.is_server_error() => {
            let failure = Some(Failure::Status(status));
            (Outcome::of_status(status), Tried::Answered(response, failure))
        }
        None => match grpc_status(&response.head.fields).filter(|code| *code != 0).map(u32::from) {
            Some(code) => {
                let failure = Some(Failure::GrpcStatus(code));
                (Outcome::of_grpc_status(code), Tried::Answered(response, failure))
            }
            None => (Outcome::Success, Tried::Answered(response, None)),
        },
    }
}

/// What the caller gets: the last answer there was, or our own words for there being none.
fn answer(outcome: Tried, upstream: &Upstream, idle: Duration) -> Result<Response, Refusal> {
    match outcome {
        Tried::Answered(response, _) => Ok(Response { head: response.head, body: response.body.idle_limit(idle) }),
        Tried::Refused(refusal) => Err(refusal),
        Tried::Failed(failure, message) => {
            tracing::debug!(service = %upstream.service.name, %message, "request failed");
            let name = upstream.called();
            Err(match failure {
                // Whom to trust outside is the operator's to mend, so it is said what was wrong.
                Failure::NotProcessed(NotProcessed::Tls) if upstream.origin.is_some() => {
                    Refusal::new(Reason::ConnectFailed, format!("{}: {message}", upstream.host))
                }
                Failure::Timeout => Refusal::new(Reason::Timeout, format!("{name} did not answer in time")),
                Failure::NotProcessed(_) => {
                    Refusal::new(Reason::ConnectFailed, format!("no endpoint of {name} could be reached"))
                }
                _ => Refusal::new(Reason::UpstreamReset, format!("the connection to {name} broke before an answer")),
            })
        }
    }
}

/// An endpoint that may be tried: of the version that was meant one not tried yet, else one of another that has a share, else any;
/// an ejected one only as its due probe.
pub(crate) fn choose(
    worker: &Worker,
    upstream: &Upstream,
    (pick, wish): (Pick<'_>, Wish),
    tried: &[usize],
    now: Moment,
) -> Option<usize> {
    if let Some(spread) = &upstream.spread
        && let Some(index) = affinity::choose(worker, upstream, (spread, pick, wish), tried, now)
    {
        return Some(index);
    }
    let mut dice = worker.dice.borrow_mut();
    let mut list = worker.candidates.borrow_mut();
    let mut choose = |among: &dyn Fn(&UpstreamEndpoint) -> bool, tried: &[usize]| {
        list.clear();
        list.extend(candidates(upstream, now, among, tried));
        balance::choose(&upstream.service.policy.balance.algorithm, &list, &upstream.cells.rotor, &mut dice)
    };
    let (meant, others) = (|own: &_| pick.is_meant(own), |own: &_| pick.may_stand_in(upstream, own));
    let fresh = choose(&meant, tried).or_else(|| choose(&others, tried)).or_else(|| choose(&others, &[]));
    if let Some(index) = fresh {
        return Some(index);
    }
    drop(dice);
    upstream.endpoints.iter().position(|endpoint| {
        pick.may_stand_in(upstream, endpoint)
            && endpoint.endpoint.health == Health::Healthy
            && endpoint.cells.health.force_probe_due(now)
            && endpoint.cells.health.admit(now) == Admission::Probe
    })
}

/// Those that can be called now of the endpoints this proxy uses `among` these, but for those `tried`.
pub(crate) fn candidates<'a>(
    upstream: &'a Upstream,
    now: Moment,
    among: &'a dyn Fn(&UpstreamEndpoint) -> bool,
    tried: &'a [usize],
) -> impl Iterator<Item = Candidate> + 'a {
    let usable = move |endpoint: &UpstreamEndpoint| {
        endpoint.endpoint.health == Health::Healthy
            && endpoint.cells.health.phase(now) == Phase::Closed
            && among(endpoint)
    };
    let subset = upstream.subset(usable);
    subset.filter(move |(index, _)| !tried.contains(index)).map(move |(index, endpoint)| Candidate {
        index,
        in_flight: endpoint.cells.in_flight.load(Relaxed),
        latency: endpoint.cells.latency.value(now),
    })
}

pub(crate) fn has_other(worker: &Worker, upstream: &Upstream, pick: Pick<'_>, tried: &[usize]) -> bool {
    let among = |own: &UpstreamEndpoint| pick.may_stand_in(upstream, own);
    candidates(upstream, worker.now(), &among, tried).next().is_some()
}

pub(crate) fn is_open(worker: &Worker, upstream: &Upstream) -> bool {
    upstream.breaker(worker.now()) != ServiceBreaker::Closed
}

fn describe(exchange: &mut Exchange<'_>, endpoint: &Arc<UpstreamEndpoint>) {
    exchange.destination = Some(Arc::clone(&endpoint.party));
    exchange.mutual_tls = matches!(endpoint.endpoint.transport, Transport::Mesh(_));
    exchange.peer = endpoint.address;
    exchange.on(endpoint.begin());
}

fn overloaded(upstream: &Upstream) -> Refusal {
    let limit = upstream.service.policy.limits.requests;
    let detail = format!("limits.requests of {} is reached: {limit} are under way", upstream.called());
    Refusal::new(Reason::Overloaded, detail).after(Duration::from_secs(1))
}

/// The refusal of a service without a usable endpoint among those that may be called.
pub(crate) fn refuse(upstream: &Upstream, pick: Pick<'_>, now: Moment) -> Refusal {
    let name = upstream.called();
    let endpoints: Vec<&UpstreamEndpoint> =
        upstream.endpoints.iter().map(Arc::as_ref).filter(|own| pick.may_stand_in(upstream, own)).collect();
    if endpoints.is_empty() {
        let sentence = if upstream.endpoints.is_empty() {
            format!("{name} has no endpoint yet")
        } else {
            format!("{name} has no endpoint of a version that has a share of its calls; hms shift {name} shows them")
        };
        return Refusal::new(Reason::NoEndpoint, sentence).after(Duration::from_secs(1));
    }
    let reasons: Vec<String> = endpoints.iter().map(|own| endpoint::why_unusable(own, now)).collect();
    let until = endpoints.iter().filter_map(|endpoint| match endpoint.cells.health.phase(now) {
        Phase::Open { until } => Some(until),
        Phase::Closed | Phase::HalfOpen => None,
    });
    let wait = until.min().map_or(Duration::from_secs(1), |until| until.saturating_since(now));
    let detail = format!("the breaker of {name} is OPEN: {}", reasons.join(", "));
    Refusal::new(Reason::BreakerOpen, detail).after(wait)
}
