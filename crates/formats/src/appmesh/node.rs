//! `VirtualNode`: a version of a service, and how others deal with it.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::message::CanonicalPath;
use hms_model::names::ServiceName;
use hms_model::policy::probe::Question;
use hms_model::policy::{Limits, Outlier, Probe, Timeouts};
use hms_model::port::AppProtocol;
use hms_model::resource::Overlay;

use super::names::{self, Name};
use super::nodes::NodeOf;
use super::{one_of, otherwise, spec};
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Keys, Reader, Table};

const SPEC: Keys = Keys::new(&[
    "awsName",
    "podSelector",
    "listeners",
    "serviceDiscovery",
    "backends",
    "backendGroups",
    "backendDefaults",
    "logging",
    "meshRef",
]);
const SELECTOR: Keys = Keys::new(&["matchLabels", "matchExpressions"]);
const DISCOVERY: Keys = Keys::new(&["dns", "awsCloudMap"]);
const DNS: Keys = Keys::new(&["hostname", "responseType", "ipPreference"]);
const CLOUD_MAP: Keys = Keys::new(&["namespaceName", "serviceName", "attributes", "ipPreference"]);
const ATTRIBUTE: Keys = Keys::new(&["key", "value"]);
const LISTENER: Keys =
    Keys::new(&["portMapping", "healthCheck", "outlierDetection", "connectionPool", "tls", "timeout"]);
const PORT: Keys = Keys::new(&["port", "protocol"]);
const HEALTH: Keys = Keys::new(&[
    "healthyThreshold",
    "intervalMillis",
    "path",
    "port",
    "protocol",
    "timeoutMillis",
    "unhealthyThreshold",
]);
const OUTLIER: Keys = Keys::new(&["maxServerErrors", "interval", "baseEjectionDuration", "maxEjectionPercent"]);
const POOL: Keys = Keys::new(&["tcp", "http", "http2", "grpc"]);
const POOL_OF: Keys = Keys::new(&["maxConnections", "maxPendingRequests", "maxRequests"]);
const TIMEOUT_OF: Keys = Keys::new(&["perRequest", "idle"]);
const EXAMPLE: &str =
    "spec: {listeners: [{portMapping: {port: 8080, protocol: http}}], serviceDiscovery: {dns: {hostname: pay}}}";
