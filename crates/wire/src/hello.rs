//! The greeting: the first bytes inside the TLS connection between two of our proxies, in the same flight as the first request.
//!
//! Two bytes of length, big endian, then one protobuf message of at most 1024 bytes. It labels the connection for telemetry;
//! nothing is authorized by it.
//!
//! On a connection for bytes that nobody reads, the called proxy answers with its [`Reception`] before any of them, so that its
//! caller knows whether an application is behind it and can go elsewhere if not.

use hms_model::names::ServiceName;
use prost::Message as _;

use crate::bounds::{WORD_BYTES, host_or_address, number, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

/// Longest greeting, in bytes, without its length prefix.
pub const HELLO_BYTES: usize = 1024;

const PREFIX: usize = 2;

/// What the called proxy answers on an opaque connection: two bytes, big endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// The application has accepted; everything from here on is its own. 0 on the wire.
    Taken,
    /// Not taken, and not a byte was passed on: the number of the HMS code that says why.
    Refused(u16),
}

impl Reception {
    /// Its length.
    pub const BYTES: usize = 2;

    /// As it travels. A refusal without a number would be none.
    pub fn encode(self) -> [u8; Self::BYTES] {
        match self {
            Self::Taken => [0; Self::BYTES],
            Self::Refused(code) => code.max(1).to_be_bytes(),
        }
    }

    /// Reads what has travelled.
    pub fn decode(bytes: [u8; Self::BYTES]) -> Self {
        match u16::from_be_bytes(bytes) {
            0 => Self::Taken,
            code => Self::Refused(code),
        }
    }
}

/// A greeting that has arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub hello: PeerHello,
    /// How many bytes it took, its prefix included; what follows belongs to the first request.
    pub length: usize,
}

/// What one proxy tells another about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// The service the caller means to reach.
    pub destination: ServiceName,
    /// The port of that service, 1 to 65535; 0 when it has only one.
    pub destination_port: u16,
    /// The service that calls.
    pub source: ServiceName,
    /// The id of the calling workload; at most 128 bytes, may be empty.
    pub workload: String,
    /// Its version; at most 128 bytes, may be empty.
    pub version: String,
    /// Its failure domain; at most 128 bytes, may be empty.
    pub zone: String,
    /// The level of the calling proxy.
    pub level: u32,
    /// The host outside of the mesh that is meant, at an egress gateway.
    pub outside: Option<Outside>,
}

/// A host outside of the mesh, at an egress gateway; its port is that of the greeting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outside {
    /// Its name or address; at most 253 bytes.
    pub host: String,
    /// The application began TLS itself, so nobody else shall.
    pub has_tls: bool,
}

impl PeerHello {
    /// The bytes with their length in front. Fails only if a text is longer than its bound.
    pub fn encode(&self) -> Result<Vec<u8>, WireError> {
        let body = self.to_wire().encode_to_vec();
        let length = u16::try_from(body.len()).ok().filter(|length| usize::from(*length) <= HELLO_BYTES);
        let Some(length) = length else {
            return Err(WireError::TooLarge { length: body.len(), limit: HELLO_BYTES });
        };
        let mut bytes = Vec::with_capacity(PREFIX + body.len());
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&body);
        Ok(bytes)
    }

    /// Reads a greeting from the front of what has arrived so far: `None` until it is complete. A length
    /// beyond the bound is refused at once.
    pub fn decode(arrived: &[u8]) -> Result<Option<Received>, WireError> {
        let Some((prefix, rest)) = arrived.split_first_chunk::<PREFIX>() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*prefix));
        if length > HELLO_BYTES {
            return Err(WireError::TooLarge { length, limit: HELLO_BYTES });
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let hello = Self::from_wire(v1::PeerHello::decode(body)?)?;
        Ok(Some(Received { hello, length: PREFIX + length }))
    }
}

impl Wire for PeerHello {
    type Message = v1::PeerHello;

    fn to_wire(&self) -> v1::PeerHello {
        let Self { destination, destination_port, source, workload, version, zone, level, outside } = self;
        v1::PeerHello {
            destination: Some(destination.to_wire()),
            destination_port: u32::from(*destination_port),
            source: Some(source.to_wire()),
            workload: workload.clone(),
            version: version.clone(),
            zone: zone.clone(),
            level: *level,
            outside: outside.as_ref().map(|outside| outside.host.clone()).unwrap_or_default(),
            outside_tls: outside.as_ref().is_some_and(|outside| outside.has_tls),
        }
    }

    fn from_wire(message: v1::PeerHello) -> Result<Self, WireError> {
        let v1::PeerHello {
            destination,
            destination_port,
            source,
            workload,
            version,
            zone,
            level,
            outside,
            outside_tls: has_tls,
        } = message;
        let outside = match outside {
            host if host.is_empty() => None,
            host => Some(Outside { host: host_or_address(host, "hello.outside")?, has_tls }),
        };
        Ok(Self {
            destination: ServiceName::from_wire(required(destination, "hello.destination")?)?,
            destination_port: number(destination_port, "hello.destination_port", 0..=65_535)?,
            source: ServiceName::from_wire(required(source, "hello.source")?)?,
            workload: text(workload, "hello.workload", 0..=WORD_BYTES)?,
            version: text(version, "hello.version", 0..=WORD_BYTES)?,
            zone: text(zone, "hello.zone", 0..=WORD_BYTES)?,
            level,
            outside,
        })
    }
}
