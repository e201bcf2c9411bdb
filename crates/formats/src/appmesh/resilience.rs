//! `retryPolicy` and `timeout` of a route.

use hms_model::http_route::{Bound, TimeoutOverlay};
use hms_model::policy::Retry;
use hms_model::policy::retry::{RetryOn, Toggle};

use super::names::duration;
use crate::gateway_api::{attempts, only_what_may_be};
use crate::objects::object::{items, not_carried};
use crate::read::{Field, Keys, Reader};

const RETRY: Keys =
    Keys::new(&["maxRetries", "perRetryTimeout", "httpRetryEvents", "tcpRetryEvents", "grpcRetryEvents"]);
const TIMEOUT: Keys = Keys::new(&["perRequest", "idle"]);

/// An event after which a request is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Server,
    Gateway,
    Client,
    Stream,
    Connection,
    Unavailable,
    OtherCode,
}

/// Words for events.
type Words = [(&'static str, Event)];

const HTTP: [(&str, Event); 4] = [
    ("server-error", Event::Server),
    ("gateway-error", Event::Gateway),
    ("client-error", Event::Client),
    ("stream-error", Event::Stream),
];
const TCP: [(&str, Event); 1] = [("connection-error", Event::Connection)];
const GRPC: [(&str, Event); 5] = [
    ("unavailable", Event::Unavailable),
    ("cancelled", Event::OtherCode),
    ("deadline-exceeded", Event::OtherCode),
    ("internal", Event::OtherCode),
    ("resource-exhausted", Event::OtherCode),
];

/// `timeout`.
pub(super) fn timeouts(reader: &mut Reader<'_>, field: &Field<'_>) -> TimeoutOverlay {
    let mut timeouts = TimeoutOverlay::default();
    let Some(table) = reader.table(field.node, &field.path, TIMEOUT) else { return timeouts };
    if let Some(time) = table.field("perRequest").cloned().and_then(|field| duration(reader, &field)) {
        timeouts.request = Some(if time.is_zero() { Bound::Lifted } else { Bound::After(time) });
    }
    if let Some(field) = table.field("idle").cloned()
        && let Some(time) = duration(reader, &field)
    {
        if time.is_zero() {
            not_carried(reader, field.key, "no limit for idle streams", "there always is one: the service's");
        } else {
            timeouts.idle = Some(time);
        }
    }
    timeouts
}

/// `retryPolicy`: how a request is tried again, and how long each try may take.
pub(super) fn retry(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<(Retry, Option<Bound>)> {
    let table = reader.table(field.node, &field.path, RETRY)?;
    let mut retry = Retry { on: RetryOn { status_5xx: false, reset: false, timeout: Toggle::Off }, ..Retry::default() };
    let number = reader.need(&table, "maxRetries", "maxRetries: 2").cloned();
    let number = number.and_then(|field| attempts(reader, &field));
    let each = table.field("perRetryTimeout").cloned().and_then(|field| duration(reader, &field));
    let each = each.filter(|time| !time.is_zero()).map(Bound::After);
    // A try that takes too long is over, and another one may do better.
    if each.is_some() {
        retry.on.timeout = Toggle::On;
    }
    let mut all = false;
    let lists: [(&str, &Words); 3] = [("httpRetryEvents", &HTTP), ("tcpRetryEvents", &TCP), ("grpcRetryEvents", &GRPC)];
    for (key, words) in lists {
        for item in items(reader, &table, key, 25, "a list of events such as [gateway-error]") {
            match reader.word(&item, words) {
                Some(Event::Server) => {
                    retry.on.status_5xx = true;
                    all = true;
                }
                Some(Event::Gateway) => {
                    retry.on.status_5xx = true;
                    retry.statuses.extend(502..=504);
                }
                Some(Event::Unavailable) => {
                    retry.on.status_5xx = true;
                    retry.statuses.push(503);
                }
                Some(Event::Stream) => retry.on.reset = true,
                Some(Event::Client) => {
                    let why = "an answer below 500 says that the request is at fault, and is final";
                    not_carried(reader, item.node.span, "trying again after a 409", why);
                }
                Some(Event::OtherCode) => {
                    let why = "of the codes of gRPC `unavailable` is tried again; the others are answers";
                    not_carried(reader, item.node.span, "trying again after this code of gRPC", why);
                }
                // Always tried again: nobody has processed it.
                Some(Event::Connection) | None => {}
            }
        }
    }
    if all {
        retry.statuses.clear();
    }
    retry.statuses.sort_unstable();
    retry.statuses.dedup();
    retry.retries = number?;
    only_what_may_be(reader, field, &retry);
    Some((retry, each))
}
