//! Who names whom, so that a change finds whom it concerns without asking everybody.

use std::collections::{BTreeMap, BTreeSet};

use crate::http_route::{HttpRoute, Parent};
use crate::names::ServiceName;
use crate::split::Split;

/// Where a service is named as one that gets requests.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Naming {
    /// By the route of this name.
    Route(ServiceName),
    /// By the split of this service.
    Split(ServiceName),
}

/// The references among the resources of a mesh.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// The routes about each service, and under `None` those about the gateway.
    about: BTreeMap<Option<ServiceName>, BTreeSet<ServiceName>>,
    /// Who names each service as one that gets requests.
    named: BTreeMap<ServiceName, BTreeSet<Naming>>,
}

/// Whom a route speaks of.
pub(super) fn subject(parent: &Parent) -> Option<&ServiceName> {
    match parent {
        Parent::Gateway => None,
        Parent::Service { service, .. } => Some(service),
    }
}

fn backends(route: &HttpRoute) -> impl Iterator<Item = &ServiceName> {
    route.rules.iter().flat_map(|rule| &rule.backends).map(|backend| &backend.share.service)
}

impl Index {
    /// The routes about a service or the gateway, in the order of their names.
    pub(super) fn about(&self, subject: Option<&ServiceName>) -> impl Iterator<Item = &ServiceName> {
        self.about.get(&subject.cloned()).into_iter().flatten()
    }

    /// Who names a service.
    pub(super) fn named(&self, service: &ServiceName) -> impl Iterator<Item = &Naming> {
        self.named.get(service).into_iter().flatten()
    }

    pub(super) fn add_route(&mut self, route: &HttpRoute) {
        for parent in &route.parents {
            self.about.entry(subject(parent).cloned()).or_default().insert(route.name.clone());
        }
        for backend in backends(route) {
            self.named.entry(backend.clone()).or_default().insert(Naming::Route(route.name.clone()));
        }
    }

    pub(super) fn remove_route(&mut self, route: &HttpRoute) {
        for parent in &route.parents {
            remove(&mut self.about, &subject(parent).cloned(), &route.name);
        }
        for backend in backends(route) {
            remove(&mut self.named, backend, &Naming::Route(route.name.clone()));
        }
    }

    pub(super) fn add_split(&mut self, split: &Split) {
        for share in &split.shares {
            self.named.entry(share.service.clone()).or_default().insert(Naming::Split(split.service.clone()));
        }
    }

    pub(super) fn remove_split(&mut self, split: &Split) {
        for share in &split.shares {
            remove(&mut self.named, &share.service, &Naming::Split(split.service.clone()));
        }
    }
}

/// Takes a value out of the set of a key, and the key with its last value.
fn remove<K: Ord, V: Ord>(sets: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
