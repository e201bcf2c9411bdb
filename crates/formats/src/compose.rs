//! Compose files: which containers of a project are services of the mesh, and how they are joined to it.
//!
//! A Compose file is its author's and is not changed. What the mesh is to know of a service stands under `x-hms` of the service, what
//! it is to know beside services under `x-hms` at the top: the keys of `mesh.yaml` ([`mesh_yaml`] reads such a file as one). All
//! other keys are Compose's and are not judged, but for those with which a container cannot be joined. [`ComposeFile::overriding`]
//! writes the file that joins: beside each service a sidecar that owns the network, in which the service then lives.

mod overriding;
mod ports;
mod settings;
mod written;

use std::collections::BTreeSet;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;

pub use self::overriding::Joining;
use self::ports::Ports;
pub(crate) use self::settings::as_mesh;
use self::written::flow;
use crate::document::{self, Entry, Node, Value, short};
use crate::mesh_yaml::{Lookup, MeshFile};
use crate::read::{Field, Reader, Table};
use crate::source::Source;

/// The names of Compose files.
pub const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml"];
/// The extension key that is ours.
pub(crate) const OURS: &str = "x-hms";
/// What a sidecar's name has after that of its service.
pub const SIDECAR: &str = "-hms";
/// Keys of a service that belong to whoever owns the network, with what takes them away from the service.
const MOVED: [(&str, &str); 11] = [
    ("ports", "!reset []"),
    ("expose", "!reset []"),
    ("hostname", "!reset null"),
    ("domainname", "!reset null"),
    ("dns", "!reset []"),
    ("dns_search", "!reset []"),
    ("dns_opt", "!reset []"),
    ("extra_hosts", "!reset []"),
    ("mac_address", "!reset null"),
    ("networks", "!reset null"),
    ("network_mode", ""),
];

/// What a Compose file says of containers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ComposeFile {
    /// The image in which sidecars run, if it is given.
    pub image: Option<String>,
    /// The services that are joined, in the order of their names.
    pub containers: Vec<Container>,
}

/// A service that is joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// Its name, in Compose and in the mesh.
    pub name: ServiceName,
    /// Where it listens inside its container; `None` if it only calls.
    pub port: Option<u16>,
    /// Its ports that the file publishes: who comes there goes around the mesh.
    pub published: Vec<u16>,
    /// What its sidecar takes over.
    pub network: Network,
}

/// What belongs to whoever owns the network of a service, as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// Keys that its sidecar gets in its place.
    moved: Vec<(&'static str, String)>,
    /// The networks it is in.
    joined: Vec<Membership>,
    /// Whether it is started with these profiles alone.
    profiles: Option<String>,
}

/// A network with what is said of the service in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Membership {
    name: String,
    said: Vec<(String, String)>,
}

/// Whether this is a Compose file: it has services, and one of them says of what its container is made. One that cannot be read is
/// known by its name.
pub fn recognises(source: &Source) -> bool {
    let mut reader = Reader::default();
    let root = reader.add(source).and_then(|file| document::parse(&mut reader, file));
    root.map_or_else(|| NAMES.iter().any(|name| source.name.ends_with(name)), |root| is_compose(&root))
}

pub(crate) fn is_compose(root: &Node) -> bool {
    let Some(Value::Map(services)) = value(root, "services") else { return false };
    let made = ["image", "build", "extends", "<<"];
    services.iter().any(|service| made.iter().any(|key| value(&service.value, key).is_some()))
}

/// Reads a Compose file. With a `mesh.yaml` beside it (`beside`), that says which services there are, and everything about them but
/// the port. An error means that nothing is to be joined.
pub fn read(source: &Source, beside: Option<&MeshFile>, lookup: Lookup<'_>) -> (ComposeFile, Vec<Finding>) {
    let mut reader = Reader::default();
    let mut out = ComposeFile::default();
    let root = reader.add(source).and_then(|file| document::parse(&mut reader, file));
    if let Some(mut root) = root {
        unfold(&mut root);
        settings::expand(&mut reader, &mut root, lookup);
        project(&mut reader, &root, beside, &mut out);
    }
    (out, reader.into_findings())
}

