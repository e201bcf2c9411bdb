//! One service put together.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::stamped;
use crate::finding::Finding;
use crate::http_route::HttpRoute;
use crate::policy::{Stamps, TrafficPolicy};
use crate::port::{AppProtocol, DEFAULT_PORT, MOST_PORTS, Port};
use crate::resource::Declaration;
use crate::route::Route;
use crate::service::Service;
use crate::split::Split;
use crate::workload::{Endpoint, Health, Transport};

/// A service with its routes and endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct ServiceState {
    /// The service.
    pub service: Service,
    /// What its name resolves to; only the registry knows, the details of a service do not carry it.
    pub addresses: Vec<IpAddr>,
    /// Its routes.
    pub route: Option<Route>,
    /// Its admitted endpoints by id.
    pub endpoints: BTreeMap<String, Endpoint>,
}

/// What a service is made of.
pub(super) struct Parts<'a> {
    pub(super) declaration: &'a Declaration,
    pub(super) policy: &'a TrafficPolicy,
    pub(super) stamps: &'a Stamps,
    pub(super) sni: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) route: Option<&'a Route>,
    pub(super) split: Option<&'a Split>,
    pub(super) http: Vec<HttpRoute>,
}

impl ServiceState {
    /// Whether it has a healthy endpoint of a version; of any if the version is empty.
    pub fn serves(&self, version: &str) -> bool {
        let mut endpoints = self.endpoints.values();
        endpoints.any(|own| own.health == Health::Healthy && (version.is_empty() || version == own.version))
    }

    /// Puts it together. What may not be admitted is left out.
    pub(super) fn of(parts: Parts<'_>, endpoints: &[&Endpoint]) -> Self {
        let Parts { declaration, policy, stamps, sni, addresses, route, split, http } = parts;
        let service = Service {
            name: declaration.name.clone(),
            identities: declaration.identities.iter().cloned().collect(),
            sni,
            policy: declaration.overlay.over(policy),
            authorization: declaration.authorization.clone().unwrap_or_default(),
            ports: Vec::new(),
            split: split.map(|split| split.shares.clone()).unwrap_or_default(),
            http,
        };
        let mut state = Self { service, addresses, route: route.cloned(), endpoints: BTreeMap::new() };
        let admitted = endpoints.iter().filter(|endpoint| state.refusal(endpoint).is_none());
        state.endpoints = admitted.map(|endpoint| (endpoint.id.clone(), Endpoint::clone(endpoint))).collect();
        state.service.ports = state.ports(declaration);
        stamped::service(stamps, &mut state);
        state
    }

    /// Why an endpoint is not admitted: its service has to own its identity.
    pub(super) fn refusal(&self, endpoint: &Endpoint) -> Option<Finding> {
        match &endpoint.transport {
            Transport::Mesh(identity) if !self.service.identities.contains(identity) => {
                let message = format!("endpoint {} of `{}` speaks as {identity}", endpoint.address, endpoint.service);
                Some(Finding::error(4103, message).because("the service does not own this identity"))
            }
            _ => None,
        }
    }

    /// The declared ports; else the one that `http://NAME/` dials, and those under which its applications are known.
    fn ports(&self, declaration: &Declaration) -> Vec<Port> {
        match &declaration.ports[..] {
            [] if self.service.name.is_gateway() => vec![Port::https()],
            [] => self.ports_by_default(declaration.protocol),
            declared => declared.to_vec(),
        }
    }

    fn ports_by_default(&self, protocol: AppProtocol) -> Vec<Port> {
        let known: BTreeSet<u16> =
            self.endpoints.values().map(|endpoint| endpoint.app_port).filter(|port| *port != 0).collect();
        let numbers: BTreeSet<u16> = known.into_iter().take(MOST_PORTS - 1).chain([DEFAULT_PORT]).collect();
        numbers.into_iter().map(|number| Port { number, name: String::new(), protocol, target: None }).collect()
    }
}
