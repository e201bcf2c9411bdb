//! Istio's `VirtualService`, `DestinationRule` and `ServiceEntry` (networking.istio.io), as far as a mesh of another make says the same.
//!
//! Istio tries the rules of a `VirtualService` one after the other; here the most particular one wins wherever it stands. Where that
//! would make a difference, it is an error.

mod actions;
mod destination;
mod destination_rule;
mod matches;
mod resilience;
mod service_entry;
mod virtual_service;

use std::collections::BTreeMap;

use hms_model::names::ServiceName;

pub(crate) use self::destination_rule::read as destination_rule;
pub(crate) use self::service_entry::{
    Outside, hosts as outside_hosts, read as service_entry, rule as outside_rule, stem,
};
pub(crate) use self::virtual_service::read as virtual_service;

use crate::objects::object::Object;
use crate::read::{Field, Reader};

/// Which version a subset of a service is.
pub(crate) type Subsets = BTreeMap<(ServiceName, String), String>;

/// The service that a host means, if it is one of the mesh: `reviews`, `reviews.prod.svc.cluster.local`.
fn service_of(object: &Object<'_>, host: &str) -> Option<ServiceName> {
    let is_ours = !host.contains('.') || [".svc.cluster.local", ".svc", ".mesh"].iter().any(|end| host.ends_with(end));
    if is_ours { ServiceName::from_host(host, object.namespace).ok() } else { None }
}

/// The same, where nothing else is meant.
fn service(reader: &mut Reader<'_>, object: &Object<'_>, field: &Field<'_>) -> Option<ServiceName> {
    let text = reader.line(field, "the host name of a service", 253)?;
    let service = service_of(object, text);
    if service.is_none() {
        let why = "it is a name in the namespace of the object, or NAME.NAMESPACE.svc.cluster.local; hosts outside are `egress:` of mesh.yaml";
        reader.bad(field, "the host name of a service", why, "write for example reviews.prod.svc.cluster.local");
    }
    service
}
