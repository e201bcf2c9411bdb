//! Getting an application's packets to its proxy without the application's help, and without root.
//!
//! `hms-proxy __shepherd` is the parent of one application ([`shepherd`]). In the mode `netns` the application lives in namespaces
//! of its own ([`inside`]): everything it sends over TCP ends at listening sockets that were made there and handed out to the proxy,
//! which lives outside ([`link`], [`sidecar`]). In the mode `notify` it lives in the host's network, and each of its calls of
//! connect(2) is answered by its parent ([`notify`]). In the mode `joined` somebody else starts it, in the network in which the proxy
//! lives as well ([`joined`]). The only `unsafe` of the project is below this module.

mod application;
pub mod dns;
pub mod enter;
mod flock;
mod hand_out;
pub mod host;
mod inside;
pub mod joined;
mod link;
mod mounts;
mod namespaces;
mod netlink;
mod notify;
mod refused;
mod routes;
mod rules;
mod seccomp;
pub mod shepherd;
pub mod sidecar;
mod tree;

use std::net::SocketAddr;
use std::time::Duration;

use hms_model::address;
use hms_model::names::ServiceName;

use crate::runtime::Current;

/// Where outbound TCP of a captured application ends, inside its network namespace.
pub const OUTBOUND_PORT: u16 = 15001;
/// Where its questions to any resolver end, inside its network namespace.
pub const DNS_PORT: u16 = 15053;

/// How an application is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// In namespaces of its own, from which nothing but the proxy can be reached.
    Netns,
    /// By notifications of connect(2), in the host's network.
    Notify,
    /// In the network that the proxy itself lives in: two containers with one network.
    Joined,
    /// Not at all.
    None,
}

impl Mode {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Netns => "netns",
            Self::Notify => "notify",
            Self::Joined => "joined",
            Self::None => "none",
        }
    }

    /// The mode of this name.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Netns, Self::Notify, Self::Joined, Self::None].into_iter().find(|mode| mode.as_str() == text)
    }
}

/// Where an application wanted to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A service, by one of its addresses. Names in requests only choose among its rules.
    Service(ServiceName),
    /// The real address of a service's instance: the service is called, as nothing else may be reached around the mesh.
    Endpoint(ServiceName),
    /// A virtual address that no service has. It is refused, never let out.
    Nowhere,
    /// Anything else: the authority of a request decides.
    Elsewhere,
}

/// How long a connection waits for the first word of the mesh.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// What it means that an application dialled `original`.
pub async fn destination(current: &Current, original: SocketAddr) -> Destination {
    let decide = || {
        let runtime = current.load();
        match runtime.directory.by_address(original.ip()) {
            Some(entry) => Some(Destination::Service(entry.name.clone())),
            None if !address::is_virtual(original.ip()) => {
                Some(runtime.service_at(original).map_or(Destination::Elsewhere, Destination::Endpoint))
            }
            None if runtime.directory.is_empty() => None,
            None => Some(Destination::Nowhere),
        }
    };
    let mut changes = current.watch();
    let decided = async {
        loop {
            if let Some(destination) = decide() {
                return destination;
            }
            if changes.changed().await.is_err() {
                return Destination::Nowhere;
            }
        }
    };
    tokio::time::timeout(FIRST_WORD, decided).await.unwrap_or(Destination::Nowhere)
}
