//! `Gateway`: for which names and routes requests from outside are taken. The mesh has one gateway; how it is reached is not in
//! these files.

use std::collections::BTreeSet;

use hms_model::finding::Finding;

use super::hosts;
use crate::document::short;
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Keys, Reader, Span, Table};

const SPEC: Keys = Keys::new(&[
    "gatewayClassName",
    "listeners",
    "addresses",
    "infrastructure",
    "allowedListeners",
    "backendTLS",
    "tls",
    "defaultScope",
]);
const LISTENER: Keys = Keys::new(&["name", "hostname", "port", "protocol", "tls", "allowedRoutes"]);
const TLS: Keys = Keys::new(&["mode", "certificateRefs", "options", "frontendValidation"]);
const ALLOWED: Keys = Keys::new(&["namespaces", "kinds"]);
const NAMESPACES: Keys = Keys::new(&["from", "selector"]);
const ROUTE_KIND: Keys = Keys::new(&["group", "kind"]);
/// Listeners of one gateway, by the specification.
const LISTENERS: usize = 64;
const KINDS: usize = 8;

/// A gateway as it is written.
#[derive(Debug)]
pub(super) struct GatewayObject<'n> {
    namespace: &'n str,
    name: &'n str,
    file: u16,
    listeners: Vec<Listener>,
}

#[derive(Debug)]
struct Listener {
    name: String,
    host: Option<String>,
    port: Option<u16>,
    protocol: Protocol,
    spaces: Spaces,
    /// Kinds of routes; empty for those of the protocol.
    kinds: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Protocol {
    Http,
    Https,
    Tls,
    Tcp,
    Udp,
}

const PROTOCOLS: [(&str, Protocol); 5] = [
    ("HTTP", Protocol::Http),
    ("HTTPS", Protocol::Https),
    ("TLS", Protocol::Tls),
    ("TCP", Protocol::Tcp),
    ("UDP", Protocol::Udp),
];

/// From where routes may come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spaces {
    All,
    Same,
    None,
}

/// What a route asks of a gateway.
#[derive(Debug)]
pub(super) struct Asked<'a> {
    pub(super) kind: &'a str,
    pub(super) namespace: &'a str,
    pub(super) section: Option<&'a str>,
    pub(super) port: Option<u16>,
    pub(super) hosts: &'a [String],
}

/// Why a gateway does not take a route, in the order in which it is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Refusal {
    NoListener,
    NotAllowed,
    NoCommonHost,
}

impl GatewayObject<'_> {
    /// Whether this is the one meant.
    pub(super) fn is(&self, namespace: &str, name: &str) -> bool {
        self.namespace == namespace && self.name == name
    }

    /// The names it answers for, with its file; patterns are left to the routes.
    pub(super) fn hosts(&self) -> impl Iterator<Item = (u16, String)> {
        let listened = self.listeners.iter().filter(|listener| listener.protocol <= Protocol::Https);
        let names = listened.filter_map(|listener| listener.host.clone());
        names.filter(|host| !host.starts_with('*')).map(|host| (self.file, host))
    }

    /// The names for which it takes a route; an empty one stands for all of the route's own.
    pub(super) fn take(&self, asked: &Asked<'_>) -> Result<Vec<String>, Refusal> {
        let (mut names, mut why) = (Vec::new(), Refusal::NoListener);
        for listener in &self.listeners {
            let is_meant = asked.section.is_none_or(|section| section == listener.name)
                && asked.port.is_none_or(|port| Some(port) == listener.port);
            if !is_meant {
                continue;
            }
            if !self.allows(listener, asked) {
                why = why.max(Refusal::NotAllowed);
                continue;
            }
            match hosts::common(listener.host.as_deref(), asked.hosts) {
                None => why = why.max(Refusal::NoCommonHost),
                Some(common) if common.is_empty() || listener.host.is_none() => names.push(String::new()),
                Some(common) => names.extend(common),
            }
        }
        if names.is_empty() { Err(why) } else { Ok(names) }
    }

    fn allows(&self, listener: &Listener, asked: &Asked<'_>) -> bool {
        let by_protocol = match listener.protocol {
            Protocol::Http | Protocol::Https => matches!(asked.kind, "HTTPRoute" | "GRPCRoute"),
            Protocol::Tls => matches!(asked.kind, "TLSRoute" | "TCPRoute"),
            Protocol::Tcp => asked.kind == "TCPRoute",
            Protocol::Udp => asked.kind == "UDPRoute",
        };
        let space = match listener.spaces {
            Spaces::All => true,
            Spaces::Same => asked.namespace == self.namespace,
            Spaces::None => false,
        };
        space && by_protocol && (listener.kinds.is_empty() || listener.kinds.iter().any(|kind| kind == asked.kind))
    }
}

