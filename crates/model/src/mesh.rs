//! The whole desired state, every reference resolved.

mod assembler;
mod changed;
mod index;
mod led;
mod stamped;
mod state;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

pub use assembler::{Assembler, Inputs, Resources};
pub use changed::{Changed, changed, same};
pub use state::ServiceState;

use crate::finding::Finding;
use crate::names::ServiceName;
use crate::policy::{Egress, Telemetry};
use crate::resource::{Gateway, Resource, ResourceKey};
use crate::service::Entry;
use crate::trust::TrustBundle;

/// What the registry gives each service, so that it is the same for every proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// The opaque TLS server name.
    pub sni: String,
    /// What its name resolves to.
    pub addresses: Vec<IpAddr>,
}

/// Everything the mesh is to be. A copy shares what it holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mesh {
    /// The roots; none before the authority exists.
    pub trust: Option<TrustBundle>,
    /// What proxies tell.
    pub telemetry: Telemetry,
    /// The gateway.
    pub gateway: Arc<Gateway>,
    /// What may leave it.
    pub egress: Arc<Egress>,
    /// Every service by name.
    pub services: BTreeMap<ServiceName, Arc<ServiceState>>,
}

impl Mesh {
    /// What every proxy knows of each service.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.services.values().map(|state| self.entry(state))
    }

    /// What every proxy knows of a service. The gateway is found under the hosts it answers for.
    pub fn entry(&self, state: &ServiceState) -> Entry {
        Entry {
            name: state.service.name.clone(),
            aliases: if state.service.name.is_gateway() { self.gateway.hosts.clone() } else { Vec::new() },
            addresses: state.addresses.clone(),
            ports: state.service.ports.clone(),
        }
    }
}

/// Puts resources together, once. `assigned` is what the registry gives a service.
pub fn assemble(resources: Vec<Resource>, assigned: impl Fn(&ServiceName) -> Assigned) -> (Mesh, Vec<Finding>) {
    let mut inputs = Inputs::default();
    let (mut kept, mut addresses) = (Resources::new(), BTreeMap::new());
    for resource in resources {
        if let Resource::Declaration(declaration) = &resource {
            addresses.insert(declaration.name.clone(), assigned(&declaration.name).addresses);
        }
        match resource {
            Resource::Endpoint(endpoint) => {
                let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
                inputs.endpoints.insert(key, Arc::new(endpoint));
            }
            other => drop(kept.insert(other.key(), Arc::new(other))),
        }
    }
    (inputs.resources, inputs.addresses) = (Arc::new(kept), Arc::new(addresses));
    Assembler::default().update(inputs, |name| assigned(name).sni)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::resource::Declaration;
    use crate::spiffe::SpiffeId;
    use crate::workload::{Address, Endpoint, Health, Registrar, Transport};

    fn identity(name: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://k3.hms/ns/default/sa/{name}")).unwrap()
    }

    fn declaration(name: &str) -> Resource {
        Resource::Declaration(Declaration {
            identities: vec![identity(name)],
            ..Declaration::new(ServiceName::new(name).unwrap())
        })
    }

    fn endpoint(service: &str, speaks_as: &str) -> Resource {
        Resource::Endpoint(Endpoint {
            service: ServiceName::new(service).unwrap(),
            id: "1".to_owned(),
            address: Address { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 },
            app_port: 2,
            version: "v1".to_owned(),
            zone: String::new(),
            health: Health::Healthy,
            source: Registrar::Sidecar,
            transport: Transport::Mesh(identity(speaks_as)),
        })
    }

    #[test]
    fn an_endpoint_with_a_foreign_identity_is_left_out_and_reported() {
        let resources = vec![declaration("a"), declaration("b"), endpoint("a", "a"), endpoint("b", "a")];
        let (mesh, findings) = assemble(resources, |_| Assigned::default());
        let count = |name: &str| mesh.services[&ServiceName::new(name).unwrap()].endpoints.len();
        assert_eq!((count("a"), count("b")), (1, 0));
        assert_eq!(findings.len(), 1);
        assert!(findings[0].is_error());
    }

    #[test]
    fn what_belongs_to_no_service_does_not_block_the_rest() {
        let (mesh, findings) = assemble(vec![endpoint("ghost", "ghost"), declaration("a")], |_| Assigned::default());
        assert_eq!(mesh.services.len(), 1);
        assert_eq!(findings.len(), 1);
    }
}
