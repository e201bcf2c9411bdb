//! What is sent, made of what is wanted: pure, once per change, each resource encoded once and its bytes shared by all streams.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use hms_model::mesh::{Mesh, ServiceState, changed, same};
use hms_model::names::ServiceName;
use hms_model::policy::Egress;
use hms_model::resource::{Defaults, Gateway, Kind, Resource, ResourceKey};
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

/// Compiles a mesh. What did not change since `before` is taken from there, and costs no more than a look at a pointer.
pub fn compile(mesh: &Mesh, before: (&Mesh, &Compiled)) -> Compiled {
    let (old_mesh, old) = before;
    let is_first = old.mesh.is_empty();
    let mut compiled = old.clone();
    for (name, _, state) in changed(&old_mesh.services, &mesh.services) {
        match state {
            Some(state) => compiled.enter(mesh, state),
            None => compiled.leave(name),
        }
    }
    if old_mesh.trust != mesh.trust {
        match &mesh.trust {
            Some(trust) => put(&mut compiled.mesh, &Resource::Trust(trust.clone())),
            None => remove(&mut compiled.mesh, &ResourceKey::mesh(Kind::Trust)),
        }
    }
    if is_first || old_mesh.telemetry != mesh.telemetry {
        let telemetry = Defaults { telemetry: mesh.telemetry.clone(), ..Defaults::default() };
        put(&mut compiled.mesh, &Resource::Defaults(telemetry));
    }
    if is_first || !same(&old_mesh.egress, &mesh.egress) {
        put(&mut compiled.mesh, &Resource::Egress(Egress::clone(&mesh.egress)));
    }
    if is_first || !same(&old_mesh.gateway, &mesh.gateway) {
        put(&mut compiled.gateway, &Resource::Gateway(Gateway::clone(&mesh.gateway)));
        // Its entry has the hosts that it answers for.
        let entries = mesh.services.values().filter(|state| state.service.name.is_gateway());
        entries.for_each(|state| put(&mut compiled.mesh, &Resource::Entry(mesh.entry(state))));
    }
    compiled
}

impl Compiled {
    /// Takes over a service. The gateway gets it if it has routes, the rest of the mesh its entry in the directory.
    fn enter(&mut self, mesh: &Mesh, state: &ServiceState) {
        let name = &state.service.name;
        put(&mut self.mesh, &Resource::Entry(mesh.entry(state)));
        let part = service_part(state);
        let was = self.services.get(name).map(Arc::clone).unwrap_or_default();
        for key in was.keys().filter(|key| state.route.is_none() || !part.contains_key(*key)) {
            remove(&mut self.gateway, key);
        }
        if state.route.is_some() {
            for (key, encoded) in &part {
                set(&mut self.gateway, key, encoded);
            }
        }
        self.services.insert(name.clone(), Arc::new(part));
    }

    /// Takes a service away.
    fn leave(&mut self, name: &ServiceName) {
        remove(&mut self.mesh, &ResourceKey::of(Kind::Entry, name));
        let was = self.services.remove(name).unwrap_or_default();
        was.keys().for_each(|key| remove(&mut self.gateway, key));
    }
}

/// Puts a resource into a part as it is to be sent. A part that has it already stays the same allocation.
fn put(part: &mut Part, resource: &Resource) {
    let (key, encoded) = encoded(resource);
    set(part, &key, &encoded);
}

fn set(part: &mut Part, key: &ResourceKey, encoded: &Encoded) {
    if part.get(key) != Some(encoded) {
        Arc::make_mut(part).insert(key.clone(), encoded.clone());
    }
}

fn remove(part: &mut Part, key: &ResourceKey) {
    if part.contains_key(key) {
        Arc::make_mut(part).remove(key);
    }
}

fn encoded(resource: &Resource) -> (ResourceKey, Encoded) {
    let bytes = Bytes::from(hms_wire::encode(resource));
    let version = crate::registry::hex(Sha256::digest(&bytes).get(..16).unwrap_or_default());
    (resource.key(), Encoded { version: Version::from(version), bytes })
}

fn service_part(state: &ServiceState) -> BTreeMap<ResourceKey, Encoded> {
    let service = Resource::Service(state.service.clone());
    let endpoints = state.endpoints.values().cloned().map(Resource::Endpoint);
    let route = state.route.clone().map(Resource::Route);
    let resources = [service].into_iter().chain(endpoints).chain(route);
    resources.map(|resource| encoded(&resource)).collect()
}

#[cfg(test)]
mod tests {
    use hms_model::http_route::{Backend, HttpMatch, HttpRoute, HttpRule, Parent, PathCondition};
    use hms_model::mesh::{Assembler, Assigned, Inputs, Resources, assemble};
    use hms_model::resource::Declaration;
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

