//! Who may refer to what in another namespace (`ReferenceGrant`).

use super::GROUP;
use crate::objects::object::{Object, items, namespace_of};
use crate::read::{Keys, Reader};

const SPEC: Keys = Keys::new(&["from", "to"]);
const FROM: Keys = Keys::new(&["group", "kind", "namespace"]);
const TO: Keys = Keys::new(&["group", "kind", "name"]);
/// Entries of each list, by the specification.
const ENTRIES: usize = 16;

/// One grant: whom, and what of its namespace.
#[derive(Debug)]
pub(super) struct Grant {
    namespace: String,
    from: Vec<Whom>,
    to: Vec<What>,
}

/// Group, kind and namespace.
type Whom = (String, String, String);
/// Group, kind and perhaps one name.
type What = (String, String, Option<String>);

impl Grant {
    /// Whether objects of a kind and namespace may refer to this service.
    pub(super) fn takes(&self, kind: &str, from: &str, service: &hms_model::names::ServiceName) -> bool {
        let own = |(group, own, namespace): &Whom| group == GROUP && own == kind && namespace == from;
        let meant = |(group, kind, name): &What| {
            group.is_empty() && kind == "Service" && name.as_deref().is_none_or(|name| name == service.name())
        };
        self.namespace == service.namespace() && self.from.iter().any(own) && self.to.iter().any(meant)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<Grant> {
    let example = "spec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}], to: [{group: \"\", kind: Service}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let _needed =
        reader.need(&spec, "from", "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: shop}]");
    let _needed = reader.need(&spec, "to", "to: [{group: \"\", kind: Service}]");
    let mut grant = Grant { namespace: object.namespace.to_owned(), from: Vec::new(), to: Vec::new() };
    for item in items(reader, &spec, "from", ENTRIES, "a list of kinds and namespaces") {
        let Some(table) = reader.table(item.node, &item.path, FROM) else { continue };
        let group = table.field("group").cloned().and_then(|field| reader.text(&field, "a group"));
        let kind = reader.need(&table, "kind", "kind: HTTPRoute").cloned();
        let kind = kind.and_then(|field| reader.line(&field, "a kind", 63));
        let namespace = reader.need(&table, "namespace", "namespace: shop").cloned();
        let namespace = namespace.and_then(|field| namespace_of(reader, &field));
        if let (Some(kind), Some(namespace)) = (kind, namespace) {
            grant.from.push((group.unwrap_or_default().to_owned(), kind.to_owned(), namespace.to_owned()));
        }
    }
    for item in items(reader, &spec, "to", ENTRIES, "a list of kinds and names") {
        let Some(table) = reader.table(item.node, &item.path, TO) else { continue };
        let group = table.field("group").cloned().and_then(|field| reader.text(&field, "a group"));
        let kind = reader.need(&table, "kind", "kind: Service").cloned();
        let kind = kind.and_then(|field| reader.line(&field, "a kind", 63));
        let name = table.field("name").cloned().and_then(|field| reader.line(&field, "a name", 253));
        if let Some(kind) = kind {
            grant.to.push((group.unwrap_or_default().to_owned(), kind.to_owned(), name.map(str::to_owned)));
        }
    }
    Some(grant)
}
