//! `load_assignment`: where a cluster's endpoints are.

use std::net::IpAddr;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::standalone::{Family, HostName, StaticTarget, TargetHost};
use hms_model::workload::Health;

use super::cluster::Discovery;
use super::shape::{LEAVE_OUT, Not, Shape, differs, not_here};
use super::words::{self, Ports, Socket};
use crate::read::{Field, Reader, Table};

/// Most endpoints of a cluster.
const MOST: usize = 1024;

const ASSIGNMENT: Shape = Shape::new(
    &["cluster_name", "endpoints"],
    &[("policy", Not::Here(LEAVE_OUT)), ("named_endpoints", Not::Here("write the endpoints out"))],
);
const LOCALITY: Shape = Shape::new(
    &["locality", "lb_endpoints", "priority"],
    &[
        ("load_balancing_weight", Not::Here("leave it out; every endpoint weighs the same")),
        ("proximity", Not::Here(LEAVE_OUT)),
        ("metadata", Not::Needed),
        ("load_balancer_endpoints", Not::Here("write lb_endpoints")),
        ("leds_cluster_locality_config", Not::Here("write lb_endpoints")),
    ],
);
const PLACE: Shape = Shape::new(&["zone", "region", "sub_zone"], &[]);
const LB_ENDPOINT: Shape = Shape::new(
    &["endpoint", "health_status", "load_balancing_weight"],
    &[("metadata", Not::Needed), ("endpoint_name", Not::Here("write the endpoint out"))],
);
const ENDPOINT: Shape = Shape::new(
    &["address"],
    &[
        ("hostname", Not::Needed),
        ("health_check_config", Not::Here(LEAVE_OUT)),
        ("additional_addresses", Not::Here("write an endpoint for each address")),
    ],
);

/// How the hosts of a cluster become addresses.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) discovery: Discovery,
    pub(super) family: Family,
    pub(super) every: Duration,
}

/// The endpoints of a cluster called `cluster`.
pub(super) fn targets(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    how: How,
    cluster: Option<&str>,
) -> Vec<StaticTarget> {
    let Some(table) = ASSIGNMENT.read(reader, field.node, &field.path) else { return Vec::new() };
    if let Some(name) = table.field("cluster_name")
        && let (Some(own), Some(text)) = (cluster, reader.text(name, "the cluster's name"))
        && own != text
    {
        let finding = Finding::warning(2107, format!("`{}` is not the cluster's name", name.path));
        reader.report(name.node.span, finding.because("it has no effect").fix("write the same name twice"));
    }
    let Some(list) = table.field("endpoints") else { return Vec::new() };
    let localities = reader.list(list, "a list with lb_endpoints").unwrap_or_default();
    if localities.len() > 1 {
        let what = format!("`{}`: {} localities are one group of endpoints here", list.path, localities.len());
        differs(reader, list.key, what, "requests are not kept to one's own locality", "nothing needs to be done");
    }
    let mut targets = Vec::new();
    for locality in &localities {
        locality_targets(reader, locality, how, &mut targets);
    }
    if targets.len() > MOST {
        let finding = Finding::error(2112, format!("a cluster has at most {MOST} endpoints, not {}", targets.len()));
        reader.report(list.key, finding.fix("split it into several clusters"));
        targets.truncate(MOST);
    }
    if let Discovery::Dns(hms_model::standalone::Take::First) = how.discovery
        && targets.len() > 1
    {
        let why = "Envoy takes one for LOGICAL_DNS";
        reader.bad(list, "one endpoint", why, "write type: STRICT_DNS, or leave one endpoint");
    }
    targets
}

fn locality_targets(reader: &mut Reader<'_>, item: &Field<'_>, how: How, targets: &mut Vec<StaticTarget>) {
    let Some(table) = LOCALITY.read(reader, item.node, &item.path) else { return };
    if let Some(field) = table.field("priority")
        && reader.whole(field, "a number", 0..=128).is_some_and(|priority| priority > 0)
    {
        let fix = "leave the endpoints of lower priority out, or put them into a cluster of their own";
        reader.report(field.key, not_here("a `priority` other than 0").fix(fix));
    }
    let place = table.field("locality").and_then(|field| PLACE.read(reader, field.node, &field.path));
    let zone = place.and_then(|place| place.field("zone").cloned());
    let zone = zone.and_then(|field| reader.line(&field, "a zone", 128)).unwrap_or_default();
    let Some(list) = table.field("lb_endpoints") else { return };
    let items = reader.list(list, "a list of endpoints").unwrap_or_default();
    let mut weights = Vec::new();
    for item in &items {
        let Some(table) = LB_ENDPOINT.read(reader, item.node, &item.path) else { continue };
        if let Some(field) = table.field("load_balancing_weight") {
            weights.extend(reader.whole(field, "a weight", 1..=u32::MAX).map(|weight| (weight, field.clone())));
        }
        let health = table.field("health_status").map_or(Some(Health::Healthy), |field| health(reader, field));
        if let (Some(target), Some(health)) = (target(reader, &table, how), health) {
            targets.push(StaticTarget { zone: zone.to_owned(), health, ..target });
        }
    }
    let first = weights.first().map(|(weight, _)| *weight);
    let even = weights.len() == items.len() || weights.iter().all(|(weight, _)| *weight == 1);
    if let Some((_, field)) = weights.iter().find(|(weight, _)| Some(*weight) != first || !even) {
        let finding = not_here("giving endpoints different weights");
        reader.report(field.key, finding.fix("leave load_balancing_weight out; every endpoint weighs the same"));
    }
}

fn health(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Health> {
    let known = [
        ("UNKNOWN", Health::Healthy),
        ("HEALTHY", Health::Healthy),
        ("UNHEALTHY", Health::Unhealthy),
        ("DRAINING", Health::Draining),
    ];
    words::word(reader, field, &known)
}

fn target(reader: &mut Reader<'_>, table: &Table<'_>, how: How) -> Option<StaticTarget> {
    let endpoint = reader.need(table, "endpoint", "endpoint: { address: … }").cloned()?;
    let table = ENDPOINT.read(reader, endpoint.node, &endpoint.path)?;
    let address = reader.need(&table, "address", "address: { socket_address: … }").cloned()?;
    let Socket { host, port, at } = words::socket(reader, &address, Ports::Called)?;
    let host = match (host.parse::<IpAddr>(), how.discovery) {
        (Ok(ip), _) => TargetHost::Address(ip),
        (Err(_), Discovery::Static) => {
            let why = "a cluster of type STATIC names addresses";
            reader.bad(&at, "an IP address", why, "write type: STRICT_DNS for the cluster if this is a name");
            return None;
        }
        (Err(_), Discovery::Dns(take)) => {
            let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
            if !host.bytes().all(fits) {
                reader.bad(
                    &at,
                    "a host name",
                    "it has letters, digits, `.`, `-` and `_`",
                    "write a name or an address",
                );
                return None;
            }
            let name = host.to_ascii_lowercase();
            TargetHost::Name(HostName { name, family: how.family, take, every: how.every })
        }
    };
    Some(StaticTarget { host, port, zone: String::new(), health: Health::Healthy })
}
