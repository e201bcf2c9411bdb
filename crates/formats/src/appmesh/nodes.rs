//! What others refer to: nodes, routers and services among the files.

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::http_route::HttpRule;
use hms_model::names::ServiceName;
use hms_model::split::Share;

use super::names::{self, Name};
use super::{is_kubernetes, node, route, router};
use crate::document::short;
use crate::objects::kind::Kind;
use crate::objects::object::Object;
use crate::read::{Reader, Span};

/// A virtual node.
#[derive(Debug, Clone)]
pub(super) struct NodeOf {
    pub(super) service: ServiceName,
    /// The version of the pods that it selects. Which instances are called, how they are found says.
    pub(super) label: Option<String>,
    /// The version of the instances by which it is found, and no others.
    pub(super) attribute: Option<String>,
}

/// What a route leads to.
#[derive(Debug, Clone)]
pub(super) enum Leads {
    /// Requests.
    Http(Box<HttpRule>),
    /// Connections.
    Tcp(Vec<Share>),
}

/// A route of a router.
#[derive(Debug, Clone)]
pub(super) struct RouteOf {
    /// The smaller, the earlier.
    pub(super) priority: u32,
    pub(super) leads: Leads,
    pub(super) at: Span,
}

/// A virtual service.
#[derive(Debug, Clone)]
pub(super) struct ServiceOf {
    pub(super) service: ServiceName,
    pub(super) provider: Option<Provider>,
}

/// Who provides it.
#[derive(Debug, Clone)]
pub(super) enum Provider {
    Node(Name, Span),
    Router(Name, Span),
}

/// All of the files together.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// Names of nodes, and which node each is.
    nodes: BTreeMap<Name, usize>,
    all: Vec<NodeOf>,
    /// How many nodes a service has.
    siblings: BTreeMap<ServiceName, usize>,
    pub(super) routers: BTreeMap<Name, usize>,
    pub(super) routes: Vec<Vec<RouteOf>>,
    pub(super) services: BTreeMap<Name, ServiceOf>,
    /// The services of virtual services.
    owned: BTreeSet<ServiceName>,
    /// Routers that provide a service, so that those which do not are told.
    provided: BTreeSet<usize>,
}

