//! Linkerd's annotations for trying again and for limits in time (`retry.linkerd.io/…`, `timeout.linkerd.io/…`).

use std::ops::RangeInclusive;

use hms_model::finding::Finding;
use hms_model::http_route::{Bound, HttpRoute, TimeoutOverlay};
use hms_model::policy::Retry;
use hms_model::policy::retry::{RetryOn, Toggle};

use crate::document::{Form, Node, Value, short};
use crate::gateway_api::{attempts, only_what_may_be, time};
use crate::objects::object::{Object, not_carried};
use crate::read::{Field, Reader};

/// Lays what the annotations of a route say over all of its rules.
pub(crate) fn over(reader: &mut Reader<'_>, object: &Object<'_>, route: &mut HttpRoute) {
    let (retry, timeouts) = read(reader, object);
    for rule in &mut route.rules {
        rule.retry = rule.retry.take().or_else(|| retry.clone());
        rule.timeouts.request = rule.timeouts.request.or(timeouts.request);
        rule.timeouts.attempt = rule.timeouts.attempt.or(timeouts.attempt);
        rule.timeouts.idle = rule.timeouts.idle.or(timeouts.idle);
    }
}

/// What the annotations say: of trying again, and of time.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> (Option<Retry>, TimeoutOverlay) {
    let mut timeouts = TimeoutOverlay::default();
    let mut retry: Option<Retry> = None;
    let mut said = None;
    for field in object.annotations(reader) {
        let Some((group, name)) = field.name.split_once('/') else { continue };
        match (group, name) {
            ("retry.linkerd.io", "http") => on_http(reader, &field, retry.get_or_insert_with(once)),
            ("retry.linkerd.io", "grpc") => on_grpc(reader, &field, retry.get_or_insert_with(once)),
            ("retry.linkerd.io", "limit") => {
                if let Some(number) = plain(reader, &field) {
                    retry.get_or_insert_with(once).retries = number;
                }
            }
            ("retry.linkerd.io", "timeout") => timeouts.attempt = time::bound(reader, &field),
            ("timeout.linkerd.io", "request") => timeouts.request = time::bound(reader, &field),
            ("timeout.linkerd.io", "idle") => {
                if let Some(Bound::After(time)) = time::bound(reader, &field) {
                    timeouts.idle = Some(time);
                }
            }
            ("timeout.linkerd.io", "response") => {
                let why = "the limit of a request holds until its answer's end: timeout.linkerd.io/request";
                not_carried(reader, field.key, "a limit for the answer alone", why);
            }
            ("retry.linkerd.io" | "timeout.linkerd.io", other) => {
                let finding = Finding::error(2103, format!("no annotation `{}` of {group}", short(other)));
                let why =
                    "known: retry.linkerd.io/http, grpc, limit, timeout; timeout.linkerd.io/request, response, idle";
                reader.report(field.key, finding.because(why).fix("correct it or remove it"));
                continue;
            }
            _ => continue,
        }
        if group == "retry.linkerd.io" && name != "timeout" {
            said = said.or(Some(field));
        }
    }
    if let (Some(retry), Some(field)) = (&retry, &said) {
        only_what_may_be(reader, field, retry);
    }
    (retry, timeouts)
}

/// Linkerd tries once more unless it is told otherwise.
fn once() -> Retry {
    Retry { retries: 1, ..Retry::default() }
}

/// Annotations are texts, numbers in them too.
fn unquoted(field: &Field<'_>) -> Node {
    let mut node = field.node.clone();
    if let Value::Scalar(_, form) = &mut node.value {
        *form = Form::Plain;
    }
    node
}

fn plain(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u8> {
    attempts(reader, &Field { node: &unquoted(field), ..field.clone() })
}

/// A whole number.
pub(super) fn number(reader: &mut Reader<'_>, field: &Field<'_>, bounds: RangeInclusive<u32>) -> Option<u32> {
    reader.whole(&Field { node: &unquoted(field), ..field.clone() }, "a whole number", bounds)
}

fn on_http(reader: &mut Reader<'_>, field: &Field<'_>, retry: &mut Retry) {
    let Some(text) = reader.text(field, "statuses such as 5xx or 500-504,gateway-error") else { return };
    let mut all = false;
    for word in text.split(',').map(str::trim) {
        let range = word.split_once('-').unwrap_or((word, word));
        match (word, range.0.parse::<u16>(), range.1.parse::<u16>()) {
            ("5xx", ..) => all = true,
            ("gateway-error", ..) => retry.statuses.extend(502..=504),
            (_, Ok(from), Ok(to)) if (500..=599).contains(&from) && (from..=599).contains(&to) => {
                retry.statuses.extend(from..=to);
            }
            _ => {
                let why = "known: 5xx, gateway-error, and statuses or ranges from 500 to 599";
                reader.bad(field, "statuses such as 5xx or 500-504", why, "write for example 5xx");
                return;
            }
        }
    }
    retry.statuses.sort_unstable();
    retry.statuses.dedup();
    if all {
        retry.statuses.clear();
    }
}

fn on_grpc(reader: &mut Reader<'_>, field: &Field<'_>, retry: &mut Retry) {
    let Some(text) = reader.text(field, "codes such as unavailable") else { return };
    let mut others = false;
    let mut unavailable = false;
    for word in text.split(',').map(str::trim) {
        match word {
            "unavailable" => unavailable = true,
            "cancelled" | "deadline-exceeded" | "internal" | "resource-exhausted" => others = true,
            _ => {
                let why = "known: cancelled, deadline-exceeded, internal, resource-exhausted, unavailable";
                return reader.bad(field, "codes such as unavailable", why, "write unavailable");
            }
        }
    }
    if others {
        let why = "of the codes of gRPC `unavailable` is tried again; the others are answers";
        not_carried(reader, field.key, "trying again after other codes of gRPC than unavailable", why);
    }
    retry.on = RetryOn { status_5xx: unavailable || !retry.statuses.is_empty(), reset: true, timeout: Toggle::On };
}
