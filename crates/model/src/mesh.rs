//! The whole desired state, every reference resolved.

mod led;
mod stamped;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::finding::Finding;
use crate::http_route::HttpRoute;
use crate::names::ServiceName;
use crate::policy::{Egress, Stamps, Telemetry};
use crate::port::{AppProtocol, DEFAULT_PORT, MOST_PORTS, Port};
use crate::resource::{Declaration, Defaults, Gateway, Overlay, Resource};
use crate::route::Route;
use crate::service::{Entry, Service};
use crate::split::{Share, Split};
use crate::trust::TrustBundle;
use crate::workload::{Endpoint, Health, Transport};

/// What the registry gives each service, so that it is the same for every proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assigned {
    /// The opaque TLS server name.
    pub sni: String,
    /// What its name resolves to.
    pub addresses: Vec<IpAddr>,
}

/// Everything the mesh is to be.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Mesh {
    /// The roots; none before the authority exists.
    pub trust: Option<TrustBundle>,
    /// What proxies tell.
    pub telemetry: Telemetry,
    /// The gateway.
    pub gateway: Gateway,
    /// What may leave it.
    pub egress: Egress,
    /// Every service by name.
    pub services: BTreeMap<ServiceName, ServiceState>,
}

/// A service with its routes and endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceState {
    /// The service.
    pub service: Service,
    /// What its name resolves to; only [`assemble`] knows, the details of a service do not carry it.
    pub addresses: Vec<IpAddr>,
    /// Its routes.
    pub route: Option<Route>,
    /// Its admitted endpoints by id.
    pub endpoints: BTreeMap<String, Endpoint>,
}

impl Mesh {
    /// What every proxy knows of each service. The gateway is found under the hosts it answers for.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        self.services.values().map(|state| Entry {
            name: state.service.name.clone(),
            aliases: if state.service.name.is_gateway() { self.gateway.hosts.clone() } else { Vec::new() },
            addresses: state.addresses.clone(),
            ports: state.service.ports.clone(),
        })
    }
}

/// Puts resources together. What cannot be resolved is left out and reported; it never blocks the rest. `assigned`
/// is what the registry gives a service.
pub fn assemble(resources: Vec<Resource>, assigned: impl Fn(&ServiceName) -> Assigned) -> (Mesh, Vec<Finding>) {
    let mut findings = Vec::new();
    let mut mesh = Mesh::default();
    let mut defaults = Defaults::default();
    let mut stamps = Stamps::default();
    let mut declarations: BTreeMap<ServiceName, Declaration> = BTreeMap::new();
    let mut routes: BTreeMap<ServiceName, Route> = BTreeMap::new();
    let mut splits: BTreeMap<ServiceName, Split> = BTreeMap::new();
    let mut endpoints: Vec<Endpoint> = Vec::new();
    let mut led: Vec<HttpRoute> = Vec::new();
    for resource in resources {
        match resource {
            Resource::Trust(trust) => mesh.trust = Some(trust),
            Resource::Defaults(own) => defaults = own,
            Resource::Gateway(gateway) => mesh.gateway = gateway,
            Resource::Egress(egress) => mesh.egress = egress,
            Resource::Declaration(declaration) => {
                declarations.insert(declaration.name.clone(), declaration);
            }
            Resource::Route(route) => {
                routes.insert(route.service.clone(), route);
            }
            Resource::Endpoint(endpoint) => endpoints.push(endpoint),
            Resource::Split(split) => {
                splits.insert(split.service.clone(), split);
            }
            Resource::HttpRoute(route) => led.push(route),
            Resource::Stamps(own) => stamps = own,
            // Resolved forms are sent, never stored.
            Resource::Entry(_) | Resource::Service(_) => {}
        }
    }
    mesh.telemetry = defaults.telemetry.clone();
    for host in mesh.egress.hosts.values_mut() {
        host.overlay = Overlay::whole(host.overlay.over(&defaults.policy));
    }
    for (name, declaration) in &declarations {
        let Assigned { sni, addresses } = assigned(name);
        let service = Service {
            identities: declaration.identities.iter().cloned().collect(),
            sni,
            policy: declaration.overlay.over(&defaults.policy),
            authorization: declaration.authorization.clone().unwrap_or_default(),
            ports: Vec::new(),
            split: splits.remove(name).map(|split| split.shares).unwrap_or_default(),
            http: Vec::new(),
            name: name.clone(),
        };
        let state = ServiceState { service, addresses, route: routes.remove(name), endpoints: BTreeMap::new() };
        mesh.services.insert(name.clone(), state);
    }
    for name in routes.keys() {
        findings.push(Finding::warning(2107, format!("the routes of `{name}` have no service")));
    }
    for name in splits.keys() {
        findings.push(Finding::warning(2107, format!("the split of `{name}` has no service")));
    }
    for endpoint in endpoints {
        admit(&mut mesh, endpoint, &mut findings);
    }
    for (name, state) in &mut mesh.services {
        state.service.ports = ports(declarations.get(name), state);
    }
    led::lead(&mut mesh, led, &mut findings);
    stamped::apply(&mut mesh, &stamps);
    findings.extend(mesh.services.values().flat_map(|state| empty_shares(&mesh, state)));
    (mesh, findings)
}

