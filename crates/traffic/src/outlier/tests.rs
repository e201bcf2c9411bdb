use std::sync::atomic::AtomicUsize;

use proptest::prelude::*;

use super::*;

const REFUSED: Outcome = Outcome::GatewayFailure(FailureKind::ConnectRefused);
const DOWN: Outcome = Outcome::GatewayFailure(FailureKind::AppDown);

fn at(millis: u64) -> Moment {
    Moment::from_micros(millis * 1000)
}

/// An endpoint with the dice and the policy that judge it.
struct Bench {
    cell: EndpointHealth,
    policy: Outlier,
    dice: Dice,
}

impl Bench {
    fn new(policy: Outlier) -> Self {
        Self { cell: EndpointHealth::new(), policy, dice: Dice::seeded(1) }
    }

    /// The default policy without jitter.
    fn exact() -> Self {
        Self::new(Outlier { jitter_percent: 0, ..Outlier::default() })
    }

    fn see(&mut self, outcome: Outcome, now: Moment) -> Option<Transition> {
        self.cell.observe(outcome, now, &self.policy, &mut self.dice)
    }

    /// Ejected by three failures at the start of the clock.
    fn ejected() -> Self {
        let mut bench = Self::exact();
        for _ in 0..3 {
            bench.see(DOWN, at(0));
        }
        bench
    }
}

#[test]
fn the_third_failure_in_a_row_ejects_for_thirty_seconds() {
    let mut bench = Bench::exact();
    assert_eq!(bench.see(REFUSED, at(0)), None);
    assert_eq!(bench.see(DOWN, at(1)), None);
    assert_eq!(bench.cell.consecutive(), 2);
    let until = at(30_002);
    let reason = Reason::Failure(FailureKind::Reset);
    let last = Outcome::GatewayFailure(FailureKind::Reset);
    assert_eq!(bench.see(last, at(2)), Some(Transition::Ejected { until, reason }));
    assert_eq!(bench.cell.phase(at(3)), Phase::Open { until });
    assert_eq!(bench.cell.admit(at(3)), Admission::Refuse { until });
    assert_eq!((bench.cell.consecutive(), bench.cell.reason()), (3, Some(reason)));
}

#[test]
fn an_ejection_lasts_thirty_seconds_give_or_take_a_tenth() {
    for seed in 0..100 {
        let mut bench = Bench::new(Outlier { consecutive: 1, ..Outlier::default() });
        bench.dice = Dice::seeded(seed);
        let Some(Transition::Ejected { until, .. }) = bench.see(REFUSED, at(0)) else { panic!("not ejected") };
        assert!(until >= at(27_000) && until <= at(33_001), "{until:?}");
    }
}

#[test]
fn a_success_or_an_answered_error_between_ends_the_run() {
    for between in [Outcome::Success, Outcome::AppError5xx] {
        let mut bench = Bench::exact();
        for outcome in [REFUSED, REFUSED, between, REFUSED, REFUSED] {
            assert_eq!(bench.see(outcome, at(0)), None);
        }
        assert_eq!(bench.cell.phase(at(0)), Phase::Closed);
    }
}

#[test]
fn an_ignored_result_neither_counts_nor_ends_the_run() {
    let mut bench = Bench::exact();
    for outcome in [REFUSED, Outcome::Ignored, REFUSED, Outcome::Ignored] {
        assert_eq!(bench.see(outcome, at(0)), None);
    }
    assert!(bench.see(REFUSED, at(0)).is_some());
}

#[test]
fn plain_errors_of_the_application_never_count_as_consecutive() {
    let mut bench = Bench::exact();
    for second in 0..100 {
        // One an answer each second, so that the rate mode never has its twenty.
        assert_eq!(bench.see(Outcome::AppError5xx, at(second * 1000)), None);
    }
    assert_eq!(bench.cell.admit(at(100_000)), Admission::Pass);
}

