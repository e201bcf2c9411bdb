//! A route: `httpRoute`, `http2Route`, `grpcRoute` or `tcpRoute`.

use hms_model::http_route::HttpRule;
use hms_model::split::Share;

use super::names::Name;
use super::nodes::{Leads, RouteOf, World};
use super::{matches, one_of, otherwise, resilience, targets};
use crate::objects::object::{Object, no_equal};
use crate::read::{Field, Keys, Reader, Table};

/// Of the command line: the route alone.
const SPEC: Keys = Keys::new(&["httpRoute", "http2Route", "grpcRoute", "tcpRoute", "priority"]);
const ROUTE: Keys = Keys::new(&["match", "action", "retryPolicy", "timeout"]);
const TCP: Keys = Keys::new(&["match", "action", "timeout"]);
const KINDS: [&str; 4] = ["httpRoute", "http2Route", "grpcRoute", "tcpRoute"];
/// The last of all, which is what a route without a priority is.
pub(super) const LAST: u32 = 1000;

/// A route on its own, as the command line has it, and its router.
pub(super) fn alone(reader: &mut Reader<'_>, object: &Object<'_>, world: &World) -> Option<(Name, RouteOf)> {
    let router = reader.need(&object.top, "virtualRouterName", "virtualRouterName: pay").cloned();
    let router = router.and_then(|field| reader.line(&field, "the name of a router", 255).map(str::to_owned));
    let spec = object.spec(reader, SPEC, "spec: {httpRoute: {match: {prefix: /}, action: {weightedTargets: []}}}")?;
    let own = read(reader, object, &spec, (object.name, object.at), world);
    Some((Name::Aws(router?), own?))
}

/// What one says; the name that it has, and where that stands.
pub(super) fn read(
    reader: &mut Reader<'_>,
    object: &Object<'_>,
    table: &Table<'_>,
    (name, at): (&str, crate::read::Span),
    world: &World,
) -> Option<RouteOf> {
    let priority = table.field("priority").cloned();
    let priority = priority.map_or(Some(LAST), |field| reader.whole(&field, "a priority", 0..=LAST));
    let field = one_of(reader, table, &KINDS, "httpRoute: {match: {prefix: /}, action: {}}")?;
    let leads = if field.name == "tcpRoute" {
        Leads::Tcp(tcp(reader, object, &field, world)?)
    } else {
        let mut rule = http(reader, object, &field, world)?;
        name.clone_into(&mut rule.name);
        rule.origin = reader.origin(at);
        Leads::Http(Box::new(rule))
    };
    Some(RouteOf { priority: priority?, leads, at })
}

fn http(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>, world: &World) -> Option<HttpRule> {
    let table = reader.table(field.node, &field.path, ROUTE)?;
    let asked = reader.need(&table, "match", "match: {prefix: /}").cloned();
    let asked = asked.and_then(|asked| match field.name {
        "grpcRoute" => matches::grpc(reader, &asked),
        _ => matches::http(reader, &asked),
    });
    let action = reader.need(&table, "action", "action: {weightedTargets: [{virtualNodeRef: {name: pay}, weight: 1}]}");
    let action = action.cloned();
    let backends = action.map(|field| targets::read(reader, object, &field, world)).unwrap_or_default();
    let mut timeouts =
        table.field("timeout").cloned().map(|field| resilience::timeouts(reader, &field)).unwrap_or_default();
    let retry = table.field("retryPolicy").cloned().and_then(|field| resilience::retry(reader, &field));
    let (retry, each) = retry.map_or((None, None), |(retry, each)| (Some(retry), each));
    timeouts.attempt = each;
    let (own, rest) = asked?;
    if let Some(field) = rest.field("hostname") {
        let why = "the requests to a service have its name";
        no_equal(reader, field.key, "`hostname` of a route", why, "leave it out");
    }
    let matches = if own == hms_model::http_route::HttpMatch::default() { Vec::new() } else { vec![own] };
    Some(HttpRule { matches, timeouts, retry, ..HttpRule::to(backends) })
}

fn tcp(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>, world: &World) -> Option<Vec<Share>> {
    let table = reader.table(field.node, &field.path, TCP)?;
    if let Some(field) = table.field("match").cloned()
        && let Some(table) = reader.table(field.node, &field.path, Keys::new(&["port"]))
        && let Some(field) = table.field("port")
    {
        let why = "the calls to a service are divided alike on all of its ports";
        no_equal(reader, field.key, "`port` of a match", why, "leave it out");
    }
    otherwise(reader, &table, &[("timeout", "the limit for idle connections is a policy of the service")]);
    let action = reader.need(&table, "action", "action: {weightedTargets: [{virtualNodeRef: {name: db}, weight: 1}]}");
    let action = action.cloned()?;
    let backends = targets::read(reader, object, &action, world);
    for backend in &backends {
        if backend.port.is_some() {
            let why = "the calls to a service are divided alike on all of its ports";
            no_equal(reader, action.key, "the port of a share of connections", why, "leave it out");
        }
    }
    Some(backends.into_iter().map(|backend| backend.share).collect())
}
