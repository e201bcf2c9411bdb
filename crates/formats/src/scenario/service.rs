//! One service of a scenario.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::TrafficPolicy;
use hms_model::split::{MOST_SHARES, Share};
use http::{Method, StatusCode};

use super::{Behaviour, FailsWith, Instance, Latency, Played, State, percentage};
use crate::document::Value;
use crate::mesh_yaml::service::share_of;
use crate::mesh_yaml::{MAIN_VERSION, policy};
use crate::read::{Field, Keys, Reader, Table};
use crate::rules::{nearest_method, rate_limit};

const KEYS: Keys = Keys::new(&[
    "instances",
    "zones",
    "version",
    "versions",
    "calls",
    "method",
    "latency",
    "fails",
    "fails_with",
    "on_failure",
    "forwards_attempt",
    "retry",
    "timeout",
    "breaker",
    "balance",
    "rate_limit",
]);
const VERSION: Keys = Keys::new(&["instances", "weight", "latency", "fails", "fails_with"]);
const LATENCY: Keys = Keys::new(&["p50", "p99"]);
/// Instances of one version.
const MOST_INSTANCES: u32 = 200;
/// Services that one calls for one request.
const MOST_CALLS: usize = 16;
/// Zones of one service.
const MOST_ZONES: usize = 16;

/// How long an application works for which nothing is said.
const WORK: Duration = Duration::from_millis(5);

/// A service, and where it names the services it calls.
type Read<'n> = (Played, Vec<(ServiceName, Field<'n>)>);

/// Reads one service.
pub(super) fn read<'n>(
    reader: &mut Reader<'_>,
    field: &Field<'n>,
    name: Option<&ServiceName>,
    defaults: &TrafficPolicy,
) -> Option<Read<'n>> {
    let table = reader.table(field.node, &field.path, KEYS)?;
    let base = Behaviour {
        latency: Latency { p50: WORK, p99: WORK },
        fails: 0,
        fails_with: FailsWith::Status(StatusCode::SERVICE_UNAVAILABLE),
        slow: Duration::ZERO,
        state: State::Up,
    };
    let behaviour = behaviour(reader, &table, base);
    let zones = table.field("zones").map(|field| zones(reader, field)).unwrap_or_default();
    let main =
        table.field("version").and_then(|field| version(reader, field)).unwrap_or_else(|| MAIN_VERSION.to_owned());
    let mut instances = Vec::new();
    add(reader, &table, &main, &zones, behaviour, &mut instances);
    let mut split = Vec::new();
    if let (Some(field), Some(name)) = (table.field("versions"), name) {
        split = versions(reader, field, (name, &main, &zones, behaviour), &mut instances);
    }
    let calls = table.field("calls").map(|field| calls(reader, field)).unwrap_or_default();
    let on_failure = table.field("on_failure").and_then(|field| status(reader, field));
    let service = Played {
        policy: policy::overlay(reader, &table, defaults).over(defaults),
        rate_limit: table.field("rate_limit").and_then(|field| rate_limit(reader, field)),
        instances,
        split,
        calls: calls.iter().map(|(name, _)| name.clone()).collect(),
        method: table.field("method").and_then(|field| method(reader, field)).unwrap_or(Method::GET),
        on_failure,
        forwards_attempt: table.field("forwards_attempt").and_then(|field| reader.boolean(field)).unwrap_or_default(),
    };
    Some((service, calls))
}

/// Adds the instances of a version, one zone after the other.
fn add(
    reader: &mut Reader<'_>,
    table: &Table<'_>,
    version: &str,
    zones: &[String],
    behaviour: Behaviour,
    instances: &mut Vec<Instance>,
) {
    let stated = table.field("instances");
    let stated = stated.and_then(|field| reader.whole(field, "a number of instances", 1..=MOST_INSTANCES));
    // One in each zone, if nothing is said.
    let least = u32::try_from(zones.len()).unwrap_or(MOST_INSTANCES).max(1);
    for number in 0..stated.unwrap_or(least) {
        let place = usize::try_from(number).unwrap_or_default() % zones.len().max(1);
        let zone = zones.get(place).cloned().unwrap_or_default();
        instances.push(Instance { version: version.to_owned(), zone, behaviour });
    }
}

