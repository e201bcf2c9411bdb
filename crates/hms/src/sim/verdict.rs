//! Which bounds were crossed, when and why.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_formats::scenario::{Bound, Happening, Measure, Scenario};
use hms_traffic::clock::Moment;

use super::account::{Account, number};
use super::{Played, show};

/// Whether a bound was kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Verdict<'a> {
    /// The bound.
    pub(crate) bound: &'a Bound,
    /// What was measured, for people.
    pub(crate) measured: String,
    /// If it was crossed, when that showed (`None` if only at the end) and why.
    pub(crate) crossed: Option<(Option<Moment>, String)>,
}

/// What was measured against one bound.
struct Found {
    measured: String,
    is_crossed: bool,
    when: Option<Moment>,
    why: String,
}

/// The verdict on every bound of a scenario, in the order in which they were written.
pub(crate) fn verdicts<'a>(scenario: &'a Scenario, played: &Played) -> Vec<Verdict<'a>> {
    let of = |bound: &'a Bound| {
        let account = played.accounts.iter().find(|account| account.service == bound.service)?;
        let found = found(bound.measure, account, scenario);
        let why = match found.when.and_then(|when| last_before(&scenario.events, when)) {
            Some(event) => {
                format!("{}; the last event before was at {} ({})", found.why, show::time(event.at), event.origin)
            }
            None => found.why,
        };
        Some(Verdict { bound, measured: found.measured, crossed: found.is_crossed.then_some((found.when, why)) })
    };
    scenario.bounds.iter().filter_map(of).collect()
}

fn found(measure: Measure, account: &Account, scenario: &Scenario) -> Found {
    match measure {
        Measure::Amplification(most) => amplification(account, most),
        Measure::Success(least) => success(account, least),
        Measure::Flaps(most) => flaps(account, most),
        Measure::Fair(most) => fair(account, most),
        Measure::P50(most) => latency(account, 50, most),
        Measure::P99(most) => latency(account, 99, most),
        Measure::Recovery(most) => recovery(account, scenario, most),
    }
}

fn amplification(account: &Account, most: u64) -> Found {
    let ratio = |received, offered| super::account::ratio(received, offered);
    let worst = account.seconds.iter().enumerate().filter(|(_, second)| second.offered > 0);
    let worst = worst.max_by_key(|(place, second)| (ratio(second.received, second.offered), std::cmp::Reverse(*place)));
    let when = worst.map(|(place, _)| Moment::from_micros(u64::try_from(place).unwrap_or_default() * 1_000_000));
    let peak = worst.map_or(0, |(_, second)| ratio(second.received, second.offered));
    let why = format!(
        "its applications received {} requests where the load asked for {}, in the worst second {} times as many; {}",
        account.received,
        account.offered,
        show::ratio(peak),
        again(account)
    );
    let measured = account.amplification();
    Found { measured: format!("{} times", show::ratio(measured)), is_crossed: measured > most, when, why }
}

/// What was tried again, and why.
fn again(account: &Account) -> String {
    match account.retries {
        0 => "its callers tried nothing again, so their own callers did".to_owned(),
        retries => format!("{retries} tries were made again: {}", counts(&account.retried_for)),
    }
}

fn success(account: &Account, least: u32) -> Found {
    let measured = account.success();
    let why = format!(
        "{} of {} calls failed: {}",
        account.failed,
        account.failed + account.succeeded,
        counts(&account.failed_with)
    );
    Found {
        measured: show::percent(measured),
        is_crossed: measured < u64::from(least),
        when: account.first_failure,
        why,
    }
}

fn flaps(account: &Account, most: u32) -> Found {
    let (measured, caller) = account.flaps();
    let caller = caller.unwrap_or_default();
    let own: Vec<Moment> =
        account.openings.iter().filter(|opening| opening.caller == caller).map(|opening| opening.at).collect();
    let when = usize::try_from(most).ok().and_then(|most| own.get(most + 1)).copied();
    let gaps = own.windows(2).filter_map(|pair| match pair {
        [one, other] => Some(other.saturating_since(*one)),
        _ => None,
    });
    let shortest = gaps.min().unwrap_or_default();
    let why = format!(
        "the breaker of {caller} opened {} times, twice within {}; what failed: {}",
        own.len(),
        show::time(shortest),
        counts(&account.failed_with)
    );
    Found { measured: measured.to_string(), is_crossed: measured > most, when, why }
}

