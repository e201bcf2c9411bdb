//! Whose requests a route is about (`ParentReference`).

use hms_model::finding::Finding;
use hms_model::http_route::Parent;

use super::gateway::{Asked, Refusal};
use super::{GROUP, Scene, hosts};
use crate::document::{Value, short};
use crate::objects::object::{Object, items, namespace_of, not_carried};
use crate::read::{Field, Keys, Reader, Table};

const PARENT: Keys = Keys::new(&["group", "kind", "name", "namespace", "sectionName", "port"]);
/// Parents and host names of one route, by the specification.
const PARENTS: usize = 32;
const HOSTS: usize = 16;
/// Host names that a route may come to with those of its listeners.
const MOST_NAMES: usize = 64;

/// The parents of a route that take it, and the host names for which a gateway leads by it.
#[derive(Debug, Default)]
pub(super) struct Attached {
    pub(super) parents: Vec<Parent>,
    pub(super) hosts: Vec<String>,
}

/// One reference as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Written {
    kind: String,
    namespace: String,
    name: String,
    section: Option<String>,
    port: Option<u16>,
}

/// `parentRefs` and `hostnames` of a route.
pub(super) fn read(reader: &mut Reader<'_>, object: &Object<'_>, spec: &Table<'_>, scene: &Scene<'_>) -> Attached {
    let own: Vec<String> = items(reader, spec, "hostnames", HOSTS, "a list of host names")
        .iter()
        .filter_map(|item| hosts::pattern(reader, item))
        .collect();
    let mut attached = Attached::default();
    let mut written: Vec<Written> = Vec::new();
    // Names that a gateway listens for; `None` for those of the route as they are.
    let mut taken: Vec<String> = Vec::new();
    let (mut is_outside, mut asks_gateway) = (false, false);
    for item in
        items(reader, spec, "parentRefs", PARENTS, "a list such as [{group: \"\", kind: Service, name: payment-svc}]")
    {
        let Some(table) = reader.table(item.node, &item.path, PARENT) else { continue };
        let Some(reference) = reference(reader, object, &table) else { continue };
        distinct(reader, &item, &reference, &written);
        written.push(reference.clone());
        if reference.kind == "Service" {
            attached.parents.extend(service(reader, object, &table, &reference));
            continue;
        }
        asks_gateway = true;
        if let Some(names) = gateway(reader, object, &table, &reference, (&own, scene)) {
            is_outside = true;
            taken.extend(names);
        }
    }
    if is_outside {
        attached.parents.push(Parent::Gateway);
        // One listener for every name takes all of the route's.
        attached.hosts = if taken.iter().any(String::is_empty) { own } else { taken };
        attached.hosts.sort_unstable();
        attached.hosts.dedup();
        if attached.hosts.len() > MOST_NAMES {
            let finding =
                Finding::error(2112, format!("the listeners give the route {} host names", attached.hosts.len()));
            let why = format!("a route has at most {MOST_NAMES}");
            reader.report(object.at, finding.because(why).fix("name a listener by sectionName"));
        }
    } else if let (false, Some(field)) =
        (own.is_empty() || asks_gateway || object.kind == "TLSRoute", spec.field("hostnames"))
    {
        let finding = Finding::warning(2107, format!("`{}` means nothing to a service", field.path));
        reader.report(
            field.key,
            finding.because("they are those of requests from outside, at a gateway").fix("leave it out"),
        );
    }
    if attached.parents.is_empty() && !asks_gateway && !reader.has_errors(object.at.file) {
        let finding = Finding::warning(2107, format!("the route `{}` is about nobody's requests", short(object.name)));
        reader.report(object.at, finding.fix("parentRefs: [{group: \"\", kind: Service, name: payment-svc}]"));
    }
    attached
}

