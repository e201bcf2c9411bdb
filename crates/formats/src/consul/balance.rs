//! `LoadBalancer` of a resolver.

use hms_model::finding::Finding;
use hms_model::policy::Balance;
use hms_model::policy::balance::{Algorithm, HashKey, is_cookie_name, is_parameter_name};

use super::said;
use crate::document::short;
use crate::gateway_api::header_name;
use crate::objects::object::{items, not_carried};
use crate::read::{Field, Keys, Reader, Table};

const BALANCER: Keys = Keys::new(&["Policy", "RingHashConfig", "LeastRequestConfig", "HashPolicies"]);
const POLICY: Keys = Keys::new(&["Field", "FieldValue", "CookieConfig", "SourceIP", "Terminal"]);
/// Hash policies of one service.
const POLICIES: usize = 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    LeastRequest,
    RoundRobin,
    Random,
    Ring,
    Maglev,
}

const WAYS: [(&str, Way); 5] = [
    ("least_request", Way::LeastRequest),
    ("round_robin", Way::RoundRobin),
    ("random", Way::Random),
    ("ring_hash", Way::Ring),
    ("maglev", Way::Maglev),
];

pub(super) fn read(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Balance> {
    let table = reader.table_spelt(field.node, &field.path, BALANCER, &[])?;
    for key in ["RingHashConfig", "LeastRequestConfig"] {
        if let Some(field) = said(&table, key) {
            let why = "the size of the ring and the number of choices are fixed";
            not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
        }
    }
    let way = said(&table, "Policy").map_or(Some(Way::LeastRequest), |field| reader.word(&field, &WAYS))?;
    if let (false, Some(field)) = (matches!(way, Way::Ring | Way::Maglev), said(&table, "HashPolicies")) {
        let finding = Finding::error(2107, format!("`{}` means nothing to this policy", field.path));
        reader.report(field.key, finding.because("it hashes nothing").fix("Policy: ring_hash, or maglev"));
    }
    let algorithm = match way {
        Way::LeastRequest => Algorithm::LeastRequest,
        Way::RoundRobin => Algorithm::RoundRobin,
        Way::Random => Algorithm::Random,
        Way::Ring => Algorithm::RingHash(key(reader, &table)?),
        Way::Maglev => Algorithm::Maglev(key(reader, &table)?),
    };
    Some(Balance::from(algorithm))
}

/// The first key; Consul puts several together.
fn key(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<HashKey> {
    let list = items(reader, table, "HashPolicies", POLICIES, "a list such as [{Field: header, FieldValue: x-user}]");
    let Some(first) = list.first() else {
        reader.need_spelt(table, "HashPolicies", "[{Field: header, FieldValue: x-user}]");
        return None;
    };
    if let Some(second) = list.get(1) {
        let why = "one key decides; the first is taken";
        not_carried(reader, second.node.span, "a further hash policy", why);
    }
    let table = reader.table_spelt(first.node, &first.path, POLICY, &[])?;
    if let Some(field) = said(&table, "CookieConfig") {
        let why = "a cookie that is hashed is the caller's own; the proxy sets none";
        not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
    }
    if said(&table, "SourceIP").and_then(|field| reader.boolean(&field)) == Some(true) {
        return Some(HashKey::Source);
    }
    let kind = reader.need_spelt(&table, "Field", "header")?;
    let kind = reader.word(&kind, &[("header", 0), ("cookie", 1), ("query_parameter", 2)]);
    let value = reader.need_spelt(&table, "FieldValue", "x-user")?;
    match kind? {
        0 => header_name(reader, &value).map(HashKey::Header),
        kind => {
            let text = reader.line(&value, "a name", 64)?;
            if kind == 1 && is_cookie_name(text) {
                return Some(HashKey::Cookie(text.to_owned()));
            }
            if kind == 2 && is_parameter_name(text) {
                return Some(HashKey::Query(text.to_owned()));
            }
            reader.bad(&value, "a name", "it has letters, digits, - . _ and ~", "write for example session");
            None
        }
    }
}
