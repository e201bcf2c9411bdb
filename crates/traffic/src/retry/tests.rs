use proptest::prelude::*;

use super::*;

const NOW: Moment = Moment::from_micros(1_000_000_000);
const REFUSED: Failure = Failure::NotProcessed(NotProcessed::ConnectRefused);

fn attempted(method: &Method, failure: Failure) -> Attempted<'_> {
    Attempted {
        method,
        tries: 1,
        failure,
        body: Body::Kept,
        next: Next::Other,
        deadline: None,
        usual: Duration::ZERO,
        idempotency_key: false,
        is_retry: false,
    }
}

fn status(code: u16) -> Failure {
    Failure::Status(StatusCode::from_u16(code).unwrap())
}

/// Decides with a fresh budget.
fn judge(attempted: Attempted<'_>, policy: &Retry) -> Decision {
    decide(&attempted, policy, &Budget::new(), NOW, &mut Dice::seeded(1))
}

fn retries(attempted: Attempted<'_>, policy: &Retry) -> bool {
    matches!(judge(attempted, policy), Decision::Retry { .. })
}

#[test]
fn idempotent_methods_are_retried_on_5xx_reset_and_timeout() {
    let policy = Retry::default();
    for method in [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE] {
        for failure in [status(500), status(503), status(504), Failure::Reset, Failure::Timeout] {
            assert!(retries(attempted(&method, failure), &policy), "{method} {failure:?}");
        }
    }
}

#[test]
fn a_post_is_retried_only_if_it_was_provably_not_processed() {
    let policy = Retry::default();
    for failure in [status(500), status(503), Failure::Reset, Failure::Timeout, Failure::GrpcStatus(14)] {
        let decision = judge(attempted(&Method::POST, failure), &policy);
        assert_eq!(decision, Decision::Stop(StopReason::NotRetryable), "{failure:?}");
    }
    for why in [
        NotProcessed::ConnectRefused,
        NotProcessed::ConnectTimeout,
        NotProcessed::Tls,
        NotProcessed::RefusedStream,
        NotProcessed::GoAway,
        NotProcessed::AppDown,
    ] {
        assert!(retries(attempted(&Method::POST, Failure::NotProcessed(why)), &policy), "{why:?}");
    }
}

#[test]
fn a_post_is_retried_when_its_policy_lists_it_or_it_carries_the_idempotency_header() {
    let listed = Retry { methods: vec![Method::POST], ..Retry::default() };
    assert!(retries(attempted(&Method::POST, status(503)), &listed));
    assert!(!retries(attempted(&Method::PATCH, status(503)), &listed));
    let keyed = Attempted { idempotency_key: true, ..attempted(&Method::PATCH, Failure::Timeout) };
    assert!(retries(keyed, &Retry::default()));
}

#[test]
fn what_a_policy_switched_off_is_not_retried() {
    let mut policy = Retry::default();
    policy.on.status_5xx = false;
    policy.on.reset = false;
    policy.on.timeout = Toggle::Off;
    for failure in [status(500), Failure::Reset, Failure::Timeout] {
        assert!(!retries(attempted(&Method::GET, failure), &policy));
    }
    assert!(retries(attempted(&Method::GET, REFUSED), &policy), "nothing was processed");
}

#[test]
fn a_policy_that_names_statuses_means_no_other() {
    let policy = Retry { statuses: vec![502, 503], ..Retry::default() };
    for failure in [status(502), status(503), Failure::GrpcStatus(14), Failure::Reset, Failure::Timeout] {
        assert!(retries(attempted(&Method::GET, failure), &policy), "{failure:?}");
    }
    for failure in [status(500), status(504)] {
        assert!(!retries(attempted(&Method::GET, failure), &policy), "{failure:?}");
    }
    let policy = Retry { statuses: vec![500], ..Retry::default() };
    assert!(!retries(attempted(&Method::GET, Failure::GrpcStatus(14)), &policy));
}

#[test]
fn answers_below_500_are_final() {
    for code in [200, 302, 400, 404, 408, 425, 499] {
        let decision = judge(attempted(&Method::GET, status(code)), &Retry::default());
        assert_eq!(decision, Decision::Stop(StopReason::NotRetryable), "{code}");
    }
}

