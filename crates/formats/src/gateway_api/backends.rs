//! Who gets the requests of a rule (`HTTPBackendRef`, `GRPCBackendRef`, `BackendRef`).

use hms_model::finding::Finding;
use hms_model::http_route::Backend;
use hms_model::names::ServiceName;
use hms_model::split::{MOST_WEIGHT, Share};

use super::{Scene, filters};
use crate::document::{Value, short};
use crate::objects::object::{Object, items};
use crate::read::{Field, Keys, Reader, Table};

const HTTP: Keys = Keys::new(&["group", "kind", "name", "namespace", "port", "weight", "filters"]);
/// Of streams.
const PLAIN: Keys = Keys::new(&["group", "kind", "name", "namespace", "port", "weight"]);
/// Of a mirror.
const BARE: Keys = Keys::new(&["group", "kind", "name", "namespace", "port"]);
/// Backends of one rule, by the specification.
const BACKENDS: usize = 16;

/// `backendRefs` of a rule for requests.
pub(super) fn read(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Vec<Backend> {
    let mut backends = Vec::new();
    for item in items(reader, table, "backendRefs", BACKENDS, "a list such as [{name: payment-svc, port: 80}]") {
        let Some(table) = reader.table(item.node, &item.path, HTTP) else { continue };
        let Some(mut backend) = backend(reader, object, &table, scene, kind) else { continue };
        (backend.request_headers, backend.response_headers) = filters::backend(reader, &table);
        backends.push(backend);
    }
    nobody(reader, table, &backends);
    backends
}

/// A rule whose backends all have the weight 0 refuses everything.
fn nobody(reader: &mut Reader<'_>, table: &Table<'_>, backends: &[Backend]) {
    let Some(field) = table.field("backendRefs") else { return };
    if !backends.is_empty() && backends.iter().all(|backend| backend.share.weight == 0) {
        let finding = Finding::warning(2107, format!("`{}` gives nobody a request", field.path));
        let why = "every weight is 0: the requests are answered with 500";
        reader.report(field.key, finding.because(why).fix("give one of them weight: 1"));
    }
}

/// One reference with its weight.
fn backend(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Option<Backend> {
    let weight = table.field("weight").cloned();
    let weight = weight.map_or(Some(1), |field| reader.whole(&field, "a weight", 0..=MOST_WEIGHT));
    let (service, port, refused) = target(reader, object, table, scene, kind)?;
    let share = Share { service, version: String::new(), weight: weight? };
    Some(Backend { port, refused, ..Backend::share(share) })
}

/// The service that a reference means, its port, and why it may not be called.
type Target = (ServiceName, Option<u16>, Option<String>);

/// Reads a reference to a service.
fn target(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Option<Target> {
    let is_service = is_service(reader, table);
    let service = object.referred(reader, table);
    let port = table.field("port").cloned();
    if port.is_none() && is_service {
        let _missing = reader.need(table, "port", "port: 80");
    }
    let port = port.and_then(|field| reader.port(&field));
    let service = service?;
    if !is_service {
        let word = table.field("kind").or_else(|| table.field("group")).cloned()?;
        let shown = reader.shown(word.node);
        let finding = Finding::warning(2175, format!("a backend of the kind {shown} is not known here"));
        let fix = "name a Service; until then its part of the requests is answered with 500";
        reader.report(word.node.span, finding.because("only services of the mesh are backends").fix(fix));
        return Some((service, port, Some(format!("{} is no service", object_name(table)))));
    }
    let refused = not_granted(reader, object, table, &service, (scene, kind));
    Some((service, port, refused))
}

/// A reference into another namespace that nobody granted.
fn not_granted(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    service: &ServiceName,
    (scene, kind): (&Scene<'_>, &str),
) -> Option<String> {
    let (own, other) = (object.namespace, service.namespace());
    if own == other || scene.grants.iter().any(|grant| grant.takes(kind, own, service)) {
        return None;
    }
    let at = table.field("namespace").map_or(table.span, |field| field.node.span);
    let finding = Finding::warning(2172, format!("`{other}` grants `{own}` no reference to `{}`", service.name()));
    let is_mirror = table.path.ends_with(".backendRef");
    let why = if is_mirror { "nothing is mirrored there" } else { "its part of the requests is answered with 500" };
    let fix = format!(
        "add to these files a ReferenceGrant in {other}: from {{group: {}, kind: {kind}, namespace: {own}}} to {{group: \"\", kind: Service}}",
        super::GROUP
    );
    reader.report(at, finding.because(why).fix(fix));
    Some(format!("{other} grants {own} no reference to {}", service.name()))
}

fn is_service(reader: &mut Reader<'_>, table: &Table<'_>) -> bool {
    let word = |reader: &mut Reader<'_>, name: &str| {
        let field = table.field(name).cloned()?;
        // An empty text is the core group.
        if matches!(field.node.value, Value::Null) {
            return Some("");
        }
        reader.text(&field, "a word")
    };
    let group = word(reader, "group").unwrap_or_default();
    let kind = word(reader, "kind").unwrap_or("Service");
    matches!(group, "" | "core") && kind == "Service"
}

fn object_name(table: &Table<'_>) -> String {
    match table.field("name").map(|field| &field.node.value) {
        Some(Value::Scalar(text, _)) => short(text),
        _ => String::new(),
    }
}

/// The reference of a mirror: whom, unless it may not be.
pub(super) fn mirrored(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    field: &Field<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Option<(Share, Option<u16>)> {
    let table = reader.table(field.node, &field.path, BARE)?;
    let (service, port, refused) = target(reader, object, &table, scene, kind)?;
    refused.is_none().then(|| (Share { service, version: String::new(), weight: 1 }, port))
}

/// One backend of connections.
pub(super) fn stream(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    item: &Field<'_>,
    scene: &Scene<'_>,
    kind: &str,
) -> Option<Backend> {
    let table = reader.table(item.node, &item.path, PLAIN)?;
    backend(reader, object, &table, scene, kind)
}
