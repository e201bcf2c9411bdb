//! What is worked out of each view beside what is sent: since when every resource is as it is, and which rules do nothing.

use std::collections::{BTreeMap, BTreeSet};

use hms_model::finding::Finding;
use hms_model::mesh::changed;
use hms_model::names::ServiceName;
use hms_model::resource::{Kind, Resource, ResourceKey};
use tokio::time::Instant;

use super::View;
use crate::inert;
use crate::store::Revision;

/// Services that went and are remembered.
const GONE: usize = 1000;

/// Since when a resource is as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Age {
    /// The revision of the configuration that has it so. After a start of the control plane that is the one it started with.
    pub(crate) config: Revision,
    /// The first view that showed it so: who acknowledged it, or a later one, has it.
    pub(crate) shown: Revision,
    /// When that was.
    pub(crate) at: Instant,
}

/// Kept from view to view, so that a change costs what it touches.
#[derive(Debug, Default)]
pub(super) struct Looked {
    ages: BTreeMap<ResourceKey, Age>,
    /// When services went that are not declared any more; what names them minds it.
    gone: BTreeMap<ResourceKey, Instant>,
    /// By parent, `None` for the gateway; those without a finding are not there.
    inert: BTreeMap<Option<ServiceName>, Vec<Finding>>,
    /// What else there was to say of the last view.
    others: Vec<Finding>,
}

impl Looked {
    /// Looks at a view that follows another, and says what people should know of it.
    pub(super) fn at(&mut self, view: &View, before: &View, now: Instant) -> Vec<Finding> {
        // Nothing of what is looked at follows from endpoints.
        if view.config != before.config || self.ages.is_empty() {
            let mut parents = BTreeSet::new();
            for (key, old, new) in changed(&before.resources, &view.resources) {
                match new {
                    Some(_) => {
                        let age = Age { config: view.config, shown: view.revision, at: now };
                        self.ages.insert(key.clone(), age);
                    }
                    None => drop(self.ages.remove(key)),
                }
                self.bury(key, new.is_none(), now);
                [old, new].into_iter().flatten().for_each(|resource| touched(resource, &mut parents));
            }
            for parent in parents {
                let found = inert::of(view, parent.as_ref());
                if found.is_empty() { drop(self.inert.remove(&parent)) } else { drop(self.inert.insert(parent, found)) }
            }
            self.others = inert::others(view);
        }
        let found = self.inert.values().flatten().chain(&self.others);
        found.take(inert::MOST_FINDINGS).cloned().collect()
    }

    /// Remembers when a service went, until it comes again.
    fn bury(&mut self, key: &ResourceKey, is_gone: bool, now: Instant) {
        if !is_gone {
            self.gone.remove(key);
        } else if key.kind == Kind::Declaration {
            if self.gone.len() >= GONE {
                self.gone.clear();
            }
            self.gone.insert(key.clone(), now);
        }
    }

    /// When a service was declared, declared otherwise or taken away, if that is known.
    pub(super) fn touched(&self, service: &ServiceName) -> Option<Instant> {
        let key = ResourceKey::of(Kind::Declaration, service);
        self.age(&key).map(|age| age.at).or_else(|| self.gone.get(&key).copied())
    }

    /// Since when a resource is as it is.
    pub(super) fn age(&self, key: &ResourceKey) -> Option<Age> {
        self.ages.get(key).copied()
    }
}

/// Whose routes are others because of a resource.
fn touched(resource: &Resource, parents: &mut BTreeSet<Option<ServiceName>>) {
    match resource {
        Resource::HttpRoute(route) => parents.extend(route.parents.iter().map(|parent| parent.service().cloned())),
        // One that appears takes routes that were there before.
        Resource::Declaration(declaration) => drop(parents.insert(Some(declaration.name.clone()))),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hms_model::http_route::{Backend, HttpRoute, HttpRule, Parent};
    use hms_model::mesh::{Assigned, assemble};
    use hms_model::resource::Declaration;

    use super::*;

    fn name(text: &str) -> ServiceName {
        ServiceName::new(text).unwrap()
    }

    fn route(object: &str, service: &str) -> Resource {
        let parents = vec![Parent::Service { service: name(service), port: None }];
        let rules = vec![HttpRule::to(vec![Backend::all(name(service))])];
        Resource::HttpRoute(HttpRoute { name: name(object), parents, hosts: Vec::new(), rules })
    }

    fn view(config: u64, live: u64, resources: &[&Arc<Resource>]) -> View {
        let (mesh, _) = assemble(resources.iter().map(|one| Resource::clone(one)).collect(), |_| Assigned::default());
        let resources = Arc::new(resources.iter().map(|one| (one.key(), Arc::clone(one))).collect());
        let revision = Revision(config.max(live));
        View { revision, config: Revision(config), live: Revision(live), mesh, resources, ..View::default() }
    }

    #[test]
    fn what_did_not_change_keeps_its_age_and_its_findings() {
        let now = Instant::now();
        let later = now + Duration::from_secs(9);
        let pay = Arc::new(Resource::Declaration(Declaration::new(name("pay"))));
        let [one, two] = ["one", "two"].map(|object| Arc::new(route(object, "pay")));
        let mut looked = Looked::default();
        let first = view(5, 3, &[&pay, &one]);
        assert_eq!(looked.at(&first, &View::default(), now), []);
        let second = view(8, 11, &[&pay, &one, &two]);
        let found = looked.at(&second, &first, later);
        assert_eq!(found.len(), 1, "two rules for everything: {found:?}");
        let age = |looked: &Looked, key: &Arc<Resource>| {
            looked.age(&key.key()).map(|age| (age.config.0, age.shown.0, age.at))
        };
        assert_eq!(age(&looked, &one), Some((5, 5, now)));
        assert_eq!(age(&looked, &two), Some((8, 11, later)));
        let third = view(8, 12, &[&pay, &one, &two]);
        assert_eq!(looked.at(&third, &second, later), found);
        let fourth = view(13, 12, &[&one]);
        assert_eq!((looked.at(&fourth, &third, later), looked.touched(&name("pay"))), (Vec::new(), Some(later)));
        assert_eq!(looked.age(&two.key()), None);
        assert_eq!(age(&looked, &one), Some((5, 5, now)));
    }

    /// What it costs beside the change itself. The bound is that of a release; an unoptimised build only shows that nothing is quadratic.
    #[test]
    fn one_change_among_ten_thousand_routes_costs_what_it_touches() {
        let mut stored: Vec<Arc<Resource>> = Vec::new();
        for service in 0..1000 {
            let service = format!("s{service}");
            stored.push(Arc::new(Resource::Declaration(Declaration::new(name(&service)))));
            stored.extend((0..10).map(|number| Arc::new(route(&format!("{service}-r{number}"), &service))));
        }
        let before = view(5, 5, &stored.iter().collect::<Vec<_>>());
        let mut looked = Looked::default();
        let now = Instant::now();
        let begun = Instant::now();
        assert_eq!(looked.at(&before, &View::default(), now).len(), inert::MOST_FINDINGS, "nine of ten are hidden");
        println!("figure: the first look at 1000 services x 10 routes: {:?}", begun.elapsed());
        *stored.last_mut().unwrap() = Arc::new(route("s999-r9", "s998"));
        let after = view(6, 5, &stored.iter().collect::<Vec<_>>());
        let begun = Instant::now();
        assert_eq!(looked.at(&after, &before, now).len(), inert::MOST_FINDINGS);
        let took = begun.elapsed();
        println!("figure: one change among 1000 services x 10 routes: {took:?}");
        let bound = Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 5 });
        assert!(took < bound, "{took:?}");
    }
}