#[test]
fn half_of_twenty_answers_in_ten_seconds_being_errors_ejects() {
    let mut bench = Bench::exact();
    let mut transitions = Vec::new();
    for n in 0..20 {
        let outcome = if n % 2 == 0 { Outcome::Success } else { Outcome::AppError5xx };
        transitions.extend(bench.see(outcome, at(n * 400)));
    }
    assert_eq!(transitions, [Transition::Ejected { until: at(19 * 400 + 30_000), reason: Reason::ErrorRate }]);
}

#[test]
fn successes_before_a_burst_of_errors_keep_the_share_small() {
    let mut bench = Bench::exact();
    for _ in 0..1000 {
        bench.see(Outcome::Success, at(500));
    }
    for _ in 0..100 {
        assert_eq!(bench.see(Outcome::AppError5xx, at(600)), None);
    }
}

#[test]
fn without_the_rate_mode_errors_of_the_application_never_eject() {
    let mut bench = Bench::new(Outlier { rate_percent: None, ..Outlier::default() });
    assert!((0..1000).all(|_| bench.see(Outcome::AppError5xx, at(0)).is_none()));
}

#[test]
fn after_its_time_exactly_one_probe_is_let_through() {
    let bench = Bench::ejected();
    assert!(!bench.cell.force_probe_due(at(29_999)));
    assert!(bench.cell.force_probe_due(at(30_000)));
    assert_eq!(bench.cell.phase(at(30_000)), Phase::HalfOpen);
    assert_eq!(bench.cell.admit(at(30_000)), Admission::Probe);
    assert!(!bench.cell.force_probe_due(at(30_001)));
    assert_eq!(bench.cell.admit(at(30_001)), Admission::Refuse { until: at(35_000) });
    assert_eq!(bench.cell.phase(at(30_001)), Phase::HalfOpen);
}

#[test]
fn a_probe_that_never_reports_back_makes_way_after_five_seconds() {
    let bench = Bench::ejected();
    assert_eq!(bench.cell.admit(at(30_000)), Admission::Probe);
    assert!(bench.cell.force_probe_due(at(35_000)));
    assert_eq!(bench.cell.admit(at(35_000)), Admission::Probe);
    assert_eq!(bench.cell.admit(at(35_001)), Admission::Refuse { until: at(40_000) });
}

#[test]
fn a_probe_given_back_goes_to_the_next_one_who_asks() {
    let bench = Bench::ejected();
    assert_eq!(bench.cell.admit(at(30_000)), Admission::Probe);
    bench.cell.abandon(at(30_100));
    assert_eq!(bench.cell.admit(at(30_100)), Admission::Probe);
}

#[test]
fn abandoning_what_is_no_probe_changes_nothing() {
    let bench = Bench::ejected();
    bench.cell.abandon(at(10));
    assert_eq!(bench.cell.phase(at(10)), Phase::Open { until: at(30_000) });
    let healthy = EndpointHealth::new();
    healthy.abandon(at(10));
    assert_eq!(healthy.phase(at(10)), Phase::Closed);
}

#[test]
fn a_successful_probe_restores_and_a_failed_one_ejects_anew() {
    let mut bench = Bench::ejected();
    bench.cell.admit(at(30_000));
    assert_eq!(bench.see(REFUSED, at(30_010)), Some(Transition::ProbeFailed { until: at(60_010) }));
    assert_eq!(bench.cell.reason(), Some(Reason::Failure(FailureKind::ConnectRefused)));
    assert_eq!(bench.cell.consecutive(), 4);
    bench.cell.admit(at(60_010));
    assert_eq!(bench.see(Outcome::Success, at(60_020)), Some(Transition::Restored));
    assert_eq!(bench.cell.admit(at(60_020)), Admission::Pass);
    assert_eq!((bench.cell.consecutive(), bench.cell.reason()), (0, None));
}

#[test]
fn an_error_answer_cures_a_dead_endpoint_but_not_a_faulty_one() {
    let mut dead = Bench::ejected();
    dead.cell.admit(at(30_000));
    assert_eq!(dead.see(Outcome::AppError5xx, at(30_001)), Some(Transition::Restored));

    let mut faulty = Bench::exact();
    for _ in 0..20 {
        faulty.see(Outcome::AppError5xx, at(0));
    }
    faulty.cell.admit(at(30_000));
    assert_eq!(faulty.see(Outcome::AppError5xx, at(30_000)), Some(Transition::ProbeFailed { until: at(60_000) }));
}

