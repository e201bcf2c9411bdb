//! Giving a new version more and more of the calls for as long as it is good: what to do next, from what was seen so far.
//!
//! A canary goes up a ladder of weights and stays on each step for a while. Its gates are judged on what callers saw of the version
//! since the step began: whenever anybody looks, and not only when the time is over. One that is broken ends it; when the time is
//! over and too little was seen, it waits.

use std::time::Duration;

/// Steps that one canary may have.
pub const MOST_STEPS: usize = 32;
/// Requests that must have been seen before a share of them or a percentile counts, unless somebody asks for others.
pub const ENOUGH: u64 = 20;
/// The slowest percentile that reports can tell from slower ones.
pub const SLOWEST: Duration = Duration::from_secs(5);
/// All of a ratio.
const MILLION: u128 = 1_000_000;

/// What somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The weights in ascending order, of a million each; at least one, at most [`MOST_STEPS`].
    pub steps: Vec<u32>,
    /// How long it stays on each.
    pub hold: Duration,
    /// What must hold.
    pub gates: Gates,
    /// Requests of a step before a share of them or a percentile counts, and before the step is over.
    pub enough: u64,
}

/// Bounds of what callers see of the version, per step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Gates {
    /// The largest share of failed tries, of a million.
    pub failures: Option<u32>,
    /// The longest 95th percentile of the time to answer.
    pub p95: Option<Duration>,
    /// The largest number of failed tries.
    pub errors: Option<u64>,
}

/// What was seen of the version since its step began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Tries that ended.
    pub requests: u64,
    /// Those among them that failed, whether or not another try was made for them.
    pub failures: u64,
    /// The 95th percentile of the time to answer, if anything was answered.
    pub p95: Option<Duration>,
    /// Whether some caller calls none of its instances any more, because they failed.
    pub is_ejected: bool,
}

/// How a canary stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is on a step.
    Running,
    /// It is on a step and shall stay there.
    Paused,
    /// The last step is over and left something to the others; it stays, and is still watched.
    Passed,
    /// The version gets everything; over.
    Promoted,
    /// A gate was broken or somebody said so, and what held before holds again; over.
    Aborted,
    /// Somebody else divided the calls anew, so it is no longer its business; over.
    Stopped,
}

impl Phase {
    /// Whether nothing follows.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Promoted | Self::Aborted | Self::Stopped)
    }

    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Passed => "passed",
            Self::Promoted => "promoted",
            Self::Aborted => "aborted",
            Self::Stopped => "stopped",
        }
    }

    /// Every phase.
    pub const ALL: [Self; 6] =
        [Self::Running, Self::Paused, Self::Passed, Self::Promoted, Self::Aborted, Self::Stopped];
}

/// What is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// The share of failed tries.
    Failures,
    /// The 95th percentile.
    P95,
    /// The number of failed tries.
    Errors,
    /// That callers still call its instances.
    Instances,
}

/// What one gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It is broken.
    Broken,
    /// Too little was seen.
    TooFew,
}

/// What is to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Nothing yet.
    Stay(Wait),
    /// The step of this place.
    Step(usize),
    /// The last step is over: [`Phase::Promoted`] if it was everything, else [`Phase::Passed`].
    Finish(Phase),
    /// What held before holds again.
    Abort(Gate),
}

/// Why nothing happens yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// The time is not over.
    Time(Duration),
    /// Too few requests came; so many more are wanted.
    Requests(u64),
    /// Somebody has to decide: it is paused, or its last step is over.
    Somebody,
    /// It is over.
    Over,
}

