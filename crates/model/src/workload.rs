//! Running things, and the addresses at which they serve.

use std::fmt;
use std::net::IpAddr;

use crate::names::ServiceName;
use crate::spiffe::SpiffeId;

/// Whether an endpoint can be given work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Health {
    /// It answers.
    Healthy,
    /// Its application does not listen, or was stopped.
    Unhealthy,
    /// It finishes what it has and takes nothing new.
    Draining,
}

impl Health {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
        }
    }
}

/// Who put an endpoint into the registry (ruling R6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Registrar {
    /// The workload's own sidecar; the entry lives as long as its control stream.
    Sidecar,
    /// Somebody through the REST API; renewed there, or probed.
    Api,
}

impl Registrar {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Api => "api",
        }
    }
}

/// Where an endpoint listens, as the registry holds it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    /// An IP address.
    pub ip: IpAddr,
    /// 1 to 65535.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(self.ip, self.port).fmt(f)
    }
}

/// How an endpoint is spoken to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Through its proxy: mutual TLS, and exactly this identity at the other end.
    Mesh(SpiffeId),
    /// Directly and unencrypted: a thing without a proxy. Only where the operator registered it so.
    Plain,
}

/// An address of a workload that serves a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// The service served.
    pub service: ServiceName,
    /// Unique within the service; a second registration under the same id replaces the first (S0-9).
    pub id: String,
    /// Where its proxy (or, for `Plain`, itself) listens.
    pub address: Address,
    /// The port of the application itself, for people; 0 when unknown.
    pub app_port: u16,
    /// `v1`, or `latest` when none was stated.
    pub version: String,
    /// Failure domain; may be empty.
    pub zone: String,
    /// Whether it can be given work.
    pub health: Health,
    /// Who registered it.
    pub source: Registrar,
    /// How it is spoken to.
    pub transport: Transport,
}
