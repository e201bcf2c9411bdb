//! Which roots are believed for which trust domain.

use crate::spiffe::TrustDomain;

/// The roots of one trust domain, DER-encoded. During a rotation there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustBundle {
    /// The only domain whose identities these roots may vouch for.
    pub trust_domain: TrustDomain,
    /// X.509 root certificates in DER.
    pub roots: Vec<Vec<u8>>,
}
