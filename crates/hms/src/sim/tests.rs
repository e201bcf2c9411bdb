use std::time::Duration;

use hms_formats::{Source, scenario};
use proptest::prelude::*;

use super::*;
use crate::output::Output;

fn read(text: &str) -> Scenario {
    let (scenario, findings) = scenario::translate(&Source::new("scenario.yaml", text));
    scenario.unwrap_or_else(|| panic!("{}", hms_formats::render(&findings, false)))
}

fn example(name: &str) -> Scenario {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/sim").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let (scenario, findings) = scenario::translate(&Source::new(format!("examples/sim/{name}"), &text));
    assert_eq!(findings, [], "{name}");
    scenario.unwrap()
}

/// What `hms sim` prints.
fn report(scenario: &Scenario, seed: u64) -> String {
    let played = play(scenario, seed).unwrap();
    let verdicts = verdict::verdicts(scenario, &played);
    let document = show::document(scenario, seed, &played, &verdicts);
    assert_eq!(document["services"].as_array().unwrap().len(), played.accounts.len());
    show::report(&Output::for_tests(), &played, &verdicts)
}

fn only(text: &str, seed: u64) -> Account {
    play(&read(text), seed).unwrap().accounts.remove(0)
}

#[test]
fn a_retry_storm_is_held_down_by_budgets_and_breakers() {
    insta::assert_snapshot!(report(&example("retry-storm.yaml"), 7));
}

#[test]
fn a_breaker_that_is_too_tight_flaps_and_says_so() {
    insta::assert_snapshot!(report(&example("flapping-breaker.yaml"), 7));
}

#[test]
fn of_two_zones_one_dies_and_no_call_fails() {
    insta::assert_snapshot!(report(&example("zone-dies.yaml"), 7));
}

#[test]
fn a_split_that_one_instance_cannot_carry_is_found() {
    insta::assert_snapshot!(report(&example("unfair-split.yaml"), 7));
}

#[test]
fn the_guide_shows_what_is_printed() {
    let guide = include_str!("../../../../docs/guide/sim.md");
    for name in ["retry-storm.yaml", "flapping-breaker.yaml"] {
        let shown = report(&example(name), 7);
        assert!(guide.contains(&format!("$ hms sim examples/sim/{name}\n{shown}```")), "{shown}");
    }
}

#[test]
fn the_promise_of_the_retry_storm_holds_for_twenty_seeds() {
    let scenario = example("retry-storm.yaml");
    for seed in 0..20 {
        let played = play(&scenario, seed).unwrap();
        for verdict in verdict::verdicts(&scenario, &played) {
            assert_eq!(verdict.crossed, None, "seed {seed}: {verdict:?}");
        }
    }
}

#[test]
fn without_budget_and_breaker_retries_multiply() {
    // The budget is all there is, and every hop has its own: the simulator must find that, or it finds nothing.
    let text = "
duration: 20s
defaults: {breaker: {errors: 1000}, retry: {retries: 2, budget: 100%}}
services:
  front: {calls: [middle]}
  middle: {calls: [last]}
  last: {fails: 40%, instances: 4}
load: [{to: front, rps: 200}]
bounds:
  last: {amplification: <= 1.25}
";
    let scenario = read(text);
    let played = play(&scenario, 1).unwrap();
    let verdict = verdict::verdicts(&scenario, &played).remove(0);
    let (_, why) = verdict.crossed.expect("a storm");
    assert!(why.contains("tries were made again: 503"), "{why}");
}

#[test]
fn what_is_not_there_is_not_simulated_away() {
    let account = only(
        "{duration: 5s, services: {pay: {}}, load: [{to: pay, rps: 100}], \
                        events: [{at: 1s, service: pay, state: down}]}",
        1,
    );
    assert!(account.failed > 350, "{account:?}");
    assert!(account.failed_with.contains_key("breaker open"), "{account:?}");
    let silent = only(
        "{duration: 5s, services: {pay: {timeout: 1s}}, load: [{to: pay, rps: 100}], \
                       events: [{at: 1s, service: pay, state: silent}]}",
        1,
    );
    assert!(silent.failed_with.contains_key("timeout"), "{silent:?}");
    assert!(silent.openings.len() == 1, "{silent:?}");
}

#[test]
fn the_time_of_the_first_hop_is_the_time_of_all() {
    let text = "
duration: 5s
services:
  front: {calls: [middle], timeout: 300ms}
  middle: {calls: [last]}
  last: {latency: 5s}
load: [{to: front, rps: 20}]
";
    let played = play(&read(text), 7).unwrap();
    assert_eq!(played.accounts.len(), 3);
    for account in played.accounts {
        let longest = account.ended.iter().map(|own| own.took).max();
        assert!(longest.is_some_and(|took| took <= Duration::from_millis(300)), "{}: {longest:?}", account.service);
        assert_eq!(account.retries, 0, "{}: there is no time for another try", account.service);
        assert_eq!(account.openings.len(), usize::from(account.service.name() == "front"), "{}", account.service);
    }
}

#[test]
fn a_rate_limit_is_kept_by_every_instance() {
    let account = only(
        "{duration: 10s, services: {pay: {instances: 2, rate_limit: 20 req/s}}, \
                        load: [{to: pay, rps: 200}]}",
        3,
    );
    // A full bucket at the beginning, and what comes back in ten seconds.
    assert!(account.received <= 2 * (20 + 200 + 1), "{account:?}");
    assert_eq!(account.retries, 0, "what was refused on purpose is not tried again");
}

