//! Who is led by which routes.

use super::Mesh;
use crate::finding::Finding;
use crate::http_route::{Backend, HttpRoute, MOST_ROUTES, Parent};
use crate::workload::Health;

/// Hands every route to those it speaks of. What leads nowhere stays, marked, so that its part of the requests is refused and not
/// silently somebody else's.
pub(super) fn lead(mesh: &mut Mesh, mut routes: Vec<HttpRoute>, findings: &mut Vec<Finding>) {
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    for route in &mut routes {
        for rule in &mut route.rules {
            let backends = rule.backends.iter_mut().filter(|backend| backend.share.weight > 0);
            for backend in backends {
                findings.extend(check(mesh, backend).map(|finding| match rule.origin.as_str() {
                    "" => finding.because(format!("the route `{}` says so", route.name)),
                    origin => finding.because(format!("{origin} says so")),
                }));
            }
        }
        for parent in &route.parents {
            findings.extend(attach(mesh, parent, route));
        }
    }
}

/// Whether a backend can be called.
fn check(mesh: &Mesh, backend: &mut Backend) -> Option<Finding> {
    let share = &backend.share;
    if backend.refused.is_some() {
        return None;
    }
    let Some(state) = mesh.services.get(&share.service) else {
        let message = format!("requests are led to `{}`, which does not exist", share.service);
        backend.refused = Some(format!("{} does not exist", share.service));
        return Some(
            Finding::warning(2105, message).fix("its part of the requests is answered with 500 until it does"),
        );
    };
    let meant = |version: &str| share.version.is_empty() || share.version == version;
    let mut endpoints = state.endpoints.values();
    if endpoints.any(|own| own.health == Health::Healthy && meant(&own.version)) {
        return None;
    }
    let version = if share.version.is_empty() { String::new() } else { format!(" {}", share.version) };
    let message = format!("requests are led to `{}{version}`, which has no healthy endpoint", share.service);
    Some(Finding::warning(2107, message))
}

/// Gives a route to one it speaks of.
fn attach(mesh: &mut Mesh, parent: &Parent, route: &HttpRoute) -> Option<Finding> {
    let (led, whom) = match parent {
        Parent::Gateway => (&mut mesh.gateway.routes, "the gateway".to_owned()),
        Parent::Service { service, .. } => match mesh.services.get_mut(service) {
            Some(state) => (&mut state.service.http, format!("`{service}`")),
            None => {
                let message = format!("the route `{}` is about `{service}`, which does not exist", route.name);
                return Some(Finding::warning(2107, message).because("it changes nothing"));
            }
        },
    };
    // By several ports of the same service it is the same route.
    if led.last().is_some_and(|last| last.name == route.name) {
        return None;
    }
    if led.len() >= MOST_ROUTES {
        let message = format!("the route `{}` is one too many about {whom}", route.name);
        return Some(Finding::error(2112, message).because(format!("there are at most {MOST_ROUTES}")));
    }
    led.push(route.clone());
    None
}
