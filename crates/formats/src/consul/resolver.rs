//! `service-resolver`: which instances a subset is, who is meant instead, and how callers choose.

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::Timeouts;
use hms_model::resource::Overlay;

use super::chain::{Resolver, Target};
use super::{balance, referred, said, settings, subset};
use crate::document::short;
use crate::gateway_api::time;
use crate::objects::object::{Object, no_equal, not_carried};
use crate::objects::words::{key_field, key_node};
use crate::read::{Field, Keys, Reader, Span};

const RESOLVER: Keys = Keys::new(&[
    "DefaultSubset",
    "Subsets",
    "Redirect",
    "Failover",
    "ConnectTimeout",
    "RequestTimeout",
    "LoadBalancer",
    "PrioritizeByLocality",
]);
const SUBSET: Keys = Keys::new(&["Filter", "OnlyPassing"]);
const REDIRECT: Keys =
    Keys::new(&["Service", "ServiceSubset", "Namespace", "Partition", "Datacenter", "Peer", "SamenessGroup"]);
const FAILOVER: Keys =
    Keys::new(&["Service", "ServiceSubset", "Namespace", "Datacenters", "Targets", "Policy", "SamenessGroup"]);
/// Subsets of one service.
const SUBSETS: usize = 32;

/// What others refer to.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(ServiceName, Resolver)> {
    let table = settings(reader, object, RESOLVER)?;
    let own = object.route_name(reader)?;
    let mut resolver = Resolver { default: subset(reader, &table, "DefaultSubset"), ..Resolver::default() };
    if let Some(field) = said(&table, "Subsets")
        && let Some(all) = reader.open_table(field.node, &field.path)
    {
        if all.fields().len() > SUBSETS {
            let finding = Finding::error(2112, format!("`{}` has {} entries", field.path, all.fields().len()));
            reader.report(field.key, finding.because(format!("there are at most {SUBSETS}")).fix("name fewer"));
        }
        for field in all.fields().iter().take(SUBSETS) {
            let node = key_node(field);
            let name = reader.line(&key_field(field, &node), "the name of a subset", 63).map(str::to_owned);
            let version = version(reader, field);
            resolver.subsets.extend(name.zip(version));
        }
    }
    if let Some(field) = said(&table, "Redirect") {
        resolver.redirect = redirect(reader, object, &field, &own);
        let ignored = ["DefaultSubset", "Failover", "LoadBalancer"].iter().find_map(|key| said(&table, key));
        if let Some(other) = ignored {
            let finding = Finding::warning(2107, format!("`{}` means nothing beside a redirect", other.path));
            let why = "what the other service's resolver says holds";
            reader.report(other.key, finding.because(why).fix("leave it out"));
        }
    }
    Some((own, resolver))
}

/// The version that a filter selects; empty for every one.
fn version(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let table = reader.table_spelt(field.node, &field.path, SUBSET, &[])?;
    if let Some(field) = said(&table, "OnlyPassing") {
        let why = "instances that their proxies find unhealthy get no calls; there is no state of warning";
        not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
    }
    let Some(field) = said(&table, "Filter") else { return Some(String::new()) };
    let text = reader.line(&field, "a filter", 512)?;
    let Some(version) = version_of(text) else {
        let what = format!("the filter `{}`", short(text));
        let why = "instances of a service differ by their version alone";
        no_equal(reader, field.node.span, &what, why, "Filter: Service.Meta.version == v1");
        return None;
    };
    Some(version.to_owned())
}

/// `Service.Meta.version == v1`, the value in quotes or without.
fn version_of(filter: &str) -> Option<&str> {
    let (selector, value) = filter.split_once("==")?;
    let value = value.trim();
    let quoted = value.strip_prefix(['"', '`']).and_then(|value| value.strip_suffix(['"', '`']));
    let value = quoted.unwrap_or(value);
    let is_version = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let selector = selector.trim();
    let is_meta = matches!(selector, "Service.Meta.version" | "Service.Meta[\"version\"]" | "Service.Meta[`version`]");
    (is_meta && (1..=63).contains(&value.len()) && value.bytes().all(is_version)).then_some(value)
}

