//! The `egress:` section: what may leave the mesh.

use std::collections::BTreeMap;
use std::net::IpAddr;

use hms_model::finding::Finding;
use hms_model::names::Label;
use hms_model::policy::egress::{CLEAR_PORT, EgressHost, MOST_HOSTS, MOST_PORTS, Origination, Through, Unlisted};
use hms_model::policy::{Egress, TrafficPolicy};

use crate::document::{Value, short};
use crate::mesh_yaml::policy;
use crate::read::{Field, Keys, Reader};

const KEYS: Keys = Keys::new(&["default", "through", "hosts"]);
const HOST: Keys = Keys::new(&[
    "host",
    "ports",
    "tls",
    "ca",
    "client_certificate",
    "local",
    "timeout",
    "keep_alive",
    "retry",
    "breaker",
    "limits",
]);

/// Words for TLS.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Tls {
    Origin,
    Passed,
}

const TLS: [(&str, Tls); 2] = [("origin", Tls::Origin), ("none", Tls::Passed)];
const CLIENT_CERTIFICATES: [(&str, bool); 2] = [("mesh", true), ("none", false)];

/// Reads the section; `base` is what holds where a host says nothing.
pub(crate) fn read(reader: &mut Reader<'_>, field: &Field<'_>, base: &TrafficPolicy) -> Egress {
    let Some(table) = reader.table(field.node, &field.path, KEYS) else { return Egress::default() };
    let unlisted = table.field("default").and_then(|field| reader.word(field, &Unlisted::ALL));
    let through = table.field("through").and_then(|field| reader.word(field, &Through::ALL)).unwrap_or_default();
    let hosts = table.field("hosts").cloned().map(|field| hosts(reader, &field, base)).unwrap_or_default();
    Egress { unlisted, through, hosts }
}

fn hosts(reader: &mut Reader<'_>, field: &Field<'_>, base: &TrafficPolicy) -> BTreeMap<Label, EgressHost> {
    let mut hosts = BTreeMap::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return hosts };
    if table.fields().len() > MOST_HOSTS {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_HOSTS} hosts", field.path));
        reader.report(field.key, finding.fix("list fewer hosts"));
        return hosts;
    }
    let mut claimed: BTreeMap<(String, u16), String> = BTreeMap::new();
    for field in table.fields() {
        let label = match Label::new(field.name) {
            Ok(label) => Some(label),
            Err(error) => {
                let finding = Finding::error(2111, format!("`{}` is no name for a host", short(field.name)));
                let fix = "write a short name of your own: fema: {host: api.fema.gov}";
                reader.report(field.key, finding.because(error.to_string()).fix(fix));
                None
            }
        };
        let Some(host) = host(reader, field, base) else { continue };
        for port in &host.ports {
            if let Some(other) = claimed.insert((host.host.clone(), *port), field.name.to_owned()) {
                let message = format!("port {port} of {} is listed twice", host.host);
                let finding = Finding::error(2110, message).because(format!("`{}` lists it as well", short(&other)));
                reader.report(field.key, finding.fix("keep one of the two"));
            }
        }
        if let Some(label) = label {
            hosts.insert(label, host);
        }
    }
    hosts
}

fn host(reader: &mut Reader<'_>, field: &Field<'_>, base: &TrafficPolicy) -> Option<EgressHost> {
    let table = reader.table(field.node, &field.path, HOST)?;
    let name = reader.need(&table, "host", "host: api.fema.gov").cloned();
    let name = name.and_then(|field| name_of(reader, &field));
    let origin = table.field("tls").and_then(|field| reader.word(field, &TLS)) == Some(Tls::Origin);
    let ca = table.field("ca").and_then(|field| ca(reader, field));
    let client = table.field("client_certificate").and_then(|field| reader.word(field, &CLIENT_CERTIFICATES));
    for key in ["ca", "client_certificate"] {
        if let Some(field) = table.field(key).filter(|_| !origin) {
            let finding = Finding::error(2107, format!("`{}` has no effect without `tls: origin`", field.path))
                .because("the application speaks TLS itself, and the proxy passes it on unread")
                .fix("add tls: origin, or leave it out");
            reader.report(field.key, finding);
        }
    }
    let ports = table.field("ports").cloned().and_then(|field| ports(reader, &field));
    let local = table.field("local").and_then(|field| reader.boolean(field)).unwrap_or(false);
    let overlay = policy::overlay(reader, &table, base);
    Some(EgressHost {
        host: name?,
        ports: ports.unwrap_or_else(|| EgressHost::default_ports(origin)),
        local,
        tls: origin.then(|| Origination { ca: ca.unwrap_or_default(), client_certificate: client.unwrap_or(false) }),
        overlay,
    })
}

/// A DNS name or an address; no scheme, port, path or wildcard.
pub(crate) fn name_of(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field, "a host name such as api.fema.gov")?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_string());
    }
    let folded = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let fits = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    let why = if text.contains("://") || text.contains('/') || text.contains(':') {
        "a host has no scheme, port or path here"
    } else if text.contains('*') {
        "a wildcard would let names out that nobody has read"
    } else if folded.len() > 253 || !folded.split('.').all(fits) {
        "a host name has labels of letters, digits and -, 253 characters in all"
    } else if [".mesh", ".svc", ".svc.cluster.local"].iter().any(|suffix| folded.ends_with(suffix)) {
        "names with this ending are the mesh's own"
    } else {
        return Some(folded);
    };
    let finding = Finding::error(2106, format!("`{}` is no host outside of the mesh", reader.named(field.node, text)));
    reader.report(field.node.span, finding.because(why).fix("write for example host: api.fema.gov"));
    None
}

/// A path that means the same whatever folder a proxy runs in.
fn ca(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let path = reader.line(field, "a file with certificates in PEM", 4096)?;
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    let finding = Finding::error(2106, format!("`{}` is no absolute path", reader.named(field.node, path)));
    let why = "the file is read by the proxies, each on its own machine";
    reader.report(field.node.span, finding.because(why).fix("write for example ca: ${PWD}/authority.pem"));
    None
}

fn ports(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<u16>> {
    let items = match &field.node.value {
        Value::Scalar(..) => vec![field.clone()],
        _ => reader.list(field, "a list of ports such as [443]")?,
    };
    if items.is_empty() || items.len() > MOST_PORTS {
        let fix = format!("leave it out for {CLEAR_PORT} and 443, or write for example ports: [443]");
        reader.bad(field, "a list of ports", &format!("there are 1 to {MOST_PORTS}"), &fix);
        return None;
    }
    let mut ports = Vec::new();
    for item in &items {
        let Some(port) = reader.port(item) else { continue };
        if ports.contains(&port) {
            let finding = Finding::error(2110, format!("port {port} stands twice"));
            reader.report(item.node.span, finding.fix("keep one of the two"));
        } else {
            ports.push(port);
        }
    }
    (!ports.is_empty()).then_some(ports)
}
