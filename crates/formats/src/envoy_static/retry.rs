//! `retry_policy`.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::policy::Retry;
use hms_model::policy::retry::{RetryOn, Toggle};

use super::shape::{DIFFERS, LEAVE_OUT, Not, Shape, not_here};
use super::words::{self, LONGEST};
use crate::document::short;
use crate::read::{Field, Reader};

const POLICY: Shape = Shape::new(
    &["retry_on", "num_retries", "per_try_timeout", "retry_back_off"],
    &[
        ("retry_host_predicate", Not::Needed),
        ("host_selection_retry_max_attempts", Not::Needed),
        ("per_try_idle_timeout", Not::Here("write per_try_timeout")),
        ("retry_priority", Not::Here(LEAVE_OUT)),
        ("retry_options_predicates", Not::Here(LEAVE_OUT)),
        ("retriable_status_codes", Not::Here("leave it out; retry_on: 5xx is every 5xx")),
        ("retriable_headers", Not::Here(LEAVE_OUT)),
        ("retriable_request_headers", Not::Here(LEAVE_OUT)),
        ("rate_limited_retry_back_off", Not::Here(LEAVE_OUT)),
    ],
);
const BACK_OFF: Shape = Shape::new(&["base_interval", "max_interval"], &[]);

/// How a route's requests are tried.
#[derive(Debug, Clone)]
pub(super) struct Tries {
    pub(super) retry: Retry,
    /// The time of one try.
    pub(super) attempt: Option<Duration>,
}

/// Which failures are tried again. One that provably reached no application always is.
pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Tries> {
    let table = POLICY.read(reader, field.node, &field.path)?;
    let nothing = RetryOn { status_5xx: false, reset: false, timeout: Toggle::Off };
    let mut retry = Retry { retries: 1, on: nothing, ..Retry::default() };
    if let Some(field) = table.field("num_retries") {
        let number = reader.whole(field, "a number from 0 to 10", 0..=10);
        retry.retries = number.and_then(|number| u8::try_from(number).ok()).unwrap_or_default();
    }
    match table.field("retry_on") {
        Some(field) => conditions(reader, field, &mut retry.on),
        // Envoy tries nothing again then.
        None => retry.retries = 0,
    }
    if let Some(field) = table.field("retry_back_off") {
        back_off(reader, field, &mut retry);
    }
    let attempt = table.field("per_try_timeout");
    let attempt = attempt.and_then(|field| words::duration(reader, field, Duration::ZERO..=LONGEST));
    Some(Tries { retry, attempt: attempt.filter(|time| !time.is_zero()) })
}

fn conditions(reader: &mut Reader<'_>, field: &Field<'_>, on: &mut RetryOn) {
    const WANTS: &str = "conditions such as 5xx,reset,connect-failure";
    let Some(text) = reader.text(field, WANTS) else { return };
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "5xx" => *on = RetryOn { status_5xx: true, reset: true, timeout: Toggle::On },
            "gateway-error" => {
                on.status_5xx = true;
                wider(reader, field, word, "every 5xx is tried again, not only 502, 503 and 504");
            }
            "reset" => {
                on.reset = true;
                on.timeout = Toggle::On;
            }
            // These always are: nothing reached the application.
            "connect-failure" | "refused-stream" | "reset-before-request" => {}
            "unavailable" => {
                on.status_5xx = true;
                wider(reader, field, word, "a 5xx without gRPC is tried again as well");
            }
            "retriable-4xx"
            | "retriable-status-codes"
            | "retriable-headers"
            | "envoy-ratelimited"
            | "cancelled"
            | "deadline-exceeded"
            | "internal"
            | "resource-exhausted"
            | "http3-post-connect-failure" => {
                let finding = not_here(&format!("retry_on: {word}"));
                reader.report(
                    field.node.span,
                    finding.fix("5xx, gateway-error, reset, connect-failure, refused-stream and unavailable are known"),
                );
            }
            other => {
                let why = format!("`{}` is none", short(other));
                reader.bad(field, WANTS, &why, "write for example 5xx,reset");
            }
        }
    }
    if on.status_5xx || on.reset {
        let what = format!("`{}`: a POST or PATCH that may have been processed is not tried again", field.path);
        let why = "doing it twice could charge somebody twice; Envoy repeats every method";
        let fix = "send an idempotency-key with those that may be repeated";
        reader.report(field.key, Finding::warning(DIFFERS, what).because(why).fix(fix));
    }
}

fn wider(reader: &mut Reader<'_>, field: &Field<'_>, word: &str, what: &str) {
    let finding = Finding::warning(DIFFERS, format!("retry_on: {word}: {what}"));
    reader.report(
        field.node.span,
        finding.because("failures are not told apart more finely").fix("write 5xx if that is meant"),
    );
}

fn back_off(reader: &mut Reader<'_>, field: &Field<'_>, retry: &mut Retry) {
    let Some(table) = BACK_OFF.read(reader, field.node, &field.path) else { return };
    let bounds = Duration::from_millis(1)..=Duration::from_mins(1);
    let base = reader.need(&table, "base_interval", "base_interval: 0.025s").cloned();
    let Some(base) = base.and_then(|base| words::duration(reader, &base, bounds.clone())) else { return };
    (retry.backoff_other, retry.backoff_same) = (base, base);
    if let Some(field) = table.field("max_interval")
        && words::duration(reader, field, bounds).is_some_and(|most| most != base * 10)
    {
        let what = format!("`{}`: pauses grow to ten times base_interval", field.path);
        super::shape::differs(reader, field.key, what, "as they do in Envoy without this key", "leave it out");
    }
}
