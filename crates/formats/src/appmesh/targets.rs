//! `weightedTargets`: who gets the requests of a route.

use hms_model::finding::Finding;
use hms_model::http_route::Backend;
use hms_model::split::{MOST_SHARES, Share};

use super::names::referred;
use super::nodes::World;
use crate::objects::object::{Object, items};
use crate::read::{Field, Keys, Reader};

const ACTION: Keys = Keys::new(&["weightedTargets"]);
const TARGET: Keys = Keys::new(&["virtualNode", "virtualNodeRef", "virtualNodeARN", "weight", "port"]);

/// `action` of a route.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>, world: &World) -> Vec<Backend> {
    let Some(table) = reader.table(field.node, &field.path, ACTION) else { return Vec::new() };
    let list = reader.need(&table, "weightedTargets", "weightedTargets: [{virtualNodeRef: {name: pay}, weight: 1}]");
    let list = list.cloned();
    let mut backends: Vec<Backend> = Vec::new();
    for item in items(reader, &table, "weightedTargets", MOST_SHARES, "a list of nodes with their weights") {
        let Some(table) = reader.table(item.node, &item.path, TARGET) else { continue };
        let whom = referred(reader, object, &table, &["virtualNodeRef", "virtualNodeARN", "virtualNode"]);
        let weight = reader.need(&table, "weight", "weight: 1").cloned();
        let weight = weight.and_then(|field| reader.whole(&field, "a weight", 0..=100));
        let port = table.field("port").cloned().and_then(|field| reader.port(&field));
        let share = whom.and_then(|(name, at)| world.share(reader, &name, at));
        if let (Some(share), Some(weight)) = (share, weight) {
            backends.push(Backend { port, ..Backend::share(Share { weight, ..share }) });
        }
    }
    if let Some(field) = list
        && backends.iter().all(|backend| backend.share.weight == 0)
        && !reader.has_errors(object.at.file)
    {
        let finding = Finding::error(2105, format!("`{}` gives nobody a request", field.path));
        reader.report(field.key, finding.fix("give one of them weight: 1"));
    }
    backends
}