/// Reads a gateway and says what of it the mesh's own does otherwise.
pub(super) fn read<'n>(reader: &mut Reader<'_>, object: &Object<'n>) -> Option<GatewayObject<'n>> {
    let example = "spec: {gatewayClassName: hms, listeners: [{name: web, port: 443, protocol: HTTPS}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let class = reader.need(&spec, "gatewayClassName", "gatewayClassName: hms").cloned();
    let _checked = class.and_then(|field| reader.line(&field, "the name of a class", 253));
    let why = "the mesh has one gateway, which listens where `hms up --https PORT` or its own settings say";
    for key in ["addresses", "infrastructure", "allowedListeners", "backendTLS", "tls", "defaultScope"] {
        if let Some(field) = spec.field(key) {
            not_carried(reader, field.key, &format!("`{key}` of a Gateway"), why);
        }
    }
    let _needed = reader.need(&spec, "listeners", "listeners: [{name: web, port: 443, protocol: HTTPS}]");
    let mut listeners: Vec<Listener> = Vec::new();
    let (mut names, mut sockets) = (BTreeSet::new(), BTreeSet::new());
    for item in items(reader, &spec, "listeners", LISTENERS, "a list of listeners") {
        let Some(table) = reader.table(item.node, &item.path, LISTENER) else { continue };
        let Some(listener) = listener(reader, &table) else { continue };
        if !names.insert(listener.name.clone()) {
            let finding = Finding::error(2110, format!("two listeners are called `{}`", short(&listener.name)));
            reader.report(item.node.span, finding.fix("give each a name of its own"));
        }
        if !sockets.insert((listener.port, listener.protocol, listener.host.clone())) {
            let finding = Finding::error(2110, "two listeners have the same port, protocol and host name");
            reader.report(item.node.span, finding.fix("keep one of the two"));
        }
        listeners.push(listener);
    }
    if let (Some(first), Some(field)) = (listeners.first(), spec.field("listeners")) {
        let port = first.port.unwrap_or_default();
        not_carried(
            reader,
            field.key,
            &format!("where a Gateway listens (port {port}) and with which certificate"),
            why,
        );
    }
    Some(GatewayObject { namespace: object.namespace, name: object.name, file: object.at.file, listeners })
}

fn listener(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<Listener> {
    let name = reader.need(table, "name", "name: web").cloned();
    let name = name.and_then(|field| reader.line(&field, "a name", 253));
    let port = reader.need(table, "port", "port: 443").cloned();
    let port = port.and_then(|field| reader.port(&field));
    let protocol = reader.need(table, "protocol", "protocol: HTTPS").cloned();
    let protocol = protocol.and_then(|field| Some((reader.word(&field, &PROTOCOLS)?, field.node.span)));
    let host = table.field("hostname").cloned().and_then(|field| {
        // Everything, said in another way.
        if super::is_word(Some(&field), "") { None } else { hosts::pattern(reader, &field) }
    });
    let (spaces, kinds) =
        table.field("allowedRoutes").cloned().map_or((Spaces::Same, Vec::new()), |field| allowed(reader, &field));
    let (protocol, at) = protocol?;
    protocol_fits(reader, table, protocol, at);
    Some(Listener { name: name?.to_owned(), host, port, protocol, spaces, kinds })
}

/// What the gateway can and cannot be for a protocol.
fn protocol_fits(reader: &mut Reader<'_>, table: &Table<'_>, protocol: Protocol, at: Span) {
    let tls = table.field("tls").cloned();
    let mode = tls.as_ref().and_then(|field| {
        let table = reader.table(field.node, &field.path, TLS)?;
        let mode = table.field("mode").cloned()?;
        reader
            .word(&mode, &[("Terminate", false), ("Passthrough", true)])
            .filter(|passed| *passed)
            .map(|_| mode.node.span)
    });
    match protocol {
        Protocol::Http => {
            if let Some(field) = tls {
                let finding = Finding::error(2105, format!("`{}` stands in a listener for HTTP", field.path));
                reader.report(field.key, finding.fix("protocol: HTTPS"));
            }
            let message = "requests from outside come over TLS";
            let why = "the gateway ends TLS itself and takes no request in the clear";
            reader.report(at, Finding::warning(2173, message).because(why));
        }
        Protocol::Https => {
            if let Some(at) = mode {
                let finding = Finding::error(2105, "a listener for HTTPS passes TLS through");
                let why = "what is not decrypted cannot be led by its requests";
                reader.report(at, finding.because(why).fix("mode: Terminate, or protocol: TLS"));
            }
        }
        Protocol::Tls | Protocol::Tcp | Protocol::Udp => {
            let why = "the gateway takes requests alone: HTTP over TLS";
            no_equal(
                reader,
                at,
                "a listener for connections",
                why,
                "leave the listener out, and call the service inside the mesh",
            );
        }
    }
}

/// `allowedRoutes`.
fn allowed(reader: &mut Reader<'_>, field: &Field<'_>) -> (Spaces, Vec<String>) {
    let Some(table) = reader.table(field.node, &field.path, ALLOWED) else { return (Spaces::Same, Vec::new()) };
    let mut spaces = Spaces::Same;
    if let Some(field) = table.field("namespaces").cloned()
        && let Some(table) = reader.table(field.node, &field.path, NAMESPACES)
        && let Some(from) = table.field("from").cloned()
    {
        let words = [
            ("Same", Some(Spaces::Same)),
            ("All", Some(Spaces::All)),
            ("None", Some(Spaces::None)),
            ("Selector", None),
        ];
        match reader.word(&from, &words) {
            Some(Some(own)) => spaces = own,
            Some(None) => {
                let why = "namespaces of the mesh have no labels: routes of the gateway's own namespace are taken";
                not_carried(reader, from.key, "choosing namespaces by their labels", why);
            }
            None => {}
        }
    }
    let mut kinds = Vec::new();
    for item in items(reader, &table, "kinds", KINDS, "a list such as [{kind: HTTPRoute}]") {
        let Some(table) = reader.table(item.node, &item.path, ROUTE_KIND) else { continue };
        let kind = reader.need(&table, "kind", "kind: HTTPRoute").cloned();
        kinds.extend(kind.and_then(|field| reader.line(&field, "a kind", 63)).map(str::to_owned));
    }
    (spaces, kinds)
}
