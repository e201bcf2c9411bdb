//! Ejecting one failing endpoint (ruling R3): failures in a row or a share of errors eject it for a while, then one probe
//! decides.

use std::time::Duration;

use hms_model::policy::Outlier;
use http::StatusCode;

use crate::cell::{AtomicU64, Ordering};
use crate::clock::{Moment, micros};
use crate::dice::Dice;
use crate::window::Window;

mod gate;

use gate::{Gate, State};

/// A probe that has not reported back after this long no longer keeps others from probing.
pub const PROBE_EXPIRES: Duration = Duration::from_secs(5);

/// What one try came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// An answer below 500.
    Success,
    /// A 5xx of the application itself. It shows that the endpoint is there, so only the rate mode counts it.
    AppError5xx,
    /// The endpoint did not do its part.
    GatewayFailure(FailureKind),
    /// Says nothing about this endpoint: a 503 that an open breaker or a shedding proxy further on made, a try that the
    /// caller called off, a refusal of our own.
    Ignored,
}

impl Outcome {
    /// What a status says, when it is the endpoint's own answer. A 503 that a proxy made needs a look at its `x-hms-error`
    /// first: the dead application's is [`FailureKind::AppDown`], an open breaker's [`Outcome::Ignored`].
    pub fn of_status(status: StatusCode) -> Self {
        match status.as_u16() {
            502 => Self::GatewayFailure(FailureKind::BadGateway502),
            503 => Self::GatewayFailure(FailureKind::Unavailable503),
            504 => Self::GatewayFailure(FailureKind::GatewayTimeout504),
            500.. => Self::AppError5xx,
            _ => Self::Success,
        }
    }

    /// What a `grpc-status` says: `UNAVAILABLE` is a 503, `UNKNOWN`, `INTERNAL` and `DATA_LOSS` are errors of the
    /// application, everything else is an answer. `DEADLINE_EXCEEDED` is one too: the deadline was the caller's.
    pub fn of_grpc_status(code: u32) -> Self {
        match code {
            14 => Self::GatewayFailure(FailureKind::Unavailable503),
            2 | 13 | 15 => Self::AppError5xx,
            _ => Self::Success,
        }
    }
}

/// How an endpoint failed to do its part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureKind {
    /// Nothing listens at its address.
    ConnectRefused,
    /// No connection within the connect timeout.
    ConnectTimeout,
    /// The connection ended before the answer's head.
    Reset,
    /// No answer in time.
    Timeout,
    /// The handshake failed, or the identity was not the expected one.
    Tls,
    /// It answered 502.
    BadGateway502,
    /// It answered 503.
    Unavailable503,
    /// It answered 504.
    GatewayTimeout504,
    /// Its proxy says that the application does not accept connections.
    AppDown,
}

impl FailureKind {
    /// Every kind.
    pub const ALL: [Self; 9] = [
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::Reset,
        Self::Timeout,
        Self::Tls,
        Self::BadGateway502,
        Self::Unavailable503,
        Self::GatewayTimeout504,
        Self::AppDown,
    ];

    /// The words shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ConnectRefused => "connection refused",
            Self::ConnectTimeout => "connect timeout",
            Self::Reset => "connection reset",
            Self::Timeout => "timeout",
            Self::Tls => "TLS failure",
            Self::BadGateway502 => "502",
            Self::Unavailable503 => "503",
            Self::GatewayTimeout504 => "504",
            Self::AppDown => "application down",
        }
    }
}

/// Why an endpoint was ejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// Failures in a row; this was the last of them.
    Failure(FailureKind),
    /// Too large a share of its answers were errors.
    ErrorRate,
}

impl Reason {
    /// The words shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failure(kind) => kind.as_str(),
            Self::ErrorRate => "error rate",
        }
    }
}

/// Whether a request may go to an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Yes.
    Pass,
    /// Yes, as the one probe: its outcome decides. Whoever holds it owes an [`EndpointHealth::observe`], or an
    /// [`EndpointHealth::abandon`] if it came to nothing.
    Probe,
    /// No.
    Refuse {
        /// When to ask again.
        until: Moment,
    },
}

