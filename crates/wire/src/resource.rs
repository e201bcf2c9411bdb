//! A resource of any kind, as it is stored and sent.

use hms_model::http_route::HttpRoute;
use hms_model::policy::{Egress, Stamps};
use hms_model::resource::{Declaration, Defaults, Gateway, Resource};
use hms_model::route::Route;
use hms_model::service::{Entry, Service};
use hms_model::split::Split;
use hms_model::trust::TrustBundle;
use hms_model::workload::Endpoint;
use prost::Message as _;

use crate::proto::hms::v1::{self, resource::Kind};
use crate::{RESOURCE_BYTES, Wire as _, WireError};

/// The type URL under which every resource travels.
pub const TYPE_URL: &str = "type.googleapis.com/hms.v1.Resource";

/// The contracts of `api/proto` as a `google.protobuf.FileDescriptorSet`, for whoever shows a resource field by field.
pub const DESCRIPTORS: &[u8] = include_bytes!("gen/descriptors.bin");

/// What this release can apply. It rises when a field is added that an older release must not overlook.
pub const LEVEL: u32 = 3;

/// The bytes of a resource; equal resources have equal bytes.
pub fn encode(resource: &Resource) -> Vec<u8> {
    let kind = match resource {
        Resource::Trust(trust) => Kind::Trust(trust.to_wire()),
        Resource::Defaults(defaults) => Kind::Defaults(defaults.to_wire()),
        Resource::Declaration(declaration) => Kind::Declaration(declaration.to_wire()),
        Resource::Entry(entry) => Kind::Entry(entry.to_wire()),
        Resource::Service(service) => Kind::Service(service.to_wire()),
        Resource::Endpoint(endpoint) => Kind::Endpoint(endpoint.to_wire()),
        Resource::Route(route) => Kind::Route(route.to_wire()),
        Resource::Gateway(gateway) => Kind::Gateway(gateway.to_wire()),
        Resource::Egress(egress) => Kind::Egress(egress.to_wire()),
        Resource::Split(split) => Kind::Split(split.to_wire()),
        Resource::HttpRoute(route) => Kind::HttpRoute(route.to_wire()),
        Resource::Stamps(stamps) => Kind::Stamps(stamps.to_wire()),
    };
    v1::Resource { requires: requires(&kind), kind: Some(kind) }.encode_to_vec()
}

/// The level a proxy must have to apply this, computed from the fields used: a later field that is present means its level,
/// absent means that older proxies may go on.
fn requires(kind: &Kind) -> u32 {
    match kind {
        // Who overlooks it lets calls out past the gateway.
        Kind::Egress(egress) if egress.through_gateway => 2,
        // Who overlooks them sends requests where they shall not go.
        Kind::Service(service) if !service.http.is_empty() => 3,
        Kind::Gateway(gateway) if !gateway.routes.is_empty() => 3,
        // Who overlooks it calls versions that shall not be called.
        Kind::Service(service) if !service.split.is_empty() => 2,
        _ => 1,
    }
}

/// Reads a resource. The level comes first: of a resource made for a newer release nothing else is believed.
pub fn decode(bytes: &[u8]) -> Result<Resource, WireError> {
    if bytes.len() > RESOURCE_BYTES {
        return Err(WireError::TooLarge { length: bytes.len(), limit: RESOURCE_BYTES });
    }
    let v1::Resource { requires, kind } = v1::Resource::decode(bytes)?;
    match requires {
        0 => return Err(WireError::Missing("requires")),
        1..=LEVEL => {}
        _ => return Err(WireError::Level { requires }),
    }
    Ok(match kind.ok_or(WireError::Kind)? {
        Kind::Trust(message) => Resource::Trust(TrustBundle::from_wire(message)?),
        Kind::Defaults(message) => Resource::Defaults(Defaults::from_wire(message)?),
        Kind::Declaration(message) => Resource::Declaration(Declaration::from_wire(message)?),
        Kind::Entry(message) => Resource::Entry(Entry::from_wire(message)?),
        Kind::Service(message) => Resource::Service(Service::from_wire(message)?),
        Kind::Endpoint(message) => Resource::Endpoint(Endpoint::from_wire(message)?),
        Kind::Route(message) => Resource::Route(Route::from_wire(message)?),
        Kind::Gateway(message) => Resource::Gateway(Gateway::from_wire(message)?),
        Kind::Egress(message) => Resource::Egress(Egress::from_wire(message)?),
        Kind::Split(message) => Resource::Split(Split::from_wire(message)?),
        Kind::HttpRoute(message) => Resource::HttpRoute(HttpRoute::from_wire(message)?),
        Kind::Stamps(message) => Resource::Stamps(Stamps::from_wire(message)?),
    })
}
