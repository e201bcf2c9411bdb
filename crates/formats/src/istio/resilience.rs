//! `timeout` and `retries` of a rule.

use hms_model::http_route::TimeoutOverlay;
use hms_model::policy::Retry;

use crate::gateway_api::{attempts, only_what_may_be, time};
use crate::objects::object::not_carried;
use crate::objects::words;
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
    let conditions: Vec<&str> = text.split(',').map(str::trim).filter(|word| !word.is_empty()).collect();
    if words::try_again(&conditions, retry) {
        words::strange_condition(reader, field.key, "retryOn");
    }
}
