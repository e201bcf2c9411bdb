//! `VirtualService`.

use hms_model::finding::Finding;
use hms_model::http_route::{Actions, Backend, HttpRoute, HttpRule, MOST_RULES, Parent};
use hms_model::split::{MOST_SHARES, MOST_WEIGHT};

use super::{Subsets, actions, destination, matches, resilience, service_of};
use crate::document::short;
use crate::gateway_api::host_pattern;
use crate::objects::object::{Object, items, no_equal, not_carried};
use crate::objects::order;
use crate::read::{Field, Keys, Reader, Span, Table};

const SPEC: Keys = Keys::new(&["hosts", "gateways", "http", "tls", "tcp", "exportTo"]);
const RULE: Keys = Keys::new(&[
    "name",
    "match",
    "route",
    "redirect",
    "directResponse",
    "delegate",
    "rewrite",
    "timeout",
    "retries",
    "fault",
    "mirror",
    "mirrors",
    "mirrorPercentage",
    "corsPolicy",
    "headers",
]);
const ROUTE: Keys = Keys::new(&["destination", "weight", "headers"]);

/// Host names of one object.
const HOSTS: usize = 32;

/// Reads one.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, subsets: &Subsets) -> Option<HttpRoute> {
    let example = "spec: {hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]}";
    let spec = object.spec(reader, SPEC, example)?;
    let name = object.route_name(reader);
    let (parents, hosts) = parents(reader, object, &spec);
    for key in ["tls", "tcp"] {
        if let Some(field) = spec.field(key) {
            let why = "connections of a service are divided by a TrafficSplit or a TCPRoute";
            no_equal(reader, field.key, &format!("`{key}` of a VirtualService"), why, "write a TCPRoute");
        }
    }
    if let Some(field) = spec.field("exportTo") {
        not_carried(
            reader,
            field.key,
            "`exportTo`",
            "a route holds for all callers, or for those of its own namespace",
        );
    }
    let _needed = reader.need(&spec, "http", "http: [{route: [{destination: {host: reviews}}]}]");
    let mut rules: Vec<(HttpRule, Span)> = Vec::new();
    for item in items(reader, &spec, "http", MOST_RULES, "a list of rules") {
        let Some(table) = reader.table(item.node, &item.path, RULE) else { continue };
        let mut rule = rule(reader, object, &table, subsets);
        rule.origin = reader.origin(item.node.span);
        rules.push((rule, item.node.span));
    }
    if !reader.has_errors(object.at.file) {
        order::check(reader, &rules);
    }
    Some(HttpRoute { name: name?, parents, hosts, rules: rules.into_iter().map(|(rule, _)| rule).collect() })
}

/// Whose requests: those to services if the mesh is among `gateways`, those from outside if another is.
fn parents(reader: &mut Reader<'_>, object: &Object<'_>, spec: &Table<'_>) -> (Vec<Parent>, Vec<String>) {
    let gateways: Vec<String> = items(reader, spec, "gateways", 16, "a list of gateways")
        .iter()
        .filter_map(|item| reader.line(item, "the name of a gateway", 253).map(str::to_owned))
        .collect();
    let inside = gateways.is_empty() || gateways.iter().any(|name| name == "mesh");
    let outside = gateways.iter().any(|name| name != "mesh");
    let _needed = reader.need(spec, "hosts", "hosts: [reviews]");
    let (mut parents, mut hosts, mut any) = (Vec::new(), Vec::new(), false);
    for item in items(reader, spec, "hosts", HOSTS, "a list of host names") {
        let Some(text) = reader.line(&item, "a host name", 253) else { continue };
        let service = service_of(object, text).filter(|_| inside);
        if service.is_none() && !outside {
            let finding = Finding::error(2105, format!("`{}` is no service of the mesh", short(text)));
            let why = "it is a name in the namespace of the object, or NAME.NAMESPACE.svc.cluster.local";
            reader
                .report(item.node.span, finding.because(why).fix("name a gateway for hosts of requests from outside"));
            continue;
        }
        parents.extend(service.map(|service| Parent::Service { service, port: None }));
        if outside && text == "*" {
            any = true;
        } else if outside {
            hosts.extend(host_pattern(reader, &item));
        }
    }
    if outside {
        parents.push(Parent::Gateway);
    }
    if any {
        hosts.clear();
    }
    (parents, hosts)
}

fn rule(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, subsets: &Subsets) -> HttpRule {
    let name = table.field("name").cloned().and_then(|field| reader.line(&field, "a name", 128));
    let matches = matches::read(reader, object, table);
    let (request_headers, response_headers) = actions::headers(reader, table);
    let actions = Actions {
        request_headers,
        response_headers,
        redirect: table.field("redirect").cloned().and_then(|field| actions::redirect(reader, &field)),
        rewrite: table.field("rewrite").cloned().and_then(|field| actions::rewrite(reader, &field, &matches)),
        mirrors: actions::mirrors(reader, object, table, subsets),
        fault: table.field("fault").cloned().and_then(|field| actions::fault(reader, &field)),
        cors: table.field("corsPolicy").cloned().and_then(|field| actions::cors(reader, &field)),
    };
    for key in ["directResponse", "delegate"] {
        if let Some(field) = table.field(key) {
            no_equal(
                reader,
                field.key,
                &format!("`{key}`"),
                "a rule leads requests to services, or elsewhere",
                "leave the rule out",
            );
        }
    }
    let backends = backends(reader, object, table, subsets);
    let elsewhere = ["route", "redirect", "directResponse", "delegate"];
    if elsewhere.iter().all(|key| table.field(key).is_none()) {
        let _missing = reader.need(table, "route", "route: [{destination: {host: reviews}}]");
    }
    let (timeouts, retry) = resilience::read(reader, table);
    HttpRule { name: name.unwrap_or_default().to_owned(), matches, actions, timeouts, retry, ..HttpRule::to(backends) }
}

fn backends(reader: &mut Reader<'_>, object: &Object<'_>, table: &Table<'_>, subsets: &Subsets) -> Vec<Backend> {
    let list = items(reader, table, "route", MOST_SHARES, "a list such as [{destination: {host: reviews}}]");
    let mut backends = Vec::new();
    for item in &list {
        let Some(table) = reader.table(item.node, &item.path, ROUTE) else { continue };
        let whom = reader.need(&table, "destination", "destination: {host: reviews}").cloned();
        let whom = whom.and_then(|field| destination::read(reader, object, &field, subsets));
        let weight = table.field("weight").cloned();
        // One alone gets everything; of several, one that names no weight gets nothing.
        let nothing_said = Some(u32::from(list.len() == 1));
        let weight = weight.map_or(nothing_said, |field: Field<'_>| reader.whole(&field, "a weight", 0..=MOST_WEIGHT));
        let (request_headers, response_headers) = actions::headers(reader, &table);
        if let (Some((mut share, port)), Some(weight)) = (whom, weight) {
            share.weight = weight;
            backends.push(Backend { port, request_headers, response_headers, ..Backend::share(share) });
        }
    }
    backends
}