#[test]
fn a_restored_endpoint_is_not_ejected_again_for_its_past() {
    let mut bench = Bench::new(Outlier { open_for: Duration::from_secs(1), jitter_percent: 0, ..Outlier::default() });
    for _ in 0..20 {
        bench.see(Outcome::AppError5xx, at(0));
    }
    bench.cell.admit(at(1000));
    assert_eq!(bench.see(Outcome::Success, at(1000)), Some(Transition::Restored));
    assert_eq!(bench.see(Outcome::AppError5xx, at(1001)), None);
}

#[test]
fn results_of_tries_from_before_the_ejection_change_nothing() {
    let mut bench = Bench::ejected();
    for outcome in [Outcome::Success, REFUSED, Outcome::AppError5xx] {
        assert_eq!(bench.see(outcome, at(100)), None);
        // Its time is up, but nobody has been let through: still not a probe's result.
        assert_eq!(bench.see(outcome, at(31_000)), None);
    }
    assert_eq!(bench.cell.phase(at(200)), Phase::Open { until: at(30_000) });
}

#[test]
fn a_success_of_a_healthy_endpoint_writes_nothing_when_the_rate_mode_is_off() {
    let mut bench = Bench::new(Outlier { rate_percent: None, ..Outlier::default() });
    let before = format!("{:?}", bench.cell);
    bench.see(Outcome::Success, at(5));
    assert_eq!(format!("{:?}", bench.cell), before);
}

#[test]
fn statuses_are_told_apart() {
    let of = |status| Outcome::of_status(StatusCode::from_u16(status).unwrap());
    for status in [200, 301, 404, 429, 499] {
        assert_eq!(of(status), Outcome::Success);
    }
    for status in [500, 501, 505, 599] {
        assert_eq!(of(status), Outcome::AppError5xx);
    }
    assert_eq!(of(502), Outcome::GatewayFailure(FailureKind::BadGateway502));
    assert_eq!(of(503), Outcome::GatewayFailure(FailureKind::Unavailable503));
    assert_eq!(of(504), Outcome::GatewayFailure(FailureKind::GatewayTimeout504));
    assert_eq!(Outcome::of_grpc_status(14), Outcome::GatewayFailure(FailureKind::Unavailable503));
    assert_eq!(Outcome::of_grpc_status(13), Outcome::AppError5xx);
    assert_eq!(Outcome::of_grpc_status(5), Outcome::Success);
}

/// Runs `work` in four threads at once, each with its own dice.
fn in_four_threads(work: impl Fn(&mut Dice) + Sync) {
    std::thread::scope(|scope| {
        for seed in 0..4 {
            let work = &work;
            scope.spawn(move || work(&mut Dice::seeded(seed)));
        }
    });
}

#[test]
fn four_workers_eject_together_at_exactly_the_third_failure() {
    for _ in 0..200 {
        let (cell, policy, ejections) = (EndpointHealth::new(), Outlier::default(), AtomicUsize::new(0));
        in_four_threads(|dice| {
            let own = (0..50).filter(|_| cell.observe(REFUSED, at(1), &policy, dice).is_some()).count();
            ejections.fetch_add(own, Ordering::Relaxed);
        });
        assert_eq!(ejections.into_inner(), 1);
        assert_eq!(cell.consecutive(), 3, "neither the second nor the fourth");
    }
}

