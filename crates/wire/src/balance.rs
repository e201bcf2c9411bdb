//! How an endpoint is chosen, in both directions: one word that every release knows, and what is said beyond it.

use hms_model::policy::balance::{is_cookie_name, is_parameter_name};
use hms_model::policy::{Affinity, Algorithm, Balance, HashKey, Zones};
use http::HeaderName;

use crate::bounds::{duration, micros, pause, required};
use crate::proto::hms::v1::{self, affinity, hash_key};
use crate::{Wire, WireError};

/// Longest name of a header, in bytes.
const HEADER_BYTES: usize = 128;

impl Wire for Balance {
    type Message = (i32, Option<v1::Balancing>);

    fn to_wire(&self) -> Self::Message {
        let Self { algorithm, affinity, zones, slow_start } = self;
        let (word, table) = match algorithm {
            Algorithm::LeastRequest => (v1::Balance::LeastRequest, v1::HashTable::NoTable),
            Algorithm::RoundRobin => (v1::Balance::RoundRobin, v1::HashTable::NoTable),
            Algorithm::Random => (v1::Balance::Random, v1::HashTable::NoTable),
            Algorithm::RingHash(_) => (v1::Balance::LeastRequest, v1::HashTable::RingHash),
            Algorithm::Maglev(_) => (v1::Balance::LeastRequest, v1::HashTable::Maglev),
        };
        let beyond = v1::Balancing {
            table: table.into(),
            key: algorithm.key().map(Wire::to_wire),
            affinity: affinity.as_ref().map(Wire::to_wire),
            prefer_own_zone: *zones == Zones::Prefer,
            slow_start_us: micros(*slow_start),
        };
        (word.into(), (beyond != v1::Balancing::default()).then_some(beyond))
    }

    fn from_wire((word, beyond): Self::Message) -> Result<Self, WireError> {
        let word = v1::Balance::try_from(word).map_err(|error| WireError::field("balance", &error))?;
        let v1::Balancing { table, key, affinity, prefer_own_zone, slow_start_us } = beyond.unwrap_or_default();
        let table = v1::HashTable::try_from(table).map_err(|error| WireError::field("balancing.table", &error))?;
        let key = key.map(HashKey::from_wire).transpose()?;
        let algorithm = match (table, word) {
            (v1::HashTable::RingHash, _) => Algorithm::RingHash(required(key, "balancing.key")?),
            (v1::HashTable::Maglev, _) => Algorithm::Maglev(required(key, "balancing.key")?),
            (v1::HashTable::NoTable, v1::Balance::LeastRequest) => Algorithm::LeastRequest,
            (v1::HashTable::NoTable, v1::Balance::RoundRobin) => Algorithm::RoundRobin,
            (v1::HashTable::NoTable, v1::Balance::Random) => Algorithm::Random,
        };
        Ok(Self {
            algorithm,
            affinity: affinity.map(Affinity::from_wire).transpose()?,
            zones: if prefer_own_zone { Zones::Prefer } else { Zones::Ignore },
            slow_start: pause(slow_start_us, "balancing.slow_start")?,
        })
    }
}

impl Wire for HashKey {
    type Message = v1::HashKey;

    fn to_wire(&self) -> v1::HashKey {
        let of = match self {
            Self::Header(name) => hash_key::Of::Header(name.as_str().to_owned()),
            Self::Cookie(name) => hash_key::Of::Cookie(name.clone()),
            Self::Query(name) => hash_key::Of::Query(name.clone()),
            Self::Source => hash_key::Of::Source(true),
        };
        v1::HashKey { of: Some(of) }
    }

    fn from_wire(message: v1::HashKey) -> Result<Self, WireError> {
        match required(message.of, "balancing.key")? {
            hash_key::Of::Header(name) => header(&name, "balancing.key.header").map(Self::Header),
            hash_key::Of::Cookie(name) => cookie(name, "balancing.key.cookie").map(Self::Cookie),
            hash_key::Of::Query(name) if is_parameter_name(&name) => Ok(Self::Query(name)),
            hash_key::Of::Query(_) => Err(WireError::field("balancing.key.query", &"no name of a parameter")),
            hash_key::Of::Source(true) => Ok(Self::Source),
            hash_key::Of::Source(false) => Err(WireError::field("balancing.key", &"named, but not meant")),
        }
    }
}

impl Wire for Affinity {
    type Message = v1::Affinity;

    fn to_wire(&self) -> v1::Affinity {
        let by = match self {
            Self::Cookie { name, ttl } => {
                affinity::By::Cookie(v1::AffinityCookie { name: name.clone(), ttl_us: ttl.map(micros) })
            }
            Self::Header(name) => affinity::By::Header(name.as_str().to_owned()),
        };
        v1::Affinity { by: Some(by) }
    }

    fn from_wire(message: v1::Affinity) -> Result<Self, WireError> {
        match required(message.by, "balancing.affinity")? {
            affinity::By::Header(name) => header(&name, "balancing.affinity.header").map(Self::Header),
            affinity::By::Cookie(v1::AffinityCookie { name, ttl_us }) => Ok(Self::Cookie {
                name: cookie(name, "balancing.affinity.cookie")?,
                ttl: ttl_us.map(|us| duration(us, "balancing.affinity.ttl")).transpose()?,
            }),
        }
    }
}

fn header(name: &str, field: &'static str) -> Result<HeaderName, WireError> {
    if name.len() > HEADER_BYTES {
        return Err(WireError::field(field, &"too long"));
    }
    HeaderName::try_from(name).map_err(|error| WireError::field(field, &error))
}

fn cookie(name: String, field: &'static str) -> Result<String, WireError> {
    if is_cookie_name(&name) { Ok(name) } else { Err(WireError::field(field, &"no name of a cookie")) }
}
