//! What a Compose file says of the mesh under `x-hms`, as the `mesh.yaml` that it stands for.

use hms_model::finding::Finding;

use super::ports::{Listens, Ports};
use super::{OURS, is_left_out, unfold};
use crate::document::{Entry, Form, Node, Value, short};
use crate::mesh_yaml::{self, Lookup, MeshFile};
use crate::read::{Field, Reader};

/// Keys of a service of `mesh.yaml` that are about a program that `hms` starts.
const NOT_HERE: [&str; 7] = ["dir", "run", "env", "intercept", "host_ports", "publish", "versions"];

/// Expands variables in what is ours; the rest is for Compose to expand, which knows more forms of them.
pub(super) fn expand(reader: &mut Reader<'_>, root: &mut Node, lookup: Lookup<'_>) {
    let Value::Map(entries) = &mut root.value else { return };
    for entry in entries {
        match (entry.key.as_str(), &mut entry.value.value) {
            (OURS, _) => mesh_yaml::expand::expand(reader, &mut entry.value, lookup),
            ("services", Value::Map(services)) => {
                for service in services {
                    let Value::Map(keys) = &mut service.value.value else { continue };
                    for key in keys.iter_mut().filter(|key| key.key == OURS) {
                        mesh_yaml::expand::expand(reader, &mut key.value, lookup);
                    }
                }
            }
            _ => {}
        }
    }
}

/// Finds what stands under `x-hms` although a `mesh.yaml` is there.
pub(super) fn twice<'f>(
    reader: &mut Reader<'_>,
    beside: Option<&MeshFile>,
    fields: impl Iterator<Item = &'f Field<'f>>,
) {
    for field in fields.filter(|_| beside.is_some()) {
        let finding = Finding::error(2110, format!("`{}` stands here, and mesh.yaml is beside this file", field.path))
            .because("with a mesh.yaml, everything about the mesh stands in it, but for `image` and `port`");
        reader.report(field.key, finding.fix("move it to mesh.yaml"));
    }
}

/// The tree of the `mesh.yaml` that a Compose file stands for. Everything stays where it is written.
pub(crate) fn as_mesh(reader: &mut Reader<'_>, mut root: Node) -> Node {
    unfold(&mut root);
    let span = root.span;
    let Value::Map(top) = root.value else { return root };
    let mut out = Vec::new();
    for entry in top {
        match (entry.key.as_str(), entry.value.value) {
            (OURS, Value::Map(ours)) => {
                for ours in ours.into_iter().filter(|ours| ours.key != "image") {
                    if ours.key == "services" || ours.key == "intercept" {
                        not_here(reader, &ours);
                    } else {
                        out.push(ours);
                    }
                }
            }
            ("services", Value::Map(services)) => {
                let services = services.iter().filter_map(|entry| service(reader, entry)).collect();
                out.push(Entry { value: Node { span: entry.value.span, value: Value::Map(services) }, ..entry });
            }
            _ => {}
        }
    }
    Node { span, value: Value::Map(out) }
}

/// One service, with its port if it has one.
fn service(reader: &mut Reader<'_>, entry: &Entry) -> Option<Entry> {
    if is_left_out(&entry.value) {
        return None;
    }
    // Whatever is wrong with ports is found where containers are read.
    let mut silent = Reader::default();
    let field = Field { path: entry.key.clone(), name: &entry.key, key: entry.span, node: &entry.value };
    let table = silent.open_table(&entry.value, &entry.key)?;
    let port = Ports::read(&mut silent, &table).of_service(&mut silent, &field, &table, None).and_then(Listens::port);
    let ours = table.field(OURS).map(|field| field.node.value.clone());
    let mut keys = match ours {
        Some(Value::Map(keys)) => keys,
        _ => Vec::new(),
    };
    keys.retain(|key| {
        let foreign = NOT_HERE.contains(&key.key.as_str());
        if foreign {
            not_here(reader, key);
        }
        let says_none = key.key == "port" && matches!(&key.value.value, Value::Scalar(text, _) if text == "none");
        !foreign && !says_none
    });
    if let Some(port) = port.filter(|_| !keys.iter().any(|key| key.key == "port")) {
        let value = Node { span: entry.span, value: Value::Scalar(port.to_string(), Form::Plain) };
        keys.push(Entry { key: "port".to_owned(), span: entry.span, value });
    }
    let value = Node { span: entry.value.span, value: Value::Map(keys) };
    Some(Entry { key: entry.key.clone(), span: entry.span, value })
}

/// The finding for a key that has no place in a Compose file.
fn not_here(reader: &mut Reader<'_>, entry: &Entry) {
    let finding = Finding::error(2103, format!("`{}` has no place in a Compose file", short(&entry.key)))
        .because("Compose makes the containers, and starts what is in them");
    reader.report(entry.span, finding.fix("leave it out; Compose has keys of its own for it"));
}
