//! `GatewayRoute`: requests from outside.

use hms_model::finding::Finding;
use hms_model::http_route::{Backend, HttpMatch, HttpRoute, HttpRule, Parent, PathCondition, PathRewrite, Rewrite};
use hms_model::message::CanonicalPath;

use super::names::{self, Name, referred};
use super::nodes::{Leads, Provider, World};
use super::{matches, one_of, spec};
use crate::gateway_api::host_pattern;
use crate::objects::object::{Object, no_equal};
use crate::read::{Field, Keys, Reader, Table};

const SPEC: Keys =
    Keys::new(&["awsName", "priority", "grpcRoute", "httpRoute", "http2Route", "virtualGatewayRef", "meshRef"]);
const ROUTE: Keys = Keys::new(&["match", "action"]);
const ACTION: Keys = Keys::new(&["target", "rewrite"]);
const TARGET: Keys = Keys::new(&["virtualService", "port"]);
const SERVICE: Keys = Keys::new(&["virtualServiceRef", "virtualServiceARN", "virtualServiceName"]);
const REWRITE: Keys = Keys::new(&["prefix", "path", "hostname"]);
const PREFIX: Keys = Keys::new(&["defaultPrefix", "value"]);
const PATH: Keys = Keys::new(&["exact"]);
const HOST: Keys = Keys::new(&["defaultTargetHostname"]);
const HOSTNAME: Keys = Keys::new(&["exact", "suffix"]);
const SWITCH: [(&str, bool); 2] = [("ENABLED", true), ("DISABLED", false)];
const KINDS: [&str; 3] = ["httpRoute", "http2Route", "grpcRoute"];

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, world: &World) -> Option<HttpRoute> {
    let example = "spec: {httpRoute: {match: {prefix: /}, action: {target: {virtualService: {}}}}}";
    let spec = spec(reader, object, SPEC, example)?;
    if let Some(field) = spec.field("priority") {
        let why = "of several routes the most particular one wins, whatever its priority";
        crate::objects::object::not_carried(reader, field.key, "`priority` of a gateway route", why);
    }
    let name = object.route_name(reader).map(|name| world.distinct(name));
    let field = one_of(reader, &spec, &KINDS, "httpRoute: {match: {prefix: /}, action: {}}")?;
    let is_grpc = field.name == "grpcRoute";
    let table = reader.table(field.node, &field.path, ROUTE)?;
    let asked = reader.need(&table, "match", "match: {prefix: /}").cloned();
    let asked =
        asked.and_then(|field| if is_grpc { matches::grpc(reader, &field) } else { matches::http(reader, &field) });
    let action = reader.need(&table, "action", "action: {target: {virtualService: {}}}").cloned();
    let action = action.and_then(|field| reader.table(field.node, &field.path, ACTION));
    let (own, rest) = asked?;
    let hosts: Vec<String> =
        rest.field("hostname").cloned().and_then(|field| hostname(reader, &field)).into_iter().collect();
    let action = action?;
    let (mut rule, host) = target(reader, object, &action, world)?;
    rule.actions.rewrite = rewrite(reader, &action, &own, (is_grpc, &host));
    rule.matches = if own == HttpMatch::default() { Vec::new() } else { vec![own] };
    rule.origin = reader.origin(object.at);
    Some(HttpRoute { name: name?, parents: vec![Parent::Gateway], hosts, rules: vec![rule] })
}

/// `exact`, or `suffix` which is `*.` and the rest.
fn hostname(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let table = reader.table(field.node, &field.path, HOSTNAME)?;
    let field = one_of(reader, &table, HOSTNAME.known, "exact: shop.example.com")?;
    if field.name == "exact" {
        return host_pattern(reader, &field);
    }
    let text = reader.line(&field, "the end of host names", 253)?;
    let Some(rest) = text.strip_prefix('.').or_else(|| text.strip_prefix("*.")) else {
        let why = "a pattern of host names has a whole part in its place";
        no_equal(reader, field.node.span, "an end in the middle of a name", why, "suffix: .example.com");
        return None;
    };
    let mut node = field.node.clone();
    node.value = crate::document::Value::Scalar(format!("*.{rest}"), crate::document::Form::Quoted);
    host_pattern(reader, &Field { node: &node, ..field.clone() })
}