fn project(reader: &mut Reader<'_>, root: &Node, beside: Option<&MeshFile>, out: &mut ComposeFile) {
    let Some(top) = reader.open_table(root, "") else { return };
    if let Some(field) = top.field(OURS)
        && let Some(table) = reader.open_table(field.node, OURS)
    {
        out.image = table
            .field("image")
            .and_then(|field| reader.line(field, "an image such as debian:12-slim", 512))
            .map(str::to_owned);
        let others = table.fields().iter().filter(|field| field.name != "image");
        settings::twice(reader, beside, others);
    }
    let Some(services) = top.field("services").and_then(|field| reader.open_table(field.node, "services")) else {
        return;
    };
    let mut joined = BTreeSet::new();
    for field in services.fields() {
        if let Some(container) = container(reader, field, beside) {
            joined.insert(field.name);
            out.containers.push(container);
        }
    }
    for field in services.fields() {
        neighbour(reader, field, &joined);
    }
    out.containers.sort_by(|left, right| left.name.cmp(&right.name));
}

/// What a service that is not joined must not do to those that are.
fn neighbour(reader: &mut Reader<'_>, field: &Field<'_>, joined: &BTreeSet<&str>) {
    if let Some(service) = field.name.strip_suffix(SIDECAR).filter(|service| joined.contains(service)) {
        let why = format!("the sidecar of `{service}` is called so");
        return cannot(reader, field, service, &why, "give this service another name");
    }
    let Some(Value::Scalar(mode, _)) = value(field.node, "network_mode") else { return };
    if let Some(owner) = mode.strip_prefix("service:").filter(|owner| joined.contains(owner))
        && !joined.contains(field.name)
    {
        let why = format!("`{}` lives in its network, which its sidecar is going to own", short(field.name));
        cannot(reader, field, owner, &why, &format!("write network_mode: service:{owner}{SIDECAR}, or {OURS}: false"));
    }
}

/// A service that is to be joined.
fn container(reader: &mut Reader<'_>, field: &Field<'_>, beside: Option<&MeshFile>) -> Option<Container> {
    if is_left_out(field.node) {
        return None;
    }
    let name = match ServiceName::new(field.name) {
        Ok(name) => name,
        Err(error) => {
            let fix = format!("rename it, or write {OURS}: false for a container that the mesh does not know");
            cannot(reader, field, field.name, &error.to_string(), &fix);
            return None;
        }
    };
    let known = match beside {
        None => None,
        Some(mesh) => Some(mesh.services.get(&name)?),
    };
    let table = reader.open_table(field.node, &field.path)?;
    if let Some(ours) = table.field(OURS).filter(|ours| !matches!(ours.node.value, Value::Null)) {
        let ours = reader.open_table(ours.node, &ours.path)?;
        settings::twice(reader, beside, ours.fields().iter().filter(|field| field.name != "port"));
    }
    refuse(reader, field, &table);
    let ports = Ports::read(reader, &table);
    let listens = ports.of_service(reader, field, &table, known.and_then(|service| service.port))?;
    for (published, span) in &ports.published {
        let message = format!("port {published} of `{name}` is published, and leads around the mesh");
        let finding = Finding::warning(2141, message).because("who comes there has no identity, and no rule holds");
        reader.report(*span, finding.fix(format!("leave it out of `ports`, and call {name} through the gateway")));
    }
    let moved = MOVED.iter().filter_map(|(key, _)| Some((*key, flow(table.field(key)?.node)))).collect();
    Some(Container {
        port: listens.port(),
        published: ports.published.iter().map(|(port, _)| *port).collect(),
        network: Network {
            moved,
            joined: networks(&table),
            profiles: table.field("profiles").map(|field| flow(field.node)),
        },
        name,
    })
}

/// Whether the author does not want it joined.
fn is_left_out(service: &Node) -> bool {
    matches!(value(service, OURS), Some(Value::Scalar(text, _)) if text == "false")
}

