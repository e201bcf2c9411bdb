//! Endpoints.

use std::net::IpAddr;

use hms_model::names::ServiceName;
use hms_model::resource::valid_id;
use hms_model::spiffe::SpiffeId;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};

use crate::bounds::{WORD_BYTES, number, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

impl Wire for Endpoint {
    type Message = v1::Endpoint;

    fn to_wire(&self) -> v1::Endpoint {
        let Self { service, id, address, app_port, version, zone, health, source, transport } = self;
        let Address { ip, port } = address;
        let identity = match transport {
            Transport::Mesh(identity) => identity.to_wire(),
            Transport::Plain => String::new(),
        };
        v1::Endpoint {
            service: Some(service.to_wire()),
            id: id.clone(),
            ip: ip.to_string(),
            port: u32::from(*port),
            app_port: u32::from(*app_port),
            version: version.clone(),
            zone: zone.clone(),
            health: health.to_wire(),
            source: source.to_wire(),
            identity,
        }
    }

    fn from_wire(message: v1::Endpoint) -> Result<Self, WireError> {
        let v1::Endpoint { service, id, ip, port, app_port, version, zone, health, source, identity } = message;
        if !valid_id(&id) {
            return Err(WireError::field("endpoint.id", &format!("`{}` is no id", id.escape_debug())));
        }
        let ip: IpAddr = ip.parse().map_err(|error| WireError::field("endpoint.ip", &error))?;
        let source = Registrar::from_wire(source)?;
        Ok(Self {
            service: ServiceName::from_wire(required(service, "endpoint.service")?)?,
            id,
            address: Address { ip, port: number(port, "endpoint.port", 1..=65_535)? },
            app_port: number(app_port, "endpoint.app_port", 0..=65_535)?,
            version: text(version, "endpoint.version", 1..=WORD_BYTES)?,
            zone: text(zone, "endpoint.zone", 0..=WORD_BYTES)?,
            health: Health::from_wire(health)?,
            transport: transport(identity, source)?,
            source,
        })
    }
}

/// Where a sidecar registered the endpoint there is a proxy with an identity. Without this rule a lost field would turn
/// mutual TLS into plain text.
fn transport(identity: String, source: Registrar) -> Result<Transport, WireError> {
    match (identity.is_empty(), source) {
        (false, _) => SpiffeId::from_wire(identity).map(Transport::Mesh),
        (true, Registrar::Api) => Ok(Transport::Plain),
        (true, Registrar::Sidecar) => Err(WireError::Missing("endpoint.identity")),
    }
}

impl Wire for Health {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        match self {
            Self::Healthy => v1::Health::Healthy.into(),
            Self::Unhealthy => v1::Health::Unhealthy.into(),
            Self::Draining => v1::Health::Draining.into(),
        }
    }

    fn from_wire(message: i32) -> Result<Self, WireError> {
        match v1::Health::try_from(message).map_err(|error| WireError::field("health", &error))? {
            v1::Health::Healthy => Ok(Self::Healthy),
            v1::Health::Unhealthy => Ok(Self::Unhealthy),
            v1::Health::Draining => Ok(Self::Draining),
        }
    }
}

impl Wire for Registrar {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        match self {
            Self::Sidecar => v1::Registrar::Sidecar.into(),
            Self::Api => v1::Registrar::Api.into(),
        }
    }

    fn from_wire(message: i32) -> Result<Self, WireError> {
        match v1::Registrar::try_from(message).map_err(|error| WireError::field("source", &error))? {
            v1::Registrar::Sidecar => Ok(Self::Sidecar),
            v1::Registrar::Api => Ok(Self::Api),
        }
    }
}