impl World {
    /// Reads everything that others refer to: nodes first, then routes, which name them.
    pub(crate) fn read(reader: &mut Reader<'_>, objects: &[(Kind, Object<'_>)]) -> Self {
        let mut world = Self::default();
        let of = |wanted: Kind| objects.iter().filter(move |(kind, _)| *kind == wanted).map(|(_, object)| object);
        for object in of(Kind::AppMeshNode) {
            world.add_node(reader, object);
        }
        for object in of(Kind::AppMeshRouter) {
            let Some((names, routes)) = router::routes(reader, object, &world) else { continue };
            world.add_router(names, routes);
        }
        for object in of(Kind::AppMeshRoute) {
            let Some((router, own)) = route::alone(reader, object, &world) else { continue };
            world.add_router(vec![router], vec![own]);
        }
        for routes in &mut world.routes {
            router::order(reader, routes);
        }
        for object in of(Kind::AppMeshService) {
            let Some((names, service)) = router::service(reader, object) else { continue };
            if let Some(Provider::Router(name, _)) = &service.provider {
                world.provided.extend(world.routers.get(name));
            }
            world.owned.insert(service.service.clone());
            world.services.extend(names.into_iter().map(|name| (name, service.clone())));
        }
        for object in of(Kind::AppMeshRouter).chain(of(Kind::AppMeshRoute)) {
            world.unused(reader, object);
        }
        world
    }

    fn add_node(&mut self, reader: &mut Reader<'_>, object: &Object<'_>) {
        let Some((names, own)) = node::head(reader, object) else { return };
        let place = self.all.len();
        *self.siblings.entry(own.service.clone()).or_default() += 1;
        self.all.push(own);
        self.nodes.extend(names.into_iter().map(|name| (name, place)));
    }

    fn add_router(&mut self, names: Vec<Name>, routes: Vec<RouteOf>) {
        let known = names.iter().find_map(|name| self.routers.get(name)).copied();
        let place = known.unwrap_or(self.routes.len());
        if known.is_none() {
            self.routes.push(Vec::new());
        }
        if let Some(own) = self.routes.get_mut(place) {
            own.extend(routes);
        }
        self.routers.extend(names.into_iter().map(|name| (name, place)));
    }

    /// A router that provides nothing leads nobody.
    fn unused(&self, reader: &mut Reader<'_>, object: &Object<'_>) {
        let name = match (is_kubernetes(object), object.top.field("virtualRouterName")) {
            (false, Some(field)) => match &field.node.value {
                crate::document::Value::Scalar(text, _) => Name::Aws(text.clone()),
                _ => return,
            },
            _ => Name::Object(object.namespace.to_owned(), object.name.to_owned()),
        };
        let Some(place) = self.routers.get(&name).filter(|place| !self.provided.contains(place)) else { return };
        if self.routes.get(*place).is_none_or(Vec::is_empty) || reader.has_errors(object.at.file) {
            return;
        }
        let finding =
            Finding::error(2105, format!("no virtual service among these files has the router `{}`", name.shown()));
        let why = "without one nobody knows whose requests its routes are about";
        let fix = if is_kubernetes(object) {
            "add the VirtualService that it provides".to_owned()
        } else {
            "add what this prints: aws appmesh describe-virtual-service --mesh-name MESH --virtual-service-name SERVICE"
                .to_owned()
        };
        reader.report(object.at, finding.because(why).fix(fix));
    }

    /// A name for a route from outside. That of a service is its own route's.
    pub(super) fn distinct(&self, name: ServiceName) -> ServiceName {
        let is_taken = self.owned.contains(&name);
        let other = is_taken.then(|| ServiceName::in_namespace(name.namespace(), &format!("{}-gateway", name.name())));
        other.and_then(Result::ok).unwrap_or(name)
    }

    /// The routes of a router.
    pub(super) fn router(&self, name: &Name) -> Option<&Vec<RouteOf>> {
        self.routes.get(*self.routers.get(name)?)
    }

    /// The service and version that a node is.
    pub(super) fn share(&self, reader: &mut Reader<'_>, name: &Name, at: Span) -> Option<Share> {
        let share = |service: ServiceName, version| Share { service, version, weight: 1 };
        if let Some(own) = self.nodes.get(name).and_then(|place| self.all.get(*place)) {
            if self.siblings.get(&own.service).is_none_or(|nodes| *nodes < 2) {
                return Some(share(own.service.clone(), own.attribute.clone().unwrap_or_default()));
            }
            let Some(version) = own.attribute.as_ref().or(own.label.as_ref()).cloned() else {
                let finding = Finding::error(
                    2105,
                    format!("`{}` is one of several nodes of `{}`, and has no version", name.shown(), own.service),
                );
                let why = "nodes of one service differ by the label `version` of their podSelector, or that attribute in Cloud Map";
                reader.report(at, finding.because(why).fix("podSelector: {matchLabels: {version: v1}}"));
                return None;
            };
            return Some(share(own.service.clone(), version));
        }
        let assumed = match name {
            Name::Object(namespace, name) => ServiceName::in_namespace(namespace, name).ok(),
            Name::Aws(name) => names::folded(name),
        };
        let Some(service) = assumed else {
            let finding = Finding::error(2105, format!("no node among these files is called `{}`", name.shown()));
            reader.report(at, finding.because("its name is no name of a service either").fix("add the virtual node"));
            return None;
        };
        let message = format!("no node among these files is called `{}`", short(&name.shown()));
        reader.report(at, Finding::warning(2171, message).because(format!("the service `{service}` is meant")));
        Some(share(service, String::new()))
    }
}