    /// One route that moves, and one endpoint, among a thousand services with ten routes each: from what is stored to what is sent.
    /// The bound is that of a release; an unoptimised build only shows that what did not change is not looked into.
    #[test]
    fn one_change_among_a_thousand_services_with_ten_routes_each() {
        let (services, routes) = (1000, 10);
        let mut stored = Resources::new();
        let mut inputs = Inputs::default();
        for service in 0..services {
            let name = format!("s{service}");
            let routes = (0..routes).map(|number| led(&name, number, &format!("/a{number}")));
            stored.extend(routes.chain([declaration(&name)]).map(|own| (own.key(), Arc::new(own))));
            put(&mut inputs, endpoint(&name, 1));
        }
        inputs.resources = Arc::new(stored);
        let mut assembler = Assembler::default();
        let sni = |service: &ServiceName| service.to_string();
        let begun = tokio::time::Instant::now();
        let mut before = assembler.update(inputs.clone(), sni).0;
        let mut first = compile(&before, (&Mesh::default(), &Compiled::default()));
        println!("figure: {services} services x {routes} routes from scratch: {:?}", begun.elapsed());
        let mut best = [std::time::Duration::MAX; 2];
        for round in 0..6 {
            let name = format!("s{}", 999 - round);
            if round % 2 == 0 {
                let moved = led(&name, routes - 1, &format!("/moved{round}"));
                Arc::make_mut(&mut inputs.resources).insert(moved.key(), Arc::new(moved));
            } else {
                put(&mut inputs, endpoint(&name, 2));
            }
            let again = inputs.clone();
            let begun = tokio::time::Instant::now();
            let after = assembler.update(again, sni).0;
            let second = compile(&after, (&before, &first));
            best[round % 2] = begun.elapsed().min(best[round % 2]);
            let changed = first.services.iter().filter(|(name, part)| !Arc::ptr_eq(part, &second.services[*name]));
            assert_eq!(changed.map(|(name, _)| name.to_string()).collect::<Vec<_>>(), [name]);
            assert!(Arc::ptr_eq(&first.mesh, &second.mesh) && Arc::ptr_eq(&first.gateway, &second.gateway));
            (before, first) = (after, second);
        }
        println!("figure: one route, one endpoint among {services} services x {routes} routes: {best:?}");
        let bound = if cfg!(debug_assertions) { 100 } else { 5 };
        assert!(best.iter().all(|best| best.as_millis() <= bound), "{best:?}");
    }

    fn put(inputs: &mut Inputs, endpoint: Resource) {
        let key = endpoint.key();
        let Resource::Endpoint(endpoint) = endpoint else { panic!("no endpoint") };
        inputs.endpoints.insert(key, Arc::new(endpoint));
    }

    /// A route that leads a path to the service it is about.
    fn led(service: &str, number: usize, path: &str) -> Resource {
        let matches = vec![HttpMatch { path: Some(PathCondition::Prefix(path.to_owned())), ..HttpMatch::default() }];
        Resource::HttpRoute(HttpRoute {
            name: name(&format!("{service}-{number}")),
            parents: vec![Parent::Service { service: name(service), port: None }],
            hosts: Vec::new(),
            rules: vec![HttpRule { matches, ..HttpRule::to(vec![Backend::all(name(service))]) }],
        })
    }

    #[test]
    fn what_is_compiled_change_by_change_is_the_same_as_at_once() {
        let route = |name_: &str| Resource::Route(Route { service: name(name_), rules: Vec::new() });
        let steps: [Vec<Resource>; 7] = [
            vec![declaration("a"), declaration("b"), endpoint("a", 1), route("a")],
            vec![declaration("a"), declaration("b"), endpoint("a", 2), endpoint("b", 1), route("a")],
            vec![declaration("a"), endpoint("a", 2), route("a")],
            vec![declaration("a"), declaration("c"), route("c"), led("c", 1, "/x"), route("a")],
            vec![declaration("a"), declaration("c"), led("c", 1, "/y")],
            vec![declaration("c"), Resource::Gateway(Gateway { hosts: vec!["h".to_owned()], ..Gateway::default() })],
            Vec::new(),
        ];
        let (mut before, mut compiled) = (Mesh::default(), Compiled::default());
        for resources in steps {
            let after = mesh(resources);
            compiled = compile(&after, (&before, &compiled));
            let at_once = compile(&after, (&Mesh::default(), &Compiled::default()));
            assert_eq!((&compiled.mesh, &compiled.gateway), (&at_once.mesh, &at_once.gateway));
            assert_eq!(compiled.services, at_once.services);
            before = after;
        }
    }
}
