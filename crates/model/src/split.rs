//! How the calls to a service are divided: among versions of it, or other services.

use crate::names::ServiceName;

/// Shares that one split may have.
pub const MOST_SHARES: usize = 32;
/// The largest weight, and so the finest share: a millionth.
pub const MOST_WEIGHT: u32 = 1_000_000;

/// How the calls to a service are divided. Without one, every endpoint of the service may be called whatever its version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// The service that is called.
    pub service: ServiceName,
    /// Who gets the calls. A version that stands in none gets none.
    pub shares: Vec<Share>,
}

/// A part of the calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Share {
    /// The service that gets it: the one that is called, or another.
    pub service: ServiceName,
    /// The version of it that does; empty for any. At most 63 bytes.
    pub version: String,
    /// How much: as much of all as this weight is of the sum. 0 to [`MOST_WEIGHT`].
    pub weight: u32,
}

impl Split {
    /// Whether an endpoint of the service itself may be called, by its version.
    pub fn takes(&self, version: &str) -> bool {
        takes(&self.shares, &self.service, version)
    }
}

/// Whether shares give anything to a version of a service. Without shares everything may be called.
pub fn takes(shares: &[Share], service: &ServiceName, version: &str) -> bool {
    let meant = |share: &Share| share.service == *service && (share.version.is_empty() || share.version == version);
    shares.is_empty() || shares.iter().any(|share| share.weight > 0 && meant(share))
}
