//! `retry` of a rule (GEP-1731).

use hms_model::finding::Finding;
use hms_model::policy::Retry;

use super::time;
use crate::objects::object::{items, not_carried};
use crate::read::{Field, Keys, Reader};

const RETRY: Keys = Keys::new(&["codes", "attempts", "backoff"]);
/// Tries after the first that are carried.
const MOST: u32 = 10;

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Retry> {
    let table = reader.table(field.node, &field.path, RETRY)?;
    let mut retry = Retry::default();
    if let Some(field) = table.field("attempts").cloned() {
        retry.retries = attempts(reader, &field)?;
    }
    if let Some(field) = table.field("backoff").cloned() {
        let pause = time::duration(reader, &field)?;
        (retry.backoff_other, retry.backoff_same) = (pause, pause);
    }
    if let Some(field) = table.field("codes").cloned() {
        let mut below = false;
        for item in items(reader, &table, "codes", 200, "a list of statuses") {
            match reader.whole(&item, "a status from 400 to 599", 400..=599).and_then(|code| u16::try_from(code).ok()) {
                Some(code) if code >= 500 && !retry.statuses.contains(&code) => retry.statuses.push(code),
                Some(code) => below |= code < 500,
                None => {}
            }
        }
        if below {
            let why = "an answer below 500 says that the request is at fault, and is final";
            not_carried(reader, field.key, "trying again after a status below 500", why);
        }
        // Naming none that counts means none, not all of them.
        retry.on.status_5xx = !retry.statuses.is_empty();
    }
    only_what_may_be(reader, field, &retry);
    Some(retry)
}

/// How many tries after the first.
pub(crate) fn attempts(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<u8> {
    let attempts = reader.whole(field, "a number of tries after the first", 0..=MOST)?;
    u8::try_from(attempts).ok()
}

/// What people mean by trying again is more than what is done (ruling R2).
pub(crate) fn only_what_may_be(reader: &mut Reader<'_>, field: &Field<'_>, retry: &Retry) {
    if retry.retries == 0 {
        return;
    }
    let message = "a POST or PATCH is tried again only if it provably was not processed";
    let why = "doing it twice might pay twice; GET, HEAD, OPTIONS, TRACE, PUT and DELETE are tried again as this says";
    reader.report(field.key, Finding::warning(2173, message).because(why));
}
