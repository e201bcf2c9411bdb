//! Policies as files write them, in `defaults:` and as overrides of one service, and `tracing:`.

use std::time::Duration;

use hms_model::finding::{Finding, Severity};
use hms_model::policy::retry::{RetryOn, Toggle};
use hms_model::policy::{Limits, Outlier, Retry, Telemetry, Timeouts, TrafficPolicy};
use hms_model::resource::Overlay;
use hms_model::route::METHODS;

use crate::document::{Value, short};
use crate::mesh_yaml::Traces;
use crate::mesh_yaml::balance::balance;
use crate::mesh_yaml::probe::probe;
use crate::read::{Field, Keys, Reader, Table};
use crate::route_yaml::keep_alive;

pub(crate) const DEFAULTS: Keys =
    Keys::new(&["mtls", "timeout", "keep_alive", "retry", "breaker", "balance", "limits", "probe"]);
pub(crate) const TRACING: Keys = Keys::new(&["sample", "header", "in_json_body", "otlp"]);
const RETRY: Keys = Keys::new(&["retries", "on", "methods", "budget"]);
const LIMITS: Keys = Keys::new(&["requests", "connections", "pending"]);
/// More than any proxy holds.
const MOST_AT_ONCE: u32 = 1_000_000;
const BREAKER: Keys = Keys::new(&["errors", "open", "probe"]);

/// The `defaults:` section over the built-in defaults.
pub(crate) fn defaults(reader: &mut Reader<'_>, table: &Table<'_>) -> TrafficPolicy {
    if let Some(field) = table.field("mtls") {
        mtls(reader, field);
    }
    let built_in = TrafficPolicy::default();
    overlay(reader, table, &built_in).over(&built_in)
}

/// What the keys of a table change in `base`. A key that is given in part keeps the rest of `base`.
pub(crate) fn overlay(reader: &mut Reader<'_>, table: &Table<'_>, base: &TrafficPolicy) -> Overlay {
    Overlay {
        retry: table.field("retry").and_then(|field| retry(reader, field, &base.retry)),
        timeouts: table.field("timeout").and_then(|field| timeout(reader, field, base.timeouts)),
        outlier: table.field("breaker").and_then(|field| breaker(reader, field, base.outlier)),
        balance: table.field("balance").and_then(|field| balance(reader, field, &base.balance)),
        limits: table.field("limits").and_then(|field| limits(reader, field, base.limits)),
        keep_alive: table.field("keep_alive").and_then(|field| keep_alive(reader, field)),
        probe: table.field("probe").and_then(|field| probe(reader, field, base.probe.as_ref())),
    }
}

fn mtls(reader: &mut Reader<'_>, field: &Field<'_>) {
    let Some(text) = reader.text(field, "strict") else { return };
    match text {
        "strict" | "STRICT" => {}
        "permissive" | "PERMISSIVE" => {
            let finding = Finding::error(2120, "`mtls: permissive` is not available in this release")
                .because("every proxy of this mesh speaks mutual TLS")
                .fix("write mtls: strict");
            reader.report(field.node.span, finding);
        }
        _ => reader.bad(field, "strict", "mutual TLS between proxies cannot be turned off", "write mtls: strict"),
    }
}

fn timeout(reader: &mut Reader<'_>, field: &Field<'_>, base: Timeouts) -> Option<Timeouts> {
    let request = match &field.node.value {
        Value::Scalar(text, _) if text == "none" => None,
        _ => Some(reader.duration(field, Duration::from_millis(1)..=Duration::from_hours(1))?),
    };
    Some(Timeouts { request, ..base })
}

fn retry(reader: &mut Reader<'_>, field: &Field<'_>, base: &Retry) -> Option<Retry> {
    let table = reader.table(field.node, &field.path, RETRY)?;
    let mut retry = base.clone();
    if let Some(number) = table.field("retries").and_then(|field| reader.whole(field, "a number of retries", 0..=10)) {
        retry.retries = u8::try_from(number).unwrap_or(base.retries);
    }
    if let Some(on) = table.field("on").and_then(|field| retry_on(reader, field)) {
        retry.on = on;
    }
    if let Some(methods) = table.field("methods") {
        retry.methods = retry_methods(reader, methods);
    }
    if let Some(percent) = table.field("budget").and_then(|field| reader.percent(field)) {
        retry.budget_percent = percent;
    }
    Some(retry)
}

/// `connect` means a connection that failed before an answer: a refused one is always retried, a reset one only as asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failure {
    Connect,
    Reset,
    Status,
    Timeout,
}