/// Further versions with their shares in per cent, as `mesh.yaml` writes them; what they leave is the main version's.
fn versions(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    (name, main, zones, base): (&ServiceName, &str, &[String], Behaviour),
    instances: &mut Vec<Instance>,
) -> Vec<Share> {
    let mut shares = Vec::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return shares };
    if table.fields().len() >= MOST_SHARES {
        let finding = Finding::error(2112, format!("`{}` has {MOST_SHARES} versions or more", field.path));
        reader.report(field.key, finding.fix("play those that matter"));
        return shares;
    }
    let mut left = 100;
    for field in table.fields() {
        if field.name == main {
            let finding = Finding::error(2110, format!("`{}` is the version of the service itself", field.path));
            reader.report(field.key, finding.fix("give it another name, or say version: beside versions:"));
        }
        let Some(own) = reader.table(field.node, &field.path, VERSION) else { continue };
        let weight = share_of(reader, field, &own, &mut left);
        let behaviour = behaviour(reader, &own, base);
        add(reader, &own, field.name, zones, behaviour, instances);
        shares.push(Share { service: name.clone(), version: field.name.to_owned(), weight });
    }
    shares.insert(0, Share { service: name.clone(), version: main.to_owned(), weight: left });
    shares
}

fn behaviour(reader: &mut Reader<'_>, table: &Table<'_>, base: Behaviour) -> Behaviour {
    let fails = table.field("fails").and_then(|field| {
        let text = reader.text(field, "a share such as 5%")?;
        percentage(reader, field, text)
    });
    Behaviour {
        latency: table.field("latency").and_then(|field| latency(reader, field)).unwrap_or(base.latency),
        fails: fails.unwrap_or(base.fails),
        fails_with: table.field("fails_with").and_then(|field| fails_with(reader, field)).unwrap_or(base.fails_with),
        ..base
    }
}

/// `5ms`, or `{p50: 5ms, p99: 40ms}`.
fn latency(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Latency> {
    let bounds = Duration::ZERO..=Duration::from_mins(10);
    if !matches!(field.node.value, Value::Map(_)) {
        let always = reader.duration(field, bounds)?;
        return Some(Latency { p50: always, p99: always });
    }
    let table = reader.table(field.node, &field.path, LATENCY)?;
    let p50 = reader.need(&table, "p50", "p50: 5ms").cloned();
    let p50 = p50.and_then(|field| reader.duration(&field, bounds.clone()));
    let p99 = reader.need(&table, "p99", "p99: 40ms").cloned();
    let at = p99.clone();
    let p99 = p99.and_then(|field| reader.duration(&field, bounds));
    let (p50, p99) = (p50?, p99?);
    if p99 < p50 {
        let finding = Finding::error(2105, format!("`{}` has a p99 below its p50", field.path));
        reader.report(at?.node.span, finding.fix("make p99 the larger one"));
        return None;
    }
    Some(Latency { p50, p99 })
}

/// A status from 500 on, or `reset`.
fn fails_with(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<FailsWith> {
    match &field.node.value {
        Value::Scalar(text, _) if text == "reset" => Some(FailsWith::Reset),
        _ => status(reader, field).map(FailsWith::Status),
    }
}

fn status(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<StatusCode> {
    let number = reader.whole(field, "a status from 500 to 599", 500..=599)?;
    u16::try_from(number).ok().and_then(|number| StatusCode::from_u16(number).ok())
}

/// One of HTTP's methods.
pub(super) fn method(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Method> {
    let text = reader.text(field, "an HTTP method")?;
    let known = hms_model::route::METHODS.contains(&text);
    let method = known.then(|| Method::from_bytes(text.as_bytes()).ok()).flatten();
    if method.is_none() {
        let fix =
            nearest_method(text).map_or_else(|| "write for example GET".to_owned(), |near| format!("write {near}"));
        reader.bad(field, "an HTTP method", "", &fix);
    }
    method
}

fn calls<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Vec<(ServiceName, Field<'n>)> {
    let Some(items) = reader.list(field, "a list of services such as [last]") else { return Vec::new() };
    if items.len() > MOST_CALLS {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_CALLS} entries", field.path));
        reader.report(field.key, finding.fix("play the calls that matter"));
        return Vec::new();
    }
    items.into_iter().filter_map(|item| Some((reader.service(&item)?, item))).collect()
}

fn zones(reader: &mut Reader<'_>, field: &Field<'_>) -> Vec<String> {
    let Some(items) = reader.list(field, "a list of zones such as [eu-1a, eu-1b]") else { return Vec::new() };
    if items.len() > MOST_ZONES {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_ZONES} zones", field.path));
        reader.report(field.key, finding.fix("play the zones that matter"));
        return Vec::new();
    }
    items.iter().filter_map(|item| reader.line(item, "a zone such as eu-1a", 63)).map(str::to_owned).collect()
}

fn version(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    reader.line(field, "a version such as v1", 63).map(str::to_owned)
}
