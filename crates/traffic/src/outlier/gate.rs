//! The word in which an endpoint's state is kept, and how it changes.

use std::time::Duration;

use hms_model::policy::Outlier;

use super::{FailureKind, Outcome, PROBE_EXPIRES, Reason, Transition};
use crate::clock::Moment;
use crate::dice::Dice;

/// What an endpoint's word says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Requests pass.
    Closed,
    /// Ejected until a moment.
    Open,
    /// One probe is under way, which counts as lost after a moment.
    Probing,
}

/// The word, unpacked: 2 bits of state, 4 of reason, 16 of run, 42 of milliseconds (139 years).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gate {
    pub(super) state: State,
    pub(super) reason: Option<Reason>,
    /// Failures in a row.
    pub(super) run: u16,
    /// Milliseconds on the clock; 0 while closed.
    pub(super) until: u64,
}

const UNTIL_BITS: u32 = 42;
const UNTIL_MASK: u64 = (1 << UNTIL_BITS) - 1;
const RUN_BITS: u32 = 16;
const REASON_BITS: u32 = 4;
/// The code of [`Reason::ErrorRate`]; 0 is no reason, and a failure's code is its place in [`FailureKind::ALL`] plus one.
const ERROR_RATE: u64 = 15;

impl Gate {
    /// A healthy endpoint.
    pub(super) const CLOSED: Self = Self { state: State::Closed, reason: None, run: 0, until: 0 };

    pub(super) fn unpack(word: u64) -> Self {
        let reason = match (word >> (UNTIL_BITS + RUN_BITS)) & ((1 << REASON_BITS) - 1) {
            ERROR_RATE => Some(Reason::ErrorRate),
            code => {
                let place = code.checked_sub(1).and_then(|place| usize::try_from(place).ok());
                place.and_then(|place| FailureKind::ALL.get(place)).copied().map(Reason::Failure)
            }
        };
        let state = match word >> (UNTIL_BITS + RUN_BITS + REASON_BITS) {
            0 => State::Closed,
            1 => State::Open,
            _ => State::Probing,
        };
        let run = u16::try_from((word >> UNTIL_BITS) & u64::from(u16::MAX)).unwrap_or_default();
        Self { state, reason, run, until: word & UNTIL_MASK }
    }

    pub(super) fn pack(self) -> u64 {
        let state: u64 = match self.state {
            State::Closed => 0,
            State::Open => 1,
            State::Probing => 2,
        };
        let reason = match self.reason {
            None => 0,
            Some(Reason::ErrorRate) => ERROR_RATE,
            Some(Reason::Failure(kind)) => (1..).zip(FailureKind::ALL).find(|(_, k)| *k == kind).map_or(0, |(n, _)| n),
        };
        state << (UNTIL_BITS + RUN_BITS + REASON_BITS)
            | reason << (UNTIL_BITS + RUN_BITS)
            | u64::from(self.run) << UNTIL_BITS
            | self.until.min(UNTIL_MASK)
    }

    /// When an ejection ends, or a probe counts as lost.
    pub(super) fn until(self) -> Moment {
        Moment::from_micros(self.until.saturating_mul(1000))
    }

    /// Whether that moment has come.
    pub(super) fn is_due(self, now: Moment) -> bool {
        now >= self.until()
    }

    /// Ejected until `until`, otherwise unchanged.
    pub(super) fn open_until(self, until: Moment) -> Self {
        // Rounded up: an ejection is never cut short. The bound is that of the bits, so that packing loses nothing.
        Self { state: State::Open, until: until.as_micros().div_ceil(1000).min(UNTIL_MASK), ..self }
    }

    /// With its probe handed out.
    pub(super) fn probing(self, now: Moment) -> Self {
        Self { state: State::Probing, ..self.open_until(now.plus(PROBE_EXPIRES)) }
    }

    /// After an answer in normal operation; `too_many` if the rate mode says that the share of errors is too large.
    pub(super) fn after_answer(
        self,
        outcome: Outcome,
        too_many: bool,
        now: Moment,
        policy: &Outlier,
        dice: &mut Dice,
    ) -> (Self, Option<Transition>) {
        let counted = match outcome {
            Outcome::GatewayFailure(kind) => {
                Self { run: self.run.saturating_add(1), reason: Some(Reason::Failure(kind)), ..self }
            }
            // Any answer of the application shows that it is there, and ends the run.
            Outcome::Success | Outcome::AppError5xx => Self { run: 0, reason: None, ..self },
            Outcome::Ignored => return (self, None),
        };
        let most = u16::try_from(policy.consecutive.max(1)).unwrap_or(u16::MAX);
        let reason = match counted.reason {
            Some(reason) if counted.run >= most => reason,
            _ if too_many => Reason::ErrorRate,
            _ => return (counted, None),
        };
        let ejected = Self { reason: Some(reason), ..counted }.open_until(now.plus(open_for(policy, dice)));
        (ejected, Some(Transition::Ejected { until: ejected.until(), reason }))
    }

    /// After a result that came while a probe was under way.
    pub(super) fn after_probe(
        self,
        outcome: Outcome,
        now: Moment,
        policy: &Outlier,
        dice: &mut Dice,
    ) -> (Self, Option<Transition>) {
        let reason = match (outcome, self.reason) {
            (Outcome::Ignored, _) => return (self, None),
            // What was ejected for answering errors is not cured by another.
            (Outcome::AppError5xx, Some(Reason::ErrorRate)) => Reason::ErrorRate,
            (Outcome::Success | Outcome::AppError5xx, _) => return (Self::CLOSED, Some(Transition::Restored)),
            (Outcome::GatewayFailure(kind), _) => Reason::Failure(kind),
        };
        let failed = Self { reason: Some(reason), run: self.run.saturating_add(1), ..self };
        let failed = failed.open_until(now.plus(open_for(policy, dice)));
        (failed, Some(Transition::ProbeFailed { until: failed.until() }))
    }
}

fn open_for(policy: &Outlier, dice: &mut Dice) -> Duration {
    dice.spread(policy.open_for, policy.jitter_percent)
}
