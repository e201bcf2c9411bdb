//! From resources to the mesh, again and again, at the price of what changed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use super::changed::changed;
use super::index::{Index, Naming, subject};
use super::state::{Parts, ServiceState};
use super::{Mesh, led, stamped};
use crate::finding::Finding;
use crate::http_route::{HttpRoute, MOST_ROUTES};
use crate::names::ServiceName;
use crate::policy::egress::Unlisted;
use crate::policy::{Egress, Stamps};
use crate::resource::{Declaration, Defaults, Gateway, Kind, Overlay, Resource, ResourceKey};
use crate::route::Route;
use crate::split::{Share, Split};
use crate::workload::Endpoint;

/// Resources by their keys.
pub type Resources = BTreeMap<ResourceKey, Arc<Resource>>;

/// What a mesh is put together from. It is shared, not copied, and what did not change should be the same allocation as the last
/// time: then it costs one comparison of pointers.
#[derive(Debug, Clone, Default)]
pub struct Inputs {
    /// What is configured.
    pub resources: Arc<Resources>,
    /// Which workloads there are.
    pub endpoints: BTreeMap<ResourceKey, Arc<Endpoint>>,
    /// What the name of each service resolves to.
    pub addresses: Arc<BTreeMap<ServiceName, Vec<IpAddr>>>,
    /// What becomes of hosts outside that are not listed, where the configuration does not say it.
    pub unlisted: Option<Unlisted>,
}

/// Puts a mesh together and remembers how, so that the next time only what changed, and whatever names it, is looked at. What
/// cannot be resolved is left out and reported; it never blocks the rest.
#[derive(Debug, Default)]
pub struct Assembler {
    inputs: Inputs,
    index: Index,
    mesh: Mesh,
    findings: BTreeMap<About, Vec<Finding>>,
}

/// What findings are about. They are told in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum About {
    /// A service, or under `None` the gateway.
    Subject(Option<ServiceName>),
    /// Where the route of this name leads.
    Route(ServiceName),
    /// Who has a share of this service.
    Split(ServiceName),
}

/// What has to be put together anew.
#[derive(Debug, Default)]
struct Dirty {
    everything: bool,
    egress: bool,
    /// Services, and under `None` the gateway.
    subjects: BTreeSet<Option<ServiceName>>,
    /// Services that came or went.
    come_or_gone: Vec<ServiceName>,
    routes: BTreeSet<ServiceName>,
    splits: BTreeSet<ServiceName>,
}

impl Assembler {
    /// The mesh of these inputs, and what people should know of them. `sni` gives a service its opaque TLS server name, always the
    /// same.
    pub fn update(&mut self, inputs: Inputs, sni: impl Fn(&ServiceName) -> String) -> (Mesh, Vec<Finding>) {
        let before = std::mem::take(&mut self.inputs);
        let mut dirty = self.compare(&before, &inputs);
        self.inputs = inputs;
        self.spread(&mut dirty);
        for subject in &dirty.subjects {
            match subject {
                None => self.mesh.gateway = Arc::new(self.gateway()),
                Some(name) => self.rebuild(name, &sni),
            }
        }
        if dirty.egress {
            self.mesh.egress = Arc::new(self.egress());
        }
        self.judge(dirty);
        (self.mesh.clone(), self.findings.values().flatten().cloned().collect())
    }

