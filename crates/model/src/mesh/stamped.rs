//! What is left of a mesh when stamps are off.

use super::Mesh;
use crate::policy::stamps::{Stamp, Stamps};

/// Takes away what is switched off.
pub(super) fn apply(mesh: &mut Mesh, stamps: &Stamps) {
    for stamp in &stamps.off {
        match stamp {
            Stamp::Jwt => mesh.gateway.is_open = true,
            Stamp::RateLimit => {
                let rules = mesh.services.values_mut().filter_map(|state| state.route.as_mut());
                rules.flat_map(|route| &mut route.rules).for_each(|rule| rule.rate_limit = None);
            }
            Stamp::Retry => {
                for state in mesh.services.values_mut() {
                    state.service.policy.retry.retries = 0;
                    let rules = state.service.http.iter_mut().flat_map(|route| &mut route.rules);
                    rules.for_each(|rule| rule.retry = None);
                }
                let rules = mesh.gateway.routes.iter_mut().flat_map(|route| &mut route.rules);
                rules.for_each(|rule| rule.retry = None);
                for host in mesh.egress.hosts.values_mut() {
                    host.overlay.retry.get_or_insert_default().retries = 0;
                }
            }
            Stamp::Tracing => {
                mesh.telemetry.sample_per_million = 0;
                mesh.telemetry.in_json_body = false;
            }
        }
    }
}
