//! `service-defaults`: what is spoken, and what lies outside of the mesh.

use std::collections::BTreeSet;

use hms_model::names::{Label, ServiceName};
use hms_model::policy::egress::EgressHost;
use hms_model::port::AppProtocol;
use hms_model::resource::Overlay;

use super::{said, settings};
use crate::document::short;
use crate::mesh_yaml::host_name;
use crate::objects::kind::Kind;
use crate::objects::object::{Object, items, not_carried};
use crate::read::{Field, Keys, Reader};

const DEFAULTS: Keys = Keys::new(&[
    "Protocol",
    "BalanceInboundConnections",
    "Mode",
    "UpstreamConfig",
    "TransparentProxy",
    "MutualTLSMode",
    "EnvoyExtensions",
    "Destination",
    "MaxInboundConnections",
    "MaxRequestHeadersKB",
    "LocalConnectTimeoutMs",
    "LocalRequestTimeoutMs",
    "MeshGateway",
    "ExternalSNI",
    "Expose",
    "RateLimits",
]);

const DESTINATION: Keys = Keys::new(&["Addresses", "Port"]);
/// Addresses of one destination.
const ADDRESSES: usize = 32;

const PROTOCOLS: [(&str, AppProtocol); 4] = [
    ("http", AppProtocol::Http),
    ("tcp", AppProtocol::Tcp),
    ("http2", AppProtocol::Http2),
    ("grpc", AppProtocol::Grpc),
];

/// What is otherwise here, and how.
const OTHERWISE: [(&str, &str); 13] = [
    ("BalanceInboundConnections", "each connection goes to the worker of the proxy that has the fewest"),
    ("Mode", "whether connections are captured is said where a program is started: `intercept:`"),
    ("UpstreamConfig", "limits and timeouts are those of the service that is called, for all of its callers"),
    ("TransparentProxy", "whether connections are captured is said where a program is started: `intercept:`"),
    ("EnvoyExtensions", "the proxy is no Envoy"),
    ("MaxInboundConnections", "`limits: {connections: …}` of a service bounds what each caller opens"),
    ("MaxRequestHeadersKB", "the bounds of a message's head are fixed"),
    ("LocalConnectTimeoutMs", "the time to reach the application beside a proxy is fixed"),
    ("LocalRequestTimeoutMs", "`timeout: …` of a service bounds its requests at the caller"),
    ("MeshGateway", "there is one mesh, and no gateway between its parts"),
    ("ExternalSNI", "between proxies a service is known by its identity"),
    ("Expose", "what is open without the mesh is `publish:` and the probes"),
    ("RateLimits", "`rate_limit:` of mesh.yaml and of routes says it"),
];

/// What an entry says.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) service: ServiceName,
    pub(crate) protocol: Option<AppProtocol>,
    /// Hosts outside of the mesh, by what they are called.
    pub(crate) hosts: Vec<(Label, EgressHost)>,
}

/// The services that lie outside of the mesh, as an entry among these says.
pub(crate) fn lying_outside(objects: &[(Kind, Object<'_>)]) -> BTreeSet<ServiceName> {
    let entries = objects.iter().filter(|(kind, _)| *kind == Kind::ServiceDefaults).map(|(_, object)| object);
    let outside = entries.filter(|object| {
        // Its mistakes are found when it is read.
        settings(&mut Reader::default(), object, DEFAULTS).is_some_and(|table| said(&table, "Destination").is_some())
    });
    outside.filter_map(|object| ServiceName::in_namespace(object.namespace, object.name).ok()).collect()
}

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<Said> {
    let table = settings(reader, object, DEFAULTS)?;
    let service = object.route_name(reader)?;
    for (key, why) in OTHERWISE {
        if let Some(field) = said(&table, key) {
            not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
        }
    }
    if let Some(field) = said(&table, "MutualTLSMode")
        && !crate::gateway_api::is_word(Some(&field), "strict")
    {
        let why = "what a proxy takes in clear text is said for the whole mesh";
        not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
    }
    let protocol = said(&table, "Protocol").and_then(|field| reader.word(&field, &PROTOCOLS));
    let Some(field) = said(&table, "Destination") else { return Some(Said { service, protocol, hosts: Vec::new() }) };
    // What is spoken to a host outside is seen from the first bytes.
    let hosts = outside(reader, &field, &service);
    Some(Said { service, protocol: None, hosts })
}

/// `Destination`: addresses outside of the mesh, and a port.
fn outside(reader: &mut Reader<'_>, field: &Field<'_>, service: &ServiceName) -> Vec<(Label, EgressHost)> {
    let Some(table) = reader.table_spelt(field.node, &field.path, DESTINATION, &[]) else { return Vec::new() };
    let _needed = reader.need_spelt(&table, "Addresses", "[api.example.com]");
    let port = reader.need_spelt(&table, "Port", "443").and_then(|field| reader.port(&field));
    let list = items(reader, &table, "Addresses", ADDRESSES, "a list such as [api.example.com]");
    let mut hosts = Vec::new();
    for (place, item) in list.iter().enumerate() {
        let number = if list.len() > 1 { format!("-{}", place + 1) } else { String::new() };
        let label = Label::new(&format!("{}{number}", service.name()));
        let host = host_name(reader, item);
        if let (Ok(label), Some(host), Some(port)) = (label, host, port) {
            let (local, tls, overlay) = (false, None, Overlay::default());
            hosts.push((label, EgressHost { host, ports: vec![port], local, tls, overlay }));
        }
    }
    hosts
}
