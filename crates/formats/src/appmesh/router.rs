//! `VirtualRouter` and `VirtualService`: whose requests the routes are about.

use std::cmp::Reverse;

use hms_model::finding::Finding;
use hms_model::http_route::{HttpRoute, HttpRule, MOST_RULES, Parent};
use hms_model::names::ServiceName;
use hms_model::split::Split;

use super::names::{self, Name, referred};
use super::nodes::{Leads, Provider, RouteOf, ServiceOf, World};
use super::{is_kubernetes, one_of, route, spec};
use crate::objects::object::{Object, items};
use crate::objects::order;
use crate::read::{Keys, Reader, Span};

const ROUTER: Keys = Keys::new(&["awsName", "listeners", "routes", "meshRef"]);
const ROUTE: Keys = Keys::new(&["name", "httpRoute", "http2Route", "grpcRoute", "tcpRoute", "priority"]);
const SERVICE: Keys = Keys::new(&["awsName", "provider", "meshRef"]);
const PROVIDER: Keys = Keys::new(&["virtualNode", "virtualRouter"]);
const NODE: Keys = Keys::new(&["virtualNodeRef", "virtualNodeARN", "virtualNodeName"]);
const OF_ROUTER: Keys = Keys::new(&["virtualRouterRef", "virtualRouterARN", "virtualRouterName"]);

/// What a virtual service comes to.
#[derive(Debug)]
pub(crate) enum Meaning {
    /// A route for requests to it.
    Route(HttpRoute),
    /// A division of all calls, and where it stands.
    Split(Split, Span),
}

/// What a router is called, and its routes.
pub(super) type Routes = (Vec<Name>, Vec<RouteOf>);

/// Reads a router.
pub(super) fn routes(reader: &mut Reader<'_>, object: &Object<'_>, world: &World) -> Option<Routes> {
    let example = "spec: {listeners: [{portMapping: {port: 80, protocol: http}}], routes: []}";
    let spec = spec(reader, object, ROUTER, example)?;
    let aws = names::aws(reader, &spec);
    let mut routes = Vec::new();
    for item in items(reader, &spec, "routes", MOST_RULES, "a list of routes") {
        let Some(table) = reader.table(item.node, &item.path, ROUTE) else { continue };
        let name = reader.need(&table, "name", "name: all").cloned();
        let name = name.and_then(|field| reader.line(&field, "a name", 128)).unwrap_or_default();
        routes.extend(route::read(reader, object, &table, (name, item.node.span), world));
    }
    Some((names::of(object, aws), routes))
}

/// The names of a virtual service, its service, and who provides it.
pub(super) fn service(reader: &mut Reader<'_>, object: &Object<'_>) -> Option<(Vec<Name>, ServiceOf)> {
    let spec = spec(reader, object, SERVICE, "spec: {provider: {virtualRouter: {virtualRouterRef: {name: pay}}}}")?;
    let aws = names::aws(reader, &spec);
    let mut names = names::of(object, aws);
    let text = aws.unwrap_or(object.name);
    if is_kubernetes(object) && aws.is_none() {
        // The controller does not write the namespace behind these.
        names.push(Name::Aws(text.to_owned()));
    }
    let service = names::service(reader, text, object.at, object.namespace);
    let provider = match spec.field("provider").cloned() {
        None => None,
        Some(field) => {
            let table = reader.table(field.node, &field.path, PROVIDER)?;
            let is_empty = table.fields().is_empty();
            let field = if is_empty { None } else { one_of(reader, &table, PROVIDER.known, "virtualRouter: …") };
            field.and_then(|field| {
                let is_node = field.name == "virtualNode";
                let keys = if is_node { NODE } else { OF_ROUTER };
                let table = reader.table(field.node, &field.path, keys)?;
                let (name, at) = referred(reader, object, &table, keys.known)?;
                Some(if is_node { Provider::Node(name, at) } else { Provider::Router(name, at) })
            })
        }
    };
    Some((names, ServiceOf { service: service?, provider }))
}