/// What an observation changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    /// The endpoint gets no requests.
    Ejected {
        /// When it may be probed.
        until: Moment,
        /// Why.
        reason: Reason,
    },
    /// It gets requests again.
    Restored,
    /// The probe failed; the ejection begins anew.
    ProbeFailed {
        /// When it may be probed again.
        until: Moment,
    },
}

/// Where an endpoint stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Requests pass.
    Closed,
    /// Ejected: requests are refused.
    Open {
        /// When it may be probed.
        until: Moment,
    },
    /// Its time is up: a probe is due or under way, all else is refused.
    HalfOpen,
}

impl Phase {
    /// The word shown to people (ruling R3).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::Open { .. } => "OPEN",
            Self::HalfOpen => "HALF-OPEN",
        }
    }
}

/// One endpoint's record of failures, shared by all workers.
///
/// All that decides sits in one atomic, so "three in a row" holds for any number of workers. While the rate mode is on,
/// every answer counts into a window (one write); while it is off, a success writes only when it ends a run of failures.
///
/// Moments are kept in milliseconds, rounded so that an ejection is never cut short.
#[derive(Debug)]
pub struct EndpointHealth {
    gate: AtomicU64,
    answers: Window,
}

impl Default for EndpointHealth {
    fn default() -> Self {
        Self::new()
    }
}

impl EndpointHealth {
    /// A healthy endpoint.
    pub fn new() -> Self {
        Self { gate: AtomicU64::new(Gate::CLOSED.pack()), answers: Window::new() }
    }

    /// Whether a request may be sent to the endpoint now. Writes only when it hands out the probe.
    pub fn admit(&self, now: Moment) -> Admission {
        let mut word = self.gate.load(Ordering::Relaxed);
        loop {
            let gate = Gate::unpack(word);
            if gate.state == State::Closed {
                return Admission::Pass;
            }
            if !gate.is_due(now) {
                return Admission::Refuse { until: gate.until() };
            }
            match self.replace(word, gate.probing(now)) {
                Ok(()) => return Admission::Probe,
                Err(changed) => word = changed,
            }
        }
    }

    /// Takes in what a try came to. Says what it changed, to exactly one of the workers that saw it happen.
    ///
    /// Results that arrive while the endpoint is ejected belong to tries from before and change nothing. While a probe is
    /// under way the first result decides, whoever brings it.
    pub fn observe(&self, outcome: Outcome, now: Moment, policy: &Outlier, dice: &mut Dice) -> Option<Transition> {
        if outcome == Outcome::Ignored {
            return None;
        }
        let mut word = self.gate.load(Ordering::Relaxed);
        let too_many = Gate::unpack(word).state == State::Closed && self.count(outcome, now, policy);
        loop {
            let gate = Gate::unpack(word);
            let (next, transition) = match gate.state {
                State::Closed => gate.after_answer(outcome, too_many, now, policy, dice),
                State::Probing => gate.after_probe(outcome, now, policy, dice),
                State::Open => return None,
            };
            if next == gate {
                return transition;
            }
            match self.replace(word, next) {
                Ok(()) => {
                    // What was counted before an ejection or a restoration must not eject again after it.
                    if transition.is_some() && policy.rate_percent.is_some() {
                        self.answers.forget();
                    }
                    return transition;
                }
                Err(changed) => word = changed,
            }
        }
    }

    /// Takes the endpoint back at once, because its own proxy says that the application listens again. Only what the application's
    /// absence caused is forgiven; answers whether anything changed.
    pub fn restore(&self) -> bool {
        let word = self.gate.load(Ordering::Relaxed);
        let gate = Gate::unpack(word);
        let forgiven = gate.state != State::Closed && gate.reason == Some(Reason::Failure(FailureKind::AppDown));
        let restored = forgiven && self.replace(word, Gate::CLOSED).is_ok();
        if restored {
            self.answers.forget();
        }
        restored
    }

    /// Gives an unused probe back: the caller went away, or something else kept it from being sent. The next one to ask
    /// gets it.
    pub fn abandon(&self, now: Moment) {
        let word = self.gate.load(Ordering::Relaxed);
        let gate = Gate::unpack(word);
        if gate.state == State::Probing {
            // If somebody else changed it meanwhile, the probe is no longer ours to give back.
            let _decided_elsewhere = self.replace(word, gate.open_until(now));
        }
    }

