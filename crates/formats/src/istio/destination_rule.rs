//! `DestinationRule`: which version a subset is, and policies of a service.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::balance::{Algorithm, HashKey};
use hms_model::policy::{Balance, Limits, Outlier};
use hms_model::resource::Overlay;

use http::HeaderName;

use super::{Subsets, service};
use crate::document::short;
use crate::gateway_api::time;
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Keys, Reader, Table};

pub(super) const SPEC: Keys = Keys::new(&["host", "trafficPolicy", "subsets", "exportTo", "workloadSelector"]);
const SUBSET: Keys = Keys::new(&["name", "labels", "trafficPolicy"]);
pub(super) const POLICY: Keys = Keys::new(&[
    "loadBalancer",
    "connectionPool",
    "outlierDetection",
    "tls",
    "portLevelSettings",
    "tunnel",
    "proxyProtocol",
    "retryBudget",
]);
const OUTLIER: Keys = Keys::new(&[
    "consecutive5xxErrors",
    "consecutiveGatewayErrors",
    "consecutiveErrors",
    "interval",
    "baseEjectionTime",
    "maxEjectionPercent",
    "minHealthPercent",
    "splitExternalLocalOriginErrors",
    "consecutiveLocalOriginFailures",
]);
/// Subsets of one service.
const SUBSETS: usize = 32;

/// What the rule says of its service.
pub(crate) fn read(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    subsets: &mut Subsets,
) -> Option<(ServiceName, Overlay)> {
    let spec = object.spec(reader, SPEC, "spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}")?;
    let host = reader.need(&spec, "host", "host: reviews").cloned();
    let host = host.and_then(|field| service(reader, object, &field));
    let policy = spec.field("trafficPolicy").cloned();
    let overlay = policy.map(|field| policy_of(reader, &field)).unwrap_or_default();
    for item in items(reader, &spec, "subsets", SUBSETS, "a list such as [{name: v1, labels: {version: v1}}]") {
        let Some(table) = reader.table(item.node, &item.path, SUBSET) else { continue };
        let name = reader.need(&table, "name", "name: v1").cloned();
        let name = name.and_then(|field| reader.line(&field, "a name", 63));
        let version = version(reader, &table);
        if let Some(field) = table.field("trafficPolicy") {
            not_carried(
                reader,
                field.key,
                "a policy of one subset",
                "policies are those of a service, whatever its version",
            );
        }
        if let (Some(host), Some(name), Some(version)) = (&host, name, version) {
            subsets.insert((host.clone(), name.to_owned()), version);
        }
    }
    for key in ["exportTo", "workloadSelector"] {
        if let Some(field) = spec.field(key) {
            not_carried(reader, field.key, &format!("`{key}`"), "policies of a service hold for all of its callers");
        }
    }
    Some((host?, overlay))
}