/// Finds what a joined container cannot have.
fn refuse(reader: &mut Reader<'_>, service: &Field<'_>, table: &Table<'_>) {
    let name = service.name;
    let text = |field: &Field<'_>| match &field.node.value {
        Value::Scalar(text, _) => text.clone(),
        _ => String::new(),
    };
    if let Some(field) = table.field("network_mode") {
        let why = format!("its network is that of `{}`, and a sidecar needs one of its own", short(&text(field)));
        cannot(reader, field, name, &why, &format!("leave network_mode out, or write {OURS}: false for this service"));
    }
    for key in ["links", "external_links"] {
        if let Some(field) = table.field(key) {
            let fix =
                format!("leave `{key}` out: names are found without it; other names go under networks.NAME.aliases");
            cannot(reader, field, name, "links lead to a container's own network", &fix);
        }
    }
    let scale = table.field("scale").cloned().into_iter();
    let deploy = table.field("deploy").and_then(|field| reader.open_table(field.node, &field.path));
    let replicas = deploy.as_ref().and_then(|table| table.field("replicas")).cloned();
    for field in scale.chain(replicas) {
        if text(&field) != "1" {
            let why = "each container needs a sidecar of its own, and Compose cannot pair them";
            cannot(reader, &field, name, why, "write 1, and further services with other names for more instances");
        }
    }
    let privileged = table.field("privileged").filter(|field| text(field) == "true");
    let administers = table.field("cap_add").filter(|field| {
        let Value::List(items) = &field.node.value else { return false };
        let may = ["NET_ADMIN", "CAP_NET_ADMIN", "ALL"];
        items.iter().any(|item| matches!(&item.value, Value::Scalar(text, _) if may.contains(&text.as_str())))
    });
    if let Some(field) = privileged.or(administers) {
        let finding =
            Finding::warning(2142, format!("`{}` may change the rules that lead it into the mesh", short(name)))
                .because("it has NET_ADMIN over the network that it shares with its sidecar");
        reader.report(field.key, finding.fix("take the capability away if it can do without"));
    }
}

/// The finding that a service cannot be joined.
pub(crate) fn cannot(reader: &mut Reader<'_>, at: &Field<'_>, service: &str, why: &str, fix: &str) {
    let finding = Finding::error(2140, format!("`{}` cannot be joined to the mesh", short(service)));
    reader.report(at.key, finding.because(why).fix(fix));
}

/// The networks of a service, each with what is said of it.
fn networks(table: &Table<'_>) -> Vec<Membership> {
    let said = |node: &Node| match &node.value {
        Value::Map(entries) => entries.iter().map(|entry| (entry.key.clone(), flow(&entry.value))).collect(),
        _ => Vec::new(),
    };
    match table.field("networks").map(|field| &field.node.value) {
        Some(Value::List(items)) => {
            let name = |item: &Node| match &item.value {
                Value::Scalar(name, _) => Some(Membership { name: name.clone(), said: Vec::new() }),
                _ => None,
            };
            items.iter().filter_map(name).collect()
        }
        Some(Value::Map(entries)) => {
            let member = |entry: &Entry| Membership { name: entry.key.clone(), said: said(&entry.value) };
            entries.iter().map(member).collect()
        }
        _ => vec![Membership { name: "default".to_owned(), said: Vec::new() }],
    }
}

/// The value of a key.
pub(crate) fn value<'n>(node: &'n Node, key: &str) -> Option<&'n Value> {
    let Value::Map(entries) = &node.value else { return None };
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value.value)
}

/// Puts what merge keys (`<<`) bring where it counts: what a mapping says itself comes first.
pub(crate) fn unfold(node: &mut Node) {
    match &mut node.value {
        Value::Null | Value::Unknown | Value::Scalar(..) => {}
        Value::List(items) => items.iter_mut().for_each(unfold),
        Value::Map(entries) => {
            let (merged, mut own): (Vec<Entry>, Vec<Entry>) =
                std::mem::take(entries).into_iter().partition(|entry| entry.key == "<<");
            for merge in merged {
                let sources = match merge.value.value {
                    Value::List(items) => items,
                    _ => vec![merge.value],
                };
                for mut source in sources {
                    unfold(&mut source);
                    let Value::Map(brought) = source.value else { continue };
                    let new = |entry: &Entry| !own.iter().any(|known| known.key == entry.key);
                    let brought: Vec<Entry> = brought.into_iter().filter(new).collect();
                    own.extend(brought);
                }
            }
            for entry in &mut own {
                unfold(&mut entry.value);
            }
            *entries = own;
        }
    }
}