#[test]
fn what_was_refused_on_purpose_is_never_retried() {
    let policy = Retry { methods: vec![Method::POST], ..Retry::default() };
    for failure in [status(429), Failure::Shed] {
        assert_eq!(judge(attempted(&Method::GET, failure), &policy), Decision::Stop(StopReason::Shed));
    }
}

#[test]
fn grpc_unavailable_is_a_503_and_every_other_code_an_answer() {
    let policy = Retry { methods: vec![Method::POST], ..Retry::default() };
    assert!(retries(attempted(&Method::POST, Failure::GrpcStatus(14)), &policy));
    for code in [0, 2, 4, 8, 13] {
        assert!(!retries(attempted(&Method::POST, Failure::GrpcStatus(code)), &policy), "{code}");
    }
}

#[test]
fn two_retries_make_three_tries_in_all() {
    let policy = Retry::default();
    let tries = |tries| Attempted { tries, ..attempted(&Method::GET, status(500)) };
    assert!(retries(tries(1), &policy));
    assert!(retries(tries(2), &policy));
    assert_eq!(judge(tries(3), &policy), Decision::Stop(StopReason::Exhausted));
    assert_eq!(judge(tries(1), &Retry { retries: 0, ..policy }), Decision::Stop(StopReason::Exhausted));
}

#[test]
fn a_body_that_is_gone_makes_the_request_final() {
    let policy = Retry::default();
    for failure in [status(500), REFUSED] {
        let body = |body| Attempted { body, ..attempted(&Method::PUT, failure) };
        assert_eq!(judge(body(Body::Gone), &policy), Decision::Stop(StopReason::BodyTooLarge));
        assert!(retries(body(Body::Kept), &policy));
        assert!(retries(body(Body::Untouched), &policy));
    }
}

#[test]
fn a_retry_of_another_proxy_is_not_retried_again_unless_nobody_saw_it() {
    let again = |failure| Attempted { is_retry: true, ..attempted(&Method::GET, failure) };
    assert_eq!(judge(again(status(503)), &Retry::default()), Decision::Stop(StopReason::NotRetryable));
    assert!(retries(again(REFUSED), &Retry::default()));
}

#[test]
fn no_try_begins_at_or_after_the_deadline() {
    let by = |deadline| Attempted { deadline: Some(deadline), ..attempted(&Method::GET, status(500)) };
    // The first back-off to another endpoint is 12.5 to 37.5 ms.
    let soon = by(NOW.plus(Duration::from_millis(12)));
    assert_eq!(judge(soon, &Retry::default()), Decision::Stop(StopReason::Deadline));
    assert!(retries(by(NOW.plus(Duration::from_millis(38))), &Retry::default()));
    assert_eq!(judge(by(Moment::ZERO), &Retry::default()), Decision::Stop(StopReason::Deadline));
}

#[test]
fn a_try_is_not_begun_that_could_hardly_be_answered_in_time() {
    let left = |millis, usual| {
        let (deadline, usual) = (Some(NOW.plus(Duration::from_millis(millis))), Duration::from_millis(usual));
        Attempted { deadline, usual, ..attempted(&Method::GET, status(500)) }
    };
    // The back-off is at most 37.5 ms, and half of 80 ms are 40 ms.
    assert_eq!(judge(left(52, 80), &Retry::default()), Decision::Stop(StopReason::Deadline));
    assert!(retries(left(78, 80), &Retry::default()));
    assert!(retries(left(138, 60_000), &Retry::default()), "one slow answer keeps nobody from trying again");
}

#[test]
fn the_wait_is_short_for_another_endpoint_and_long_for_the_same() {
    let wait = |next, tries| {
        let policy = Retry { retries: 10, ..Retry::default() };
        match judge(Attempted { tries, next, ..attempted(&Method::GET, status(500)) }, &policy) {
            Decision::Retry { after, avoid_tried } => (after.as_millis(), avoid_tried),
            Decision::Stop(reason) => panic!("stopped: {reason:?}"),
        }
    };
    for (next, tries, base) in
        [(Next::Other, 1, 25), (Next::Other, 2, 50), (Next::Same, 1, 200), (Next::Same, 2, 400), (Next::Other, 9, 250)]
    {
        let (millis, avoid_tried) = wait(next, tries);
        assert!((base / 2..=base * 3 / 2).contains(&millis), "{millis} ms around {base}");
        assert_eq!(avoid_tried, next == Next::Other);
    }
}

