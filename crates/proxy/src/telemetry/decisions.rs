//! What is remembered of requests after they ended: enough to say what happened to one, in a bounded ring per worker.
//!
//! Refusals, retries, failures and slow requests have a ring of their own, so that a flood of good ones does not wash them away.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_wire::proto::hms::v1;
use parking_lot::Mutex;

use super::metrics::Party;
use super::trace::TraceId;
use crate::refusal::Reason;
use crate::runtime::Runtime;

/// Requests that one worker remembers of each sort.
const KEPT: usize = 256;
/// Tries of one request that are remembered; later ones replace the last.
pub const TRIES: usize = 4;
/// From then on a request is slow.
const SLOW: Duration = Duration::from_secs(1);

/// How a try ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// With an answer.
    Answered(u16),
    /// No connection.
    NotConnected,
    /// The connection broke.
    Reset,
    /// It took too long.
    TimedOut,
    /// It was not sent, or its caller gave up.
    Refused,
}

/// One try.
#[derive(Debug, Clone, Copy)]
pub struct Try {
    /// The endpoint's number ([`EndpointCells::key`](crate::runtime::upstream::EndpointCells::key)).
    pub endpoint: u64,
    /// How it ended.
    pub ended: Ended,
    /// Microseconds since the request's head; more than an hour is an hour.
    pub after: u32,
    /// Microseconds that it took.
    pub took: u32,
    /// Endpoints that could be chosen from.
    pub candidates: u16,
    /// Of so many.
    pub endpoints: u16,
}

/// One request. Names are held, not copied; the path is not kept at all.
#[derive(Debug, Clone)]
pub struct Decision {
    /// When its head was here.
    pub time: SystemTime,
    /// The trace it belongs to.
    pub trace_id: TraceId,
    /// Which way it ran.
    pub direction: Direction,
    /// Who called.
    pub source: Arc<Party>,
    /// Who was called in the end.
    pub destination: Option<Arc<Party>>,
    /// The service asked for.
    pub service: Option<Arc<str>>,
    /// The rule it matched.
    pub rule: Option<Arc<str>>,
    /// The status answered; 0 for none.
    pub status: u16,
    /// Why the mesh answered, if it did.
    pub reason: Option<Reason>,
    /// Whether the mesh side was mutually authenticated.
    pub mutual_tls: bool,
    /// Tries made.
    pub attempts: u32,
    /// How long it took.
    pub duration: Duration,
    /// The tries.
    pub tries: [Option<Try>; TRIES],
}

/// What one worker remembers. Only the worker writes, and whoever asks reads, so the lock is free as good as always.
#[derive(Debug, Default)]
pub struct Decisions(Mutex<Rings>);

#[derive(Debug, Default)]
struct Rings {
    good: Ring,
    notable: Ring,
}

/// Has its room from the beginning, and writes over its oldest when that is full.
#[derive(Debug)]
struct Ring {
    kept: Vec<Decision>,
    next: usize,
}

impl Default for Ring {
    fn default() -> Self {
        Self { kept: Vec::with_capacity(KEPT), next: 0 }
    }
}

impl Ring {
    fn push(&mut self, decision: Decision) {
        match self.kept.get_mut(self.next) {
            Some(oldest) => *oldest = decision,
            None => self.kept.push(decision),
        }
        self.next = (self.next + 1) % KEPT;
    }
}

impl Decision {
    fn is_notable(&self) -> bool {
        self.reason.is_some() || self.attempts > 1 || self.status == 0 || self.status >= 500 || self.duration >= SLOW
    }

    fn to_wire(&self, runtime: &Runtime) -> v1::Decision {
        let since_epoch = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let service = self.service.as_deref().unwrap_or("unknown");
        let request = v1::TapEvent {
            time_us: i64::try_from(since_epoch.as_micros()).unwrap_or(i64::MAX),
            direction: direction_word(self.direction).to_owned(),
            source: self.source.workload.clone(),
            destination: service.strip_suffix(".mesh").unwrap_or(service).to_owned(),
            source_identity: self.source.principal.clone(),
            destination_identity: self.destination.as_ref().map(|own| own.principal.clone()).unwrap_or_default(),
            status: u32::from(self.status),
            duration_us: u64::try_from(self.duration.as_micros()).unwrap_or(u64::MAX),
            mtls: self.mutual_tls,
            attempt: self.attempts,
            trace_id: self.trace_id.as_str().to_owned(),
            code: self.reason.map(|reason| reason.code().to_string()).unwrap_or_default(),
            route: self.rule.as_deref().unwrap_or_default().to_owned(),
            ..v1::TapEvent::default()
        };
        v1::Decision {
            request: Some(request),
            tries: self.tries.iter().flatten().map(|own| own.to_wire(runtime)).collect(),
        }
    }
}