fn reference(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>) -> Option<Written> {
    let group = table.field("group").cloned();
    let group = match group.as_ref().map(|field| &field.node.value) {
        None => GROUP,
        Some(Value::Null) => "",
        Some(_) => group.as_ref().and_then(|field| reader.text(field, "a group"))?,
    };
    let kind = table.field("kind").cloned();
    let word = kind.as_ref().map_or(Some("Gateway"), |field| reader.text(field, "Gateway or Service"))?;
    let is_known = matches!((group, word), ("" | "core", "Service") | (GROUP, "Gateway"));
    if !is_known {
        let at = kind.or_else(|| table.field("group").cloned()).map_or(table.span, |field| field.node.span);
        let finding = Finding::error(2105, format!("`{}` of `{}` is no parent", short(word), short(group)));
        let fix = if word == "Service" { "group: \"\"" } else { "group: \"\", kind: Service, or kind: Gateway alone" };
        reader.report(at, finding.because("a route is about the requests to a Service or those of a Gateway").fix(fix));
        return None;
    }
    let name = reader.need(table, "name", "name: payment-svc").cloned()?;
    let name = reader.line(&name, "a name", 253)?;
    let namespace = table.field("namespace").cloned();
    let namespace = namespace.map_or(Some(object.namespace), |field| namespace_of(reader, &field))?;
    let section = table.field("sectionName").cloned();
    let section = section.and_then(|field| reader.line(&field, "the name of a listener or port", 253));
    Some(Written {
        kind: word.to_owned(),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        section: section.map(str::to_owned),
        port: table.field("port").cloned().and_then(|field| reader.port(&field)),
    })
}

/// Of references to the same parent each names another part of it.
fn distinct(reader: &mut Reader<'_>, item: &Field<'_>, reference: &Written, before: &[Written]) {
    let same = |own: &&Written| {
        own.kind == reference.kind && own.namespace == reference.namespace && own.name == reference.name
    };
    let Some(other) = before.iter().find(same) else { return };
    let is_vague = |one: &Written| one.section.is_none() && one.port.is_none();
    if before.contains(reference) || is_vague(reference) || is_vague(other) {
        let finding = Finding::error(2110, format!("`{}` is a parent twice", short(&reference.name)));
        let why = "each of them names another sectionName or port";
        reader.report(item.node.span, finding.because(why).fix("keep one of the two"));
    }
}

fn service(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, written: &Written) -> Option<Parent> {
    if let (Some(_), Some(field)) = (&written.section, table.field("sectionName")) {
        not_carried(reader, field.key, "the name of a service's port", "a port is meant by its number: port: 80");
    }
    Some(Parent::Service { service: object.referred(reader, table)?, port: written.port })
}

/// The names that a gateway takes of a route: empty ones for all. `None` if it does not take the route.
fn gateway(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    written: &Written,
    (own, scene): (&[String], &Scene<'_>),
) -> Option<Vec<String>> {
    let Some(gateway) = scene.gateways.iter().find(|gateway| gateway.is(&written.namespace, &written.name)) else {
        // The one gateway of the mesh is meant, whatever it is called elsewhere.
        for key in ["sectionName", "port"] {
            if let Some(field) = table.field(key) {
                let why = format!("the Gateway `{}` is not among these files", short(&written.name));
                not_carried(reader, field.key, &format!("`{key}` of a gateway"), &why);
            }
        }
        return Some(vec![String::new()]);
    };
    let asked = Asked {
        kind: object.kind,
        namespace: object.namespace,
        section: written.section.as_deref(),
        port: written.port,
        hosts: own,
    };
    match gateway.take(&asked) {
        Ok(names) => Some(names),
        Err(refusal) => {
            let (why, fix) = match refusal {
                Refusal::NoListener => ("it has no such listener", "correct sectionName or port"),
                Refusal::NotAllowed => ("its listeners do not allow this kind or namespace", "change allowedRoutes"),
                Refusal::NoCommonHost => {
                    ("its listeners have no host name in common with the route", "change hostnames")
                }
            };
            let finding =
                Finding::warning(2107, format!("the Gateway `{}` does not take this route", short(&written.name)));
            reader.report(table.span, finding.because(why).fix(fix));
            None
        }
    }
}
