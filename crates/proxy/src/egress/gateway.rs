//! Hosts outside that an egress gateway calls for this proxy, over mutual TLS.
//!
//! The host stays an upstream of its own here, with its limits; its endpoints are the gateways, each connection says which host it
//! is for, and the gateway retries, begins TLS and opens the breaker.

use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use hms_model::listener::Role;
use hms_model::names::{EGRESS, SYSTEM_NAMESPACE, ServiceName};
use hms_model::policy::TrafficPolicy;
use hms_model::policy::egress::{EgressHost, Through};
use hms_model::policy::retry::{RetryOn, Toggle};

use super::{HOLDS, Listed, Place, Way, policy, state};
use crate::pipeline;
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::{Beyond, Upstream};
use crate::worker::Worker;

/// By how much the gateway gives up sooner than we do.
const SOONER: Duration = Duration::from_secs(1);

/// The egress gateways, if calls leave through them; they themselves do not.
pub(super) async fn of(worker: &Rc<Worker>, runtime: &Runtime) -> Result<Option<Arc<Upstream>>, Refusal> {
    let through = runtime.snapshot.egress.through;
    if through == Through::Sidecar || worker.shared.settings.role == Role::Egress {
        return Ok(None);
    }
    let Some(name) = name() else {
        return Err(Refusal::new(Reason::NoConfiguration, "an egress gateway has no name"));
    };
    match pipeline::details(worker, runtime, name).await {
        Ok(found) if !found.endpoints.is_empty() => Ok(Some(found)),
        Err(refusal) if refusal.reason != Reason::NoService => Err(refusal),
        _none => {
            let sentence =
                "calls leave through an egress gateway (`egress: {through: gateway}`), and none is registered";
            Err(Refusal::new(Reason::NoEndpoint, sentence).after(SOONER))
        }
    }
}

/// The service that every egress gateway is; always there.
pub fn name() -> Option<&'static ServiceName> {
    static NAME: LazyLock<Option<ServiceName>> =
        LazyLock::new(|| ServiceName::in_namespace(SYSTEM_NAMESPACE, EGRESS).ok());
    NAME.as_ref()
}

/// A host as it is called through `gateway`.
pub(super) fn leads_to(gateway: &Arc<Upstream>, place: Place, listed: Listed<'_>) -> Result<Way, Refusal> {
    let listed = listed.map(|(_, host)| host);
    let endpoints = gateway.endpoints.iter().map(|own| (own.endpoint.id.clone(), own.endpoint.clone())).collect();
    let mut state = state(place.service()?, &place, patient(listed), endpoints);
    state.service.sni.clone_from(&gateway.service.sni);
    let beyond = Beyond {
        gateway: gateway.service.name.clone(),
        host: place.host.as_str().into(),
        originates_tls: listed.is_some_and(|host| host.tls.is_some()),
        has_tls: false,
    };
    Ok(Way { place, state, origin: None, beyond: Some(beyond), gateway: Some(Arc::clone(gateway)), holds: HOLDS.1 })
}

/// The gateway keeps the host's times and tries again; here times only bound the gateway, and a gateway that cannot be reached is
/// replaced by another.
fn patient(listed: Option<&EgressHost>) -> TrafficPolicy {
    let mut policy = policy(listed);
    policy.retry.retries = policy.retry.retries.max(1);
    policy.retry.on = RetryOn { status_5xx: false, reset: false, timeout: Toggle::Off };
    policy.timeouts.attempt = None;
    policy.timeouts.request = policy.timeouts.request.map(|limit| limit.saturating_add(SOONER));
    policy
}