impl Try {
    fn to_wire(self, runtime: &Runtime) -> v1::Try {
        let mut endpoints = runtime.upstreams.values().flat_map(|upstream| &upstream.endpoints);
        v1::Try {
            endpoint: endpoints
                .find(|own| own.cells.key == self.endpoint)
                .map(|own| own.address.to_string())
                .unwrap_or_default(),
            outcome: match self.ended {
                Ended::Answered(status) => status.to_string(),
                Ended::NotConnected => "not connected".to_owned(),
                Ended::Reset => "reset".to_owned(),
                Ended::TimedOut => "timeout".to_owned(),
                Ended::Refused => "not sent".to_owned(),
            },
            after_us: self.after,
            took_us: self.took,
            candidates: u32::from(self.candidates),
            endpoints: u32::from(self.endpoints),
        }
    }
}

/// As people and logs write it.
pub(super) fn direction_word(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

impl Decisions {
    /// Remembers a request.
    pub fn remember(&self, decision: Decision) {
        let mut rings = self.0.lock();
        if decision.is_notable() { rings.notable.push(decision) } else { rings.good.push(decision) }
    }

    /// Those of a trace, by what its id begins with.
    fn of(&self, trace: &str) -> Vec<Decision> {
        let rings = self.0.lock();
        let all = rings.good.kept.iter().chain(&rings.notable.kept);
        all.filter(|own| own.trace_id.as_str().starts_with(trace)).cloned().collect()
    }
}

/// The rings of every worker.
#[derive(Debug, Default)]
pub struct Memory(Mutex<Vec<Arc<Decisions>>>);

impl Memory {
    /// A ring for one more worker.
    pub fn ring(&self) -> Arc<Decisions> {
        let ring = Arc::<Decisions>::default();
        self.0.lock().push(Arc::clone(&ring));
        ring
    }

    /// At most `most` that belong to a trace, the newest first.
    pub fn recall(&self, trace: &str, runtime: &Runtime, most: usize) -> Vec<v1::Decision> {
        let mut found: Vec<Decision> = self.0.lock().iter().flat_map(|ring| ring.of(trace)).collect();
        found.sort_by_key(|own| std::cmp::Reverse(own.time));
        found.iter().take(most).map(|own| own.to_wire(runtime)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(trace: u128, status: u16) -> Decision {
        Decision {
            time: SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(trace).unwrap()),
            trace_id: TraceId::from(trace),
            direction: Direction::Outbound,
            source: Arc::default(),
            destination: None,
            service: None,
            rule: None,
            status,
            reason: None,
            mutual_tls: false,
            attempts: 1,
            duration: Duration::from_millis(1),
            tries: [None; TRIES],
        }
    }

    #[test]
    fn good_requests_do_not_wash_away_bad_ones_and_memory_is_bounded() {
        let memory = Memory::default();
        let ring = memory.ring();
        ring.remember(decision(7, 503));
        for trace in 100..5_000 {
            ring.remember(decision(trace, 200));
        }
        let recalled = |trace: u128| memory.recall(TraceId::from(trace).as_str(), &Runtime::default(), 9).len();
        assert_eq!((recalled(7), recalled(100), recalled(4_999)), (1, 0, 1));
        let all = memory.recall("0", &Runtime::default(), usize::MAX);
        assert_eq!(all.len(), KEPT + 1);
        assert!(all.is_sorted_by_key(|own| -own.request.as_ref().map_or(0, |request| request.time_us)));
        assert!(size_of::<Decision>() <= 288, "{} bytes", size_of::<Decision>());
    }
}
