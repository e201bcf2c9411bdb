//! Logical names with ports.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::http_route::HttpRoute;
use crate::names::ServiceName;
use crate::policy::{AuthorizationPolicy, TrafficPolicy};
use crate::port::Port;
use crate::spiffe::SpiffeId;
use crate::split::Share;

/// A service as every proxy that calls or serves it sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The identities that may serve it; an endpoint with any other is not admitted.
    pub identities: BTreeSet<SpiffeId>,
    /// The opaque TLS server name of its proxies, so the wire does not show who calls whom.
    pub sni: String,
    /// How calls to it are made.
    pub policy: TrafficPolicy,
    /// Who may call it.
    pub authorization: AuthorizationPolicy,
    /// Its ports, by number.
    pub ports: Vec<Port>,
    /// Who gets the calls to it; empty where its endpoints do, whatever their version.
    pub split: Vec<Share>,
    /// How its callers lead requests to it, ordered by name; empty where all of them go to it as they are.
    pub http: Vec<HttpRoute>,
}

impl Service {
    /// The port that callers dial under this number; 0 is the first.
    pub fn port(&self, number: u16) -> Option<&Port> {
        match number {
            0 => self.ports.first(),
            _ => self.ports.iter().find(|port| port.number == number),
        }
    }
}

/// What every proxy knows of every service it may see: enough to answer for its name and to recognise its address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The service.
    pub name: ServiceName,
    /// Host names it has beside those that follow from its name (ruling R7), in lower case.
    pub aliases: Vec<String>,
    /// What its name resolves to; empty when it cannot be dialled by name.
    pub addresses: Vec<IpAddr>,
    /// Its ports, by number.
    pub ports: Vec<Port>,
}

impl Entry {
    /// The port that callers dial under this number.
    pub fn port(&self, number: u16) -> Option<&Port> {
        self.ports.iter().find(|port| port.number == number)
    }
}