    /// What changed, with the index brought up to date.
    fn compare(&mut self, before: &Inputs, now: &Inputs) -> Dirty {
        let mut dirty = Dirty { everything: before.unlisted != now.unlisted, ..Dirty::default() };
        if !Arc::ptr_eq(&before.resources, &now.resources) {
            for (_, was, is) in changed(&before.resources, &now.resources) {
                let (was, is) = (was.map(AsRef::as_ref), is.map(AsRef::as_ref));
                for resource in was.into_iter().chain(is) {
                    dirty.note(resource);
                }
                self.reindex(was, is, &mut dirty);
            }
        }
        for (_, was, is) in changed(&before.endpoints, &now.endpoints) {
            dirty.subjects.extend(was.or(is).map(|endpoint| Some(endpoint.service.clone())));
        }
        if !Arc::ptr_eq(&before.addresses, &now.addresses) {
            let (old, new) = (&before.addresses, &now.addresses);
            let moved = old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name));
            dirty.subjects.extend(moved.map(|name| Some(name.clone())));
        }
        dirty
    }

    fn reindex(&mut self, was: Option<&Resource>, is: Option<&Resource>, dirty: &mut Dirty) {
        match was {
            Some(Resource::HttpRoute(route)) => self.index.remove_route(route),
            Some(Resource::Split(split)) => self.index.remove_split(split),
            _ => {}
        }
        match is {
            Some(Resource::HttpRoute(route)) => self.index.add_route(route),
            Some(Resource::Split(split)) => self.index.add_split(split),
            Some(Resource::Trust(trust)) => self.mesh.trust = Some(trust.clone()),
            _ => {}
        }
        match (was, is) {
            (Some(Resource::Trust(_)), None) => self.mesh.trust = None,
            (Some(Resource::Declaration(own)), None) | (None, Some(Resource::Declaration(own))) => {
                dirty.come_or_gone.push(own.name.clone());
            }
            _ => {}
        }
    }

    /// Adds whoever is concerned by what changed.
    fn spread(&mut self, dirty: &mut Dirty) {
        if std::mem::take(&mut dirty.everything) {
            let declared = self.inputs.resources.values().filter_map(|resource| match resource.as_ref() {
                Resource::Declaration(own) => Some(Some(own.name.clone())),
                _ => None,
            });
            dirty.subjects.extend(declared.chain([None]));
            dirty.egress = true;
            self.mesh.telemetry = self.inputs.defaults().map(|own| own.telemetry.clone()).unwrap_or_default();
            if let Some(stamps) = self.inputs.stamps() {
                stamped::telemetry(stamps, &mut self.mesh.telemetry);
            }
        }
        // A route that leads to it is another one for those whom it is about.
        for name in &dirty.come_or_gone {
            for naming in self.index.named(name) {
                let Naming::Route(route) = naming else { continue };
                let parents = self.inputs.http_route(route).into_iter().flat_map(|route| &route.parents);
                dirty.subjects.extend(parents.map(|parent| subject(parent).cloned()));
            }
        }
        for name in dirty.subjects.iter().flatten() {
            // Its own shares are judged with it.
            dirty.splits.extend(self.inputs.split(name).map(|split| split.service.clone()));
            for naming in self.index.named(name) {
                match naming {
                    Naming::Route(route) => dirty.routes.insert(route.clone()),
                    Naming::Split(service) => dirty.splits.insert(service.clone()),
                };
            }
        }
    }

    /// The routes about a service or the gateway, as they are sent.
    fn led(&self, subject: Option<&ServiceName>) -> Vec<HttpRoute> {
        let routes = self.index.about(subject).take(MOST_ROUTES).filter_map(|name| self.inputs.http_route(name));
        routes.map(|route| led::resolved(route, |name| self.inputs.declaration(name).is_some())).collect()
    }

    fn gateway(&self) -> Gateway {
        let own = match self.inputs.only(Kind::Gateway) {
            Some(Resource::Gateway(gateway)) => gateway.clone(),
            _ => Gateway::default(),
        };
        let mut gateway = Gateway { routes: self.led(None), ..own };
        if let Some(stamps) = self.inputs.stamps() {
            stamped::gateway(stamps, &mut gateway);
        }
        gateway
    }

    fn egress(&self) -> Egress {
        let mut egress = match self.inputs.only(Kind::Egress) {
            Some(Resource::Egress(egress)) => egress.clone(),
            _ => Egress::default(),
        };
        let policy = self.inputs.defaults().map(|own| own.policy.clone()).unwrap_or_default();
        for host in egress.hosts.values_mut() {
            host.overlay = Overlay::whole(host.overlay.over(&policy));
        }
        if let Some(stamps) = self.inputs.stamps() {
            stamped::egress(stamps, &mut egress);
        }
        egress.unlisted = egress.unlisted.or(self.inputs.unlisted);
        egress
    }

    /// Puts one service together, or takes it away.
    fn rebuild(&mut self, name: &ServiceName, sni: impl Fn(&ServiceName) -> String) {
        let Some(declaration) = self.inputs.declaration(name) else {
            self.mesh.services.remove(name);
            return;
        };
        let (no_defaults, no_stamps) = (Defaults::default(), Stamps::default());
        let parts = Parts {
            declaration,
            policy: &self.inputs.defaults().unwrap_or(&no_defaults).policy,
            stamps: self.inputs.stamps().unwrap_or(&no_stamps),
            sni: sni(name),
            addresses: self.inputs.addresses.get(name).cloned().unwrap_or_default(),
            route: self.inputs.route(name),
            split: self.inputs.split(name),
            http: self.led(Some(name)),
        };
        let state = ServiceState::of(parts, &self.inputs.endpoints_of(name).collect::<Vec<_>>());
        self.mesh.services.insert(name.clone(), Arc::new(state));
    }

    /// Says anew what is to be said of what is dirty.
    fn judge(&mut self, dirty: Dirty) {
        let subjects = dirty.subjects.into_iter().map(About::Subject);
        let places = subjects.chain(dirty.routes.into_iter().map(About::Route));
        for about in places.chain(dirty.splits.into_iter().map(About::Split)) {
            let found = match &about {
                About::Subject(subject) => self.of_subject(subject.as_ref()),
                About::Route(name) => {
                    self.inputs.http_route(name).map(|route| led::findings(&self.mesh, route)).unwrap_or_default()
                }
                About::Split(name) => self.empty_shares(name),
            };
            if found.is_empty() {
                self.findings.remove(&about);
            } else {
                self.findings.insert(about, found);
            }
        }
    }

    fn of_subject(&self, subject: Option<&ServiceName>) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(name) = subject {
            match self.mesh.services.get(name) {
                Some(state) => {
                    found.extend(self.inputs.endpoints_of(name).filter_map(|endpoint| state.refusal(endpoint)));
                }
                None => found.extend(self.orphans(name)),
            }
        }
        found.extend(led::inert(&self.mesh, &self.index, subject));
        found
    }

    /// What belongs to a service that does not exist.
    fn orphans(&self, name: &ServiceName) -> Vec<Finding> {
        let route = self.inputs.route(name).map(|_| format!("the routes of `{name}` have no service"));
        let split = self.inputs.split(name).map(|_| format!("the split of `{name}` has no service"));
        let endpoints = self.inputs.endpoints_of(name).map(|endpoint| {
            format!("endpoint {} belongs to `{}`, which does not exist", endpoint.address, endpoint.service)
        });
        let messages = route.into_iter().chain(split).chain(endpoints);
        messages.map(|message| Finding::warning(2107, message)).collect()
    }

    /// Shares that nobody can take: they are left to the others, and somebody should know.
    fn empty_shares(&self, name: &ServiceName) -> Vec<Finding> {
        let state = self.mesh.services.get(name);
        let shares = state.into_iter().flat_map(|state| &state.service.split);
        let taken =
            |share: &Share| self.mesh.services.get(&share.service).is_some_and(|own| own.serves(&share.version));
        let empty = shares.filter(|share| share.weight > 0 && !taken(share));
        let finding = |share: &Share| {
            let version = if share.version.is_empty() { String::new() } else { format!(" {}", share.version) };
            let message =
                format!("`{name}` gives a share to `{}{version}`, which has no healthy endpoint", share.service);
            Finding::warning(2107, message).because("its share goes to the others as long as that is so")
        };
        empty.map(finding).collect()
    }
}

