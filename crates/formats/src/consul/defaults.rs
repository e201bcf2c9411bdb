//! `service-defaults`: what is spoken, and what lies outside of the mesh.

use hms_model::names::ServiceName;
use hms_model::port::AppProtocol;

use super::{said, settings};
use crate::document::short;
use crate::objects::object::{Object, no_equal, not_carried};
use crate::read::{Keys, Reader};

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

/// The protocol of a service.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(ServiceName, AppProtocol)> {
    let table = settings(reader, object, DEFAULTS)?;
    let own = object.route_name(reader)?;
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
    if let Some(field) = said(&table, "Destination") {
        let why = "a host outside of the mesh is no service of it";
        let fix = "list it in mesh.yaml: egress: {hosts: {NAME: {host: api.example.com, ports: [443]}}}";
        no_equal(reader, field.key, "a service whose instances are outside", why, fix);
    }
    let protocol = said(&table, "Protocol").and_then(|field| reader.word(&field, &PROTOCOLS));
    Some((own, protocol?))
}
