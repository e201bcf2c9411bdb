//! Whether the mesh takes an object.

use hms_model::http_route::{HttpRoute, Parent};
use hms_model::mesh::Mesh;
use hms_model::names::ServiceName;
use hms_model::resource::Resource;

use super::{Fault, Reason};
use crate::inert::answers_for;

/// Whether anything takes the object, and what does not.
pub(super) fn judge(mesh: &Mesh, resource: &Resource) -> Result<String, Fault> {
    match resource {
        Resource::HttpRoute(route) => led(mesh, route),
        Resource::Split(split) => declared(mesh, &split.service),
        Resource::Route(route) => declared(mesh, &route.service),
        _ => Ok("it holds".to_owned()),
    }
}

/// The services it is about.
pub(super) fn parents(resource: &Resource) -> Vec<&ServiceName> {
    match resource {
        Resource::HttpRoute(route) => route.parents.iter().filter_map(Parent::service).collect(),
        Resource::Split(split) => vec![&split.service],
        Resource::Route(route) => vec![&route.service],
        _ => Vec::new(),
    }
}

fn declared(mesh: &Mesh, service: &ServiceName) -> Result<String, Fault> {
    if mesh.services.contains_key(service) {
        return Ok(format!("`{service}` takes it"));
    }
    Err((Reason::NoMatchingParent, format!("there is no service `{service}`")))
}

/// A route is taken if one of those that it is about takes it.
fn led(mesh: &Mesh, route: &HttpRoute) -> Result<String, Fault> {
    let all: Vec<Result<String, Fault>> = route.parents.iter().map(|parent| by(mesh, route, parent)).collect();
    let faults: Vec<&Fault> = all.iter().filter_map(|one| one.as_ref().err()).collect();
    let words: Vec<&str> = faults.iter().map(|(_, words)| words.as_str()).collect();
    match (faults.first(), all.len() - faults.len()) {
        (None, 0) => Err((Reason::NoMatchingParent, "it is about nobody's requests".to_owned())),
        (None, _) => {
            let names: Vec<&str> = all.iter().filter_map(|one| one.as_deref().ok()).collect();
            Ok(format!("{} {} it", names.join(" and "), if names.len() == 1 { "takes" } else { "take" }))
        }
        (Some((reason, _)), 0) => Err((*reason, words.join("; "))),
        (Some(_), taken) => Ok(format!("{taken} of {} parents take it: {}", all.len(), words.join("; "))),
    }
}

/// Whether one parent takes a route: its name, or why not.
fn by(mesh: &Mesh, route: &HttpRoute, parent: &Parent) -> Result<String, Fault> {
    let (has, name) = match parent {
        Parent::Gateway => {
            if !answers_for(&mesh.gateway.hosts, &route.hosts) {
                let hosts = route.hosts.join(", ");
                let words = format!("the gateway answers for none of {hosts}");
                return Err((Reason::NoMatchingListenerHostname, words));
            }
            (&mesh.gateway.routes, "the gateway".to_owned())
        }
        Parent::Service { service, port } => {
            let Some(state) = mesh.services.get(service) else {
                return Err((Reason::NoMatchingParent, format!("there is no service `{service}`")));
            };
            if let Some(port) = port.filter(|port| !state.service.ports.iter().any(|own| own.number == *port)) {
                return Err((Reason::NoMatchingParent, format!("`{service}` has no port {port}")));
            }
            (&state.service.http, format!("`{service}`"))
        }
    };
    if has.iter().any(|own| own.name == route.name) {
        return Ok(name);
    }
    Err((Reason::UnsupportedValue, format!("{name} has as many routes as it may have")))
}