#[test]
fn a_spent_budget_stops_retries_and_what_stops_for_another_reason_takes_none() {
    let (budget, policy) = (Budget::new(), Retry { budget_floor_per_second: 1, ..Retry::default() });
    let mut dice = Dice::seeded(1);
    let mut of = |failure| decide(&attempted(&Method::GET, failure), &policy, &budget, NOW, &mut dice);
    assert_eq!(of(status(404)), Decision::Stop(StopReason::NotRetryable));
    assert!(matches!(of(status(500)), Decision::Retry { .. }));
    assert_eq!(of(status(500)), Decision::Stop(StopReason::Budget));
}

#[test]
fn the_floor_of_the_budget_is_per_second() {
    let budget = Budget::new();
    let granted =
        |second: u64| (0..50).filter(|_| budget.try_retry(Moment::from_micros(second * 1_000_000), 20, 10)).count();
    assert_eq!((0..10).map(granted).collect::<Vec<_>>(), [10; 10]);
}

#[test]
fn a_fifth_of_much_traffic_may_be_retries() {
    let budget = Budget::new();
    for request in 0..10_000_u64 {
        budget.record_request(Moment::from_micros(request * 1000));
    }
    let now = Moment::from_micros(9_999_000);
    assert_eq!((0..10_000).filter(|_| budget.try_retry(now, 20, 10)).count(), 2000);
    let later = now.plus(Duration::from_secs(10));
    assert_eq!((0..10_000).filter(|_| budget.try_retry(later, 20, 10)).count(), 10, "all of it is past");
}

#[test]
fn a_budget_of_nothing_grants_nothing() {
    assert!(!Budget::new().try_retry(NOW, 0, 0));
}

#[test]
fn four_workers_never_take_more_than_the_budget_has() {
    let budget = Budget::new();
    for _ in 0..1000 {
        budget.record_request(NOW);
    }
    let granted = std::sync::atomic::AtomicUsize::new(0);
    let take_many = || {
        let own = (0..1000).filter(|_| budget.try_retry(NOW, 20, 10)).count();
        granted.fetch_add(own, std::sync::atomic::Ordering::Relaxed);
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(take_many);
        }
    });
    let granted = granted.into_inner();
    assert!(granted <= 200, "{granted}");
    // Those who met at the last place were all refused it; it is still there.
    assert_eq!(granted + (0..200).filter(|_| budget.try_retry(NOW, 20, 10)).count(), 200);
}

proptest! {
    #[test]
    fn retries_of_ten_seconds_never_exceed_the_larger_of_share_and_floor(
        events in proptest::collection::vec((0_u64..300_000, 0_u8..4), 1..400), percent in 0_u8..=100, floor in 0_u32..20
    ) {
        let budget = Budget::new();
        let (mut now, mut requests, mut retries) = (0, Vec::new(), Vec::new());
        for (gap, kind) in events {
            now += gap;
            let moment = Moment::from_micros(now);
            if kind == 0 {
                budget.record_request(moment);
                requests.push(now / 1_000_000);
            } else if budget.try_retry(moment, percent, floor) {
                retries.push(now / 1_000_000);
                let recent = |seconds: &[u64]| seconds.iter().filter(|then| now / 1_000_000 - **then < 10).count();
                let share = recent(&requests) * usize::from(percent) / 100;
                let bound = share.max(usize::try_from(floor).unwrap() * 10);
                prop_assert!(recent(&retries) <= bound, "{} of {bound}", recent(&retries));
            }
        }
    }

    #[test]
    fn nothing_is_ever_tried_again_past_its_deadline(seed: u64, tries in 1_u32..4, left in 0_u64..2_000_000, same: bool, usual in 0_u64..500) {
        let deadline = NOW.plus(Duration::from_micros(left));
        let next = if same { Next::Same } else { Next::Other };
        let usual = Duration::from_millis(usual);
        let deadline = Some(deadline);
        let attempted = Attempted { tries, next, deadline, usual, ..attempted(&Method::GET, Failure::Reset) };
        let decision = decide(&attempted, &Retry::default(), &Budget::new(), NOW, &mut Dice::seeded(seed));
        if let Decision::Retry { after, .. } = decision {
            let begins = NOW.plus(after).plus((usual / 2).min(Duration::from_millis(100)));
            prop_assert!(deadline.is_some_and(|deadline| begins < deadline));
            prop_assert!(tries <= 2);
        }
    }
}
