//! One request's story, told once at its end: series, log line and tap event from the same facts.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_model::message::{Fields, RequestHead, ResponseHead};
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::limits::Permit;
use hms_wire::proto::hms::v1::TapEvent;

use super::access_log::Entry;
use super::decisions::{Decision, TRIES, Try, direction_word};
use super::metrics::{Party, Series};
use super::time::Text;
use super::trace::{TRACE_ID, TRACEPARENT, TraceContext, TraceId};
use crate::refusal::Reason;
use crate::runtime::upstream::InFlight;
use crate::transport::{Delivered, Edits, Outcome, grpc_status};
use crate::worker::Worker;

/// What is known of a request so far.
pub struct Exchange<'a> {
    worker: &'a Rc<Worker>,
    head: Option<&'a RequestHead>,
    begun: Moment,
    time: SystemTime,
    /// Its place in its trace, as text.
    traceparent: Text<55>,
    trace_id: TraceId,
    trace_key: u64,
    /// Which way it runs.
    direction: Direction,
    /// Who called.
    source: &'a Arc<Party>,
    /// Who was called in the end.
    pub(crate) destination: Option<Arc<Party>>,
    /// The service asked for.
    pub(crate) service: Option<Arc<str>>,
    /// The rule it matched: `GET /sum/{a}/{b}`.
    pub(crate) rule: Option<Arc<str>>,
    /// Address of the other end.
    pub(crate) peer: SocketAddr,
    /// Whether the mesh side was mutually authenticated.
    pub(crate) mutual_tls: bool,
    /// Tries made.
    pub(crate) attempts: u32,
    /// Why the mesh answered, if it did.
    pub(crate) reason: Option<Reason>,
    status: u16,
    grpc: Option<GrpcStatus>,
    /// When the caller gives up.
    deadline: Option<Moment>,
    bytes: u64,
    tries: [Option<Try>; TRIES],
    permit: Option<Permit>,
    in_flight: Option<InFlight>,
    told: Told,
}

/// The `grpc-status` of a gRPC call, once there is one.
type GrpcStatus = Option<u8>;

/// Whether the story was told.
#[derive(PartialEq, Eq)]
enum Told {
    Yes,
    No,
}

impl std::fmt::Debug for Exchange<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("service", &self.service).field("status", &self.status).finish_non_exhaustive()
    }
}

impl<'a> Exchange<'a> {
    /// Begins with what the connection tells.
    pub fn begin(
        worker: &'a Rc<Worker>,
        direction: Direction,
        source: &'a Arc<Party>,
        peer: SocketAddr,
        head: Option<&'a RequestHead>,
        sample_per_million: u32,
    ) -> Self {
        let trace = trace(head, sample_per_million, &mut worker.dice.borrow_mut());
        Self {
            worker,
            head,
            begun: worker.now(),
            time: worker.shared.now(),
            traceparent: trace.traceparent(),
            trace_id: trace.trace_id(),
            trace_key: trace.key(),
            direction,
            source,
            destination: None,
            service: None,
            rule: None,
            peer,
            mutual_tls: false,
            attempts: 0,
            reason: None,
            status: 0,
            grpc: head.filter(|head| head.is_grpc()).map(|_| None),
            deadline: None,
            bytes: 0,
            tries: [None; TRIES],
            permit: None,
            in_flight: None,
            told: Told::No,
        }
    }

    /// The trace it belongs to.
    pub fn trace_id(&self) -> TraceId {
        self.trace_id
    }

    /// What stands for it among the deadlines.
    pub fn trace_key(&self) -> u64 {
        self.trace_key
    }

    /// When its head was here.
    pub fn begun(&self) -> Moment {
        self.begun
    }

    /// Whether the caller speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    /// Notes when the caller gives up.
    pub fn until(&mut self, deadline: Option<Moment>) {
        self.deadline = deadline;
    }