/// Who gets the requests: the service, or those to whom its router leads all of its requests.
fn target(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    action: &Table<'_>,
    world: &World,
) -> Option<(HttpRule, String)> {
    let field = reader.need(action, "target", "target: {virtualService: {virtualServiceRef: {name: pay}}}").cloned()?;
    let table = reader.table(field.node, &field.path, TARGET)?;
    let port = table.field("port").cloned().and_then(|field| reader.port(&field));
    let field = reader.need(&table, "virtualService", "virtualService: {virtualServiceRef: {name: pay}}").cloned()?;
    let table = reader.table(field.node, &field.path, SERVICE)?;
    let (name, at) = referred(reader, object, &table, SERVICE.known)?;
    let known = world.services.get(&name);
    let service = match (known, &name) {
        (Some(own), _) => own.service.clone(),
        (None, Name::Object(namespace, text)) => names::service(reader, text, at, namespace)?,
        (None, Name::Aws(text)) => names::service(reader, text, at, object.namespace)?,
    };
    let host = service.mesh_host();
    let backend = |share| Backend { port, ..Backend::share(share) };
    let mut rule = HttpRule::to(vec![Backend { port, ..Backend::all(service.clone()) }]);
    match known.and_then(|own| own.provider.as_ref()) {
        Some(Provider::Node(node, at)) => {
            rule.backends = world.share(reader, node, *at).map(backend).into_iter().collect();
        }
        Some(Provider::Router(router, _)) => match world.router(router).map(Vec::as_slice) {
            // A router that does not choose.
            Some([own]) if matches!(&own.leads, Leads::Http(rule) if rule.matches.is_empty()) => {
                if let Leads::Http(own) = &own.leads {
                    rule = HttpRule { name: String::new(), ..(**own).clone() };
                }
            }
            None | Some([]) => {}
            Some(_) => {
                let what = format!("leading requests from outside by the routes of `{service}`");
                let why = "the gateway has routes of its own, and a service's are for the calls of other services";
                let fix = "write a GatewayRoute for each of the routes, or let the router have one for all requests";
                no_equal(reader, at, &what, why, fix);
            }
        },
        None => {}
    }
    Some((rule, host))
}

/// What the service sees. Without a word its own name, and `/` instead of the prefix.
fn rewrite(
    reader: &mut Reader<'_>,
    action: &Table<'_>,
    own: &HttpMatch,
    (is_grpc, host): (bool, &str),
) -> Option<Rewrite> {
    let table = action.field("rewrite").cloned().and_then(|field| reader.table(field.node, &field.path, REWRITE));
    let said = |key: &str| table.as_ref().and_then(|table| table.field(key).cloned());
    let keeps_host = said("hostname").and_then(|field| {
        let table = reader.table(field.node, &field.path, HOST)?;
        let field = table.field("defaultTargetHostname").cloned()?;
        reader.word(&field, &SWITCH)
    });
    let host = (keeps_host != Some(false)).then(|| host.to_owned());
    let prefix = said("prefix").and_then(|field| reader.table(field.node, &field.path, PREFIX));
    let exact = said("path").and_then(|field| {
        let table = reader.table(field.node, &field.path, PATH)?;
        reader.need(&table, "exact", "exact: /pay").cloned()
    });
    let is_prefix = matches!(own.path, Some(PathCondition::Prefix(_)));
    let (value, switch) = prefix.map_or((None, None), |table| {
        let switch = table.field("defaultPrefix").cloned();
        (table.field("value").cloned(), switch.and_then(|field| reader.word(&field, &SWITCH)))
    });
    let path = match (value, exact) {
        (Some(field), None) if own.path.is_none() || is_prefix => path(reader, &field).map(PathRewrite::Prefix),
        (None, Some(field)) => path(reader, &field).map(PathRewrite::Full),
        (Some(field), _) => {
            let finding = Finding::error(2105, "there is no prefix to be replaced");
            reader.report(field.key, finding.because("the match names none").fix("match by prefix, or leave it out"));
            None
        }
        (None, None) if is_prefix && !is_grpc && switch != Some(false) => Some(PathRewrite::Prefix("/".to_owned())),
        (None, None) => None,
    };
    (host.is_some() || path.is_some()).then_some(Rewrite { host, path })
}

fn path(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.line(field, "a path", 1024)?;
    let is_path = CanonicalPath::parse(text).is_ok_and(|path| path.as_str() != "*");
    if !is_path {
        reader.bad(field, "a path", "it begins with / and has no query", "write for example /v2");
    }
    is_path.then(|| text.to_owned())
}
