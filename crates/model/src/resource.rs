//! The one list of what is stored and what is sent.

use std::fmt;

use crate::http_route::HttpRoute;
use crate::names::{Label, ServiceName};
use crate::policy::Egress;
use crate::policy::KeepAlive;
use crate::policy::{
    AuthorizationPolicy, Balance, JwtIssuer, Limits, Outlier, Probe, Retry, Stamps, Telemetry, Timeouts, TrafficPolicy,
};
use crate::port::{AppProtocol, Port};
use crate::route::Route;
use crate::service::{Entry, Service};
use crate::spiffe::SpiffeId;
use crate::split::Split;
use crate::trust::TrustBundle;
use crate::workload::Endpoint;

/// What kinds of resource there are. The order is the order in which a change is sent and applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// [`TrustBundle`], sent to every proxy.
    Trust,
    /// [`Defaults`], stored; its telemetry part is sent to every proxy.
    Defaults,
    /// [`Declaration`], stored only.
    Declaration,
    /// [`Entry`] of the directory, sent to every proxy.
    Entry,
    /// [`Service`], sent to those who subscribed to it.
    Service,
    /// [`Endpoint`], stored and sent.
    Endpoint,
    /// [`Route`], stored and sent.
    Route,
    /// [`Gateway`], stored and sent to gateways.
    Gateway,
    /// [`Egress`], stored and sent to every proxy.
    Egress,
    /// [`Split`], stored; sent as a part of its [`Service`].
    Split,
    /// [`HttpRoute`], stored; sent as a part of the [`Service`]s or the [`Gateway`] it speaks of.
    HttpRoute,
    /// [`Stamps`], stored; what they leave is sent.
    Stamps,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 12] = [
        Self::Trust,
        Self::Defaults,
        Self::Declaration,
        Self::Entry,
        Self::Service,
        Self::Endpoint,
        Self::Route,
        Self::Gateway,
        Self::Egress,
        Self::Split,
        Self::HttpRoute,
        Self::Stamps,
    ];

    /// The word that begins a resource's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trust => "trust",
            Self::Defaults => "defaults",
            Self::Declaration => "declaration",
            Self::Entry => "entry",
            Self::Service => "service",
            Self::Endpoint => "endpoint",
            Self::Route => "route",
            Self::Gateway => "gateway",
            Self::Egress => "egress",
            Self::Split => "split",
            Self::HttpRoute => "httproute",
            Self::Stamps => "stamps",
        }
    }
}

/// The name of a resource: `service/default/calc-svc`, `endpoint/default/calc-svc/7f2a`, `trust/mesh/mesh`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ResourceKey {
    /// What it is.
    pub kind: Kind,
    /// Its namespace, `mesh` for what belongs to none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The endpoint's id; empty for all other kinds.
    pub part: String,
}

impl ResourceKey {
    /// The key of what there is one of in the mesh.
    pub fn mesh(kind: Kind) -> Self {
        Self { kind, namespace: "mesh".to_owned(), name: "mesh".to_owned(), part: String::new() }
    }

    /// The key of something of a service.
    pub fn of(kind: Kind, service: &ServiceName) -> Self {
        Self { kind, namespace: service.namespace().to_owned(), name: service.name().to_owned(), part: String::new() }
    }

    /// The key of an endpoint.
    pub fn endpoint(service: &ServiceName, id: &str) -> Self {
        Self { part: id.to_owned(), ..Self::of(Kind::Endpoint, service) }
    }

    /// Reads a key; `None` if it is none. An id is at most 128 of letters, digits, `.`, `_`, `:` and `-`.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
        let kind = Kind::ALL.into_iter().find(|k| k.as_str() == kind)?;
        let (namespace, name) = (Label::new(namespace).ok()?, Label::new(name).ok()?);
        let part = match (kind, parts.next()) {
            (Kind::Endpoint, Some(id)) if valid_id(id) => id.to_owned(),
            (Kind::Endpoint, _) | (_, Some(_)) => return None,
            (_, None) => String::new(),
        };
        let key = Self { kind, namespace: namespace.to_string(), name: name.to_string(), part };
        parts.next().is_none().then_some(key)
    }

    /// The service it speaks of, unless it is the mesh's own or has a name of its own.
    pub fn service(&self) -> Option<ServiceName> {
        if self.kind == Kind::HttpRoute {
            return None;
        }
        ServiceName::in_namespace(&self.namespace, &self.name).ok()
    }
}

/// Whether a text may be an endpoint's id.
pub fn valid_id(id: &str) -> bool {
    (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

impl fmt::Display for ResourceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind.as_str(), self.namespace, self.name)?;
        if self.part.is_empty() { Ok(()) } else { write!(f, "/{}", self.part) }
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    /// The mesh's roots.
    Trust(TrustBundle),
    /// What holds where nothing else is said.
    Defaults(Defaults),
    /// A service as declared.
    Declaration(Declaration),
    /// An entry of the directory.
    Entry(Entry),
    /// A service as resolved.
    Service(Service),
    /// An endpoint.
    Endpoint(Endpoint),
    /// A service's routes.
    Route(Route),
    /// A gateway.
    Gateway(Gateway),
    /// What may leave the mesh.
    Egress(Egress),
    /// How calls to a service are divided.
    Split(Split),
    /// How requests to services or from outside are led.
    HttpRoute(HttpRoute),
    /// What is switched off.
    Stamps(Stamps),
}

