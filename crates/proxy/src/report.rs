//! What this proxy tells the control plane of itself: breakers, flows, its certificate.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::listener::Direction;
use hms_model::names::ServiceName;
use hms_model::workload::Health;
use hms_traffic::breaker::ServiceBreaker;
use hms_traffic::clock::Moment;
use hms_traffic::outlier::Phase;
use hms_wire::Wire as _;
use hms_wire::proto::hms::v1::{BreakerPhase, BreakerState, CertificateState, EndpointState, Flow};

use crate::certificate::Plan;
use crate::endpoint::why_unusable;
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::telemetry::metrics::{Counts, Labels, Rescues};
use crate::worker::Shared;

/// How one service's breaker stands, as seen from here.
pub fn breaker(upstream: &Upstream, now: Moment) -> BreakerState {
    let endpoints: Vec<EndpointState> = upstream.endpoints.iter().map(|e| endpoint(e, now)).collect();
    let unusable = upstream.endpoints.iter().filter(|e| !is_usable(e, now));
    let reasons: Vec<String> = unusable.map(|e| why_unusable(e, now)).collect();
    let (phase, until) = match upstream.breaker(now) {
        ServiceBreaker::Closed => (BreakerPhase::Closed, None),
        ServiceBreaker::HalfOpen => (BreakerPhase::HalfOpen, None),
        ServiceBreaker::Open { until } => (BreakerPhase::Open, until.or_else(|| soonest(upstream, now))),
    };
    let reason = if upstream.endpoints.is_empty() { "no endpoint".to_owned() } else { reasons.join(", ") };
    BreakerState {
        service: Some(upstream.service.name.to_wire()),
        phase: phase.into(),
        reason: if phase == BreakerPhase::Closed { String::new() } else { reason },
        next_probe_ms: until.map_or(0, |until| millis(until.saturating_since(now))),
        endpoints,
    }
}

/// 0 closed, 1 half-open, 2 open: what `hms_breaker_state` shows.
pub fn breaker_value(breaker: ServiceBreaker) -> f64 {
    match breaker {
        ServiceBreaker::Closed => 0.0,
        ServiceBreaker::HalfOpen => 1.0,
        ServiceBreaker::Open { .. } => 2.0,
    }
}

fn is_usable(endpoint: &UpstreamEndpoint, now: Moment) -> bool {
    endpoint.endpoint.health == Health::Healthy && endpoint.cells.health.phase(now) == Phase::Closed
}

fn soonest(upstream: &Upstream, now: Moment) -> Option<Moment> {
    let until = |endpoint: &Arc<UpstreamEndpoint>| match endpoint.cells.health.phase(now) {
        Phase::Open { until } => Some(until),
        Phase::Closed | Phase::HalfOpen => None,
    };
    upstream.endpoints.iter().filter_map(until).min()
}

