//! `allow:`, who may call whom (ruling R17). A rule that cannot be understood must never leave a service open, so here every
//! doubt about the target is an error.

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::AuthorizationPolicy;
use hms_model::policy::authorization::{AllowRule, Source};

use crate::document::Value;
use crate::mesh_yaml::{MeshFile, ServiceFile};
use crate::read::scalar::GATEWAY;
use crate::read::{Field, Keys, Reader, nearest as nearest_word};
use crate::rules::route;

const KEYS: Keys = Keys::new(&["from", "to", "routes"]);
const MAX_RULES: usize = 1000;

/// Reads the rules and gives them to the services they are about.
pub(crate) fn read(reader: &mut Reader<'_>, field: &Field<'_>, out: &mut MeshFile) {
    let items = reader.list(field, "a list of rules such as - {from: gateway, to: calc-svc}").unwrap_or_default();
    if items.len() > MAX_RULES {
        let finding = Finding::error(2112, format!("`allow` has more than {MAX_RULES} rules"));
        return reader.report(field.key, finding.fix("use to: \"*\" or several routes in one rule"));
    }
    for item in items {
        rule(reader, &item, out);
    }
}

fn rule(reader: &mut Reader<'_>, item: &Field<'_>, out: &mut MeshFile) {
    let Some(table) = reader.table(item.node, &item.path, KEYS) else { return };
    let from = reader.need(&table, "from", "from: gateway").cloned();
    let to = reader.need(&table, "to", "to: calc-svc").cloned();
    let sources = from.map(|field| sources(reader, &field, out)).unwrap_or_default();
    let targets = to.map(|field| targets(reader, &field, out)).unwrap_or_default();
    let matches = match table.field("routes") {
        None => Vec::new(),
        Some(field) => {
            let items = reader.list(field, "a list of routes such as [GET /sum/*]").unwrap_or_default();
            if items.is_empty() {
                // In the model no route means any route: an empty list must not turn into that.
                reader.bad(
                    field,
                    "at least one route",
                    "an empty list would allow nothing",
                    "leave `routes` out to allow all",
                );
            }
            items.iter().filter_map(|item| route(reader, item)).collect()
        }
    };
    let origin = reader.origin(item.node.span);
    for source in sources {
        let rule = AllowRule { source, matches: matches.clone(), origin: origin.clone() };
        for target in &targets {
            let Some(name) = target else {
                out.services.values_mut().for_each(|service| allow(service, rule.clone()));
                out.allow_everywhere.push(rule.clone());
                continue;
            };
            if let Some(service) = out.services.get_mut(name) {
                allow(service, rule.clone());
            }
        }
    }
}

fn allow(service: &mut ServiceFile, rule: AllowRule) {
    service.authorization.get_or_insert_with(AuthorizationPolicy::default).allow.push(rule);
}

/// One value or a list of them.
fn each<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Vec<Field<'n>> {
    match &field.node.value {
        Value::List(items) if items.is_empty() => {
            reader.bad(field, "at least one name", "an empty list says nothing", "name a service, or \"*\"");
            Vec::new()
        }
        Value::List(_) => reader.list(field, "a name or a list of names").unwrap_or_default(),
        _ => vec![field.clone()],
    }
}

fn sources(reader: &mut Reader<'_>, field: &Field<'_>, out: &MeshFile) -> Vec<Source> {
    let mut sources = Vec::new();
    for item in each(reader, field) {
        match reader.text(&item, "a service, gateway or \"*\"") {
            None => {}
            Some("*") => sources.push(Source::Any),
            Some(GATEWAY) => sources.push(Source::Gateway),
            Some(text) => {
                let Some(name) = reader.service_name(&item, text) else { continue };
                if !out.services.contains_key(&name) {
                    let finding = Finding::warning(2107, format!("`{name}` is no service of this project"));
                    let finding = finding.because("the rule has no effect until such a service runs");
                    let fix = nearest(&name, out, Some(GATEWAY));
                    reader.report(item.node.span, finding.fix(fix));
                }
                sources.push(Source::Service(name));
            }
        }
    }
    sources
}

/// `None` for every service.
fn targets(reader: &mut Reader<'_>, field: &Field<'_>, out: &MeshFile) -> Vec<Option<ServiceName>> {
    let mut targets = Vec::new();
    for item in each(reader, field) {
        match reader.text(&item, "a service or \"*\"") {
            None => {}
            Some("*") => targets.push(None),
            Some(text) => {
                let Some(name) = reader.service_name(&item, text) else { continue };
                if out.services.contains_key(&name) {
                    targets.push(Some(name));
                } else {
                    let finding = Finding::error(2105, format!("`{name}` is no service of this project"))
                        .because("the service that was meant would stay open to everybody");
                    let fix = nearest(&name, out, None);
                    reader.report(item.node.span, finding.fix(fix));
                }
            }
        }
    }
    targets
}

fn nearest(name: &ServiceName, out: &MeshFile, also: Option<&'static str>) -> String {
    let names: Vec<String> = out.services.keys().map(ToString::to_string).collect();
    let known: Vec<&str> = names.iter().map(String::as_str).chain(also).collect();
    match nearest_word(&name.to_string(), &known) {
        Some(near) => format!("write {near}"),
        None => "add it to `services:`, or correct the name".to_owned(),
    }
}
