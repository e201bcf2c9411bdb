//! `timeout` and `retries` of a rule.

use hms_model::http_route::TimeoutOverlay;
use hms_model::policy::Retry;
use hms_model::policy::retry::{RetryOn, Toggle};

use crate::gateway_api::{attempts, only_what_may_be, time};
use crate::objects::object::not_carried;
use crate::read::{Field, Keys, Reader, Table};

const RETRIES: Keys = Keys::new(&[
    "attempts",
    "perTryTimeout",
    "retryOn",
    "retryRemoteLocalities",
    "backoff",
    "retryIgnorePreviousHosts",
]);

/// Bounds in time and trying again.
pub(super) fn read(reader: &mut Reader<'_>, table: &Table<'_>) -> (TimeoutOverlay, Option<Retry>) {
    let request = table.field("timeout").cloned().and_then(|field| time::bound(reader, &field));
    let mut timeouts = TimeoutOverlay { request, ..TimeoutOverlay::default() };
    let Some(field) = table.field("retries").cloned() else { return (timeouts, None) };
    let Some(table) = reader.table(field.node, &field.path, RETRIES) else { return (timeouts, None) };
    let mut retry = Retry::default();
    if let Some(number) = table.field("attempts").cloned().and_then(|field| attempts(reader, &field)) {
        retry.retries = number;
    }
    timeouts.attempt = table.field("perTryTimeout").cloned().and_then(|field| time::bound(reader, &field));
    if let Some(pause) = table.field("backoff").cloned().and_then(|field| time::duration(reader, &field)) {
        (retry.backoff_other, retry.backoff_same) = (pause, pause);
    }
    if let Some(field) = table.field("retryOn").cloned() {
        on(reader, &field, &mut retry);
    }
    for key in ["retryRemoteLocalities", "retryIgnorePreviousHosts"] {
        if let Some(field) = table.field(key) {
            not_carried(
                reader,
                field.key,
                &format!("`{key}`"),
                "a further try goes to an instance that was not tried, wherever it is",
            );
        }
    }
    only_what_may_be(reader, &field, &retry);
    (timeouts, Some(retry))
}

fn on(reader: &mut Reader<'_>, field: &Field<'_>, retry: &mut Retry) {
    let Some(text) = reader.text(field, "conditions such as 5xx,reset") else { return };
    let mut on = RetryOn { status_5xx: false, reset: false, timeout: Toggle::Off };
    let mut strange = false;
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word {
            "5xx" => on = RetryOn { status_5xx: true, reset: true, timeout: Toggle::On },
            "gateway-error" => {
                on.status_5xx = true;
                retry.statuses.extend(502..=504);
            }
            "reset" | "reset-before-request" => on.reset = true,
            "unavailable" => {
                on.status_5xx = true;
                retry.statuses.push(503);
            }
            // Always tried again: nobody has processed it.
            "connect-failure" | "refused-stream" => {}
            _ => match word.parse::<u16>() {
                Ok(status) if (500..=599).contains(&status) => {
                    on.status_5xx = true;
                    retry.statuses.push(status);
                }
                _ => strange = true,
            },
        }
    }
    if strange {
        let why = "known: 5xx, gateway-error, reset, connect-failure, refused-stream, unavailable, and statuses from 500 to 599";
        not_carried(reader, field.key, "a part of `retryOn`", why);
    }
    if text.split(',').any(|word| word.trim() == "5xx") {
        retry.statuses.clear();
    }
    retry.statuses.sort_unstable();
    retry.statuses.dedup();
    retry.on = on;
}
