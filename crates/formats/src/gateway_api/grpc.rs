//! `GRPCRoute`: a call is a POST to `/SERVICE/METHOD`.

use hms_model::finding::Finding;
use hms_model::http_route::{HttpMatch, HttpRoute, HttpRule, MOST_MATCHES, PathCondition, Pattern};
use hms_model::route::PathPattern;

use super::matches::{self, VALUE_WAYS, Way};
use super::{Scene, backends, filters, parents, rules};
use crate::objects::object::{Object, items, not_carried};
use crate::read::{Field, Keys, Reader, Table};

const SPEC: Keys = Keys::new(&["parentRefs", "hostnames", "rules", "useDefaultGateways"]);
const RULE: Keys = Keys::new(&["name", "matches", "filters", "backendRefs", "sessionPersistence"]);
const MATCH: Keys = Keys::new(&["method", "headers"]);
const METHOD: Keys = Keys::new(&["type", "service", "method"]);
/// Longest name, by the specification.
const NAME_BYTES: usize = 1024;

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, scene: &Scene<'_>) -> Option<HttpRoute> {
    let example = "spec: {parentRefs: [{group: \"\", kind: Service, name: payment-svc}], rules: []}";
    let spec = object.spec(reader, SPEC, example)?;
    if let Some(field) = spec.field("useDefaultGateways") {
        not_carried(reader, field.key, "`useDefaultGateways`", "name the gateway in parentRefs");
    }
    let name = object.route_name(reader);
    let attached = parents::read(reader, object, &spec, scene);
    let rules = rules(reader, object, &spec, RULE, |reader, object, table| rule(reader, object, table, scene));
    Some(HttpRoute { name: name?, parents: attached.parents, hosts: attached.hosts, rules })
}

fn rule(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, scene: &Scene<'_>) -> HttpRule {
    let mut all = Vec::new();
    for item in items(reader, table, "matches", MOST_MATCHES, "a list such as [{method: {service: shop.Pay}}]") {
        if let Some(table) = reader.table(item.node, &item.path, MATCH) {
            let path = table.field("method").cloned().and_then(|field| method(reader, &field));
            all.push(HttpMatch { path, headers: matches::headers(reader, &table), ..HttpMatch::default() });
        }
    }
    if let Some(field) = table.field("sessionPersistence") {
        let why = "which instance a session stays with is a policy of the service, not of a route";
        not_carried(reader, field.key, "`sessionPersistence`", why);
    }
    let actions = filters::grpc(reader, object, table, scene);
    let backends = backends::read(reader, object, table, scene, "GRPCRoute");
    HttpRule { matches: all, actions, ..HttpRule::to(backends) }
}

/// The path of a call. A service alone is a template and a method alone an expression, so that the service counts before the
/// method where both fit, as the specification wants it.
fn method(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<PathCondition> {
    let table = reader.table(field.node, &field.path, METHOD)?;
    let way = table.field("type").cloned();
    let way = way.map_or(Some(Way::Exact), |field| reader.word(&field, &VALUE_WAYS))?;
    let part = |reader: &mut Reader<'_>, key: &str| {
        let field = table.field(key).cloned()?;
        name(reader, &field, way, key == "service")
    };
    let (service, called) = (part(reader, "service"), part(reader, "method"));
    if table.field("service").is_none() && table.field("method").is_none() {
        let finding = Finding::error(2102, format!("`{}` names neither service nor method", field.path));
        reader.report(field.key, finding.fix("service: shop.Pay"));
        return None;
    }
    match (way, service, called) {
        (Way::Regex, service, called) => {
            let any = || "[^/]+".to_owned();
            let text = format!("/(?:{})/(?:{})", service.unwrap_or_else(any), called.unwrap_or_else(any));
            whole(reader, field, Pattern::parse(&text)).map(PathCondition::Regex)
        }
        (_, Some(service), Some(called)) => Some(PathCondition::Exact(format!("/{service}/{called}"))),
        (_, Some(service), None) => {
            whole(reader, field, PathPattern::parse(&format!("/{service}/{{method}}"))).map(PathCondition::Template)
        }
        (_, None, Some(called)) => {
            whole(reader, field, Pattern::parse(&format!("/[^/]+/{called}"))).map(PathCondition::Regex)
        }
        (_, None, None) => None,
    }
}

/// What is put together of both parts. A condition that cannot be made must not turn into none.
fn whole<T, E: std::fmt::Display>(reader: &mut Reader<'_>, field: &Field<'_>, made: Result<T, E>) -> Option<T> {
    made.map_err(|error| {
        let finding = Finding::error(2105, format!("`{}` is no condition on a path", field.path));
        reader.report(field.key, finding.because(error.to_string()).fix("write shorter names"));
    })
    .ok()
}

fn name(reader: &mut Reader<'_>, field: &Field<'_>, way: Way, is_service: bool) -> Option<String> {
    if way == Way::Regex {
        // The text; the whole is put together of both.
        return matches::pattern(reader, field).map(|pattern| pattern.as_str().to_owned());
    }
    let wants = if is_service { "a service such as shop.Pay" } else { "a method such as Charge" };
    let text = reader.line(field, wants, NAME_BYTES)?;
    let word = |word: &str| {
        !word.is_empty()
            && !word.starts_with(|c: char| c.is_ascii_digit())
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    };
    if if is_service { text.split('.').all(word) } else { word(text) } {
        return Some(text.to_owned());
    }
    reader.bad(
        field,
        wants,
        "it is made of letters, digits and _, as in the .proto file",
        "copy the name from the .proto file",
    );
    None
}
