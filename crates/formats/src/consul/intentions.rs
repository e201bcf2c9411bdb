//! `service-intentions`: who may call a service.
//!
//! An allow rule here says who may, and everybody else may not. So allowing is carried, and denying where it says no more than that;
//! the rest is refused, because nobody may be let in who was not meant.

use hms_model::finding::Finding;
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::route::Match;

use super::{matches, partition, said, settings};
use crate::gateway_api::is_word;
use crate::objects::object::{Object, items, namespace_of, no_equal};
use crate::read::{Field, Keys, Reader, Span, Table};
use crate::smi;

const INTENTIONS: Keys = Keys::new(&["Sources", "JWT", "Destination"]);
const DESTINATION: Keys = Keys::new(&["Name", "Namespace"]);
const SOURCE: Keys = Keys::new(&[
    "Name",
    "Namespace",
    "Partition",
    "Peer",
    "SamenessGroup",
    "Action",
    "Permissions",
    "Description",
    "Type",
    "Precedence",
    "LegacyID",
    "LegacyMeta",
    "LegacyCreateTime",
    "LegacyUpdateTime",
]);
const PERMISSION: Keys = Keys::new(&["Action", "HTTP", "JWT"]);
const HTTP: Keys = Keys::new(&["PathExact", "PathPrefix", "PathRegex", "Header", "Methods"]);
/// Sources of one service, permissions of one source, and matches that they come to.
const SOURCES: usize = 64;
const PERMISSIONS: usize = 64;
const MATCHES: usize = 256;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Action {
    Allow,
    Deny,
}

const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

/// What one source may do.
enum May {
    Nothing,
    Everything,
    These(Vec<Match>),
}

/// The service and its rules: everybody who may call it.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(ServiceName, Vec<AllowRule>)> {
    let table = settings(reader, object, INTENTIONS)?;
    let own = destination(reader, object, &table);
    if let Some(field) = said(&table, "JWT") {
        token(reader, &field);
    }
    let sources = reader.need_spelt(&table, "Sources", "[{Name: web, Action: allow}]");
    let (mut rules, mut all, mut denied) = (Vec::new(), false, Vec::new());
    for item in items(reader, &table, "Sources", SOURCES, "a list such as [{Name: web, Action: allow}]") {
        let Some(table) = reader.table_spelt(item.node, &item.path, SOURCE, &[]) else { continue };
        let source = source(reader, object, &table);
        let Some(may) = may(reader, &table, &item) else { continue };
        let Some(source) = source else { continue };
        // `*` is tried last there: what it allows would be allowed here to those of whom less was said.
        let is_all = source == Source::Any;
        all |= is_all && !matches!(may, May::Nothing);
        if !is_all && !matches!(may, May::Everything) {
            denied.push(item.node.span);
        }
        let matches = match may {
            May::Nothing => continue,
            May::Everything => Vec::new(),
            May::These(matches) => matches,
        };
        rules.push(AllowRule { source, matches, origin: reader.origin(item.node.span) });
    }
    for at in denied.into_iter().filter(|_| all) {
        let why = "everybody else may call the service, and a rule here can only allow more";
        no_equal(reader, at, "allowing one service less than all others", why, "name those who may, instead of `*`");
    }
    let sources = sources?;
    if rules.is_empty() && !reader.has_errors(object.at.file) {
        let finding = Finding::error(2175, "that nobody may call a service has no equal in the mesh");
        let why = "a service of which no rule allows anything is open to every member of the mesh";
        reader.report(sources.node.span, finding.because(why).fix("name somebody who may call it"));
    } else if !all && !reader.has_errors(object.at.file) {
        let message = "everybody else is denied, whatever the default of Consul's ACLs is";
        let why = "a service with a rule takes those who are named in one, and no others";
        reader.report(sources.key, Finding::warning(2173, message).because(why));
    }
    Some((own?, rules))
}

/// The service that is called: an entry's own name, or what an object names.
fn destination(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>) -> Option<ServiceName> {
    let every = |reader: &mut Reader<'_>, at| {
        let why = "who may call a service is said of each service";
        no_equal(reader, at, "intentions for every service", why, "write them for each service");
    };
    if object.top.field("apiVersion").is_none() {
        if object.name == "*" {
            every(reader, object.at);
            return None;
        }
        return object.route_name(reader);
    }
    let field = reader.need_spelt(table, "Destination", "{name: web}")?;
    let table = reader.table_spelt(field.node, &field.path, DESTINATION, &[])?;
    let namespace = said(&table, "Namespace").map(|field| namespace_of(reader, &field));
    let name = reader.need_spelt(&table, "Name", "web")?;
    let text = reader.line(&name, "the name of a service", 253)?;
    if text == "*" {
        every(reader, name.node.span);
        return None;
    }
    let service = reader.service_name(&name, text)?;
    let namespace = namespace.unwrap_or(Some(object.namespace))?;
    ServiceName::in_namespace(namespace, service.name()).ok()
}

