//! `ServiceEntry`: hosts outside of the mesh, and what a `DestinationRule` says of one.

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, Label};
use hms_model::policy::egress::{CLEAR_PORT, EgressHost, MOST_PORTS, Origination};
use hms_model::resource::Overlay;

use super::destination_rule;
use crate::document::short;
use crate::gateway_api::is_word;
use crate::mesh_yaml::host_name as name_of;
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::read::{Field, Keys, Reader, Span, Table};

const SPEC: Keys = Keys::new(&[
    "hosts",
    "addresses",
    "ports",
    "location",
    "resolution",
    "endpoints",
    "workloadSelector",
    "exportTo",
    "subjectAltNames",
]);
const PORT: Keys = Keys::new(&["number", "protocol", "name", "targetPort"]);
const TLS: Keys = Keys::new(&[
    "mode",
    "clientCertificate",
    "privateKey",
    "caCertificates",
    "caCrl",
    "credentialName",
    "subjectAltNames",
    "sni",
    "insecureSkipVerify",
]);
/// Hosts of one object.
const HOSTS: usize = 32;

/// A port of an entry, and the port behind it.
#[derive(Debug, Clone, Copy)]
struct PortOf {
    number: u16,
    target: Option<(u16, Span)>,
}

/// What rules among the files say of hosts outside.
pub(crate) type Outside = BTreeMap<String, External>;

/// What a rule says of a host outside.
#[derive(Debug, Clone, Default)]
pub(crate) struct External {
    pub(crate) overlay: Overlay,
    pub(crate) tls: Option<Origination>,
}

/// The hosts that an entry names, for the rules about them.
pub(crate) fn hosts(object: &Object<'_>) -> Vec<String> {
    // Their mistakes are found when the entry is read.
    let mut scratch = Reader::default();
    let Some(spec) = object.spec(&mut scratch, SPEC, "") else { return Vec::new() };
    let list = items(&mut scratch, &spec, "hosts", HOSTS, "a list of host names");
    list.iter().filter_map(|item| name_of(&mut scratch, item)).collect()
}

/// The hosts of an entry, by what they are called here.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, outside: &Outside) -> Vec<(Label, EgressHost)> {
    let example = "spec: {hosts: [api.example.com], ports: [{number: 443, name: tls, protocol: TLS}], resolution: DNS}";
    let Some(spec) = object.spec(reader, SPEC, example) else { return Vec::new() };
    inside(reader, &spec);
    let _needed = reader.need(&spec, "hosts", "hosts: [api.example.com]");
    let ports = ports(reader, &spec);
    let list = items(reader, &spec, "hosts", HOSTS, "a list of host names");
    let mut made = Vec::new();
    for (place, item) in list.iter().enumerate() {
        let Some(host) = name_of(reader, item) else { continue };
        let number = (list.len() > 1).then_some(place + 1);
        let label = label(reader, object, number);
        let said = outside.get(&host).cloned().unwrap_or_default();
        let (Some(label), Some(ports)) = (label, &ports) else { continue };
        let Some(ports) = dialled(reader, ports, said.tls.is_some()) else { continue };
        made.push((label, EgressHost { host, ports, local: false, tls: said.tls, overlay: said.overlay }));
    }
    made
}

/// What all hosts of an object are called, before their numbers.
pub(crate) fn stem(object: &Object<'_>) -> String {
    if object.namespace == DEFAULT_NAMESPACE {
        object.name.to_owned()
    } else {
        format!("{}-{}", object.name, object.namespace)
    }
}

/// What one is called: the object's name, with its namespace and the place of the host where there are several.
fn label(reader: &mut Reader<'_>, object: &Object<'_>, number: Option<usize>) -> Option<Label> {
    let mut text = stem(object);
    if let Some(number) = number {
        text = format!("{text}-{number}");
    }
    let label = Label::new(&text);
    if let Err(error) = &label {
        let finding = Finding::error(2111, format!("`{}` is no name for a host", short(&text)));
        reader.report(object.at, finding.because(error.to_string()).fix("give the object a short name of one part"));
    }
    label.ok()
}