fn redirect(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>, own: &ServiceName) -> Option<Target> {
    let table = reader.table_spelt(field.node, &field.path, REDIRECT, &[])?;
    for key in ["Datacenter", "Peer", "SamenessGroup"] {
        if let Some(field) = said(&table, key) {
            elsewhere(reader, field.key, &format!("`{}`", short(&field.path)));
        }
    }
    let subset = subset(reader, &table, "ServiceSubset");
    let service = referred(reader, object, &table, own)?;
    if service == *own && subset.is_none() {
        let finding = Finding::error(2105, format!("`{}` leads back to the service itself", field.path));
        reader.report(field.key, finding.fix("name another service, or a subset"));
        return None;
    }
    Some(Target { service, subset })
}

fn elsewhere(reader: &mut Reader<'_>, at: Span, what: &str) {
    let why = "there is one mesh; what lies outside of it is `egress:` of mesh.yaml";
    no_equal(reader, at, what, why, "name a service of this mesh");
}

/// What the resolver says of how callers deal with its service.
pub(crate) fn policies(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(ServiceName, Overlay)> {
    // Its mistakes in shape were found when it was read for the others.
    let mut scratch = Reader::default();
    let table = settings(&mut scratch, object, RESOLVER)?;
    let own = ServiceName::in_namespace(object.namespace, object.name).ok()?;
    if let Some(field) = said(&table, "Failover") {
        failover(reader, &field);
    }
    if let Some(field) = said(&table, "PrioritizeByLocality") {
        let why = "a service whose `balance:` has `zones: prefer` is called in the caller's own zone first";
        not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
    }
    let mut overlay = Overlay::default();
    let mut timeouts: Option<Timeouts> = None;
    for key in ["ConnectTimeout", "RequestTimeout"] {
        let time = said(&table, key).and_then(|field| time::duration(reader, &field));
        let Some(time) = time.filter(|time| !time.is_zero()) else { continue };
        let own = timeouts.get_or_insert_with(Timeouts::default);
        if key == "ConnectTimeout" {
            own.connect = time;
        } else {
            own.request = Some(time);
        }
    }
    overlay.timeouts = timeouts;
    if said(&table, "Redirect").is_none() {
        overlay.balance = said(&table, "LoadBalancer").and_then(|field| balance::read(reader, &field));
    }
    (overlay != Overlay::default()).then_some((own, overlay))
}

/// Other instances when those of a subset are ill. Nothing of it is carried, and each part is said.
fn failover(reader: &mut Reader<'_>, field: &Field<'_>) {
    let Some(all) = reader.open_table(field.node, &field.path) else { return };
    for field in all.fields().iter().take(SUBSETS) {
        let Some(table) = reader.table_spelt(field.node, &field.path, FAILOVER, &[]) else { continue };
        let is_elsewhere = ["Datacenters", "Targets", "SamenessGroup"].iter().any(|key| said(&table, key).is_some());
        let why = if is_elsewhere {
            "there is one mesh: ill instances get no calls, and when all are ill the breaker answers at once"
        } else {
            "ill instances get no calls, and when all are ill the breaker answers at once; no other service takes their place"
        };
        not_carried(reader, field.key, &format!("the failover of `{}`", short(field.name)), why);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_says_more_than_a_version_is_none() {
        for filter in ["Service.Meta.version == v1", "Service.Meta.version==\"v1\"", "  Service.Meta.version  == `v1` "]
        {
            assert_eq!(version_of(filter), Some("v1"), "{filter}");
        }
        for filter in [
            "",
            "Service.Meta.version",
            "Service.Meta.version != v1",
            "Service.Meta.version == v1 or Service.Meta.version == v2",
            "Service.Meta.env == v1",
            "\"v1\" in Service.Tags",
            "Service.Meta.version == ",
            "Service.Meta.version == \"",
            "not Service.Meta.version == v1",
        ] {
            assert_eq!(version_of(filter), None, "{filter}");
        }
    }
}