fn source(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>) -> Option<Source> {
    partition(reader, table);
    for key in ["Peer", "SamenessGroup"] {
        if let Some(field) = said(table, key) {
            no_equal(
                reader,
                field.key,
                "a caller of another mesh",
                "there is one mesh",
                "leave the source out: it may not call then",
            );
        }
    }
    let field = said(table, "Namespace");
    let name = reader.need_spelt(table, "Name", "web")?;
    let text = reader.line(&name, "the name of a service", 253)?;
    if text == "*" {
        return everybody(reader, object, field.as_ref(), name.node.span);
    }
    let namespace = field.map(|field| namespace_of(reader, &field));
    let service = reader.service_name(&name, text)?;
    let namespace = namespace.unwrap_or(Some(object.namespace))?;
    ServiceName::in_namespace(namespace, service.name()).ok().map(Source::Service)
}

/// `*`: everybody of every namespace. Those of one alone are fewer, and cannot be named together.
fn everybody(reader: &mut Reader<'_>, object: &Object<'_>, field: Option<&Field<'_>>, at: Span) -> Option<Source> {
    let is_all = match field {
        Some(field) => is_word(Some(field), "*"),
        None => object.namespace == DEFAULT_NAMESPACE,
    };
    if !is_all {
        let namespace = match field {
            Some(field) => namespace_of(reader, field)?,
            None => object.namespace,
        };
        let what = format!("everybody of the namespace `{namespace}` as a source");
        let why = "a rule here names one service, or everybody whatever the namespace";
        no_equal(reader, at, &what, why, "name those who may");
        return None;
    }
    Some(Source::Any)
}

fn may(reader: &mut Reader<'_>, table: &Table<'_>, item: &Field<'_>) -> Option<May> {
    let action = said(table, "Action");
    let Some(field) = said(table, "Permissions") else {
        let Some(action) = action else {
            let _missing = reader.need_spelt(table, "Action", "allow");
            return None;
        };
        return Some(match reader.word(&action, &ACTIONS)? {
            Action::Allow => May::Everything,
            Action::Deny => May::Nothing,
        });
    };
    if let Some(action) = action {
        let finding = Finding::error(2105, format!("`{}` has an action and permissions", item.path));
        reader.report(action.key, finding.because("each permission has its own").fix("keep one of the two"));
    }
    let (mut allowed, mut denies) = (Vec::new(), None);
    for item in
        items(reader, table, "Permissions", PERMISSIONS, "a list such as [{Action: allow, HTTP: {PathPrefix: /api}}]")
    {
        let Some(table) = reader.table_spelt(item.node, &item.path, PERMISSION, &[]) else { continue };
        if let Some(field) = said(&table, "JWT") {
            token(reader, &field);
        }
        let action = reader.need_spelt(&table, "Action", "allow").and_then(|field| reader.word(&field, &ACTIONS));
        let Some(http) = reader.need_spelt(&table, "HTTP", "{PathPrefix: /api}") else { continue };
        let Some(table) = reader.table_spelt(http.node, &http.path, HTTP, &[]) else { continue };
        let matches = matches::table(reader, &table, &[]);
        match action {
            // What is denied before is taken away from what is allowed after it; what is denied last is denied anyhow.
            Some(Action::Deny) => denies = denies.or(Some(item.node.span)),
            Some(Action::Allow) => {
                if let Some(at) = denies.take() {
                    let why = "a rule here can only allow more";
                    no_equal(
                        reader,
                        at,
                        "denying a part of what is allowed after it",
                        why,
                        "name what is allowed alone",
                    );
                }
                let span = item.node.span;
                allowed.extend(matches.iter().flat_map(|own| smi::allowed(reader, own, span)));
            }
            None => {}
        }
    }
    if allowed.len() > MATCHES {
        let finding = Finding::error(2112, format!("`{}` comes to more than {MATCHES} matches", field.path));
        reader.report(field.key, finding.fix("write fewer"));
    }
    Some(if allowed.is_empty() { May::Nothing } else { May::These(allowed) })
}

/// What asks for a token protects something.
fn token(reader: &mut Reader<'_>, field: &Field<'_>) {
    let why = "tokens are asked for at the gateway, and between services the identity counts";
    no_equal(reader, field.key, "asking for a token", why, "gateway: {jwt: …} in mesh.yaml, and leave it out here");
}
