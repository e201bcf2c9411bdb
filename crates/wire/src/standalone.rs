//! What a proxy without a control plane runs by, as it stands in a file.

use std::net::{IpAddr, SocketAddr};

use hms_model::names::ServiceName;
use hms_model::policy::TrafficPolicy;
use hms_model::standalone::{
    Domain, Family, HostName, HostPort, HostRoute, PathMatch, Standalone, StaticListener, StaticProtocol,
    StaticService, StaticTarget, Take, TargetHost, VirtualHost,
};
use hms_model::workload::Health;
use prost::Message as _;

use crate::bounds::{ORIGIN_BYTES, WORD_BYTES, duration, each, host, micros, number, required, text};
use crate::proto::hms::v1::{self, host_route, static_target};
use crate::{LEVEL, Wire, WireError};

/// Largest file, in bytes.
pub const STANDALONE_BYTES: usize = 16 * 1024 * 1024;
const LISTENERS: usize = 1024;
const SERVICES: usize = 16 * 1024;
const HOSTS: usize = 16 * 1024;
const DOMAINS: usize = 16 * 1024;
const ROUTES: usize = 16 * 1024;
const TARGETS: usize = 1024;
const NAME_BYTES: usize = 256;
/// With a word before it, the name of a socket that is handed to a successor.
const LISTENER_BYTES: usize = 200;
const PATH_BYTES: usize = 16 * 1024;
/// First bytes of the file; a later format gets another number.
const MAGIC: &[u8; 8] = b"hmssnap1";

/// The bytes of the file.
pub fn encode_standalone(standalone: &Standalone) -> Vec<u8> {
    let mut file = MAGIC.to_vec();
    // A `Vec` grows as it must.
    if standalone.to_wire().encode(&mut file).is_err() {
        file.clear();
    }
    file
}

/// Reads such a file. Whatever is wrong anywhere, nothing of it is believed.
pub fn decode_standalone(bytes: &[u8]) -> Result<Standalone, WireError> {
    if bytes.len() > STANDALONE_BYTES {
        return Err(WireError::TooLarge { length: bytes.len(), limit: STANDALONE_BYTES });
    }
    let message = bytes.strip_prefix(MAGIC.as_slice()).ok_or(WireError::Kind)?;
    Standalone::from_wire(v1::Standalone::decode(message)?)
}

impl Wire for Standalone {
    type Message = v1::Standalone;

    fn to_wire(&self) -> v1::Standalone {
        let Self { admin, listeners, services } = self;
        v1::Standalone {
            requires: 1,
            admin: admin.map(|address| address.to_string()).unwrap_or_default(),
            listeners: listeners.iter().map(Wire::to_wire).collect(),
            services: services.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::Standalone) -> Result<Self, WireError> {
        let v1::Standalone { requires, admin, listeners, services } = message;
        match requires {
            0 => return Err(WireError::Missing("requires")),
            1..=LEVEL => {}
            _ => return Err(WireError::Level { requires }),
        }
        let standalone = Self {
            admin: (!admin.is_empty()).then(|| address(&admin, "standalone.admin")).transpose()?,
            listeners: each(listeners, "standalone.listeners", LISTENERS, StaticListener::from_wire)?,
            services: each(services, "standalone.services", SERVICES, StaticService::from_wire)?,
        };
        standalone.check().map_err(|why| WireError::field("standalone", &why))?;
        Ok(standalone)
    }
}

fn address(value: &str, field: &'static str) -> Result<SocketAddr, WireError> {
    value.parse().map_err(|error| WireError::field(field, &error))
}

impl Wire for StaticListener {
    type Message = v1::StaticListener;

    fn to_wire(&self) -> v1::StaticListener {
        let Self { name, address, host_port, hosts } = self;
        v1::StaticListener {
            name: name.clone(),
            address: address.to_string(),
            host_port: match host_port {
                HostPort::Kept => v1::HostPort::Kept.into(),
                HostPort::Ignored => v1::HostPort::Ignored.into(),
                HostPort::IgnoredIfOwn => v1::HostPort::IgnoredIfOwn.into(),
            },
            hosts: hosts.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::StaticListener) -> Result<Self, WireError> {
        let v1::StaticListener { name, address: at, host_port, hosts } = message;
        let host_port =
            v1::HostPort::try_from(host_port).map_err(|error| WireError::field("listener.host_port", &error))?;
        Ok(Self {
            name: text(name, "listener.name", 1..=LISTENER_BYTES)?,
            address: address(&at, "listener.address")?,
            host_port: match host_port {
                v1::HostPort::Kept => HostPort::Kept,
                v1::HostPort::Ignored => HostPort::Ignored,
                v1::HostPort::IgnoredIfOwn => HostPort::IgnoredIfOwn,
            },
            hosts: each(hosts, "listener.hosts", HOSTS, VirtualHost::from_wire)?,
        })
    }
}

impl Wire for VirtualHost {
    type Message = v1::VirtualHost;