/// Shares that nobody can take: they are left to the others, and somebody should know.
fn empty_shares(mesh: &Mesh, state: &ServiceState) -> Vec<Finding> {
    let taken = |share: &Share| {
        let endpoints = mesh.services.get(&share.service).into_iter().flat_map(|service| service.endpoints.values());
        let healthy = endpoints.filter(|endpoint| endpoint.health == Health::Healthy);
        healthy.into_iter().any(|endpoint| share.version.is_empty() || share.version == endpoint.version)
    };
    let empty = state.service.split.iter().filter(|share| share.weight > 0 && !taken(share));
    let finding = |share: &Share| {
        let version = if share.version.is_empty() { String::new() } else { format!(" {}", share.version) };
        let message = format!(
            "`{}` gives a share to `{}{version}`, which has no healthy endpoint",
            state.service.name, share.service
        );
        Finding::warning(2107, message).because("its share goes to the others as long as that is so")
    };
    empty.map(finding).collect()
}

/// The declared ports; else the one that `http://NAME/` dials, and those under which its applications are known.
fn ports(declaration: Option<&Declaration>, state: &ServiceState) -> Vec<Port> {
    let (declared, protocol) = declaration.map_or((&[][..], AppProtocol::Detect), |d| (&d.ports[..], d.protocol));
    let by_default = || {
        let known: BTreeSet<u16> =
            state.endpoints.values().map(|endpoint| endpoint.app_port).filter(|port| *port != 0).collect();
        let numbers: BTreeSet<u16> = known.into_iter().take(MOST_PORTS - 1).chain([DEFAULT_PORT]).collect();
        numbers.into_iter().map(|number| Port { number, name: String::new(), protocol, target: None }).collect()
    };
    match declared {
        [] if state.service.name.is_gateway() => vec![Port::https()],
        [] => by_default(),
        declared => declared.to_vec(),
    }
}

/// An endpoint is admitted only if its service owns its identity.
fn admit(mesh: &mut Mesh, endpoint: Endpoint, findings: &mut Vec<Finding>) {
    let Some(state) = mesh.services.get_mut(&endpoint.service) else {
        let message = format!("endpoint {} belongs to `{}`, which does not exist", endpoint.address, endpoint.service);
        findings.push(Finding::warning(2107, message));
        return;
    };
    if let Transport::Mesh(identity) = &endpoint.transport
        && !state.service.identities.contains(identity)
    {
        let message = format!("endpoint {} of `{}` speaks as {identity}", endpoint.address, endpoint.service);
        findings.push(Finding::error(4103, message).because("the service does not own this identity"));
        return;
    }
    state.endpoints.insert(endpoint.id.clone(), endpoint);
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::spiffe::SpiffeId;
    use crate::workload::{Address, Registrar};

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