fn retry_on(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<RetryOn> {
    const WORDS: [(&str, Failure); 4] = [
        ("connect", Failure::Connect),
        ("reset", Failure::Reset),
        ("5xx", Failure::Status),
        ("timeout", Failure::Timeout),
    ];
    let items = reader.list(field, "a list such as [connect, 5xx, timeout]")?;
    let failures: Vec<Failure> = items.iter().filter_map(|item| reader.word(item, &WORDS)).collect();
    if !failures.contains(&Failure::Connect) {
        let finding =
            Finding::error(2107, "leaving `connect` out does not keep refused connections from being retried")
                .because("a request that provably was not processed is always retried")
                .fix("to retry nothing at all write retries: 0");
        reader.report(field.key, Finding { severity: Severity::Info, ..finding });
    }
    let has = |failure| failures.contains(&failure);
    Some(RetryOn {
        status_5xx: has(Failure::Status),
        reset: has(Failure::Connect) || has(Failure::Reset),
        timeout: if has(Failure::Timeout) { Toggle::On } else { Toggle::Off },
    })
}

/// `idempotent`, or the methods that are retried in addition to those.
fn retry_methods(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<http::Method> {
    const WANTS: &str = "`idempotent` or a list of methods such as [POST]";
    if matches!(&field.node.value, Value::Scalar(text, _) if text == "idempotent") {
        return Vec::new();
    }
    let mut methods = Vec::new();
    for item in reader.list(field, WANTS).unwrap_or_default() {
        let Some(text) = reader.text(&item, "an HTTP method") else { continue };
        let method = METHODS.contains(&text).then(|| http::Method::from_bytes(text.as_bytes()).ok()).flatten();
        match method {
            Some(method) if methods.contains(&method) => {}
            Some(method) => methods.push(method),
            None => {
                let finding = Finding::error(2106, format!("`{}` is no HTTP method", short(text)));
                let fix = match crate::rules::nearest_method(text) {
                    Some(near) => format!("write {near}"),
                    None => format!("write one of {}", METHODS.join(", ")),
                };
                reader.report(item.node.span, finding.fix(fix));
            }
        }
    }
    methods
}

fn breaker(reader: &mut Reader<'_>, field: &Field<'_>, base: Outlier) -> Option<Outlier> {
    let table = reader.table(field.node, &field.path, BREAKER)?;
    let mut outlier = base;
    if let Some(errors) = table.field("errors").and_then(|field| reader.whole(field, "a number of errors", 1..=1000)) {
        outlier.consecutive = errors;
    }
    let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
    if let Some(open) = table.field("open").and_then(|field| reader.duration(field, bounds)) {
        outlier.open_for = open;
    }
    if let Some(at_once) = table.field("probe")
        && reader.whole(at_once, "a number of probes", 1..=1000).is_some_and(|number| number != 1)
    {
        let finding = Finding::error(2120, "more than one probe at a time is not available in this release");
        reader.report(at_once.node.span, finding.because("one good probe closes the breaker").fix("write probe: 1"));
    }
    Some(outlier)
}

/// Bounds in number; one that is not named stays.
fn limits(reader: &mut Reader<'_>, field: &Field<'_>, base: Limits) -> Option<Limits> {
    let table = reader.table(field.node, &field.path, LIMITS)?;
    let mut number = |name: &str, least: u32, otherwise: u32| {
        let field = table.field(name);
        field.and_then(|field| reader.whole(field, "a number", least..=MOST_AT_ONCE)).unwrap_or(otherwise)
    };
    Some(Limits {
        requests: number("requests", 1, base.requests),
        connections: number("connections", 1, base.connections),
        pending: number("pending", 0, base.pending),
    })
}

/// The `tracing:` section.
pub(crate) fn tracing(reader: &mut Reader<'_>, table: &Table<'_>) -> (Telemetry, Traces) {
    let mut telemetry = Telemetry::default();
    if let Some(share) = table.field("sample").and_then(|field| reader.share(field)) {
        telemetry.sample_per_million = share;
    }
    if let Some(in_body) = table.field("in_json_body").and_then(|field| reader.boolean(field)) {
        telemetry.in_json_body = in_body;
    }
    if let Some(field) = table.field("header")
        && let Some(text) = reader.text(field, "x-trace-id")
        && !text.eq_ignore_ascii_case("x-trace-id")
    {
        let finding = Finding::error(
            2120,
            format!("a trace header `{}` is not available in this release", reader.named(field.node, text)),
        )
        .because("the header is x-trace-id, beside the standard traceparent")
        .fix("write header: x-trace-id");
        reader.report(field.node.span, finding);
    }
    let traces = table.field("otlp").and_then(|field| otlp(reader, field)).unwrap_or_default();
    (telemetry, traces)
}

fn otlp(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Traces> {
    match reader.text(field, "built-in or off")? {
        "built-in" => Some(Traces::BuiltIn),
        "off" | "Off" | "OFF" | "false" => Some(Traces::Off),
        text => {
            let finding =
                Finding::error(2120, format!("sending traces to `{}` is not available in this release", short(text)));
            reader.report(field.node.span, finding.fix("write otlp: built-in, or otlp: off"));
            None
        }
    }
}
