//! Who is led by which routes.

use super::Mesh;
use super::index::Index;
use crate::finding::Finding;
use crate::http_route::{Backend, HttpRoute, MOST_ROUTES};
use crate::names::ServiceName;

/// A route as it is sent. What leads nowhere stays, marked, so that its part of the requests is refused and not silently somebody
/// else's.
pub(super) fn resolved(route: &HttpRoute, exists: impl Fn(&ServiceName) -> bool) -> HttpRoute {
    let mut route = route.clone();
    let backends = route.rules.iter_mut().flat_map(|rule| &mut rule.backends);
    for backend in backends.filter(|backend| is_unknown(backend, &exists)) {
        backend.refused = Some(format!("{} does not exist", backend.share.service));
    }
    route
}

fn is_unknown(backend: &Backend, exists: impl Fn(&ServiceName) -> bool) -> bool {
    backend.share.weight > 0 && backend.refused.is_none() && !exists(&backend.share.service)
}

/// What people should know of where a route leads.
pub(super) fn findings(mesh: &Mesh, route: &HttpRoute) -> Vec<Finding> {
    let mut found = Vec::new();
    for rule in &route.rules {
        let backends = rule.backends.iter().filter(|backend| backend.share.weight > 0 && backend.refused.is_none());
        let checked = backends.filter_map(|backend| check(mesh, backend));
        found.extend(checked.map(|finding| match rule.origin.as_str() {
            "" => finding.because(format!("the route `{}` says so", route.name)),
            origin => finding.because(format!("{origin} says so")),
        }));
    }
    found
}

/// What is to be said of a backend.
fn check(mesh: &Mesh, backend: &Backend) -> Option<Finding> {
    let share = &backend.share;
    let Some(state) = mesh.services.get(&share.service) else {
        let message = format!("requests are led to `{}`, which does not exist", share.service);
        let finding = Finding::warning(2105, message);
        return Some(finding.fix("its part of the requests is answered with 500 until it does"));
    };
    if state.serves(&share.version) {
        return None;
    }
    let version = if share.version.is_empty() { String::new() } else { format!(" {}", share.version) };
    let message = format!("requests are led to `{}{version}`, which has no healthy endpoint", share.service);
    Some(Finding::warning(2107, message))
}

/// What people should know of routes that hold for nobody: those beyond the bound, and all about a service that does not exist.
pub(super) fn inert(mesh: &Mesh, index: &Index, subject: Option<&ServiceName>) -> Vec<Finding> {
    let routes = index.about(subject);
    if let Some(service) = subject.filter(|service| !mesh.services.contains_key(service)) {
        let about = |route: &ServiceName| {
            let message = format!("the route `{route}` is about `{service}`, which does not exist");
            Finding::warning(2107, message).because("it changes nothing")
        };
        return routes.map(about).collect();
    }
    let whom = subject.map_or_else(|| "the gateway".to_owned(), |service| format!("`{service}`"));
    let beyond = |route: &ServiceName| {
        let message = format!("the route `{route}` is one too many about {whom}");
        Finding::error(2112, message).because(format!("there are at most {MOST_ROUTES}"))
    };
    routes.skip(MOST_ROUTES).map(beyond).collect()
}
