//! Trust bundles.

use bytes::Bytes;
use hms_model::spiffe::TrustDomain;
use hms_model::trust::TrustBundle;

use crate::bounds::each;
use crate::proto::hms::v1;
use crate::{Wire, WireError};

/// A rotation has two or three roots at a time.
const ROOTS: usize = 16;
const ROOT_BYTES: usize = 16 * 1024;

impl Wire for TrustBundle {
    type Message = v1::TrustBundle;

    fn to_wire(&self) -> v1::TrustBundle {
        let Self { trust_domain, roots } = self;
        let roots = roots.iter().map(|root| Bytes::copy_from_slice(root)).collect();
        v1::TrustBundle { trust_domain: trust_domain.to_string(), roots }
    }

    fn from_wire(message: v1::TrustBundle) -> Result<Self, WireError> {
        let v1::TrustBundle { trust_domain, roots } = message;
        let trust_domain =
            TrustDomain::new(&trust_domain).map_err(|error| WireError::field("trust.trust_domain", &error))?;
        // A bundle that believes nobody would close every connection; it can only be a mistake.
        if roots.is_empty() {
            return Err(WireError::Missing("trust.roots"));
        }
        let roots = each(roots, "trust.roots", ROOTS, |root| match root.len() {
            1..=ROOT_BYTES => Ok(root.to_vec()),
            length => Err(WireError::field("trust.roots", &format!("a root of {length} bytes"))),
        })?;
        Ok(Self { trust_domain, roots })
    }
}