    /// When the caller gives up, as far as that is known.
    pub fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    /// How long the caller will still wait.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.saturating_since(self.worker.now()))
    }

    /// Notes how one more try went; of more than [`TRIES`] the last takes the place of the one before.
    pub fn tried(&mut self, own: Try) {
        let place = self.tries.iter().position(Option::is_none).unwrap_or(TRIES - 1);
        if let Some(place) = self.tries.get_mut(place) {
            *place = Some(own);
        }
    }

    /// Holds a place among the service's requests until the end.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Counts as under way to an endpoint until the end, or until the next try.
    pub fn on(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// Gives the trace to the next hop.
    pub fn pass_trace(&self, edits: &mut Edits) {
        edits.set_line(&TRACEPARENT, self.traceparent.as_bytes());
        edits.set_line(&TRACE_ID, self.trace_id.as_bytes());
    }

    /// Notes the response's head, and tells the caller the trace.
    pub fn answered(&mut self, head: &mut ResponseHead) {
        head.fields.set_line(&TRACEPARENT, self.traceparent.as_bytes());
        head.fields.set_line(&TRACE_ID, self.trace_id.as_bytes());
        self.status = head.status.as_u16();
        if let Some(status) = &mut self.grpc {
            *status = grpc_status(&head.fields);
        }
    }

    /// Tells the story, now that the response went out or broke off.
    pub fn delivered(mut self, delivered: &Delivered) {
        self.bytes = delivered.bytes;
        if let Some(status) = &mut self.grpc {
            *status = delivered.grpc_status.or(*status);
        }
        let flag = match (self.reason, &delivered.outcome) {
            (Some(reason), _) => reason.flag(),
            (None, Outcome::Complete) => "-",
            (None, Outcome::UpstreamBroke(_)) => "UC",
            (None, Outcome::DownstreamGone) => "DC",
        };
        self.tell(flag);
    }

    /// How long it has taken so far.
    fn duration(&self) -> Duration {
        self.worker.now().saturating_since(self.begun)
    }

    /// Counts, logs and shows; the second and later calls do nothing.
    fn tell(&mut self, flag: &'static str) {
        if std::mem::replace(&mut self.told, Told::Yes) == Told::Yes {
            return;
        }
        self.permit = None;
        self.in_flight = None;
        let duration = self.duration();
        let series = Series {
            direction: self.direction,
            source: self.source,
            destination: self.destination.as_ref(),
            service: self.service.as_ref(),
            status: self.status,
            flag,
            protocol: if self.grpc.is_some() { "grpc" } else { "http" },
            grpc_status: self.grpc.flatten(),
            mutual_tls: self.mutual_tls,
        };
        self.worker.metrics.request(&series, duration);
        self.remember(duration);
        let Some(head) = self.head else { return };
        if self.worker.shared.access_log.is_on() {
            self.log(head, duration, flag);
        }
        if self.worker.shared.tap.is_watched() {
            self.show(head, duration);
        }
    }

    fn remember(&self, duration: Duration) {
        self.worker.decisions.remember(Decision {
            time: self.time,
            trace_id: self.trace_id,
            direction: self.direction,
            source: Arc::clone(self.source),
            destination: self.destination.clone(),
            service: self.service.clone(),
            rule: self.rule.clone(),
            status: self.status,
            reason: self.reason,
            mutual_tls: self.mutual_tls,
            attempts: self.attempts,
            duration,
            tries: self.tries,
        });
    }

    /// The service as people write it: `calc-svc`, or `calc-svc.NAMESPACE` outside `default`.
    fn destination_name(&self) -> &str {
        let service = self.service.as_deref().unwrap_or("unknown");
        service.strip_suffix(".mesh").unwrap_or(service)
    }

    fn log(&self, head: &RequestHead, duration: Duration, flags: &'static str) {
        self.worker.log.write(&Entry {
            time: self.time,
            direction: direction_word(self.direction),
            source: &self.source.workload,
            destination: self.destination_name(),
            method: head.method.as_str(),
            authority: &head.authority,
            path: head.path.as_str(),
            status: self.status,
            duration,
            bytes: self.bytes,
            attempts: self.attempts,
            mtls: self.mutual_tls,
            trace_id: self.trace_id,
            code: self.reason.map(Reason::code),
            flags,
        });
    }

    fn show(&self, head: &RequestHead, duration: Duration) {
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let since_epoch = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.worker.shared.tap.send(TapEvent {
            time_us: i64::try_from(micros(since_epoch)).unwrap_or(i64::MAX),
            direction: direction_word(self.direction).to_owned(),
            source: self.source.workload.clone(),
            destination: self.destination_name().to_owned(),
            source_identity: self.source.principal.clone(),
            destination_identity: self
                .destination
                .as_ref()
                .map_or_else(|| "unknown".to_owned(), |d| d.principal.clone()),
            method: head.method.to_string(),
            authority: head.authority.to_string(),
            path: head.path.to_string(),
            status: u32::from(self.status),
            duration_us: micros(duration),
            mtls: self.mutual_tls,
            attempt: self.attempts,
            trace_id: self.trace_id.as_str().to_owned(),
            code: self.reason.map(|reason| reason.code().to_string()).unwrap_or_default(),
            route: self.rule.as_deref().unwrap_or_default().to_owned(),
            peer: self.peer.to_string(),
            ..TapEvent::default()
        });
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        // The caller went away before the end, or the answer was never sent.
        self.tell(self.reason.map_or("DC", Reason::flag));
    }
}

fn trace(head: Option<&RequestHead>, sample_per_million: u32, dice: &mut Dice) -> TraceContext {
    match head {
        Some(head) => TraceContext::continue_from(&head.fields, sample_per_million, dice),
        None => TraceContext::continue_from(&Fields::new(), sample_per_million, dice),
    }
}
