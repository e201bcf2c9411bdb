//! Reports of proxies in our own words, with everything bounded.

use std::time::Duration;

use hms_model::names::ServiceName;
use hms_model::spiffe::SpiffeId;
use hms_wire::proto::hms::v1;

/// Services whose breakers one proxy may report.
pub(super) const BREAKERS: usize = 1000;
/// Endpoints of one report.
const ENDPOINTS: usize = 1000;
/// Hosts outside of the mesh that one proxy may report.
const OUTSIDE: usize = 256;
/// Bytes of a reason.
const REASON: usize = 256;

/// Whether calls pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BreakerPhase {
    /// Calls pass.
    Closed,
    /// One probe is under way.
    HalfOpen,
    /// Calls are refused at once.
    Open,
}

impl BreakerPhase {
    /// The word shown to people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "CLOSED",
            Self::HalfOpen => "HALF-OPEN",
            Self::Open => "OPEN",
        }
    }

    fn read(value: i32) -> Self {
        match v1::BreakerPhase::try_from(value) {
            Ok(v1::BreakerPhase::Open) => Self::Open,
            Ok(v1::BreakerPhase::HalfOpen) => Self::HalfOpen,
            Ok(v1::BreakerPhase::Closed) | Err(_) => Self::Closed,
        }
    }
}

/// How the breaker of a service stands at one caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerReport {
    /// The caller's proxy.
    pub proxy: String,
    /// The service called.
    pub service: ServiceName,
    /// Open only when no endpoint is usable.
    pub phase: BreakerPhase,
    /// Why; empty when closed.
    pub reason: String,
    /// Time until the next probe, if one is due.
    pub next_probe: Option<Duration>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// How one endpoint stands at a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// The endpoint's id.
    pub id: String,
    /// Its address.
    pub address: String,
    /// Open when it is ejected.
    pub phase: BreakerPhase,
    /// Why.
    pub reason: String,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Time until it is probed, if it is to be.
    pub next_probe: Option<Duration>,
}

/// A host outside of the mesh that a proxy was asked for, since it began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutsideReport {
    /// Its name, or its address where no name is known.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What the mesh calls it; empty when it is not listed.
    pub label: String,
    /// Requests and unread connections that were let through.
    pub allowed: u64,
    /// Those that were not.
    pub refused: u64,
}

/// The certificate a proxy speaks with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateReport {
    /// The proxy.
    pub proxy: String,
    /// Whose certificate it is.
    pub identity: SpiffeId,
    /// Serial number in hexadecimal digits.
    pub serial: String,
    /// Unix seconds.
    pub not_before: i64,
    /// Unix seconds.
    pub not_after: i64,
    /// When it will be renewed, in Unix seconds.
    pub rotates_at: i64,
    /// Failed renewals since the last success.
    pub failures: u32,
}

impl BreakerReport {
    /// The same report so much later: countdowns went on.
    pub(super) fn aged(&self, age: Duration) -> Self {
        let later = |left: Option<Duration>| left.map(|left| left.saturating_sub(age));
        let mut report = self.clone();
        report.next_probe = later(report.next_probe);
        for endpoint in &mut report.endpoints {
            endpoint.next_probe = later(endpoint.next_probe);
        }
        report
    }
}

/// A text of at most so many bytes, without control characters.
pub(super) fn text(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text.retain(|c| !c.is_control());
    text
}

/// A probe is due only for what does not simply pass.
fn countdown(phase: BreakerPhase, milliseconds: u64) -> Option<Duration> {
    (phase != BreakerPhase::Closed).then(|| Duration::from_millis(milliseconds.min(86_400_000)))
}

pub(super) fn breaker(proxy: &str, state: v1::BreakerState) -> Option<BreakerReport> {
    let name = state.service?;
    let service = ServiceName::in_namespace(&name.namespace, &name.name).ok()?;
    let phase = BreakerPhase::read(state.phase);
    let endpoints = state.endpoints.into_iter().take(ENDPOINTS).map(endpoint).collect();
    Some(BreakerReport {
        proxy: proxy.to_owned(),
        service,
        phase,
        reason: text(state.reason, REASON),
        next_probe: countdown(phase, state.next_probe_ms),
        endpoints,
    })
}

fn endpoint(state: v1::EndpointState) -> EndpointReport {
    let phase = BreakerPhase::read(state.phase);
    EndpointReport {
        id: text(state.id, 128),
        address: text(state.address, 64),
        phase,
        reason: text(state.reason, REASON),
        consecutive_failures: state.consecutive_failures,
        next_probe: countdown(phase, state.next_probe_ms),
    }
}

pub(super) fn outside(message: v1::Outside) -> Vec<OutsideReport> {
    let hosts = message.hosts.into_iter().take(OUTSIDE);
    let read = |host: v1::OutsideHost| OutsideReport {
        host: text(host.host, 253),
        port: u16::try_from(host.port).unwrap_or_default(),
        label: text(host.label, 63),
        allowed: host.allowed,
        refused: host.refused,
    };
    hosts.map(read).collect()
}

/// A proxy reports its own certificate only; another identity than the connection's is nonsense.
pub(super) fn certificate(proxy: &str, identity: &SpiffeId, state: v1::CertificateState) -> Option<CertificateReport> {
    (state.identity == identity.as_str()).then(|| CertificateReport {
        proxy: proxy.to_owned(),
        identity: identity.clone(),
        serial: text(state.serial, 64),
        not_before: state.not_before,
        not_after: state.not_after,
        rotates_at: state.rotates_at,
        failures: state.failures,
    })
}
