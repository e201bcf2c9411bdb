//! What a control plane has to be told. Whoever starts it decides; nothing is read from the environment here.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use hms_model::policy::egress::Unlisted;
use hms_model::spiffe::TrustDomain;

use crate::ca::Lifetimes;

/// Where the REST API of the first project of a machine listens.
pub const REST_PORT: u16 = 15014;
/// Where proxies of other hosts (and those without the local socket) connect.
pub const GRPC_PORT: u16 = 15012;

/// Where state is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreKind {
    /// In `mesh.db` of the state directory.
    Sqlite,
    /// Nowhere: it ends with the process.
    Memory,
}

/// What happens when a port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// The start fails.
    Exact,
    /// Any free port is used instead; `control.json` tells which.
    Preferred,
}

/// Settings of a control plane.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `STATE/control`: store, authority, tokens. Made 0700 if missing.
    pub state: PathBuf,
    /// The user's data directory, where the edge authority lies. Made 0700 if missing.
    pub data: PathBuf,
    /// `RUN`: the local socket and `control.json`. Made 0700 if missing.
    pub runtime: PathBuf,
    /// Where state is kept.
    pub store: StoreKind,
    /// Where the REST API listens; loopback only.
    pub rest: SocketAddr,
    /// Where proxies connect over TCP.
    pub grpc: SocketAddr,
    /// What happens when one of the two is taken.
    pub ports: Ports,
    /// The trust domain to have; `None` for the one that is there, or a random one at the first start.
    pub trust_domain: Option<TrustDomain>,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// What becomes of hosts outside of the mesh that are not listed, where its configuration does not say it.
    pub unlisted: Unlisted,
}

impl Settings {
    /// The usual settings with these directories.
    pub fn new(state: PathBuf, data: PathBuf, runtime: PathBuf) -> Self {
        Self {
            state,
            data,
            runtime,
            store: StoreKind::Sqlite,
            rest: (Ipv4Addr::LOCALHOST, REST_PORT).into(),
            grpc: (Ipv4Addr::LOCALHOST, GRPC_PORT).into(),
            ports: Ports::Preferred,
            trust_domain: None,
            lifetimes: Lifetimes::default(),
            unlisted: Unlisted::Refused,
        }
    }

    /// The local socket on which proxies of this machine connect.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("control.sock")
    }

    /// Where the running control plane says how it can be reached.
    pub fn announcement(&self) -> PathBuf {
        self.runtime.join("control.json")
    }

    /// The token that callers of the REST API bring.
    pub fn admin_token(&self) -> PathBuf {
        self.state.join("admin.token")
    }
}