    fn to_wire(&self) -> v1::VirtualHost {
        let Self { name, domains, routes } = self;
        v1::VirtualHost {
            name: name.clone(),
            domains: domains.iter().map(ToString::to_string).collect(),
            routes: routes.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::VirtualHost) -> Result<Self, WireError> {
        let v1::VirtualHost { name, domains, routes } = message;
        let domain = |text: String| Domain::parse(&text).map_err(|error| WireError::field("host.domain", &error));
        Ok(Self {
            name: text(name, "host.name", 1..=NAME_BYTES)?,
            domains: each(domains, "host.domains", DOMAINS, domain)?,
            routes: each(routes, "host.routes", ROUTES, HostRoute::from_wire)?,
        })
    }
}

impl Wire for HostRoute {
    type Message = v1::HostRoute;

    fn to_wire(&self) -> v1::HostRoute {
        let Self { path, service, policy, origin } = self;
        v1::HostRoute {
            path: Some(match path.clone() {
                PathMatch::Prefix(text) => host_route::Path::Prefix(text),
                PathMatch::Segments(text) => host_route::Path::Segments(text),
                PathMatch::Exact(text) => host_route::Path::Exact(text),
            }),
            service: Some(service.to_wire()),
            policy: Some(policy.to_wire()),
            origin: origin.clone(),
        }
    }

    fn from_wire(message: v1::HostRoute) -> Result<Self, WireError> {
        let v1::HostRoute { path, service, policy, origin } = message;
        let bounded = |path: String| text(path, "route.path", 1..=PATH_BYTES);
        let path = match required(path, "route.path")? {
            host_route::Path::Prefix(path) => PathMatch::Prefix(bounded(path)?),
            host_route::Path::Segments(path) => PathMatch::Segments(bounded(path)?),
            host_route::Path::Exact(path) => PathMatch::Exact(bounded(path)?),
        };
        if !path.can_match() {
            return Err(WireError::field("route.path", &format!("no path is ever `{path}`")));
        }
        Ok(Self {
            path,
            service: ServiceName::from_wire(required(service, "route.service")?)?,
            policy: TrafficPolicy::from_wire(required(policy, "route.policy")?)?,
            origin: text(origin, "route.origin", 0..=ORIGIN_BYTES)?,
        })
    }
}

impl Wire for StaticService {
    type Message = v1::StaticService;

    fn to_wire(&self) -> v1::StaticService {
        let Self { name, policy, protocol, targets } = self;
        v1::StaticService {
            name: Some(name.to_wire()),
            policy: Some(policy.to_wire()),
            http2: *protocol == StaticProtocol::Http2,
            targets: targets.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::StaticService) -> Result<Self, WireError> {
        let v1::StaticService { name, policy, http2, targets } = message;
        Ok(Self {
            name: ServiceName::from_wire(required(name, "service.name")?)?,
            policy: TrafficPolicy::from_wire(required(policy, "service.policy")?)?,
            protocol: if http2 { StaticProtocol::Http2 } else { StaticProtocol::Http1 },
            targets: each(targets, "service.targets", TARGETS, StaticTarget::from_wire)?,
        })
    }
}

impl Wire for StaticTarget {
    type Message = v1::StaticTarget;

    fn to_wire(&self) -> v1::StaticTarget {
        let Self { host, port, zone, health } = self;
        v1::StaticTarget {
            host: Some(match host {
                TargetHost::Address(ip) => static_target::Host::Ip(ip.to_string()),
                TargetHost::Name(name) => static_target::Host::Name(name.to_wire()),
            }),
            port: u32::from(*port),
            zone: zone.clone(),
            health: health.to_wire(),
        }
    }

    fn from_wire(message: v1::StaticTarget) -> Result<Self, WireError> {
        let v1::StaticTarget { host, port, zone, health } = message;
        let ip = |text: String| text.parse::<IpAddr>().map_err(|error| WireError::field("target.ip", &error));
        Ok(Self {
            host: match required(host, "target.host")? {
                static_target::Host::Ip(text) => TargetHost::Address(ip(text)?),
                static_target::Host::Name(name) => TargetHost::Name(HostName::from_wire(name)?),
            },
            port: number(port, "target.port", 1..=65_535)?,
            zone: text(zone, "target.zone", 0..=WORD_BYTES)?,
            health: Health::from_wire(health)?,
        })
    }
}

impl Wire for HostName {
    type Message = v1::HostName;

    fn to_wire(&self) -> v1::HostName {
        let Self { name, family, take, every } = self;
        v1::HostName {
            name: name.clone(),
            family: match family {
                Family::Both => v1::Family::Both.into(),
                Family::V4 => v1::Family::V4.into(),
                Family::V6 => v1::Family::V6.into(),
                Family::V4First => v1::Family::V4First.into(),
            },
            first_only: *take == Take::First,
            every_us: micros(*every),
        }
    }

    fn from_wire(message: v1::HostName) -> Result<Self, WireError> {
        let v1::HostName { name, family, first_only, every_us } = message;
        let family = v1::Family::try_from(family).map_err(|error| WireError::field("target.family", &error))?;
        Ok(Self {
            name: host(name, "target.name")?,
            family: match family {
                v1::Family::Both => Family::Both,
                v1::Family::V4 => Family::V4,
                v1::Family::V6 => Family::V6,
                v1::Family::V4First => Family::V4First,
            },
            take: if first_only { Take::First } else { Take::All },
            every: duration(every_us, "target.every")?,
        })
    }
}
