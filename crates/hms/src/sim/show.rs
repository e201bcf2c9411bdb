//! The report of a simulation.

use std::time::Duration;

use hms_formats::scenario::Scenario;
use hms_traffic::clock::Moment;
use serde_json::{Value, json};

use super::Played;
use super::account::Account;
use super::verdict::Verdict;
use crate::output::table::{Cell, Table};
use crate::output::{Mark, Output, Tone, clean};

/// `1.25`, of millionths.
pub(super) fn ratio(millionths: u64) -> String {
    let hundredths = millionths.saturating_add(5_000) / 10_000;
    format!("{}.{:02}", hundredths / 100, hundredths % 100)
}

/// `99.91 %`, of millionths. Never rounded up to all, nor down to nothing.
pub(super) fn percent(millionths: u64) -> String {
    let hundredths = match millionths {
        0 => 0,
        1_000_000.. => 10_000,
        some => (some / 100).clamp(1, 9_999),
    };
    format!("{}.{:02} %", hundredths / 100, hundredths % 100)
}

/// `850µs`, `12.3ms`, `2.9s`.
pub(super) fn time(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0 => "0s".to_owned(),
        1..1_000 => format!("{micros}µs"),
        1_000..1_000_000 => format!("{}.{}ms", micros / 1_000, micros / 100 % 10),
        _ => format!("{}.{}s", micros / 1_000_000, micros / 100_000 % 10),
    }
}

/// The report for people.
pub(crate) fn report(output: &Output, played: &Played, verdicts: &[Verdict<'_>]) -> String {
    let mut text = services(played).render(output.look());
    let reasons = reasons(played);
    if !reasons.is_empty() {
        text.push('\n');
        text.push_str(&reasons.render(output.look()));
    }
    if !verdicts.is_empty() {
        text.push('\n');
    }
    for verdict in verdicts {
        let (bound, measured) = (verdict.bound, &verdict.measured);
        let said = format!("{} {}: {measured}", bound.service, clean(&bound.text));
        let line = match &verdict.crossed {
            None => format!("{} {said}\n", output.mark(Mark::Ok)),
            Some((at, why)) => {
                let at = at.map(|at| format!(" at {}", time(at.saturating_since(Moment::ZERO)))).unwrap_or_default();
                let (mark, origin, why) = (output.mark(Mark::Failed), clean(&bound.origin), clean(why));
                format!("{mark} {said}; HMS-2152, crossed{at} ({origin})\n    {why}\n")
            }
        };
        text.push_str(&line);
    }
    text
}

/// The services, one line each.
fn services(played: &Played) -> Table {
    let mut table = Table::new(&[
        "SERVICE",
        "OFFERED",
        "RECEIVED",
        "AMPLIFIED",
        "SUCCESS",
        "P50",
        "P99",
        "RETRIES",
        "OPENED",
        "UNFAIR",
    ]);
    for account in &played.accounts {
        let took = |percent| account.percentile(percent).map_or_else(|| "-".to_owned(), |ended| time(ended.took));
        let tone = if account.failed == 0 { Tone::Good } else { Tone::Warn };
        table.row(vec![
            Cell::text(account.service.to_string()),
            Cell::number(account.offered.to_string()),
            Cell::number(account.received.to_string()),
            Cell::number(ratio(account.amplification())),
            Cell::number(percent(account.success())).tone(tone),
            Cell::number(took(50)),
            Cell::number(took(99)),
            Cell::number(account.retries.to_string()),
            Cell::number(account.openings.len().to_string()),
            Cell::number(
                account.unfairest().map_or_else(|| "-".to_owned(), |(_, off)| format!("{:+.1} %", off * 100.0)),
            ),
        ]);
    }
    table
}

/// Why calls were tried again, why they were not, and how they failed; only services of which there is something to say.
fn reasons(played: &Played) -> Table {
    let mut table = Table::new(&["SERVICE", "WHAT", "WHY", "COUNT"]);
    for account in &played.accounts {
        let mut row = |what: &str, why: &str, count: u64| {
            table.row(vec![
                Cell::text(account.service.to_string()),
                Cell::text(what),
                Cell::text(why),
                Cell::number(count.to_string()),
            ]);
        };
        for (why, count) in &account.retried_for {
            row("tried again", why, *count);
        }
        for (why, count) in &account.stopped_for {
            row("not tried again", why, *count);
        }
        for (why, count) in &account.failed_with {
            row("failed", why, *count);
        }
    }
    table
}

/// The whole report as one document.
pub(crate) fn document(scenario: &Scenario, seed: u64, played: &Played, verdicts: &[Verdict<'_>]) -> Value {
    let bounds: Vec<Value> = verdicts.iter().map(bound).collect();
    json!({
        "seed": seed,
        "duration_ms": milliseconds(scenario.duration),
        "steps": played.steps,
        "services": played.accounts.iter().map(service).collect::<Vec<_>>(),
        "bounds": bounds,
    })
}

fn bound(verdict: &Verdict<'_>) -> Value {
    let (at, why) = match &verdict.crossed {
        Some((at, why)) => (at.map(|at| milliseconds(at.saturating_since(Moment::ZERO))), why.as_str()),
        None => (None, ""),
    };
    json!({
        "service": verdict.bound.service.to_string(),
        "bound": verdict.bound.text,
        "origin": verdict.bound.origin,
        "measured": verdict.measured,
        "kept": verdict.crossed.is_none(),
        "at_ms": at,
        "why": why,
    })
}

fn service(account: &Account) -> Value {
    let took = |percent| account.percentile(percent).map(|ended| micros(ended.took));
    let openings = account.openings.iter();
    let parts = account.parts.iter().map(|part| {
        json!({
            "instance": part.number,
            "version": part.version,
            "zone": part.zone,
            "received": part.received,
            "share": (part.share * 10.0).round() / 10.0,
        })
    });
    json!({
        "service": account.service.to_string(),
        "offered": account.offered,
        "calls": account.calls,
        "untried": account.untried,
        "tries": account.tries,
        "retries": account.retries,
        "received": account.received,
        "limited": account.limited,
        "missed": account.missed,
        "amplification_ppm": account.amplification(),
        "succeeded": account.succeeded,
        "failed": account.failed,
        "p50_us": took(50),
        "p99_us": took(99),
        "retried_for": account.retried_for,
        "stopped_for": account.stopped_for,
        "failed_with": account.failed_with,
        "openings": openings
            .map(|own| json!({"at_ms": milliseconds(own.at.saturating_since(Moment::ZERO)), "caller": own.caller}))
            .collect::<Vec<_>>(),
        "instances": parts.collect::<Vec<_>>(),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
