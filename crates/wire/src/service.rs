//! Services: their names, how they were declared, and how every proxy sees them.

use hms_model::http_route::{HttpRoute, MOST_ROUTES};
use hms_model::names::ServiceName;
use hms_model::policy::{AuthorizationPolicy, TrafficPolicy};
use hms_model::port::AppProtocol;
use hms_model::resource::{Declaration, Overlay};
use hms_model::service::Service;
use hms_model::spiffe::SpiffeId;

use crate::bounds::{each, host, required};
use crate::proto::hms::v1;
use crate::{Wire, WireError, port, split};

const IDENTITIES: usize = 256;

impl Wire for ServiceName {
    type Message = v1::ServiceName;

    fn to_wire(&self) -> v1::ServiceName {
        v1::ServiceName { namespace: self.namespace().to_owned(), name: self.name().to_owned() }
    }

    fn from_wire(message: v1::ServiceName) -> Result<Self, WireError> {
        Self::in_namespace(&message.namespace, &message.name).map_err(|error| WireError::field("service name", &error))
    }
}

impl Wire for SpiffeId {
    type Message = String;

    fn to_wire(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_wire(message: String) -> Result<Self, WireError> {
        Self::parse(&message).map_err(|error| WireError::field("identity", &error))
    }
}

impl Wire for Declaration {
    type Message = v1::Declaration;

    fn to_wire(&self) -> v1::Declaration {
        let Self { name, identities, overlay, authorization, protocol, ports } = self;
        v1::Declaration {
            name: Some(name.to_wire()),
            identities: identities.iter().map(Wire::to_wire).collect(),
            overlay: Some(overlay.to_wire()),
            authorization: authorization.as_ref().map(Wire::to_wire),
            protocol: protocol.to_wire(),
            ports: ports.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::Declaration) -> Result<Self, WireError> {
        let v1::Declaration { name, identities, overlay, authorization, protocol, ports } = message;
        Ok(Self {
            name: ServiceName::from_wire(required(name, "declaration.name")?)?,
            identities: each(identities, "declaration.identities", IDENTITIES, SpiffeId::from_wire)?,
            overlay: Overlay::from_wire(required(overlay, "declaration.overlay")?)?,
            authorization: authorization.map(AuthorizationPolicy::from_wire).transpose()?,
            protocol: AppProtocol::from_wire(protocol)?,
            ports: port::ports(ports, "declaration.ports")?,
        })
    }
}

impl Wire for Service {
    type Message = v1::Service;

    fn to_wire(&self) -> v1::Service {
        let Self { name, identities, sni, policy, authorization, ports, split, http } = self;
        v1::Service {
            name: Some(name.to_wire()),
            identities: identities.iter().map(Wire::to_wire).collect(),
            sni: sni.clone(),
            policy: Some(policy.to_wire()),
            authorization: Some(authorization.to_wire()),
            ports: ports.iter().map(Wire::to_wire).collect(),
            split: split.iter().map(Wire::to_wire).collect(),
            http: http.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::Service) -> Result<Self, WireError> {
        let v1::Service { name, identities, sni, policy, authorization, ports, split, http } = message;
        Ok(Self {
            name: ServiceName::from_wire(required(name, "service.name")?)?,
            identities: each(identities, "service.identities", IDENTITIES, SpiffeId::from_wire)?.into_iter().collect(),
            sni: host(sni, "service.sni")?,
            policy: TrafficPolicy::from_wire(required(policy, "service.policy")?)?,
            // An absent policy must not read as "everybody may call"; that is a present one without rules.
            authorization: AuthorizationPolicy::from_wire(required(authorization, "service.authorization")?)?,
            ports: port::ports(ports, "service.ports")?,
            split: split::shares(split, "service.split")?,
            http: each(http, "service.http", MOST_ROUTES, HttpRoute::from_wire)?,
        })
    }
}