fn fair(account: &Account, most: u32) -> Found {
    let Some((part, off)) = account.unfairest() else {
        return Found { measured: "0 %".to_owned(), is_crossed: false, when: None, why: String::new() };
    };
    let zone = if part.zone.is_empty() { String::new() } else { format!(", {}", part.zone) };
    let why = format!(
        "instance {} ({}{zone}) received {} requests where {:.0} were its share",
        part.number, part.version, part.received, part.share
    );
    let is_crossed = off.abs() * 1_000_000.0 > f64::from(most);
    Found { measured: format!("{:+.1} %", off * 100.0), is_crossed, when: None, why }
}

fn latency(account: &Account, percent: usize, most: Duration) -> Found {
    let Some(ended) = account.percentile(percent) else {
        return Found { measured: "no call".to_owned(), is_crossed: false, when: None, why: String::new() };
    };
    let slow = account.ended.iter().filter(|own| own.took > most);
    let (slow, first) = slow.fold((0_u64, None::<Moment>), |(count, first), own| {
        (count + 1, Some(first.map_or(own.begun, |first| first.min(own.begun))))
    });
    let part = number(slow) * 100.0 / number(u64::try_from(account.ended.len()).unwrap_or(u64::MAX)).max(1.0);
    let why = format!("{slow} calls, {part:.2} % of all, took longer than {}", show::time(most));
    Found { measured: show::time(ended.took), is_crossed: ended.took > most, when: first, why }
}

/// The slowest recovery after any event that made something better, up to the next event of that kind or of the other.
fn recovery(account: &Account, scenario: &Scenario, most: Duration) -> Found {
    let ends = |place: usize, at: Duration| {
        let next = scenario.events.iter().skip(place + 1).find(|event| event.at > at);
        next.map_or(scenario.duration, |event| event.at)
    };
    let better = scenario.events.iter().enumerate().filter(|(place, event)| heals(&scenario.events, *place, event));
    let measured = better.map(|(place, event)| (account.recovery(event.at, ends(place, event.at)), event.at));
    let Some((took, at)) = measured.max_by_key(|(took, at)| (*took, std::cmp::Reverse(*at))) else {
        return Found { measured: "nothing got better".to_owned(), is_crossed: false, when: None, why: String::new() };
    };
    let why = format!(
        "what got better at {} was of use only {} later; until then calls failed with {}",
        show::time(at),
        show::time(took),
        counts(&account.failed_with)
    );
    Found { measured: show::time(took), is_crossed: took > most, when: Some(Moment::ZERO.plus(at + most)), why }
}

/// Whether an event makes something better than it was: somebody comes back, or fails less, or is faster than the event before on the
/// same ones said.
fn heals(events: &[Happening], place: usize, event: &Happening) -> bool {
    let before = |is_so: &dyn Fn(&Happening) -> bool| {
        let earlier = events.iter().take(place).rev().filter(|earlier| earlier.whom == event.whom);
        earlier.filter(|earlier| is_so(earlier)).count() > 0
    };
    let change = &event.change;
    let comes = change.state == Some(hms_formats::scenario::State::Up);
    let fails_less = change.fails.is_some_and(|now| before(&|own| own.change.fails.is_some_and(|then| then > now)));
    let is_faster = change.slow.is_some_and(|now| before(&|own| own.change.slow.is_some_and(|then| then > now)));
    comes || fails_less || is_faster
}

/// `503 (12), timeout (3)`, the most frequent first.
fn counts(of: &BTreeMap<String, u64>) -> String {
    let mut sorted: Vec<(&String, u64)> = of.iter().map(|(what, count)| (what, *count)).collect();
    sorted.sort_by_key(|(what, count)| (std::cmp::Reverse(*count), *what));
    let listed = sorted.iter().map(|(what, count)| format!("{what} ({count})"));
    listed.collect::<Vec<_>>().join(", ")
}

fn last_before(events: &[Happening], when: Moment) -> Option<&Happening> {
    events.iter().rev().find(|event| Moment::ZERO.plus(event.at) <= when)
}