/// Whatever makes of it something else than a host outside.
fn inside(reader: &mut Reader<'_>, spec: &Table<'_>) {
    let location = spec.field("location").cloned();
    let known = [("MESH_EXTERNAL", false), ("MESH_INTERNAL", true)];
    if let Some(field) = location
        && reader.word(&field, &known) == Some(true)
    {
        let why = "what belongs to the mesh has a proxy and registers itself";
        no_equal(reader, field.node.span, "a service of the mesh by an entry", why, "hms run NAME -- PROGRAM");
    }
    for key in ["endpoints", "workloadSelector"] {
        if let Some(field) = spec.field(key) {
            let why = "calls go to where the name of the host leads";
            no_equal(reader, field.key, &format!("`{key}` of a host outside"), why, "name the host that is meant");
        }
    }
    let resolutions =
        [("NONE", false), ("STATIC", true), ("DNS", true), ("DNS_ROUND_ROBIN", true), ("DYNAMIC_DNS", true)];
    let resolution = spec.field("resolution").cloned();
    let is_looked_up = resolution.as_ref().map_or(Some(false), |field| reader.word(field, &resolutions));
    if is_looked_up == Some(false) {
        let at = resolution.map_or_else(|| spec.field("hosts").map_or(spec.span, |field| field.key), |field| field.key);
        let message = "calls go to where the name leads, not to the address that was dialled";
        let why = "whoever dials an address could say any name";
        reader.report(at, Finding::warning(2173, message).because(why));
    }
    let others = [
        ("addresses", "programs are told the addresses of the name itself"),
        ("exportTo", "what is listed is open to every member of the mesh"),
        ("subjectAltNames", "with TLS begun by the proxy the certificate must be for the name of the host"),
    ];
    for (key, why) in others {
        if let Some(field) = spec.field(key) {
            not_carried(reader, field.key, &format!("`{key}`"), why);
        }
    }
}

fn ports(reader: &mut Reader<'_>, spec: &Table<'_>) -> Option<Vec<PortOf>> {
    let field = reader.need(spec, "ports", "ports: [{number: 443, name: tls, protocol: TLS}]").cloned()?;
    let mut ports: Vec<PortOf> = Vec::new();
    for item in items(reader, spec, "ports", MOST_PORTS, "a list such as [{number: 443, name: tls, protocol: TLS}]") {
        let Some(table) = reader.table(item.node, &item.path, PORT) else { continue };
        let number = reader.need(&table, "number", "number: 443").cloned().and_then(|field| reader.port(&field));
        // What is spoken is seen from the first bytes.
        for key in ["protocol", "name"] {
            let _text = table.field(key).cloned().and_then(|field| reader.line(&field, "a word", 63));
        }
        let target = table.field("targetPort").cloned();
        let target = target.and_then(|field| Some((reader.port(&field)?, field.key)));
        let Some(number) = number else { continue };
        if ports.iter().any(|own| own.number == number) {
            let finding = Finding::error(2110, format!("port {number} stands twice"));
            reader.report(item.node.span, finding.fix("keep one of the two"));
            continue;
        }
        ports.push(PortOf { number, target: target.filter(|(target, _)| *target != number) });
    }
    if ports.is_empty() && !reader.has_errors(field.key.file) {
        reader.bad(
            &field,
            "a list of ports",
            "a host has at least one",
            "ports: [{number: 443, name: tls, protocol: TLS}]",
        );
    }
    (!ports.is_empty()).then_some(ports)
}

/// The ports that may be dialled. With TLS that the proxy begins the first is the one that it dials, and 80 is taken from programs too.
fn dialled(reader: &mut Reader<'_>, ports: &[PortOf], originates: bool) -> Option<Vec<u16>> {
    let mut dialled = Vec::new();
    let mut other = None;
    for own in ports {
        match own.target {
            Some((target, _)) if originates && own.number == CLEAR_PORT => dialled.insert(0, target),
            Some((_, at)) => other = Some(at),
            // Programs speak in clear text to it, and the proxy to the other.
            None if originates && own.number == CLEAR_PORT && ports.len() > 1 => {}
            None => dialled.push(own.number),
        }
    }
    if let Some(at) = other {
        let why = "a program dials the port of the host; only from port 80 does a proxy begin TLS to another one";
        let fix = "a DestinationRule for this host with tls: {mode: SIMPLE} among these files, or leave it out";
        no_equal(reader, at, "another port of a host outside", why, fix);
        return None;
    }
    let mut seen = Vec::new();
    for port in dialled {
        if !seen.contains(&port) {
            seen.push(port);
        }
    }
    Some(seen)
}