/// What every gate says, in the order in which they are shown. Gates that nobody asked for are not listed; that instances are called
/// is asked for by all.
pub fn verdicts(plan: &Plan, seen: &Figures) -> Vec<(Gate, Verdict)> {
    let enough = seen.requests >= plan.enough;
    let judge = |is_broken: bool, counts: bool| match (is_broken, counts) {
        (_, false) => Verdict::TooFew,
        (true, true) => Verdict::Broken,
        (false, true) => Verdict::Holds,
    };
    let failures = plan.gates.failures.map(|most| {
        let is_broken = u128::from(seen.failures) * MILLION > u128::from(most) * u128::from(seen.requests);
        (Gate::Failures, judge(is_broken, enough))
    });
    let p95 = plan.gates.p95.map(|longest| {
        let is_broken = seen.p95.is_some_and(|p95| p95 > longest);
        (Gate::P95, judge(is_broken, enough && seen.p95.is_some()))
    });
    let errors = plan.gates.errors.map(|most| (Gate::Errors, judge(seen.failures > most, true)));
    let instances = Some((Gate::Instances, judge(seen.is_ejected, true)));
    [failures, p95, errors, instances].into_iter().flatten().collect()
}

/// What is to happen on a step that has lasted so long.
pub fn next(plan: &Plan, phase: Phase, step: usize, seen: &Figures, lasted: Duration) -> Next {
    if phase.is_over() {
        return Next::Stay(Wait::Over);
    }
    let broken = verdicts(plan, seen).into_iter().find(|(_, verdict)| *verdict == Verdict::Broken);
    if let Some((gate, _)) = broken {
        return Next::Abort(gate);
    }
    if phase != Phase::Running {
        return Next::Stay(Wait::Somebody);
    }
    if lasted < plan.hold {
        return Next::Stay(Wait::Time(plan.hold.saturating_sub(lasted)));
    }
    if seen.requests < plan.enough {
        return Next::Stay(Wait::Requests(plan.enough - seen.requests));
    }
    if step + 1 < plan.steps.len() {
        return Next::Step(step + 1);
    }
    let everything = plan.steps.last().is_some_and(|weight| u128::from(*weight) >= MILLION);
    Next::Finish(if everything { Phase::Promoted } else { Phase::Passed })
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLD: Duration = Duration::from_mins(1);

    fn plan(steps: &[u32]) -> Plan {
        let gates = Gates { failures: Some(10_000), p95: Some(Duration::from_millis(300)), errors: Some(50) };
        Plan { steps: steps.to_vec(), hold: HOLD, gates, enough: ENOUGH }
    }

    fn good(requests: u64) -> Figures {
        Figures { requests, p95: Some(Duration::from_millis(5)), ..Figures::default() }
    }

    #[test]
    fn a_good_version_goes_up_step_by_step_until_it_gets_everything() {
        let plan = plan(&[10_000, 500_000, 1_000_000]);
        let at = |step: usize, lasted: Duration| next(&plan, Phase::Running, step, &good(100), lasted);
        assert_eq!(at(0, HOLD / 2), Next::Stay(Wait::Time(HOLD / 2)));
        assert_eq!(at(0, HOLD), Next::Step(1));
        assert_eq!(at(1, HOLD), Next::Step(2));
        assert_eq!(at(2, HOLD), Next::Finish(Phase::Promoted));
        let part = Plan { steps: vec![100_000], ..plan.clone() };
        assert_eq!(next(&part, Phase::Running, 0, &good(100), HOLD), Next::Finish(Phase::Passed));
        assert_eq!(next(&part, Phase::Passed, 0, &good(100), HOLD * 9), Next::Stay(Wait::Somebody));
    }

    #[test]
    fn too_few_requests_are_waited_for() {
        let plan = plan(&[100_000, 1_000_000]);
        assert_eq!(next(&plan, Phase::Running, 0, &good(5), HOLD * 9), Next::Stay(Wait::Requests(15)));
        let unlucky = Figures { failures: 5, ..good(5) };
        assert_eq!(next(&plan, Phase::Running, 0, &unlucky, HOLD * 9), Next::Stay(Wait::Requests(15)));
        let gates = verdicts(&plan, &unlucky);
        assert_eq!(gates[0], (Gate::Failures, Verdict::TooFew));
        assert_eq!(gates[2..], [(Gate::Errors, Verdict::Holds), (Gate::Instances, Verdict::Holds)]);
    }

    #[test]
    fn each_gate_that_is_broken_ends_it_at_once_even_while_it_is_paused_or_has_passed() {
        let plan = plan(&[100_000, 1_000_000]);
        let slow = Some(Duration::from_millis(301));
        for (seen, gate) in [
            (Figures { failures: 2, ..good(100) }, Gate::Failures),
            (Figures { p95: slow, ..good(100) }, Gate::P95),
            (Figures { failures: 51, ..good(1_000_000) }, Gate::Errors),
            (Figures { is_ejected: true, ..Figures::default() }, Gate::Instances),
        ] {
            for phase in [Phase::Running, Phase::Paused, Phase::Passed] {
                assert_eq!(next(&plan, phase, 0, &seen, Duration::ZERO), Next::Abort(gate), "{phase:?}");
            }
        }
        let just = Figures { failures: 1, p95: Some(Duration::from_millis(300)), ..good(100) };
        assert_eq!(next(&plan, Phase::Running, 0, &just, HOLD), Next::Step(1), "a bound itself is still good");
    }

    fn figures() -> impl Strategy<Value = Figures> {
        let p95 = proptest::option::of((0_u64..600).prop_map(Duration::from_millis));
        (0_u64..200, 0_u64..60, p95, proptest::bool::weighted(0.1)).prop_map(|(requests, failures, p95, is_ejected)| {
            Figures { requests, failures: failures.min(requests), p95, is_ejected }
        })
    }

    fn plans() -> impl Strategy<Value = Plan> {
        let steps = proptest::collection::btree_set(1_u32..=1_000_000, 1..6);
        let gates = (
            proptest::option::of(0_u32..200_000),
            proptest::option::of((1_u64..500).prop_map(Duration::from_millis)),
            proptest::option::of(0_u64..40),
        );
        (steps, 0_u64..100, gates, 0_u64..50).prop_map(|(steps, hold, (failures, p95, errors), enough)| Plan {
            steps: steps.into_iter().collect(),
            hold: Duration::from_secs(hold),
            gates: Gates { failures, p95, errors },
            enough,
        })
    }

    proptest! {
        #[test]
        fn nothing_is_given_more_while_a_gate_is_broken_or_too_little_was_seen(
            plan in plans(), seen in figures(), step in 0_usize..6, lasted in 0_u64..200, phase in 0_usize..6,
        ) {
            let phase = Phase::ALL[phase];
            let next = next(&plan, phase, step, &seen, Duration::from_secs(lasted));
            let broken = verdicts(&plan, &seen).iter().any(|(_, verdict)| *verdict == Verdict::Broken);
            if matches!(next, Next::Step(_) | Next::Finish(_)) {
                prop_assert!(phase == Phase::Running && !broken);
                prop_assert!(seen.requests >= plan.enough && lasted >= plan.hold.as_secs());
            }
            prop_assert_eq!(matches!(next, Next::Abort(_)), broken && !phase.is_over());
            if let Next::Step(to) = next {
                prop_assert_eq!(to, step + 1);
                prop_assert!(to < plan.steps.len());
            }
        }

        #[test]
        fn however_it_goes_it_climbs_one_step_at_a_time_and_stays_while_it_is_paused(
            plan in plans(), course in proptest::collection::vec((figures(), 0_u64..150, proptest::bool::ANY), 1..40),
        ) {
            let (mut step, mut phase) = (0, Phase::Running);
            for (seen, lasted, is_paused) in course {
                if !phase.is_over() && phase != Phase::Passed {
                    phase = if is_paused { Phase::Paused } else { Phase::Running };
                }
                let (before, stood) = (step, phase);
                match next(&plan, phase, step, &seen, Duration::from_secs(lasted)) {
                    Next::Stay(_) => {}
                    Next::Step(to) => step = to,
                    Next::Finish(end) => phase = end,
                    Next::Abort(_) => phase = Phase::Aborted,
                }
                prop_assert!(step <= before + 1 && step < plan.steps.len());
                if stood != Phase::Running {
                    prop_assert_eq!(step, before);
                    prop_assert!(phase == stood || phase == Phase::Aborted);
                }
                if phase == Phase::Promoted && stood != Phase::Promoted {
                    prop_assert_eq!(plan.steps.get(step).copied(), Some(1_000_000));
                }
            }
        }
    }
}
