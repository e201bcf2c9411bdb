//! What people ask for, one file each: fields, bounds, default. The file of the same name in `hms-traffic` decides.

pub mod authorization;
pub mod balance;
pub mod egress;
pub mod jwt;
pub mod limits;
pub mod outlier;
pub mod probe;
pub mod rate_limit;
pub mod retry;
pub mod stamps;
pub mod telemetry;
pub mod timeout;

pub use authorization::AuthorizationPolicy;
pub use balance::{Affinity, Algorithm, Balance, HashKey, Zones};
pub use egress::Egress;
pub use jwt::{JwtIssuer, JwtKey};
pub use limits::Limits;
pub use outlier::Outlier;
pub use probe::Probe;
pub use rate_limit::{LimitKey, RateLimit};
pub use retry::Retry;
pub use stamps::Stamps;
pub use telemetry::Telemetry;
pub use timeout::Timeouts;

/// Everything that governs calls to one service, already resolved: mesh defaults overlaid by the service's own words.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficPolicy {
    /// Trying again.
    pub retry: Retry,
    /// Bounds in time.
    pub timeouts: Timeouts,
    /// Ejecting a failing endpoint, and with all of them the breaker of the service.
    pub outlier: Outlier,
    /// Choosing an endpoint.
    pub balance: Balance,
    /// Bounds in number.
    pub limits: Limits,
    /// Whether connections to endpoints are kept for the next request (S4-20). On by default.
    pub keep_alive: KeepAlive,
    /// How its application is asked whether it is well; `None` for what its proxy was started with.
    pub probe: Option<Probe>,
}

/// Whether a proxy keeps its connections to an endpoint open between requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeepAlive {
    /// Reuse: one handshake for many requests.
    #[default]
    On,
    /// A new connection for every request.
    Off,
}