const PROTOCOLS: [(&str, AppProtocol); 4] = [
    ("http", AppProtocol::Http),
    ("http2", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
    ("tcp", AppProtocol::Tcp),
];

/// What App Mesh says of nodes and is otherwise here.
const OTHERWISE: [(&str, &str); 4] = [
    ("backends", "who may call whom is said of the service that is called: `allow:` of mesh.yaml"),
    ("backendGroups", "who may call whom is said of the service that is called: `allow:` of mesh.yaml"),
    ("backendDefaults", "between proxies there is mutual TLS, always"),
    ("logging", "access logs are a setting of the mesh"),
];

/// What others refer to: the names of a node, its service and version.
pub(super) fn head(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(Vec<Name>, NodeOf)> {
    let spec = spec(reader, object, SPEC, EXAMPLE)?;
    let aws = names::aws(reader, &spec);
    let names = names::of(object, aws);
    let label = label(reader, &spec);
    let (service, attribute) = discovered(reader, object, &spec);
    let service = service.or_else(|| match names.first() {
        Some(Name::Object(namespace, name)) => ServiceName::in_namespace(namespace, name).ok(),
        _ => names::folded(object.name),
    });
    if service.is_none() && !reader.has_errors(object.at.file) {
        let finding = Finding::error(2111, "the name of this node is no name of a service");
        reader.report(object.at, finding.fix("serviceDiscovery: {dns: {hostname: pay}}"));
    }
    Some((names, NodeOf { service: service?, label, attribute }))
}

/// The label `version` of the pods that are selected.
fn label(reader: &mut Reader<'_>, spec: &Table<'_>) -> Option<String> {
    let field = spec.field("podSelector").cloned()?;
    let table = reader.table(field.node, &field.path, SELECTOR)?;
    if let Some(field) = table.field("matchExpressions") {
        let why = "an instance registers itself, with its version";
        not_carried(reader, field.key, "`matchExpressions`", why);
    }
    let labels = table.field("matchLabels").cloned()?;
    let labels = reader.open_table(labels.node, &labels.path)?;
    let version = labels.field("version").cloned()?;
    reader.line(&version, "a version", 63).map(str::to_owned)
}

/// The service by which instances are found, and the attribute `version` of it.
fn discovered(reader: &mut Reader<'_>, object: &Object<'_>, spec: &Table<'_>) -> (Option<ServiceName>, Option<String>) {
    let Some(field) = spec.field("serviceDiscovery").cloned() else { return (None, None) };
    let Some(table) = reader.table(field.node, &field.path, DISCOVERY) else { return (None, None) };
    let Some(field) = one_of(reader, &table, &["dns", "awsCloudMap"], "dns: {hostname: pay}") else {
        return (None, None);
    };
    if field.name == "dns" {
        let Some(table) = reader.table(field.node, &field.path, DNS) else { return (None, None) };
        otherwise(
            reader,
            &table,
            &[("responseType", "every instance has a proxy, and each is called"), ("ipPreference", IP)],
        );
        let host = reader.need(&table, "hostname", "hostname: pay").cloned();
        let service = host.and_then(|field| {
            let text = reader.line(&field, "a host name", 253)?;
            names::service(reader, text, field.node.span, object.namespace)
        });
        return (service, None);
    }
    let Some(table) = reader.table(field.node, &field.path, CLOUD_MAP) else { return (None, None) };
    otherwise(reader, &table, &[("ipPreference", IP)]);
    let name = reader.need(&table, "serviceName", "serviceName: pay").cloned();
    let service = name.and_then(|field| {
        let text = reader.line(&field, "the name of a service", 253)?;
        names::service(reader, text, field.node.span, object.namespace)
    });
    let mut version = None;
    for item in items(reader, &table, "attributes", 64, "a list such as [{key: version, value: v1}]") {
        let Some(table) = reader.table(item.node, &item.path, ATTRIBUTE) else { continue };
        let key = reader.need(&table, "key", "key: version").cloned();
        let key = key.and_then(|field| reader.text(&field, "the name of an attribute"));
        let value = reader.need(&table, "value", "value: v1").cloned();
        if key == Some("version") {
            version = value.and_then(|field| reader.line(&field, "a version", 63)).map(str::to_owned);
        } else if key.is_some_and(|key| !key.starts_with("ECS_") && !key.starts_with("k8s.io/")) {
            let why = "instances of a service differ by their version alone";
            no_equal(reader, item.node.span, "another attribute", why, "key: version");
        }
    }
    (service, version)
}

/// Why an address's family is not chosen.
const IP: &str = "instances register the addresses by which they are reached";

/// A service, how it is dealt with, and what is spoken.
pub(crate) type Listened = (ServiceName, Overlay, Option<AppProtocol>);

/// What a node says of how its service is dealt with.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<Listened> {
    // Its shape was checked when it was read for the others.
    let mut scratch = Reader::default();
    let (_, own) = head(&mut scratch, object)?;
    let spec = spec(&mut scratch, object, SPEC, EXAMPLE)?;
    otherwise(reader, &spec, &OTHERWISE);
    let listeners =
        items(reader, &spec, "listeners", 16, "a list such as [{portMapping: {port: 8080, protocol: http}}]");
    if let Some(second) = listeners.get(1) {
        let why = "the policies of a service hold for all of its ports; those of the first listener are taken";
        not_carried(reader, second.node.span, "a further listener", why);
    }
    let first = listeners.first()?;
    let table = reader.table(first.node, &first.path, LISTENER)?;
    let mapping = reader.need(&table, "portMapping", "portMapping: {port: 8080, protocol: http}").cloned();
    let mapping = mapping.and_then(|field| reader.table(field.node, &field.path, PORT));
    let port = mapping.as_ref().and_then(|table| table.field("port").cloned()).and_then(|field| reader.port(&field));
    let protocol = mapping.and_then(|table| reader.need(&table, "protocol", "protocol: http").cloned());
    let protocol = protocol.and_then(|field| reader.word(&field, &PROTOCOLS));
    otherwise(reader, &table, &[("tls", "between proxies there is mutual TLS, always")]);
    let overlay = Overlay {
        timeouts: table.field("timeout").cloned().and_then(|field| timeouts(reader, &field)),
        outlier: table.field("outlierDetection").cloned().and_then(|field| outlier(reader, &field)),
        limits: table.field("connectionPool").cloned().and_then(|field| limits(reader, &field)),
        probe: table.field("healthCheck").cloned().and_then(|field| probe(reader, &field, port)),
        ..Overlay::default()
    };
    Some((own.service, overlay, protocol))
}

fn timeouts(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Timeouts> {
    let table = reader.table(field.node, &field.path, POOL)?;
    let field = one_of(reader, &table, POOL.known, "http: {perRequest: {unit: s, value: 15}}")?;
    let table = reader.table(field.node, &field.path, TIMEOUT_OF)?;
    let mut timeouts = Timeouts::default();
    if let Some(time) = table.field("perRequest").cloned().and_then(|field| names::duration(reader, &field)) {
        timeouts.request = (!time.is_zero()).then_some(time);
    }
    if let Some(field) = table.field("idle").cloned()
        && let Some(time) = names::duration(reader, &field)
    {
        if time.is_zero() {
            not_carried(reader, field.key, "no limit for idle streams", "there always is one; it is 5 minutes");
        } else {
            timeouts.idle = time;
        }
    }
    Some(timeouts)
}

fn outlier(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Outlier> {
    let table = reader.table(field.node, &field.path, OUTLIER)?;
    let mut outlier = Outlier::default();
    let errors = reader.need(&table, "maxServerErrors", "maxServerErrors: 5").cloned();
    if let Some(field) = errors
        && let Some(number) = reader.whole(&field, "a number of errors", 1..=1000)
    {
        let message = "a plain 500 counts as no error in a row";
        let why = "connections that fail, resets, timeouts, 502, 503 and 504 do; half of the answers 5xx do as well";
        reader.report(field.key, Finding::warning(2173, message).because(why));
        outlier.consecutive = number;
    }
    let open = table.field("baseEjectionDuration").cloned().and_then(|field| names::duration(reader, &field));
    if let Some(open) = open {
        outlier.open_for = open.max(Duration::from_millis(100));
    }
    let why = "an instance is ejected at once, and may be the last: then the breaker is open";
    otherwise(reader, &table, &[("interval", why), ("maxEjectionPercent", why)]);
    Some(outlier)
}

fn limits(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Limits> {
    let table = reader.table(field.node, &field.path, POOL)?;
    let field = one_of(reader, &table, POOL.known, "http: {maxConnections: 100}")?;
    let table = reader.table(field.node, &field.path, POOL_OF)?;
    let mut limits = Limits::default();
    for (key, place) in [
        ("maxConnections", &mut limits.connections),
        ("maxRequests", &mut limits.requests),
        ("maxPendingRequests", &mut limits.pending),
    ] {
        let number = table.field(key).cloned().and_then(|field| reader.whole(&field, "a number", 1..=1_000_000));
        *place = number.unwrap_or(*place);
    }
    Some(limits)
}

fn probe(reader: &mut Reader<'_>, field: &Field<'_>, port: Option<u16>) -> Option<Probe> {
    let table = reader.table(field.node, &field.path, HEALTH)?;
    let other = table.field("port").cloned();
    if let Some(field) = other
        && reader.port(&field).is_some_and(|own| Some(own) != port)
    {
        not_carried(
            reader,
            field.key,
            "the port of a health check",
            "an application is asked on the port that it serves",
        );
    }
    let usual = Probe::default();
    let mut number = |key: &str, bounds, usual| {
        let field = table.field(key).cloned();
        field.map_or(Some(usual), |field| reader.whole(&field, "a whole number", bounds))
    };
    let (healthy, unhealthy) =
        (number("healthyThreshold", 1..=100, usual.healthy), number("unhealthyThreshold", 1..=100, usual.unhealthy));
    let (interval, timeout) =
        (number("intervalMillis", 100..=3_600_000, 2_000), number("timeoutMillis", 10..=60_000, 1_000));
    let protocol = reader.need(&table, "protocol", "protocol: http").cloned();
    let protocol = protocol.and_then(|field| reader.word(&field, &PROTOCOLS));
    let question = match protocol? {
        AppProtocol::Tcp => Question::Tcp,
        AppProtocol::Grpc => Question::Grpc { service: String::new() },
        _ => {
            let field = table.field("path").cloned();
            let text = field.as_ref().map_or(Some("/"), |field| reader.line(field, "a path", 1024))?;
            let path = CanonicalPath::parse(text).ok().filter(|path| path.as_str().starts_with('/'));
            if let (None, Some(field)) = (&path, &field) {
                reader.bad(field, "a path", "it begins with / and has no query", "path: /health");
            }
            Question::Http { path: path?, statuses: Vec::new() }
        }
    };
    let millis = |number: u32| Duration::from_millis(u64::from(number));
    Some(Probe {
        question,
        interval: millis(interval?),
        timeout: millis(timeout?),
        healthy: healthy?,
        unhealthy: unhealthy?,
    })
}