    /// Where the endpoint stands.
    pub fn phase(&self, now: Moment) -> Phase {
        let gate = Gate::unpack(self.gate.load(Ordering::Relaxed));
        match gate.state {
            State::Closed => Phase::Closed,
            State::Open if !gate.is_due(now) => Phase::Open { until: gate.until() },
            State::Open | State::Probing => Phase::HalfOpen,
        }
    }

    /// Failures in a row, failed probes included. Counts to 65 535.
    pub fn consecutive(&self) -> u32 {
        u32::from(Gate::unpack(self.gate.load(Ordering::Relaxed)).run)
    }

    /// Why it is ejected; while it is not, the last failure of the present run.
    pub fn reason(&self) -> Option<Reason> {
        Gate::unpack(self.gate.load(Ordering::Relaxed)).reason
    }

    /// Whether a probe should be sent although there is no traffic. Claims nothing: [`EndpointHealth::admit`] does.
    pub fn force_probe_due(&self, now: Moment) -> bool {
        let gate = Gate::unpack(self.gate.load(Ordering::Relaxed));
        gate.state != State::Closed && gate.is_due(now)
    }

    fn replace(&self, word: u64, next: Gate) -> Result<(), u64> {
        self.gate.compare_exchange(word, next.pack(), Ordering::Relaxed, Ordering::Relaxed).map(|_| ())
    }

    /// Counts an answer for the rate mode; says whether the share of errors is now too large.
    fn count(&self, outcome: Outcome, now: Moment, policy: &Outlier) -> bool {
        let Some(percent) = policy.rate_percent else { return false };
        let failed = !matches!(outcome, Outcome::Success);
        let tick = now.as_micros() / (micros(policy.rate_window) / 10).max(1);
        self.answers.add(tick, 1, u32::from(failed));
        if !failed {
            return false;
        }
        let sum = self.answers.sum(tick);
        sum.all >= u64::from(policy.rate_minimum) && sum.marked * 100 >= sum.all * u64::from(percent)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    const REFUSED: Outcome = Outcome::GatewayFailure(FailureKind::ConnectRefused);

    fn policy(consecutive: u32) -> Outlier {
        Outlier { consecutive, rate_percent: None, ..Outlier::default() }
    }

    #[test]
    fn loom_one_of_two_workers_ejects() {
        loom::model(|| {
            let cell = Arc::new(EndpointHealth::new());
            let other = Arc::clone(&cell);
            let now = Moment::from_micros(1);
            let thread =
                loom::thread::spawn(move || other.observe(REFUSED, now, &policy(2), &mut Dice::seeded(1)).is_some());
            let mine = cell.observe(REFUSED, now, &policy(2), &mut Dice::seeded(2)).is_some();
            assert_ne!(mine, thread.join().unwrap());
            assert!(matches!(cell.phase(now), Phase::Open { .. }));
        });
    }

    #[test]
    fn loom_one_of_two_workers_probes() {
        loom::model(|| {
            let cell = Arc::new(EndpointHealth::new());
            cell.observe(REFUSED, Moment::ZERO, &policy(1), &mut Dice::seeded(1));
            let other = Arc::clone(&cell);
            let now = Moment::from_micros(60_000_000);
            let thread = loom::thread::spawn(move || other.admit(now) == Admission::Probe);
            let mine = cell.admit(now) == Admission::Probe;
            assert_ne!(mine, thread.join().unwrap());
        });
    }

    #[test]
    fn loom_of_two_results_of_a_probe_one_decides() {
        loom::model(|| {
            let cell = Arc::new(EndpointHealth::new());
            cell.observe(REFUSED, Moment::ZERO, &policy(1), &mut Dice::seeded(1));
            let now = Moment::from_micros(60_000_000);
            assert_eq!(cell.admit(now), Admission::Probe);
            let other = Arc::clone(&cell);
            let thread = loom::thread::spawn(move || {
                other.observe(Outcome::Success, now, &policy(2), &mut Dice::seeded(1)).is_some()
            });
            let failed = cell.observe(REFUSED, now, &policy(2), &mut Dice::seeded(2)).is_some();
            let restored = thread.join().unwrap();
            assert_ne!(failed, restored);
            // A failure after the restoration is the first of a new run.
            assert_eq!(cell.phase(now) == Phase::Closed, restored);
        });
    }
}
