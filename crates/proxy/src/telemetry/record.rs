//! One request's story, told once at its end: series, log line and tap event from the same facts.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_model::message::{Fields, RequestHead};
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::limits::Permit;
use hms_wire::proto::hms::v1::TapEvent;
use http::HeaderName;

use super::access_log::Entry;
use super::metrics::{Labels, Party};
use super::trace::TraceContext;
use crate::body::{BodyError, Watcher};
use crate::refusal::Reason;
use crate::runtime::upstream::InFlight;
use crate::worker::Worker;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What is known of a request so far.
pub struct Exchange {
    worker: Rc<Worker>,
    begun: Moment,
    time: SystemTime,
    /// Its place in its trace.
    pub(crate) trace: TraceContext,
    /// Which way it runs.
    pub(crate) direction: Direction,
    /// Who called.
    pub(crate) source: Arc<Party>,
    /// Who was called in the end.
    pub(crate) destination: Arc<Party>,
    /// The service asked for.
    pub(crate) service: Arc<str>,
    /// The rule it matched: `GET /sum/{a}/{b}`.
    pub(crate) rule: Option<Arc<str>>,
    /// Address of the other end.
    pub(crate) peer: String,
    /// Whether the mesh side was mutually authenticated.
    pub(crate) mutual_tls: bool,
    /// Tries made.
    pub(crate) attempts: u32,
    /// Why the mesh answered, if it did.
    pub(crate) reason: Option<Reason>,
    /// Status answered.
    pub(crate) status: u16,
    line: Option<RequestLine>,
    grpc: Option<GrpcStatus>,
    bytes: u64,
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

/// The parts of a head that are told.
struct RequestLine {
    method: String,
    authority: String,
    path: String,
}

impl std::fmt::Debug for Exchange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exchange").field("service", &self.service).field("status", &self.status).finish_non_exhaustive()
    }
}

impl Exchange {
    /// Begins with what the connection tells.
    pub fn begin(
        worker: &Rc<Worker>,
        direction: Direction,
        source: Arc<Party>,
        head: Option<&RequestHead>,
        sample_per_million: u32,
    ) -> Self {
        let mut dice = worker.dice.borrow_mut();
        let told = worker.shared.access_log.is_on() || worker.shared.tap.is_watched();
        let line = head.filter(|_| told).map(|head| RequestLine {
            method: head.method.to_string(),
            authority: head.authority.to_string(),
            path: head.path.to_string(),
        });
        Self {
            begun: worker.now(),
            time: worker.shared.now(),
            trace: trace(head, sample_per_million, &mut dice),
            direction,
            source,
            destination: Arc::new(Party::unknown()),
            service: "unknown".into(),
            rule: None,
            peer: String::new(),
            mutual_tls: false,
            attempts: 0,
            reason: None,
            status: 0,
            line,
            grpc: head.filter(|head| head.is_grpc()).map(|_| None),
            bytes: 0,
            permit: None,
            in_flight: None,
            told: Told::No,
            worker: Rc::clone(worker),
        }
    }

    /// Whether the caller speaks gRPC.
    pub fn is_grpc(&self) -> bool {
        self.grpc.is_some()
    }

    /// Holds a place among the service's requests until the end.
    pub fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Counts as under way to an endpoint until the end, or until the next try.
    pub fn on(&mut self, in_flight: InFlight) {
        self.in_flight = Some(in_flight);
    }

    /// Notes the response's head.
    pub fn answered(&mut self, status: u16, fields: &Fields) {
        self.status = status;
        if let Some(status) = &mut self.grpc {
            *status = grpc_status(fields);
        }
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
        let labels = Labels {
            direction: self.direction,
            source: Arc::clone(&self.source),
            destination: Arc::clone(&self.destination),
            service: Arc::clone(&self.service),
            status: self.status,
            flag,
            protocol: if self.grpc.is_some() { "grpc" } else { "http" },
            grpc_status: self.grpc.flatten(),
            mutual_tls: self.mutual_tls,
        };
        self.worker.metrics.request(&labels, duration);
        let Some(line) = &self.line else { return };
        self.log(line, duration, flag);
        self.show(line, duration);
    }

    /// The service as people write it: `calc-svc`, or `calc-svc.NAMESPACE` outside `default`.
    fn destination_name(&self) -> &str {
        self.service.strip_suffix(".mesh").unwrap_or(&self.service)
    }

    fn direction_word(&self) -> &'static str {
        match self.direction {
            Direction::Inbound => "inbound",
            Direction::Outbound => "outbound",
        }
    }

    fn log(&self, line: &RequestLine, duration: Duration, flags: &'static str) {
        let trace_id = self.trace.trace_id();
        self.worker.shared.access_log.write(&Entry {
            time: rfc3339(self.time),
            direction: self.direction_word(),
            source: &self.source.workload,
            destination: self.destination_name(),
            method: &line.method,
            authority: &line.authority,
            path: &line.path,
            status: self.status,
            duration_ms: duration.as_secs_f64() * 1000.0,
            bytes: self.bytes,
            attempts: self.attempts,
            mtls: self.mutual_tls,
            trace_id: &trace_id,
            code: self.reason.map(|reason| reason.code().to_string()),
            flags,
        });
    }

    fn show(&self, line: &RequestLine, duration: Duration) {
        let tap = &self.worker.shared.tap;
        if !tap.is_watched() {
            return;
        }
        let micros = |d: Duration| u64::try_from(d.as_micros()).unwrap_or(u64::MAX);
        let since_epoch = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        tap.send(TapEvent {
            time_us: i64::try_from(micros(since_epoch)).unwrap_or(i64::MAX),
            direction: self.direction_word().to_owned(),
            source: self.source.workload.clone(),
            destination: self.destination_name().to_owned(),
            source_identity: self.source.principal.clone(),
            destination_identity: self.destination.principal.clone(),
            method: line.method.clone(),
            authority: line.authority.clone(),
            path: line.path.clone(),
            status: u32::from(self.status),
            duration_us: micros(duration),
            mtls: self.mutual_tls,
            attempt: self.attempts,
            trace_id: self.trace.trace_id(),
            code: self.reason.map(|reason| reason.code().to_string()).unwrap_or_default(),
            route: self.rule.as_deref().unwrap_or_default().to_owned(),
            peer: self.peer.clone(),
        });
    }
}

impl Watcher for Exchange {
    fn data(&mut self, bytes: usize) {
        self.bytes += u64::try_from(bytes).unwrap_or_default();
    }

    fn trailers(&mut self, trailers: &Fields) {
        if let Some(status) = &mut self.grpc {
            *status = grpc_status(trailers).or(*status);
        }
    }

    fn ended(&mut self, outcome: Result<(), &BodyError>) {
        let flag = match (self.reason, outcome) {
            (Some(reason), _) => reason.flag(),
            (None, Ok(())) => "-",
            (None, Err(_)) => "UC",
        };
        self.tell(flag);
    }
}

impl Drop for Exchange {
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

fn grpc_status(fields: &Fields) -> Option<u8> {
    fields.text(&GRPC_STATUS).and_then(|text| text.parse().ok())
}

/// RFC 3339 in UTC with milliseconds, from the civil calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
fn rfc3339(time: SystemTime) -> String {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let (seconds, millis) = (since_epoch.as_secs(), since_epoch.subsec_millis());
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_221_000, "2026-11-21T00:30:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }
}
