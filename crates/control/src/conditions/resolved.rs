//! Whether everything that an object refers to is there.

use hms_model::http_route::{Backend, HttpRoute};
use hms_model::mesh::Mesh;
use hms_model::names::ServiceName;
use hms_model::resource::Resource;

use super::{Fault, Reason};

/// Faults that are named.
const NAMED: usize = 5;

/// Whether all references lead somewhere.
pub(super) fn judge(mesh: &Mesh, resource: &Resource) -> Result<String, Fault> {
    let mut faults: Vec<Fault> = match resource {
        Resource::HttpRoute(route) => backends_of(route).filter_map(refused).collect(),
        _ => Vec::new(),
    };
    let missing = |service: &&ServiceName| !mesh.services.contains_key(*service);
    let not_there = |service| (Reason::BackendNotFound, format!("there is no service `{service}`"));
    faults.extend(backends(resource).into_iter().filter(missing).map(not_there));
    let Some((reason, _)) = faults.first() else { return Ok("everything it refers to is there".to_owned()) };
    let reason = *reason;
    let mut words: Vec<String> = faults.into_iter().map(|(_, words)| words).collect();
    words.dedup();
    let more = words.len().saturating_sub(NAMED);
    words.truncate(NAMED);
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    Err((reason, words.join("; ")))
}

/// The services to which it may lead; some may stand twice.
pub(super) fn backends(resource: &Resource) -> Vec<&ServiceName> {
    match resource {
        Resource::HttpRoute(route) => route.services().collect(),
        Resource::Split(split) => split.shares.iter().map(|share| &share.service).collect(),
        _ => Vec::new(),
    }
}

fn backends_of(route: &HttpRoute) -> impl Iterator<Item = &Backend> {
    route.rules.iter().flat_map(|rule| &rule.backends)
}

/// Why a reference may not be followed, as it was found when the route was read.
fn refused(backend: &Backend) -> Option<Fault> {
    let why = backend.refused.as_ref()?;
    let reason = if why.ends_with("is no service") { Reason::InvalidKind } else { Reason::RefNotPermitted };
    Some((reason, why.clone()))
}