impl Dirty {
    /// What a resource that came, went or is another one concerns by itself.
    fn note(&mut self, resource: &Resource) {
        match resource {
            Resource::Defaults(_) | Resource::Stamps(_) => self.everything = true,
            Resource::Gateway(_) => drop(self.subjects.insert(None)),
            Resource::Egress(_) => self.egress = true,
            Resource::Declaration(declaration) => drop(self.subjects.insert(Some(declaration.name.clone()))),
            Resource::Route(route) => drop(self.subjects.insert(Some(route.service.clone()))),
            Resource::Split(split) => {
                self.subjects.insert(Some(split.service.clone()));
                self.splits.insert(split.service.clone());
            }
            Resource::HttpRoute(route) => {
                self.subjects.extend(route.parents.iter().map(|parent| subject(parent).cloned()));
                self.routes.insert(route.name.clone());
            }
            // Resolved forms are sent, never stored; endpoints are inputs of their own.
            Resource::Trust(_) | Resource::Entry(_) | Resource::Service(_) | Resource::Endpoint(_) => {}
        }
    }
}

impl Inputs {
    fn only(&self, kind: Kind) -> Option<&Resource> {
        self.resources.get(&ResourceKey::mesh(kind)).map(AsRef::as_ref)
    }

    fn of(&self, kind: Kind, name: &ServiceName) -> Option<&Resource> {
        self.resources.get(&ResourceKey::of(kind, name)).map(AsRef::as_ref)
    }

    fn defaults(&self) -> Option<&Defaults> {
        if let Some(Resource::Defaults(own)) = self.only(Kind::Defaults) { Some(own) } else { None }
    }

    fn stamps(&self) -> Option<&Stamps> {
        if let Some(Resource::Stamps(own)) = self.only(Kind::Stamps) { Some(own) } else { None }
    }

    fn declaration(&self, name: &ServiceName) -> Option<&Declaration> {
        if let Some(Resource::Declaration(own)) = self.of(Kind::Declaration, name) { Some(own) } else { None }
    }

    fn route(&self, name: &ServiceName) -> Option<&Route> {
        if let Some(Resource::Route(own)) = self.of(Kind::Route, name) { Some(own) } else { None }
    }

    fn split(&self, name: &ServiceName) -> Option<&Split> {
        if let Some(Resource::Split(own)) = self.of(Kind::Split, name) { Some(own) } else { None }
    }

    fn http_route(&self, name: &ServiceName) -> Option<&HttpRoute> {
        if let Some(Resource::HttpRoute(own)) = self.of(Kind::HttpRoute, name) { Some(own) } else { None }
    }

    /// The endpoints of a service, by id.
    fn endpoints_of<'a>(&'a self, name: &ServiceName) -> impl Iterator<Item = &'a Endpoint> {
        let first = ResourceKey::of(Kind::Endpoint, name);
        let of_it = self.endpoints.range(first.clone()..);
        let of_it = of_it.take_while(move |(key, _)| key.namespace == first.namespace && key.name == first.name);
        of_it.map(|(_, endpoint)| endpoint.as_ref())
    }
}

#[cfg(test)]
mod tests;