/// The label `version`, and no other.
fn version(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<String> {
    let field = reader.need(table, "labels", "labels: {version: v1}").cloned()?;
    let labels = reader.open_table(field.node, &field.path)?;
    for other in labels.fields().iter().filter(|label| label.name != "version") {
        let why = "instances of a service differ by their version alone";
        let what = format!("the label `{}` of a subset", short(other.name));
        no_equal(reader, other.key, &what, why, "labels: {version: v1}");
    }
    let version = reader.need(&labels, "version", "version: v1").cloned()?;
    reader.line(&version, "a version", 63).map(str::to_owned)
}

fn policy_of(reader: &mut Reader<'_>, field: &Field<'_>) -> Overlay {
    let Some(table) = reader.table(field.node, &field.path, POLICY) else { return Overlay::default() };
    if let Some(field) = table.field("tls")
        && let Some(inner) = reader.open_table(field.node, &field.path)
        && !crate::gateway_api::is_word(inner.field("mode"), "ISTIO_MUTUAL")
    {
        not_carried(reader, field.key, "`tls` of a DestinationRule", "between proxies there is mutual TLS, always");
    }
    for key in ["portLevelSettings", "tunnel", "proxyProtocol", "retryBudget"] {
        if let Some(field) = table.field(key) {
            not_carried(reader, field.key, &format!("`{key}`"), "policies are those of the whole service");
        }
    }
    overlay(reader, &table)
}

/// The host that a rule is about, as it is written.
pub(super) fn host(object: &Object<'_>) -> Option<String> {
    let mut scratch = Reader::default();
    let spec = object.spec(&mut scratch, SPEC, "")?;
    let host = spec.field("host").cloned()?;
    scratch.line(&host, "a host name", 253).map(str::to_ascii_lowercase)
}

/// The policies that a service and a host outside have in common.
pub(super) fn overlay(reader: &mut Reader<'_>, table: &Table<'_>) -> Overlay {
    Overlay {
        balance: table.field("loadBalancer").cloned().and_then(|field| balance(reader, &field)),
        limits: table.field("connectionPool").cloned().and_then(|field| limits(reader, &field)),
        outlier: table.field("outlierDetection").cloned().and_then(|field| outlier(reader, &field)),
        ..Overlay::default()
    }
}

fn balance(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Balance> {
    let table = reader.open_table(field.node, &field.path)?;
    for other in table.fields().iter().filter(|other| !["simple", "consistentHash"].contains(&other.name)) {
        let why = "instances are chosen by load, in turn, at random or by a key";
        not_carried(reader, other.key, &format!("`{}`", short(&other.path)), why);
    }
    let words = [
        ("LEAST_REQUEST", Some(Algorithm::LeastRequest)),
        ("LEAST_CONN", Some(Algorithm::LeastRequest)),
        ("ROUND_ROBIN", Some(Algorithm::RoundRobin)),
        ("RANDOM", Some(Algorithm::Random)),
        ("PASSTHROUGH", None),
        ("UNSPECIFIED", None),
    ];
    let simple = table.field("simple").cloned().and_then(|field| reader.word(&field, &words).flatten());
    let hashed = table.field("consistentHash").cloned().and_then(|field| hashed(reader, &field));
    hashed.or(simple).map(Balance::from)
}

/// `consistentHash`: the key, and by which of the two algorithms.
fn hashed(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Algorithm> {
    let table = reader.open_table(field.node, &field.path)?;
    let (mut key, mut is_maglev) = (None, false);
    for part in table.fields() {
        match part.name {
            "httpHeaderName" => {
                let text = reader.text(part, "the name of a header field")?;
                key = HeaderName::try_from(text).ok().map(HashKey::Header);
            }
            "httpQueryParameterName" => {
                key = reader.text(part, "the name of a parameter").map(|name| HashKey::Query(name.to_owned()));
            }
            "useSourceIp" => key = Some(HashKey::Source),
            "httpCookie" => {
                let cookie = reader.open_table(part.node, &part.path)?;
                let name = reader.need(&cookie, "name", "name: session").cloned()?;
                key = reader.text(&name, "the name of a cookie").map(|name| HashKey::Cookie(name.to_owned()));
                let why = "a cookie that is hashed is the caller's own; the proxy sets none";
                for other in cookie.fields().iter().filter(|other| other.name != "name") {
                    not_carried(reader, other.key, &format!("`{}`", short(&other.path)), why);
                }
            }
            "maglev" => is_maglev = true,
            _ => not_carried(reader, part.key, &format!("`{}`", short(&part.path)), "the size of the ring is fixed"),
        }
    }
    let Some(key) = key else {
        reader.bad(
            field,
            "a key",
            "it names no header, parameter or cookie",
            "write for example httpHeaderName: x-user",
        );
        return None;
    };
    Some(if is_maglev { Algorithm::Maglev(key) } else { Algorithm::RingHash(key) })
}

fn limits(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Limits> {
    let table = reader.open_table(field.node, &field.path)?;
    let mut limits = None;
    for part in table.fields() {
        let Some(inner) = reader.open_table(part.node, &part.path) else { continue };
        for field in inner.fields() {
            match (part.name, field.name) {
                ("tcp", "maxConnections") | ("http", "http2MaxRequests" | "http1MaxPendingRequests") => {
                    let least = u32::from(field.name != "http1MaxPendingRequests");
                    let Some(number) = reader.whole(field, "a number", least..=1_000_000) else { continue };
                    let own: &mut Limits = limits.get_or_insert_with(Limits::default);
                    let place = match field.name {
                        "maxConnections" => &mut own.connections,
                        "http2MaxRequests" => &mut own.requests,
                        _ => &mut own.pending,
                    };
                    *place = number;
                }
                _ => {
                    let why = "of a pool `tcp.maxConnections`, `http.http2MaxRequests` and `http.http1MaxPendingRequests` are carried";
                    not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
                }
            }
        }
    }
    limits
}

fn outlier(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Outlier> {
    let table = reader.table(field.node, &field.path, OUTLIER)?;
    let mut outlier = Outlier::default();
    for key in ["consecutiveErrors", "consecutiveGatewayErrors", "consecutive5xxErrors"] {
        let Some(field) = table.field(key).cloned() else { continue };
        let Some(number) = reader.whole(&field, "a number of errors", 0..=1000) else { continue };
        if number == 0 {
            let why = "errors in a row always count; there is no mode without";
            not_carried(reader, field.key, &format!("`{key}: 0`"), why);
            continue;
        }
        if key == "consecutive5xxErrors" {
            let message = "a plain 500 counts as no error in a row";
            let why =
                "connections that fail, resets, timeouts, 502, 503 and 504 do; half of the answers 5xx do as well";
            reader.report(field.key, Finding::warning(2173, message).because(why));
        }
        outlier.consecutive = number;
    }
    if let Some(field) = table.field("baseEjectionTime").cloned()
        && let Some(time) = time::duration(reader, &field)
    {
        outlier.open_for = time.max(Duration::from_millis(100));
    }
    let others = [
        "interval",
        "maxEjectionPercent",
        "minHealthPercent",
        "splitExternalLocalOriginErrors",
        "consecutiveLocalOriginFailures",
    ];
    for key in others {
        if let Some(field) = table.field(key) {
            let why = "an instance is ejected at once, and may be the last: then the breaker is open";
            not_carried(reader, field.key, &format!("`{key}`"), why);
        }
    }
    Some(outlier)
}