impl Resource {
    /// Its name.
    pub fn key(&self) -> ResourceKey {
        match self {
            Self::Trust(_) => ResourceKey::mesh(Kind::Trust),
            Self::Defaults(_) => ResourceKey::mesh(Kind::Defaults),
            Self::Declaration(declaration) => ResourceKey::of(Kind::Declaration, &declaration.name),
            Self::Entry(entry) => ResourceKey::of(Kind::Entry, &entry.name),
            Self::Service(service) => ResourceKey::of(Kind::Service, &service.name),
            Self::Endpoint(endpoint) => ResourceKey::endpoint(&endpoint.service, &endpoint.id),
            Self::Route(route) => ResourceKey::of(Kind::Route, &route.service),
            Self::Gateway(_) => ResourceKey::mesh(Kind::Gateway),
            Self::Egress(_) => ResourceKey::mesh(Kind::Egress),
            Self::Split(split) => ResourceKey::of(Kind::Split, &split.service),
            Self::HttpRoute(route) => ResourceKey::of(Kind::HttpRoute, &route.name),
            Self::Stamps(_) => ResourceKey::mesh(Kind::Stamps),
        }
    }
}

/// A service as somebody declared it: what differs from the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct Declaration {
    /// Its name.
    pub name: ServiceName,
    /// The identities that may serve it, bound at first registration and changed by an operator only.
    pub identities: Vec<SpiffeId>,
    /// What differs.
    pub overlay: Overlay,
    /// Who may call it; `None` keeps the mesh's default.
    pub authorization: Option<AuthorizationPolicy>,
    /// What is spoken on its ports, where they do not say so themselves.
    pub protocol: AppProtocol,
    /// Its ports; with none it has [`DEFAULT_PORT`](crate::port::DEFAULT_PORT) and those of its applications.
    pub ports: Vec<Port>,
}

impl Declaration {
    /// A service of which nothing is known but its name.
    pub fn new(name: ServiceName) -> Self {
        Self {
            name,
            identities: Vec::new(),
            overlay: Overlay::default(),
            authorization: None,
            protocol: AppProtocol::Detect,
            ports: Vec::new(),
        }
    }
}

/// Policies that replace the defaults.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Overlay {
    /// Instead of the default [`Retry`].
    pub retry: Option<Retry>,
    /// Instead of the default [`Timeouts`].
    pub timeouts: Option<Timeouts>,
    /// Instead of the default [`Outlier`].
    pub outlier: Option<Outlier>,
    /// Instead of the default [`Balance`].
    pub balance: Option<Balance>,
    /// Instead of the default [`Limits`].
    pub limits: Option<Limits>,
    /// Instead of the default [`KeepAlive`].
    pub keep_alive: Option<KeepAlive>,
    /// Instead of the default [`Probe`].
    pub probe: Option<Probe>,
}

impl Overlay {
    /// One that leaves nothing to any defaults.
    pub fn whole(policy: TrafficPolicy) -> Self {
        let TrafficPolicy { retry, timeouts, outlier, balance, limits, keep_alive, probe } = policy;
        Self {
            retry: Some(retry),
            timeouts: Some(timeouts),
            outlier: Some(outlier),
            balance: Some(balance),
            limits: Some(limits),
            keep_alive: Some(keep_alive),
            probe,
        }
    }

    /// The defaults with this laid over them.
    pub fn over(&self, defaults: &TrafficPolicy) -> TrafficPolicy {
        TrafficPolicy {
            retry: self.retry.clone().unwrap_or_else(|| defaults.retry.clone()),
            timeouts: self.timeouts.unwrap_or(defaults.timeouts),
            outlier: self.outlier.unwrap_or(defaults.outlier),
            balance: self.balance.clone().unwrap_or_else(|| defaults.balance.clone()),
            limits: self.limits.unwrap_or(defaults.limits),
            keep_alive: self.keep_alive.unwrap_or(defaults.keep_alive),
            probe: self.probe.clone().or_else(|| defaults.probe.clone()),
        }
    }
}

/// What holds where nothing else is said.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Defaults {
    /// For calls to every service.
    pub policy: TrafficPolicy,
    /// For every proxy.
    pub telemetry: Telemetry,
}

/// Where traffic from outside enters.
#[derive(Debug, Clone, PartialEq)]
pub struct Gateway {
    /// The names it answers for, beside the loopback ones (ruling R12).
    pub hosts: Vec<String>,
    /// The routes that speak of it, ordered by name; found when the mesh is put together, stored on their own.
    pub routes: Vec<HttpRoute>,
    /// Whose tokens it takes. With none it takes nobody's and answers 401.
    pub issuers: Vec<JwtIssuer>,
    /// Whether it takes requests without a token; found when the mesh is put together ([`Stamps`]).
    pub is_open: bool,
}

impl Default for Gateway {
    fn default() -> Self {
        Self { hosts: vec!["gateway.local".to_owned()], routes: Vec::new(), issuers: Vec::new(), is_open: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_what_they_write() {
        let calc = ServiceName::new("calc-svc").unwrap();
        for key in [
            ResourceKey::mesh(Kind::Trust),
            ResourceKey::of(Kind::Route, &calc),
            ResourceKey::endpoint(&calc, "10.0.0.7:5000"),
        ] {
            assert_eq!(ResourceKey::parse(&key.to_string()), Some(key));
        }
        for text in [
            "",
            "route",
            "route/a",
            "route/a/b/c",
            "endpoint/a/b",
            "endpoint/a/b/",
            "endpoint/a/b/c/d",
            "nothing/a/b",
            "route/../b",
            "endpoint/a/b/ä",
        ] {
            assert_eq!(ResourceKey::parse(text), None, "{text}");
        }
    }
}