fn endpoint(endpoint: &UpstreamEndpoint, now: Moment) -> EndpointState {
    let (phase, next_probe_ms) = match endpoint.cells.health.phase(now) {
        Phase::Closed if is_usable(endpoint, now) => (BreakerPhase::Closed, 0),
        Phase::Closed => (BreakerPhase::Open, 0),
        Phase::HalfOpen => (BreakerPhase::HalfOpen, 0),
        Phase::Open { until } => (BreakerPhase::Open, millis(until.saturating_since(now))),
    };
    EndpointState {
        id: endpoint.endpoint.id.clone(),
        address: endpoint.address.to_string(),
        phase: phase.into(),
        reason: if is_usable(endpoint, now) { String::new() } else { why_unusable(endpoint, now) },
        consecutive_failures: endpoint.cells.health.consecutive(),
        next_probe_ms,
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// What is known of our certificate; `None` before the first.
pub fn certificate(shared: &Shared, plan: Plan) -> Option<CertificateState> {
    let own = shared.holder.current()?;
    let unix = |time: SystemTime| {
        let seconds = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        i64::try_from(seconds).unwrap_or(i64::MAX)
    };
    Some(CertificateState {
        identity: own.svid.identity().to_string(),
        serial: own.svid.serial().to_owned(),
        not_before: unix(own.svid.not_before()),
        not_after: unix(own.svid.not_after()),
        rotates_at: unix(plan.rotates_at.unwrap_or_else(|| own.svid.not_after())),
        failures: plan.failures,
    })
}

/// What was counted since the last call, per service called and version.
#[derive(Debug, Default)]
pub struct Flows {
    counts: BTreeMap<Labels, Counts>,
    retries: BTreeMap<Arc<str>, u64>,
    rescues: Rescues,
}

impl Flows {
    /// The difference since the last call. Callers report; a called proxy reports only callers that are no proxies, of which
    /// there are none inside the mesh.
    pub fn since(&mut self, shared: &Shared) -> Vec<Flow> {
        let (counts, retries) = (shared.registry.counts(), shared.registry.retries());
        let mut flows = ByVersion::new();
        for (labels, now) in counts.iter().filter(|(labels, _)| labels.direction == Direction::Outbound) {
            let before = self.counts.get(labels).copied().unwrap_or_default();
            if now.requests == before.requests {
                continue;
            }
            let key = (Arc::clone(&labels.service), labels.destination.version.clone());
            let Some(flow) = entry(&mut flows, key, labels, shared) else { continue };
            let requests = now.requests - before.requests;
            flow.requests += requests;
            flow.failures += if labels.status >= 500 { requests } else { 0 };
            flow.mtls &= labels.mutual_tls || labels.flag != "-";
            add_latency(flow, &before, now, requests);
        }
        for (service, now) in &retries {
            let new = now - self.retries.get(service).copied().unwrap_or_default();
            if new > 0 {
                retried(&mut flows, service, shared).retries += new;
            }
        }
        let rescues = shared.registry.rescues();
        for (key, now) in &rescues {
            let new = now - self.rescues.get(key).copied().unwrap_or_default();
            if new > 0 {
                flows.entry(key.clone()).or_insert_with(|| flow(&key.0, &key.1, shared)).rescued += new;
            }
        }
        (self.counts, self.retries, self.rescues) = (counts, retries, rescues);
        flows.into_values().collect()
    }
}

/// Flows by service called and its version.
type ByVersion = BTreeMap<(Arc<str>, String), Flow>;

fn entry<'a>(
    flows: &'a mut ByVersion,
    key: (Arc<str>, String),
    labels: &Labels,
    shared: &Shared,
) -> Option<&'a mut Flow> {
    let _named = ServiceName::from_host(&labels.service, "default").ok()?;
    let version = &labels.destination.version;
    Some(flows.entry(key).or_insert_with(|| flow(&labels.service, version, shared)))
}

/// A flow to this service, a new one if no request to it ended since the last report.
fn retried<'a>(flows: &'a mut ByVersion, service: &Arc<str>, shared: &Shared) -> &'a mut Flow {
    let key =
        flows.keys().find(|(own, _)| own == service).cloned().unwrap_or_else(|| (Arc::clone(service), String::new()));
    flows.entry(key).or_insert_with(|| flow(service, "", shared))
}

/// One of which nothing was counted yet.
fn flow(service: &str, version: &str, shared: &Shared) -> Flow {
    Flow {
        source: shared.settings.service.to_string(),
        destination: ServiceName::from_host(service, "default").ok().map(|name| name.to_wire()),
        version: version.to_owned(),
        latency: vec![0; now_buckets()],
        mtls: true,
        ..Flow::default()
    }
}

fn now_buckets() -> usize {
    crate::telemetry::metrics::BUCKETS.len() + 1
}

fn add_latency(flow: &mut Flow, before: &Counts, now: &Counts, requests: u64) {
    let mut counted = 0;
    for ((sum, now), before) in flow.latency.iter_mut().zip(&now.buckets).zip(&before.buckets) {
        *sum += now - before;
        counted += now - before;
    }
    if let Some(slowest) = flow.latency.last_mut() {
        *slowest += requests.saturating_sub(counted);
    }
}