/// What one says of the calls to its service.
pub(crate) fn read(reader: &mut Reader<'_>, object: &Object<'_>, world: &World) -> Option<Meaning> {
    let name = if is_kubernetes(object) {
        Name::Object(object.namespace.to_owned(), object.name.to_owned())
    } else {
        Name::Aws(object.name.to_owned())
    };
    let own = world.services.get(&name)?;
    let service = own.service.clone();
    match &own.provider {
        None => {
            let finding = Finding::warning(2107, format!("nobody provides the virtual service of `{service}`"));
            let why = "the instances of the service answer, as without it";
            reader.report(object.at, finding.because(why).fix("name a router or a node as its provider"));
            None
        }
        Some(Provider::Node(node, at)) => {
            let share = world.share(reader, node, *at)?;
            let is_itself = share.service == service && share.version.is_empty();
            (!is_itself).then(|| Meaning::Split(Split { service, shares: vec![share] }, object.at))
        }
        Some(Provider::Router(router, at)) => {
            let Some(routes) = world.router(router) else {
                let finding =
                    Finding::error(2105, format!("no router among these files is called `{}`", router.shown()));
                let fix = if is_kubernetes(object) { "add the VirtualRouter" } else { "add the routes of the router" };
                reader.report(*at, finding.because("its routes say who gets the requests").fix(fix));
                return None;
            };
            led(reader, object, service, routes)
        }
    }
}

/// The routes of a router for the requests to a service.
fn led(reader: &mut Reader<'_>, object: &Object<'_>, service: ServiceName, routes: &[RouteOf]) -> Option<Meaning> {
    let mut rules: Vec<HttpRule> = Vec::new();
    let mut divided = None;
    for own in routes {
        match &own.leads {
            Leads::Http(rule) => rules.push((**rule).clone()),
            Leads::Tcp(shares) if routes.len() == 1 => divided = Some(shares.clone()),
            Leads::Tcp(_) => {
                let finding = Finding::error(2105, "a route for connections stands beside others");
                let why = "of several routes for connections none but the first could ever be used, and requests are no connections";
                reader.report(own.at, finding.because(why).fix("keep one of them"));
            }
        }
    }
    if let Some(shares) = divided {
        return Some(Meaning::Split(Split { service, shares }, object.at));
    }
    if rules.len() > MOST_RULES {
        let finding = Finding::error(2112, format!("the router has {} routes", rules.len()));
        reader.report(object.at, finding.because(format!("there are at most {MOST_RULES}")).fix("write fewer"));
        return None;
    }
    if rules.is_empty() {
        let finding = Finding::warning(2107, format!("the router of `{service}` has no routes"));
        reader.report(object.at, finding.because("every request would be answered with 404").fix("add its routes"));
        return None;
    }
    let parents = vec![Parent::Service { service: service.clone(), port: None }];
    Some(Meaning::Route(HttpRoute { name: service, parents, hosts: Vec::new(), rules }))
}

/// Puts the routes of a router into the order in which they are tried there, and says where that would make a difference.
pub(super) fn order(reader: &mut Reader<'_>, routes: &mut [RouteOf]) {
    let rule = |own: &RouteOf| match &own.leads {
        Leads::Http(rule) => Some((**rule).clone()),
        Leads::Tcp(_) => None,
    };
    // Of those with the same priority the most particular one wins in both.
    routes.sort_by_key(|own| {
        let rank = match &own.leads {
            Leads::Http(rule) => rule.matches.first().map(order::rank),
            Leads::Tcp(_) => None,
        };
        (own.priority, Reverse(rank))
    });
    if routes.len() > MOST_RULES || routes.iter().any(|own| reader.has_errors(own.at.file)) {
        return;
    }
    let rules: Vec<(HttpRule, Span)> = routes.iter().filter_map(|own| Some((rule(own)?, own.at))).collect();
    order::check(reader, &rules);
}
