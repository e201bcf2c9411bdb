//! Who may call a service (ruling R17).

use crate::names::ServiceName;
use crate::route::Match;

/// The allow rules of one service. While there is none, every meshed identity may call it; with one, all else is denied.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuthorizationPolicy {
    /// Rules; any one that fits allows.
    pub allow: Vec<AllowRule>,
}

/// One allow rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllowRule {
    /// Who.
    pub source: Source,
    /// To do what; empty means anything.
    pub matches: Vec<Match>,
    /// Where the rule was written, for explanations; may be empty.
    pub origin: String,
}

/// Who a rule speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Every identity of the mesh.
    Any,
    /// The gateway.
    Gateway,
    /// The identities of one service.
    Service(ServiceName),
}
