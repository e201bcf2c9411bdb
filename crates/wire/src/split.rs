//! How calls to a service are divided.

use hms_model::names::ServiceName;
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};

use crate::bounds::{each, number, required, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

/// Longest version.
const VERSION_BYTES: usize = 63;

impl Wire for Split {
    type Message = v1::Split;

    fn to_wire(&self) -> v1::Split {
        let Self { service, shares } = self;
        v1::Split { service: Some(service.to_wire()), shares: shares.iter().map(Wire::to_wire).collect() }
    }

    fn from_wire(message: v1::Split) -> Result<Self, WireError> {
        let v1::Split { service, shares: message } = message;
        let service = ServiceName::from_wire(required(service, "split.service")?)?;
        Ok(Self { service, shares: shares(message, "split.shares")? })
    }
}

impl Wire for Share {
    type Message = v1::Share;

    fn to_wire(&self) -> v1::Share {
        let Self { service, version, weight } = self;
        v1::Share { service: Some(service.to_wire()), version: version.clone(), weight: *weight }
    }

    fn from_wire(message: v1::Share) -> Result<Self, WireError> {
        let v1::Share { service, version, weight } = message;
        Ok(Self {
            service: ServiceName::from_wire(required(service, "share.service")?)?,
            version: text(version, "share.version", 0..=VERSION_BYTES)?,
            weight: number(weight, "share.weight", 0..=MOST_WEIGHT)?,
        })
    }
}

/// Shares, at most as many as one split may have. Weights of nothing but 0 would divide by it.
pub(crate) fn shares(messages: Vec<v1::Share>, field: &'static str) -> Result<Vec<Share>, WireError> {
    let shares = each(messages, field, MOST_SHARES, Share::from_wire)?;
    if !shares.is_empty() && shares.iter().all(|share| share.weight == 0) {
        return Err(WireError::field(field, &"no share has a weight"));
    }
    Ok(shares)
}
