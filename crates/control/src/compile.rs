//! What is sent, made of what is wanted: pure, once per change, each resource encoded once and its bytes shared by all streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hms_model::mesh::{Mesh, ServiceState};
use hms_model::names::ServiceName;
use hms_model::resource::{Defaults, Resource, ResourceKey};
use hms_model::snapshot::Scope;
use hms_wire::delta::Version;
use hms_wire::delta::server::{Desired, Encoded};
use sha2::{Digest as _, Sha256};

/// The resources of one scope, ready to be sent. The same value is kept while nothing in the scope changes, so a stream knows
/// by comparing pointers that there is nothing to do.
pub type Part = Arc<BTreeMap<ResourceKey, Encoded>>;

/// The mesh as it is sent.
#[derive(Debug, Clone, Default)]
pub struct Compiled {
    mesh: Part,
    gateway: Part,
    services: BTreeMap<ServiceName, Part>,
}

impl Compiled {
    /// The resources of a scope; `None` for a service that does not exist.
    pub fn scope(&self, scope: &Scope) -> Option<&Part> {
        match scope {
            Scope::Mesh => Some(&self.mesh),
            Scope::Gateway => Some(&self.gateway),
            Scope::Service(name) => self.services.get(name),
        }
    }

    /// Everything of these scopes.
    pub fn desired(&self, scopes: &BTreeSet<Scope>) -> Desired {
        let mut desired = Desired::default();
        for scope in scopes {
            match self.scope(scope) {
                Some(part) => {
                    desired.resources.extend(part.iter().map(|(key, encoded)| (key.clone(), encoded.clone())));
                }
                None => drop(desired.missing.insert(scope.clone())),
            }
        }
        desired
    }
}

/// Compiles a mesh. What did not change since `before` is taken from there.
pub fn compile(mesh: &Mesh, before: (&Mesh, &Compiled)) -> Compiled {
    let (old_mesh, old) = before;
    let mut services = BTreeMap::new();
    for (name, state) in &mesh.services {
        let part = match (old_mesh.services.get(name), old.services.get(name)) {
            (Some(old_state), Some(part)) if old_state == state => Arc::clone(part),
            _ => Arc::new(service_part(state)),
        };
        services.insert(name.clone(), part);
    }
    Compiled {
        mesh: kept(&old.mesh, mesh_part(mesh)),
        gateway: kept(&old.gateway, gateway_part(mesh, &services)),
        services,
    }
}

/// The old value if the new one is equal.
fn kept(old: &Part, new: BTreeMap<ResourceKey, Encoded>) -> Part {
    if **old == new { Arc::clone(old) } else { Arc::new(new) }
}

fn encoded(resource: &Resource) -> (ResourceKey, Encoded) {
    let bytes = Bytes::from(hms_wire::encode(resource));
    let version = crate::registry::hex(Sha256::digest(&bytes).get(..16).unwrap_or_default());
    (resource.key(), Encoded { version: Version::from(version), bytes })
}

fn mesh_part(mesh: &Mesh) -> BTreeMap<ResourceKey, Encoded> {
    let telemetry = Defaults { telemetry: mesh.telemetry.clone(), ..Defaults::default() };
    let trust = mesh.trust.clone().map(Resource::Trust);
    let entries = mesh.entries().map(Resource::Entry);
    let everybodys = [Resource::Defaults(telemetry), Resource::Egress(mesh.egress.clone())];
    let resources = trust.into_iter().chain(everybodys).chain(entries);
    resources.map(|resource| encoded(&resource)).collect()
}

fn service_part(state: &ServiceState) -> BTreeMap<ResourceKey, Encoded> {
    let service = Resource::Service(state.service.clone());
    let endpoints = state.endpoints.values().cloned().map(Resource::Endpoint);
    let route = state.route.clone().map(Resource::Route);
    let resources = [service].into_iter().chain(endpoints).chain(route);
    resources.map(|resource| encoded(&resource)).collect()
}

/// The gateway serves what has routes.
fn gateway_part(mesh: &Mesh, services: &BTreeMap<ServiceName, Part>) -> BTreeMap<ResourceKey, Encoded> {
    let mut part = BTreeMap::from([encoded(&Resource::Gateway(mesh.gateway.clone()))]);
    for (name, state) in &mesh.services {
        if let (Some(_routes), Some(own)) = (&state.route, services.get(name)) {
            part.extend(own.iter().map(|(key, encoded)| (key.clone(), encoded.clone())));
        }
    }
    part
}

