//! What kind of proxy, and which way its traffic runs.

use std::fmt;

/// The kinds of proxy; they differ only in the listeners they open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Beside one workload.
    Sidecar,
    /// Where traffic from outside enters.
    Gateway,
    /// Where traffic to the outside leaves.
    Egress,
    /// One for all workloads of a machine.
    Node,
    /// Led by a file instead of a control plane.
    Standalone,
}

impl Role {
    /// The word used in settings, identities' names and telemetry.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sidecar => "sidecar",
            Self::Gateway => "gateway",
            Self::Egress => "egress",
            Self::Node => "node",
            Self::Standalone => "standalone",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Relative to the workload that the proxy serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Towards the workload; telemetry says `reporter="destination"`.
    Inbound,
    /// Away from it; telemetry says `reporter="source"`.
    Outbound,
}
