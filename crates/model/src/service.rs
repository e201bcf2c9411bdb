//! Logical names with ports.

use std::collections::BTreeSet;

use crate::names::ServiceName;
use crate::policy::{AuthorizationPolicy, TrafficPolicy};
use crate::spiffe::SpiffeId;

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
}
