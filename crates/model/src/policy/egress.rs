//! What may leave the mesh, and how.

use std::collections::BTreeMap;

use crate::names::Label;
use crate::resource::Overlay;

/// Hosts that may be listed.
pub const MOST_HOSTS: usize = 1000;
/// Ports that one of them may have.
pub const MOST_PORTS: usize = 32;

/// What becomes of connections that lead out of the mesh.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Egress {
    /// What holds for hosts that are not listed. `None` when nobody said: the control plane decides by where it runs, and a proxy
    /// that is told nothing takes [`Unlisted::Refused`].
    pub unlisted: Option<Unlisted>,
    /// Which proxy calls them.
    pub through: Through,
    /// The hosts that are listed, by what people call them.
    pub hosts: BTreeMap<Label, EgressHost>,
}

/// Which proxy calls a host outside of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Through {
    /// `sidecar`: the one beside the caller.
    #[default]
    Sidecar,
    /// `gateway`: an egress gateway, over mutual TLS, with its own identity.
    Gateway,
}

impl Through {
    /// Every choice, with the word of files.
    pub const ALL: [(&'static str, Self); 2] = [("sidecar", Self::Sidecar), ("gateway", Self::Gateway)];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
        }
    }
}

/// What becomes of a host that is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unlisted {
    /// `allow`: it is let through, counted and shown as unmanaged.
    Allowed,
    /// `listed`: it is refused.
    Refused,
    /// `deny`: nothing leaves at all, not even what is listed.
    AllRefused,
}

impl Unlisted {
    /// Every choice, with the word of files.
    pub const ALL: [(&'static str, Self); 3] =
        [("allow", Self::Allowed), ("listed", Self::Refused), ("deny", Self::AllRefused)];

    /// Its word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allow",
            Self::Refused => "listed",
            Self::AllRefused => "deny",
        }
    }
}

/// A host outside of the mesh that may be called.
#[derive(Debug, Clone, PartialEq)]
pub struct EgressHost {
    /// Its name in lower case without a dot at the end, or an IP address.
    pub host: String,
    /// Its ports, at least one; with TLS origination the first is the one that is dialled.
    pub ports: Vec<u16>,
    /// Whether its name may lead to loopback, link-local and other addresses that are special to the machine of a proxy. Off:
    /// whoever answers for a name must not choose among the proxy's own neighbours.
    pub local: bool,
    /// TLS that the proxy begins for applications that speak in clear text.
    pub tls: Option<Origination>,
    /// How calls to it differ from the defaults.
    pub overlay: Overlay,
}

/// TLS that a proxy begins in an application's stead.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origination {
    /// A file with the authorities that are believed, in PEM, on the machine of the proxy; empty for the system's own.
    pub ca: String,
    /// Whether the proxy shows its certificate of the mesh.
    pub client_certificate: bool,
}

/// The port of HTTP in clear text, from which TLS is originated beside the ports of the host itself.
pub const CLEAR_PORT: u16 = 80;

impl EgressHost {
    /// The ports that are meant when none are named.
    pub fn default_ports(tls: bool) -> Vec<u16> {
        if tls { vec![443] } else { vec![CLEAR_PORT, 443] }
    }

    /// Whether an application may dial this port of it.
    pub fn takes(&self, port: u16) -> bool {
        self.ports.contains(&port) || (self.tls.is_some() && port == CLEAR_PORT)
    }
}
