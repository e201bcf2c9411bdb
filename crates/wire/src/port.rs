//! Ports, and the entries of the directory.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bytes::Bytes;
use hms_model::names::{Label, ServiceName};
use hms_model::port::{AppProtocol, MOST_PORTS, Port};
use hms_model::service::Entry;

use crate::bounds::{each, host, number};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

/// Addresses of one service: both families, twice over.
const ADDRESSES: usize = 8;
/// Further host names of one service.
const ALIASES: usize = 64;

impl Wire for AppProtocol {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let message = match self {
            Self::Detect => v1::AppProtocol::Detect,
            Self::Http => v1::AppProtocol::Http,
            Self::Http2 => v1::AppProtocol::Http2,
            Self::Grpc => v1::AppProtocol::Grpc,
            Self::Tcp => v1::AppProtocol::Tcp,
            Self::Tls => v1::AppProtocol::Tls,
        };
        message.into()
    }

    fn from_wire(message: i32) -> Result<Self, WireError> {
        let known = v1::AppProtocol::try_from(message).map_err(|error| WireError::field("port.protocol", &error))?;
        Ok(match known {
            v1::AppProtocol::Detect => Self::Detect,
            v1::AppProtocol::Http => Self::Http,
            v1::AppProtocol::Http2 => Self::Http2,
            v1::AppProtocol::Grpc => Self::Grpc,
            v1::AppProtocol::Tcp => Self::Tcp,
            v1::AppProtocol::Tls => Self::Tls,
        })
    }
}

impl Wire for Port {
    type Message = v1::Port;

    fn to_wire(&self) -> v1::Port {
        let Self { number, name, protocol, target } = self;
        v1::Port {
            number: u32::from(*number),
            name: name.clone(),
            protocol: protocol.to_wire(),
            target: target.map_or(0, u32::from),
        }
    }

    fn from_wire(message: v1::Port) -> Result<Self, WireError> {
        let v1::Port { number: dialled, name, protocol, target } = message;
        if !name.is_empty() {
            Label::new(&name).map_err(|error| WireError::field("port.name", &error))?;
        }
        let target: u16 = number(target, "port.target", 0..=65_535)?;
        Ok(Self {
            number: number(dialled, "port.number", 1..=65_535)?,
            name,
            protocol: AppProtocol::from_wire(protocol)?,
            target: (target != 0).then_some(target),
        })
    }
}

/// Reads the ports of a service: each number once.
pub(crate) fn ports(messages: Vec<v1::Port>, field: &'static str) -> Result<Vec<Port>, WireError> {
    let ports = each(messages, field, MOST_PORTS, Port::from_wire)?;
    let mut numbers = BTreeSet::new();
    match ports.iter().find(|port| !numbers.insert(port.number)) {
        Some(twice) => Err(WireError::field(field, &format!("port {} stands twice", twice.number))),
        None => Ok(ports),
    }
}

impl Wire for Entry {
    type Message = v1::Entry;

    fn to_wire(&self) -> v1::Entry {
        let Self { name, aliases, addresses, ports } = self;
        let bytes = |address: &IpAddr| match address {
            IpAddr::V4(v4) => Bytes::copy_from_slice(&v4.octets()),
            IpAddr::V6(v6) => Bytes::copy_from_slice(&v6.octets()),
        };
        v1::Entry {
            namespace: name.namespace().to_owned(),
            name: name.name().to_owned(),
            aliases: aliases.clone(),
            addresses: addresses.iter().map(bytes).collect(),
            ports: ports.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::Entry) -> Result<Self, WireError> {
        let v1::Entry { namespace, name, aliases, addresses, ports: own } = message;
        Ok(Self {
            name: ServiceName::from_wire(v1::ServiceName { namespace, name })?,
            aliases: each(aliases, "entry.aliases", ALIASES, |alias| host(alias, "entry.aliases"))?,
            addresses: each(addresses, "entry.addresses", ADDRESSES, |bytes| address(&bytes))?,
            ports: ports(own, "entry.ports")?,
        })
    }
}

fn address(bytes: &[u8]) -> Result<IpAddr, WireError> {
    let length = bytes.len();
    let v4 = || <[u8; 4]>::try_from(bytes).map(IpAddr::from).ok();
    let v6 = || <[u8; 16]>::try_from(bytes).map(IpAddr::from).ok();
    v4().or_else(v6).ok_or_else(|| WireError::field("entry.addresses", &format!("{length} bytes are no address")))
}
