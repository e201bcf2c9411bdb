//! AWS App Mesh: the objects of its controller (appmesh.k8s.aws) and what `aws appmesh describe-…` prints.
//!
//! A virtual service is a service here, and who calls it is led by the routes of the virtual router that provides it. A virtual node is
//! the service by which its instances are found; where several nodes are of one service, each is a version of it.

mod gateway;
mod matches;
mod names;
mod node;
mod nodes;
mod resilience;
mod route;
mod router;
mod targets;

use hms_model::finding::Finding;
use hms_model::names::DEFAULT_NAMESPACE;

pub(crate) use self::gateway::read as gateway_route;
pub(crate) use self::node::read as policies;
pub(crate) use self::nodes::World;
pub(crate) use self::router::{Meaning, read as virtual_service};

use crate::document::{Node, Value};
use crate::objects::kind::Kind;
use crate::objects::object::{Object, not_carried};
use crate::read::{Field, Keys, Reader, Table};

/// The group of the objects.
pub(crate) const GROUP: &str = "appmesh.k8s.aws";

/// What the command line wraps an answer in, the key of its name, and what it is. A route names its router too, so the more particular
/// come first.
const ENTRIES: [(&str, &str, Kind); 5] = [
    ("gatewayRoute", "gatewayRouteName", Kind::AppMeshGatewayRoute),
    ("route", "routeName", Kind::AppMeshRoute),
    ("virtualNode", "virtualNodeName", Kind::AppMeshNode),
    ("virtualRouter", "virtualRouterName", Kind::AppMeshRouter),
    ("virtualService", "virtualServiceName", Kind::AppMeshService),
];

/// Everything that an answer of the command line, or what is given to it, has. What is not `spec` or a name is App Mesh's own.
const ANSWER: Keys = Keys::new(&[
    "spec",
    "routeName",
    "gatewayRouteName",
    "virtualNodeName",
    "virtualRouterName",
    "virtualServiceName",
    "virtualGatewayName",
    "meshName",
    "meshOwner",
    "metadata",
    "status",
    "tags",
    "clientToken",
]);

/// Longest name of anything.
const NAME_BYTES: usize = 255;

fn entry_of(root: &Node) -> Option<(&Node, &'static str, Kind)> {
    let Value::Map(entries) = &root.value else { return None };
    let within = |root: &Node, key: &str| match &root.value {
        Value::Map(entries) => entries.iter().any(|entry| entry.key == key),
        _ => false,
    };
    if within(root, "apiVersion") {
        return None;
    }
    if let [only] = entries.as_slice()
        && let Some((_, name, kind)) = ENTRIES.iter().find(|(key, ..)| *key == only.key)
    {
        return Some((&only.value, name, *kind));
    }
    let (_, name, kind) = ENTRIES.iter().find(|(_, name, _)| within(root, name))?;
    (within(root, "spec") && within(root, "meshName")).then_some((root, name, *kind))
}

/// Whether a document is an answer of the command line.
pub(crate) fn is_entry(root: &Node) -> bool {
    entry_of(root).is_some()
}

/// Whether a text may be one, in YAML or JSON.
pub(crate) fn recognises(text: &str) -> bool {
    let words = ["virtualNode", "virtualRouter", "virtualService", "gatewayRoute", "routeName"];
    text.contains("meshName") && words.iter().any(|word| text.contains(word))
}

/// Reads the head of an answer.
pub(crate) fn entry<'n>(reader: &mut Reader<'_>, root: &'n Node) -> Option<(Kind, Object<'n>)> {
    let (node, key, kind) = entry_of(root)?;
    let top = reader.table(node, "", ANSWER)?;
    let name = reader.need(&top, key, &format!("{key}: shop")).cloned()?;
    let text = reader.line(&name, "a name", NAME_BYTES)?;
    let object = Object { kind: key, name: text, at: name.node.span, namespace: DEFAULT_NAMESPACE, top, root: node };
    Some((kind, object))
}

/// Whether an object is the controller's, whose names are Kubernetes'.
fn is_kubernetes(object: &Object<'_>) -> bool {
    object.top.field("apiVersion").is_some()
}

/// `spec`, with these keys only; those that the controller fills in say nothing.
fn spec<'n>(reader: &mut Reader<'_>, object: &Object<'n>, keys: Keys, example: &str) -> Option<Table<'n>> {
    object.spec(reader, keys, example)
}

/// What is understood and otherwise here, key by key.
fn otherwise(reader: &mut Reader<'_>, table: &Table<'_>, keys: &[(&str, &str)]) {
    for (key, why) in keys {
        if let Some(field) = table.field(key) {
            not_carried(reader, field.key, &format!("`{key}`"), why);
        }
    }
}

/// A mesh or its gateway, of which there is one here.
pub(crate) fn only_one(reader: &mut Reader<'_>, object: &Object<'_>) {
    let why = match object.kind {
        "VirtualGateway" => "the mesh has one gateway, whose ports and certificates are its own settings",
        "BackendGroup" => "who may call whom is said of the service that is called: `allow:` of mesh.yaml",
        _ => "there is one mesh; what may leave it is `egress:` of mesh.yaml",
    };
    not_carried(reader, object.at, &format!("a {}", object.kind), why);
}

/// Of some keys the one that is there.
fn one_of<'n>(reader: &mut Reader<'_>, table: &Table<'n>, keys: &[&str], what: &str) -> Option<Field<'n>> {
    let found: Vec<&Field<'n>> = keys.iter().filter_map(|key| table.field(key)).collect();
    if let [one] = found.as_slice() {
        return Some((*one).clone());
    }
    let finding = Finding::error(2105, format!("`{}` wants one of {}", table.path, keys.join(", ")));
    let at = found.get(1).map_or(table.span, |second| second.key);
    let fix = if found.is_empty() { format!("add {what}") } else { "keep one of them".to_owned() };
    reader.report(at, finding.fix(fix));
    None
}