#[test]
fn four_workers_send_one_probe_between_them() {
    for _ in 0..200 {
        let (bench, probes) = (Bench::ejected(), AtomicUsize::new(0));
        in_four_threads(|_| {
            if bench.cell.admit(at(30_000)) == Admission::Probe {
                probes.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(probes.into_inner(), 1);
    }
}

#[test]
fn four_workers_report_one_restoration() {
    for _ in 0..200 {
        let (bench, restored) = (Bench::ejected(), AtomicUsize::new(0));
        bench.cell.admit(at(30_000));
        in_four_threads(|dice| {
            if bench.cell.observe(Outcome::Success, at(30_001), &bench.policy, dice).is_some() {
                restored.fetch_add(1, Ordering::Relaxed);
            }
        });
        assert_eq!(restored.into_inner(), 1);
    }
}

fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        3 => Just(Outcome::Success),
        2 => Just(REFUSED),
        1 => Just(DOWN),
        1 => Just(Outcome::AppError5xx),
        1 => Just(Outcome::Ignored),
    ]
}

proptest! {
    #[test]
    fn the_word_keeps_what_is_packed_into_it(run: u16, kind in 0..9_usize, until in 0_u64..1 << 41, now in 0_u64..1 << 40) {
        let reasons = [None, Some(Reason::ErrorRate), Some(Reason::Failure(FailureKind::ALL[kind]))];
        for reason in reasons {
            let gate = Gate { reason, run, ..Gate::CLOSED };
            let open = gate.open_until(at(until));
            for gate in [gate, open, open.probing(at(now))] {
                prop_assert_eq!(Gate::unpack(gate.pack()), gate);
            }
        }
    }

    #[test]
    fn no_word_is_beyond_reading(word: u64) {
        let gate = Gate::unpack(word);
        prop_assert_eq!(Gate::unpack(gate.pack()), gate);
    }

    /// Against a plain counter: in normal operation an endpoint is ejected exactly when the run reaches the bound.
    #[test]
    fn an_endpoint_is_ejected_exactly_when_the_run_reaches_its_bound(
        outcomes in proptest::collection::vec(outcome(), 1..60), consecutive in 0_u32..6
    ) {
        let mut bench = Bench::new(Outlier { consecutive, rate_percent: None, ..Outlier::default() });
        let mut run = 0;
        for outcome in outcomes {
            match outcome {
                Outcome::GatewayFailure(_) => run += 1,
                Outcome::Ignored => {}
                Outcome::Success | Outcome::AppError5xx => run = 0,
            }
            let ejected = bench.see(outcome, at(1)).is_some();
            prop_assert_eq!(ejected, run >= consecutive.max(1));
            if ejected {
                break;
            }
        }
    }

    /// Whatever an endpoint always does, it is ejected at most once and never taken back: taken back it would be ejected again.
    #[test]
    fn under_a_constant_input_an_endpoint_never_flaps(
        outcome in outcome(), gaps in proptest::collection::vec(0_u64..2_000, 1..400), open in 1_u64..20_000, seed: u64
    ) {
        let mut bench = Bench::new(Outlier { open_for: Duration::from_millis(open), ..Outlier::default() });
        bench.dice = Dice::seeded(seed);
        let (mut now, mut ejections) = (0, 0);
        for gap in gaps {
            now += gap;
            if matches!(bench.cell.admit(at(now)), Admission::Refuse { .. }) {
                continue;
            }
            match bench.see(outcome, at(now)) {
                Some(Transition::Ejected { .. }) => ejections += 1,
                Some(Transition::Restored) => prop_assert!(false, "taken back at {now} ms by {outcome:?}"),
                Some(Transition::ProbeFailed { .. }) | None => {}
            }
        }
        prop_assert!(ejections <= u32::from(!matches!(outcome, Outcome::Success | Outcome::Ignored)));
    }

    #[test]
    fn whatever_happens_there_is_never_a_second_probe_under_way(
        steps in proptest::collection::vec((outcome(), any::<bool>(), 0_u64..4_000), 1..200), seed: u64
    ) {
        let mut bench = Bench::new(Outlier { open_for: Duration::from_secs(3), ..Outlier::default() });
        bench.dice = Dice::seeded(seed);
        let (mut now, mut probing_since) = (0, None);
        for (outcome, ask, gap) in steps {
            now += gap;
            if ask {
                if bench.cell.admit(at(now)) == Admission::Probe {
                    prop_assert!(probing_since.is_none_or(|since| now >= since + 5_000));
                    probing_since = Some(now);
                }
            } else if bench.see(outcome, at(now)).is_some() {
                probing_since = None;
            }
        }
    }
}