#[test]
fn a_minute_of_three_hops_takes_few_steps() {
    let played = play(&example("retry-storm.yaml"), 1).unwrap();
    assert!(played.steps < 400_000, "{}", played.steps);
}

/// Scenarios of one to three hops in which all sorts of things go wrong.
fn scenarios() -> impl Strategy<Value = String> {
    let numbers = (1_u32..4, 1_u32..5, 0_u32..=100, 0_u8..4, 1_u32..6, 100_u32..3000);
    let words = (
        prop_oneof![Just("503"), Just("500"), Just("reset")],
        prop_oneof![Just("least_request"), Just("round_robin"), Just("random")],
        prop_oneof![Just("down"), Just("gone"), Just("silent")],
        prop_oneof![Just("GET"), Just("POST")],
        prop_oneof![Just("true"), Just("false")],
    );
    (numbers, words).prop_map(|((hops, instances, fails, retries, errors, open), (with, balance, state, method, forwards))| {
        let chain = ["a", "b", "c"].iter().zip(["b", "c", "d"]).take(usize::try_from(hops).unwrap() - 1);
        let middle: Vec<String> = chain
            .map(|(own, next)| format!("  {own}: {{calls: [{next}], method: {method}, forwards_attempt: {forwards}}}\n"))
            .collect();
        let last = ["a", "b", "c"][usize::try_from(hops).unwrap() - 1];
        format!(
            "duration: 6s
defaults: {{timeout: 2s, balance: {balance}, retry: {{retries: {retries}}}, breaker: {{errors: {errors}, open: {open}ms}}}}
services:
{}  {last}: {{instances: {instances}, zones: [x, y], fails: {fails}%, fails_with: {with}, latency: {{p50: 3ms, p99: 50ms}}}}
load:
- {{to: a, rps: 60, method: {method}}}
- {{to: {last}, rps: 20, zone: x, callers: 2, arrivals: steady}}
events:
- {{at: 2s, service: {last}, instance: 1, state: {state}}}
- {{at: 3s, service: {last}, slow: 300ms}}
- {{at: 4s, service: {last}, state: up, slow: 0ms}}
",
            middle.concat()
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_call_ends_once_and_every_try_is_accounted_for(text in scenarios(), seed: u64) {
        for account in play(&read(&text), seed).unwrap().accounts {
            prop_assert_eq!(account.succeeded + account.failed, account.calls, "{}", account.service);
            prop_assert_eq!(u64::try_from(account.ended.len()).unwrap(), account.calls);
            prop_assert_eq!(account.calls + account.retries, account.tries + account.untried, "{}", account.service);
            prop_assert_eq!(account.received + account.limited + account.missed, account.tries, "{}", account.service);
            prop_assert_eq!(account.retried_for.values().sum::<u64>(), account.retries);
            prop_assert_eq!(account.failed_with.values().sum::<u64>(), account.failed);
            prop_assert_eq!(account.parts.iter().map(|part| part.received).sum::<u64>(), account.received);
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes(text in scenarios(), seed: u64) {
        let scenario = read(&text);
        let document = || {
            let played = play(&scenario, seed).unwrap();
            show::document(&scenario, seed, &played, &verdict::verdicts(&scenario, &played)).to_string()
        };
        prop_assert_eq!(document(), document());
    }

    #[test]
    fn no_ten_seconds_have_more_retries_than_the_budget(
        fails in 0_u32..=100, budget in 0_u8..=100, rps in 20_u32..200, seed: u64
    ) {
        // Without a breaker, so that nothing else holds the retries down.
        let text = format!("{{duration: 15s, services: {{pay: {{instances: 3, fails: {fails}%, fails_with: 500,
            latency: 1ms, breaker: {{errors: 1000}}, retry: {{retries: 3, budget: {budget}%}}}}}}, load: [{{to: pay, rps: {rps}}}]}}");
        let account = only(&text, seed);
        for window in account.seconds.windows(10) {
            let calls: u64 = window.iter().map(|second| second.calls).sum();
            let granted: u64 = window.iter().map(|second| second.granted).sum();
            // Without one in the last second nothing was asked of the budget when these ten were its window.
            let was_asked = window.last().is_some_and(|second| second.granted > 0);
            prop_assert!(!was_asked || granted <= (calls * u64::from(budget) / 100).max(100), "{granted} of {calls}");
        }
    }

    #[test]
    fn a_breaker_never_opens_twice_within_one_open_period_and_never_while_all_is_well(
        fails in prop_oneof![Just(0_u32), Just(100)], with in prop_oneof![Just("503"), Just("500"), Just("reset")],
        open in 500_u32..5000, seed: u64
    ) {
        let text = format!("{{duration: 20s, services: {{pay: {{fails: {fails}%, fails_with: {with},
            breaker: {{open: {open}ms}}}}}}, load: [{{to: pay, rps: 50}}]}}");
        let account = only(&text, seed);
        prop_assert!(fails > 0 || account.openings.is_empty());
        prop_assert!(fails == 0 || !account.openings.is_empty());
        for pair in account.openings.windows(2) {
            let apart = pair[1].at.saturating_since(pair[0].at);
            prop_assert!(apart.as_millis() >= u128::from(open * 9 / 10), "{apart:?} of {open} ms");
        }
    }
}