#[cfg(test)]
mod tests {
    use hms_model::mesh::{Assigned, assemble};
    use hms_model::resource::{Declaration, Kind};
    use hms_model::route::Route;
    use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};

    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn declaration(service: &str) -> Resource {
        Resource::Declaration(Declaration::new(name(service)))
    }

    fn endpoint(service: &str, port: u16) -> Resource {
        Resource::Endpoint(Endpoint {
            service: name(service),
            id: "1".to_owned(),
            address: Address { ip: [10, 0, 0, 7].into(), port },
            app_port: 0,
            version: "v1".to_owned(),
            zone: String::new(),
            health: Health::Healthy,
            source: Registrar::Api,
            transport: Transport::Plain,
        })
    }

    fn mesh(resources: Vec<Resource>) -> Mesh {
        assemble(resources, |_| Assigned::default()).0
    }

    #[test]
    fn a_moved_endpoint_touches_its_service_only() {
        let before = mesh(vec![declaration("a"), declaration("b"), endpoint("a", 1)]);
        let first = compile(&before, (&Mesh::default(), &Compiled::default()));
        let after = mesh(vec![declaration("a"), declaration("b"), endpoint("a", 2)]);
        let second = compile(&after, (&before, &first));
        let same = |scope: Scope| Arc::ptr_eq(first.scope(&scope).unwrap(), second.scope(&scope).unwrap());
        assert!(same(Scope::Mesh) && same(Scope::Gateway) && same(Scope::Service(name("b"))));
        assert!(!same(Scope::Service(name("a"))));
        let key = ResourceKey::of(Kind::Service, &name("a"));
        let a = Scope::Service(name("a"));
        assert_eq!(first.scope(&a).unwrap().get(&key), second.scope(&a).unwrap().get(&key));
    }

    #[test]
    fn a_gateway_gets_what_has_routes_and_nothing_else() {
        let route = Resource::Route(Route { service: name("a"), rules: Vec::new() });
        let mesh = mesh(vec![declaration("a"), declaration("b"), route, endpoint("a", 1), endpoint("b", 1)]);
        let compiled = compile(&mesh, (&Mesh::default(), &Compiled::default()));
        let keys: Vec<String> = compiled.scope(&Scope::Gateway).unwrap().keys().map(ToString::to_string).collect();
        assert_eq!(
            keys,
            ["service/default/a", "endpoint/default/a/1", "route/default/a", "gateway/mesh/mesh"],
            "in the order of kinds"
        );
    }

    #[test]
    fn what_leads_nowhere_is_said_to() {
        let desired = Compiled::default().desired(&BTreeSet::from([Scope::Mesh, Scope::Service(name("ghost"))]));
        assert_eq!(desired.missing, BTreeSet::from([Scope::Service(name("ghost"))]));
    }

    /// One route that moves among a thousand services with ten routes each, from what is stored to what is sent. The bound is that of a
    /// release; an unoptimised build only shows that nothing is quadratic.
    #[test]
    fn one_change_among_a_thousand_services_with_ten_routes_each() {
        use hms_model::http_route::{Backend, HttpMatch, HttpRoute, HttpRule, Parent, PathCondition};
        let (services, routes) = (1000, 10);
        let route = |service: usize, number: usize, path: &str| {
            let name = name(&format!("s{service}"));
            let matches =
                vec![HttpMatch { path: Some(PathCondition::Prefix(path.to_owned())), ..HttpMatch::default() }];
            Resource::HttpRoute(HttpRoute {
                name: self::name(&format!("r{service}-{number}")),
                parents: vec![Parent::Service { service: name.clone(), port: None }],
                hosts: Vec::new(),
                rules: vec![HttpRule { matches, ..HttpRule::to(vec![Backend::all(name)]) }],
            })
        };
        let mut resources: Vec<Resource> = Vec::new();
        for service in 0..services {
            resources.push(declaration(&format!("s{service}")));
            resources.push(endpoint(&format!("s{service}"), 1));
            resources.extend((0..routes).map(|number| route(service, number, &format!("/a{number}"))));
        }
        let before = mesh(resources.clone());
        let first = compile(&before, (&Mesh::default(), &Compiled::default()));
        let mut best = std::time::Duration::MAX;
        for round in 0..5 {
            *resources.last_mut().unwrap() = route(services - 1, routes - 1, &format!("/moved{round}"));
            let again = resources.clone();
            let begun = tokio::time::Instant::now();
            let after = mesh(again);
            let second = compile(&after, (&before, &first));
            best = best.min(begun.elapsed());
            let same = |service: &str| {
                let scope = Scope::Service(name(service));
                Arc::ptr_eq(first.scope(&scope).unwrap(), second.scope(&scope).unwrap())
            };
            assert!(same("s0") && same("s500") && !same("s999"));
        }
        println!("figure: one change among {services} services x {routes} routes: {best:?}");
        let bound = if cfg!(debug_assertions) { 1000 } else { 5 };
        assert!(best.as_millis() <= bound, "{best:?}");
    }
}
