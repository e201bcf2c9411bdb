//! What is left when stamps are off.

use super::ServiceState;
use crate::http_route::HttpRoute;
use crate::policy::stamps::{Stamp, Stamps};
use crate::policy::{Egress, Telemetry};
use crate::resource::Gateway;

/// Takes away from a service what is switched off.
pub(super) fn service(stamps: &Stamps, state: &mut ServiceState) {
    for stamp in &stamps.off {
        match stamp {
            Stamp::RateLimit => {
                let rules = state.route.as_mut().into_iter().flat_map(|route| &mut route.rules);
                rules.for_each(|rule| rule.rate_limit = None);
            }
            Stamp::Retry => {
                state.service.policy.retry.retries = 0;
                without_retries(&mut state.service.http);
            }
            Stamp::Jwt | Stamp::Tracing => {}
        }
    }
}

/// Takes away from the gateway what is switched off.
pub(super) fn gateway(stamps: &Stamps, gateway: &mut Gateway) {
    for stamp in &stamps.off {
        match stamp {
            Stamp::Jwt => gateway.is_open = true,
            Stamp::Retry => without_retries(&mut gateway.routes),
            Stamp::RateLimit | Stamp::Tracing => {}
        }
    }
}

/// Takes away from calls to the outside what is switched off.
pub(super) fn egress(stamps: &Stamps, egress: &mut Egress) {
    if stamps.off.contains(&Stamp::Retry) {
        egress.hosts.values_mut().for_each(|host| host.overlay.retry.get_or_insert_default().retries = 0);
    }
}

/// Takes away from what proxies tell what is switched off.
pub(super) fn telemetry(stamps: &Stamps, telemetry: &mut Telemetry) {
    if stamps.off.contains(&Stamp::Tracing) {
        telemetry.sample_per_million = 0;
        telemetry.in_json_body = false;
    }
}

fn without_retries(routes: &mut [HttpRoute]) {
    routes.iter_mut().flat_map(|route| &mut route.rules).for_each(|rule| rule.retry = None);
}
