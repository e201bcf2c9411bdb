//! Trying again (rulings R1 and R2).

use std::time::Duration;

use hms_model::policy::Retry;
use hms_model::policy::retry::Toggle;
use http::{Method, StatusCode};

use crate::backoff::Backoff;
use crate::clock::Moment;
use crate::dice::Dice;
use crate::window::Window;

/// The back-off of a request stops doubling at so many times its base.
const CAP_FACTOR: u32 = 10;

/// A try is not begun when there is less time than this.
const SHORTEST_TRY: Duration = Duration::from_millis(1);
/// With this much time it is begun, however slow the endpoint is.
const LONGEST_TRY: Duration = Duration::from_millis(100);

/// How one try failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The application provably never saw it: any method may be tried again.
    NotProcessed(NotProcessed),
    /// An answer with this status. Whether an error is an error of overload must be looked at before: see [`Failure::Shed`].
    Status(StatusCode),
    /// A gRPC answer without any message, with this `grpc-status`; `UNAVAILABLE` (14) is handled as a 503.
    GrpcStatus(u32),
    /// The connection or stream ended before the answer's head.
    Reset,
    /// No answer in time.
    Timeout,
    /// Refused on purpose: an open breaker, `x-hms-shed`, a limit. Trying again would add to the load that caused it.
    Shed,
}

/// Why it is certain that the application never saw a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotProcessed {
    /// Nothing listened.
    ConnectRefused,
    /// No connection in time; nothing was sent.
    ConnectTimeout,
    /// The handshake failed before anything was sent.
    Tls,
    /// `REFUSED_STREAM` (RFC 9113 §8.7).
    RefusedStream,
    /// A GOAWAY whose last stream is before ours (RFC 9113 §6.8).
    GoAway,
    /// The destination's proxy, by its verified identity, says that it could not connect to the application.
    AppDown,
}

/// What is left of the request's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    /// Nothing of it has been taken from the caller yet.
    Untouched,
    /// All that was taken is kept and can be sent again; also a request without a body.
    Kept,
    /// It outgrew [`hms_model::policy::retry::REPLAY_LIMIT`], and part of it is gone.
    Gone,
}

/// Where the next try could go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Next {
    /// To a usable endpoint that this request has not tried.
    Other,
    /// Only to one it has tried.
    Same,
}

/// A request, as far as it got.
#[derive(Debug, Clone, Copy)]
pub struct Attempted<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Tries made, the failed one included; at least 1.
    pub tries: u32,
    /// How the last one failed.
    pub failure: Failure,
    /// Its body.
    pub body: Body,
    /// Where another try would go.
    pub next: Next,
    /// When the whole request must have its answer.
    pub deadline: Option<Moment>,
    /// What an answer usually takes there.
    pub usual: Duration,
    /// It carries the configured idempotency header, so that doing it twice is doing it once.
    pub idempotency_key: bool,
    /// It came as another proxy's second or later try (`x-hms-attempt`): retries of retries multiply.
    pub is_retry: bool,
}

/// What to do about a failed try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try again.
    Retry {
        /// After this long.
        after: Duration,
        /// Whether to leave out the endpoints already tried.
        avoid_tried: bool,
    },
    /// Give the caller what there is.
    Stop(StopReason),
}

/// Why a request is not tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The failure is final, or the request might have been processed and must not be processed twice.
    NotRetryable,
    /// All tries are used up.
    Exhausted,
    /// Too many requests of this service are being tried again already.
    Budget,
    /// The deadline would pass before the next try.
    Deadline,
    /// The body was too large to keep.
    BodyTooLarge,
    /// It was refused on purpose.
    Shed,
}

impl StopReason {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotRetryable => "not retryable",
            Self::Exhausted => "retries exhausted",
            Self::Budget => "retry budget exhausted",
            Self::Deadline => "deadline",
            Self::BodyTooLarge => "body too large to replay",
            Self::Shed => "refused on purpose",
        }
    }
}

/// Decides about a failed try. Takes from the budget only if the answer is to try again.
pub fn decide(attempted: &Attempted<'_>, policy: &Retry, budget: &Budget, now: Moment, dice: &mut Dice) -> Decision {
    match backoff(attempted, policy, now, dice) {
        Err(reason) => Decision::Stop(reason),
        Ok(_) if !budget.try_retry(now, policy.budget_percent, policy.budget_floor_per_second) => {
            Decision::Stop(StopReason::Budget)
        }
        Ok(after) => Decision::Retry { after, avoid_tried: attempted.next == Next::Other },
    }
}

