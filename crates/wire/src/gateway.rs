//! Gateways and the issuers whose tokens they take.

use hms_model::http_route::{HttpRoute, MOST_ROUTES};
use hms_model::policy::jwt::JwtAlgorithm;
use hms_model::policy::stamps::Stamp;
use hms_model::policy::{JwtIssuer, JwtKey, Stamps};
use hms_model::resource::Gateway;

use crate::bounds::{each, host, text};
use crate::proto::hms::v1;
use crate::{Wire, WireError};

const HOSTS: usize = 256;
const ISSUERS: usize = 64;
const AUDIENCES: usize = 64;
const KEYS: usize = 64;
/// Longest issuer or audience; both are usually URLs.
const CLAIM_BYTES: usize = 2048;
const KEY_ID_BYTES: usize = 256;
/// An RSA key of 16 384 bits takes about 2.8 KiB.
const JWK_BYTES: usize = 16 * 1024;

impl Wire for Gateway {
    type Message = v1::Gateway;

    fn to_wire(&self) -> v1::Gateway {
        let Self { hosts, routes, issuers, is_open } = self;
        v1::Gateway {
            hosts: hosts.clone(),
            issuers: issuers.iter().map(Wire::to_wire).collect(),
            routes: routes.iter().map(Wire::to_wire).collect(),
            open: *is_open,
        }
    }

    fn from_wire(message: v1::Gateway) -> Result<Self, WireError> {
        let v1::Gateway { hosts, issuers, routes, open } = message;
        Ok(Self {
            hosts: each(hosts, "gateway.hosts", HOSTS, |name| host(name, "gateway.hosts"))?,
            routes: each(routes, "gateway.routes", MOST_ROUTES, HttpRoute::from_wire)?,
            issuers: each(issuers, "gateway.issuers", ISSUERS, JwtIssuer::from_wire)?,
            is_open: open,
        })
    }
}

impl Wire for Stamps {
    type Message = v1::Stamps;

    fn to_wire(&self) -> v1::Stamps {
        let Self { off } = self;
        v1::Stamps { off: off.iter().map(ToString::to_string).collect() }
    }

    fn from_wire(message: v1::Stamps) -> Result<Self, WireError> {
        let read = |word: String| Stamp::parse(&word).ok_or_else(|| WireError::field("stamps.off", &"no such stamp"));
        Ok(Self { off: each(message.off, "stamps.off", Stamp::ALL.len(), read)?.into_iter().collect() })
    }
}

impl Wire for JwtIssuer {
    type Message = v1::JwtIssuer;

    fn to_wire(&self) -> v1::JwtIssuer {
        let Self { issuer, audiences, keys } = self;
        v1::JwtIssuer {
            issuer: issuer.clone(),
            audiences: audiences.clone(),
            keys: keys.iter().map(Wire::to_wire).collect(),
        }
    }

    fn from_wire(message: v1::JwtIssuer) -> Result<Self, WireError> {
        let v1::JwtIssuer { issuer, audiences, keys } = message;
        // Without an audience a token made for anybody else would be good here.
        if audiences.is_empty() {
            return Err(WireError::Missing("issuer.audiences"));
        }
        Ok(Self {
            issuer: text(issuer, "issuer.issuer", 1..=CLAIM_BYTES)?,
            audiences: each(audiences, "issuer.audiences", AUDIENCES, |audience| {
                text(audience, "issuer.audiences", 1..=CLAIM_BYTES)
            })?,
            keys: each(keys, "issuer.keys", KEYS, JwtKey::from_wire)?,
        })
    }
}

impl Wire for JwtKey {
    type Message = v1::JwtKey;

    fn to_wire(&self) -> v1::JwtKey {
        let Self { id, algorithm, jwk } = self;
        v1::JwtKey { id: id.clone(), algorithm: algorithm.as_str().to_owned(), jwk: jwk.clone() }
    }

    fn from_wire(message: v1::JwtKey) -> Result<Self, WireError> {
        let v1::JwtKey { id, algorithm, jwk } = message;
        if !(1..=JWK_BYTES).contains(&jwk.len()) {
            return Err(WireError::field("key.jwk", &format!("{} bytes", jwk.len())));
        }
        let algorithm = JwtAlgorithm::parse(&algorithm)
            .ok_or_else(|| WireError::field("key.algorithm", &"neither RS256 nor ES256 nor EdDSA"))?;
        Ok(Self { id: text(id, "key.id", 0..=KEY_ID_BYTES)?, algorithm, jwk })
    }
}
