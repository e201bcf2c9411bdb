//! What one proxy needs to know.

use std::collections::BTreeMap;

use crate::mesh::ServiceState;
use crate::names::ServiceName;
use crate::policy::{Egress, Telemetry};
use crate::resource::{Gateway, Kind, Resource, ResourceKey};
use crate::service::Entry;
use crate::trust::TrustBundle;

/// One proxy's part of the mesh, as far as it was sent.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Snapshot {
    /// The roots to believe.
    pub trust: Option<TrustBundle>,
    /// What to tell.
    pub telemetry: Telemetry,
    /// Every service the proxy may see.
    pub directory: BTreeMap<ServiceName, Entry>,
    /// Details of the services it subscribed to.
    pub services: BTreeMap<ServiceName, ServiceState>,
    /// Its gateway settings, if it is one.
    pub gateway: Option<Gateway>,
    /// What may leave the mesh; without a word about it, nothing.
    pub egress: Egress,
}

impl Snapshot {
    /// Puts together what was received. Parts of a service whose own resource is missing wait for it and are left out.
    pub fn from_resources(resources: &[&Resource]) -> Self {
        let mut snapshot = Self::default();
        for resource in resources {
            match resource {
                Resource::Trust(trust) => snapshot.trust = Some(trust.clone()),
                Resource::Defaults(defaults) => snapshot.telemetry = defaults.telemetry.clone(),
                Resource::Gateway(gateway) => snapshot.gateway = Some(gateway.clone()),
                Resource::Egress(egress) => snapshot.egress = egress.clone(),
                Resource::Entry(entry) => {
                    snapshot.directory.insert(entry.name.clone(), entry.clone());
                }
                Resource::Service(service) => {
                    let state = ServiceState {
                        service: service.clone(),
                        addresses: Vec::new(),
                        route: None,
                        endpoints: BTreeMap::new(),
                    };
                    snapshot.services.insert(service.name.clone(), state);
                }
                Resource::Declaration(_)
                | Resource::Endpoint(_)
                | Resource::Route(_)
                | Resource::Split(_)
                | Resource::HttpRoute(_)
                | Resource::Stamps(_) => {}
            }
        }
        for resource in resources {
            match resource {
                Resource::Endpoint(endpoint) => {
                    if let Some(state) = snapshot.services.get_mut(&endpoint.service) {
                        state.endpoints.insert(endpoint.id.clone(), endpoint.clone());
                    }
                }
                Resource::Route(route) => {
                    if let Some(state) = snapshot.services.get_mut(&route.service) {
                        state.route = Some(route.clone());
                    }
                }
                _ => {}
            }
        }
        snapshot
    }
}

/// What a proxy subscribes to. Every resource belongs to exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// Trust bundle, telemetry, what may leave the mesh, and the directory: every proxy has it.
    Mesh,
    /// One service with its routes and endpoints.
    Service(ServiceName),
    /// The gateway's settings, and every service that has routes.
    Gateway,
}

impl Scope {
    /// The name that is subscribed.
    pub fn subscription(&self) -> String {
        match self {
            Self::Mesh => "mesh".to_owned(),
            Self::Service(name) => ResourceKey::of(Kind::Service, name).to_string(),
            Self::Gateway => "gateway".to_owned(),
        }
    }

    /// Reads the name of a subscription.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "mesh" => Some(Self::Mesh),
            "gateway" => Some(Self::Gateway),
            _ => {
                let key = ResourceKey::parse(text)?;
                (key.kind == Kind::Service).then(|| key.service().map(Self::Service))?
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_read_what_they_write() {
        for scope in [Scope::Mesh, Scope::Gateway, Scope::Service(ServiceName::new("a").unwrap())] {
            assert_eq!(Scope::parse(&scope.subscription()), Some(scope));
        }
        assert_eq!(Scope::parse("route/default/a"), None);
        assert_eq!(Scope::parse("*"), None);
    }
}