/// How long to wait before the next try, if the request itself allows one.
fn backoff(attempted: &Attempted<'_>, policy: &Retry, now: Moment, dice: &mut Dice) -> Result<Duration, StopReason> {
    if is_shed(attempted.failure) {
        return Err(StopReason::Shed);
    }
    if !is_retryable(attempted, policy) {
        return Err(StopReason::NotRetryable);
    }
    if attempted.tries > u32::from(policy.retries) {
        return Err(StopReason::Exhausted);
    }
    if attempted.body == Body::Gone {
        return Err(StopReason::BodyTooLarge);
    }
    let base = match attempted.next {
        Next::Other => policy.backoff_other,
        Next::Same => policy.backoff_same,
    };
    let after = Backoff::new(base, base.saturating_mul(CAP_FACTOR)).around(attempted.tries, dice);
    match attempted.deadline {
        Some(deadline) if now.plus(after).plus(sensible(attempted.usual)) >= deadline => Err(StopReason::Deadline),
        _ => Ok(after),
    }
}

/// Less time than this is not worth another try: half of what an answer usually takes, within bounds, as the average heeds a slow
/// one at once.
fn sensible(usual: Duration) -> Duration {
    (usual / 2).clamp(SHORTEST_TRY, LONGEST_TRY)
}

fn is_shed(failure: Failure) -> bool {
    matches!(failure, Failure::Shed | Failure::Status(StatusCode::TOO_MANY_REQUESTS))
}

/// Whether the failure is one to be cured by another try, and the request one that may be processed again.
fn is_retryable(attempted: &Attempted<'_>, policy: &Retry) -> bool {
    let asked_for = match attempted.failure {
        Failure::NotProcessed(_) => return true,
        Failure::Status(status) => status.is_server_error() && policy.on.status_5xx && names(policy, status),
        Failure::GrpcStatus(code) => {
            code == GRPC_UNAVAILABLE && policy.on.status_5xx && names(policy, StatusCode::SERVICE_UNAVAILABLE)
        }
        Failure::Reset => policy.on.reset,
        Failure::Timeout => policy.on.timeout == Toggle::On,
        Failure::Shed => false,
    };
    let method = attempted.method;
    // `is_idempotent` is RFC 9110 §9.2.2: GET, HEAD, OPTIONS, TRACE, PUT, DELETE.
    let may_repeat = method.is_idempotent() || attempted.idempotency_key || policy.methods.contains(method);
    asked_for && may_repeat && !attempted.is_retry
}

/// Whether a policy means this one of the 5xx answers.
fn names(policy: &Retry, status: StatusCode) -> bool {
    policy.statuses.is_empty() || policy.statuses.contains(&status.as_u16())
}

/// `UNAVAILABLE` (gRPC status codes).
const GRPC_UNAVAILABLE: u32 = 14;

/// How much of one service's traffic from this proxy may be second tries: so many per cent of the requests of the last ten
/// seconds, or a floor per second, whichever is more.
///
/// Ten atomics, one per second. Two workers never share the last place; at worst both are refused it.
#[derive(Debug)]
pub struct Budget(Window);

impl Default for Budget {
    fn default() -> Self {
        Self::new()
    }
}

impl Budget {
    /// No traffic yet; the floor holds from the start.
    pub fn new() -> Self {
        Self(Window::new())
    }

    /// Counts a request: once, at its first try.
    pub fn record_request(&self, now: Moment) {
        self.0.add(second(now), 1, 0);
    }

    /// Takes one retry from the budget, if there is one. A refusal that finds the budget spent writes nothing.
    pub fn try_retry(&self, now: Moment, percent: u8, floor_per_second: u32) -> bool {
        let second = second(now);
        let floor = u64::from(floor_per_second);
        // `more`: how many are about to be taken. Ten seconds' floor bounds the sum, so that bursts do not add up.
        let fits = |this_second: u64, more: u64| {
            let sum = self.0.sum(second);
            let retries = sum.marked + more;
            let share = sum.all * u64::from(percent) / 100;
            retries <= share || (this_second + more <= floor && retries <= floor * 10)
        };
        // Looking first keeps a storm of refusals from writing; looking again after taking makes the bound exact.
        if !fits(self.0.at(second).marked, 1) {
            return false;
        }
        let taken = self.0.add(second, 0, 1);
        let granted = fits(taken.marked, 0);
        if !granted {
            self.0.unmark(second);
        }
        granted
    }
}

fn second(now: Moment) -> u64 {
    now.as_micros() / 1_000_000
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn loom_two_workers_never_share_the_last_retry() {
        loom::model(|| {
            let budget = Arc::new(Budget::new());
            let other = Arc::clone(&budget);
            let thread = loom::thread::spawn(move || other.try_retry(Moment::ZERO, 0, 1));
            let mine = budget.try_retry(Moment::ZERO, 0, 1);
            let theirs = thread.join().unwrap();
            assert!(!(mine && theirs));
            // Both may be refused when they met, but then nothing stays taken.
            assert_eq!(budget.try_retry(Moment::ZERO, 0, 1), !(mine || theirs));
        });
    }
}