/// What a `DestinationRule` says of a host outside that a `ServiceEntry` names; `None` if it is about another host.
pub(crate) fn rule(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    known: &BTreeSet<String>,
) -> Option<(String, External)> {
    let host = destination_rule::host(object)?;
    if !known.contains(&host) {
        return None;
    }
    let mut external = External::default();
    let spec = object.spec(reader, destination_rule::SPEC, "spec: {host: api.example.com}")?;
    for key in ["subsets", "exportTo", "workloadSelector"] {
        if let Some(field) = spec.field(key) {
            let why = "a host outside is one for every member of the mesh";
            not_carried(reader, field.key, &format!("`{key}`"), why);
        }
    }
    if let Some(field) = spec.field("trafficPolicy").cloned()
        && let Some(table) = reader.table(field.node, &field.path, destination_rule::POLICY)
    {
        external.overlay = destination_rule::overlay(reader, &table);
        external.tls = table.field("tls").cloned().and_then(|field| tls(reader, &field));
        for item in items(reader, &table, "portLevelSettings", MOST_PORTS, "a list of settings of ports") {
            let Some(table) = reader.open_table(item.node, &item.path) else { continue };
            for field in table.fields() {
                match field.name {
                    "port" => {}
                    "tls" => external.tls = external.tls.take().or_else(|| tls(reader, field)),
                    _ => {
                        let why = "policies are those of the whole host";
                        not_carried(reader, field.key, &format!("`{}`", short(&field.path)), why);
                    }
                }
            }
        }
    }
    Some((host, external))
}

/// TLS that the proxy begins.
fn tls(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Origination> {
    let table = reader.table(field.node, &field.path, TLS)?;
    let mode = reader.need(&table, "mode", "mode: SIMPLE").cloned()?;
    let modes = [("SIMPLE", Some(false)), ("ISTIO_MUTUAL", Some(true)), ("MUTUAL", Some(true)), ("DISABLE", None)];
    let client_certificate = reader.word(&mode, &modes)??;
    if is_word(Some(&mode), "MUTUAL") {
        let why = "the proxy shows its own certificate of the mesh, if any";
        no_equal(reader, mode.node.span, "a certificate of another kind", why, "mode: SIMPLE, or ISTIO_MUTUAL");
    }
    if let Some(field) = table.field("insecureSkipVerify").filter(|field| !is_word(Some(field), "false")) {
        let why = "with a certificate that is not checked anybody could answer";
        no_equal(reader, field.key, "`insecureSkipVerify`", why, "caCertificates: the authority's own file");
    }
    for key in ["credentialName", "sni", "caCrl"] {
        if let Some(field) = table.field(key) {
            let why = "the server name is the host's, and authorities are those of the system or of a file";
            no_equal(
                reader,
                field.key,
                &format!("`{key}` of a host outside"),
                why,
                "use caCertificates, or leave it out",
            );
        }
    }
    if let Some(field) = table.field("subjectAltNames") {
        not_carried(reader, field.key, "`subjectAltNames`", "the certificate must be for the name of the host");
    }
    let ca = table.field("caCertificates").cloned().and_then(|field| {
        let path = reader.line(&field, "a file with certificates in PEM", 4096)?;
        if !path.starts_with('/') {
            let why = "the file is read by the proxies, each on its own machine";
            reader.bad(&field, "an absolute path", why, "write for example /etc/ssl/example.pem");
        }
        Some(path.to_owned())
    });
    Some(Origination { ca: ca.unwrap_or_default(), client_certificate })
}
