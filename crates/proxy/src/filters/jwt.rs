//! Tokens at the gateway: JSON Web Tokens (RFC 7519) signed with RS256, ES256 or `EdDSA`, checked more strictly than the RFC asks
//! (reliability §2 E). Whatever cannot be decided is refused.

use std::collections::HashMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hms_model::message::Fields;
use hms_model::policy::jwt::JwtAlgorithm;
use hms_model::policy::{JwtIssuer, JwtKey};
use http::header::AUTHORIZATION;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::refusal::{Reason, Refusal};

/// Longest token taken, in bytes.
const MAX_TOKEN: usize = 8 * 1024;
/// Longest `kid`, in bytes.
const MAX_KEY_ID: usize = 256;
/// Deepest nesting of claims.
const MAX_DEPTH: u8 = 16;
/// How far clocks may differ, in seconds.
const LEEWAY: u64 = 60;
/// Numbers beyond this are not exact in every JSON implementation.
const MAX_SECONDS: u64 = 1 << 53;

/// Checks tokens of the issuers that the gateway takes.
pub struct Verifier {
    keys: HashMap<(String, JwtAlgorithm), Vec<TrustedKey>>,
    issuers: Vec<(String, Vec<String>)>,
}

struct TrustedKey {
    issuer: usize,
    key: DecodingKey,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("issuers", &self.issuers).finish_non_exhaustive()
    }
}

/// What a token says of its bearer, as far as it travels on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Claims {
    /// `sub`; empty if the token names nobody.
    pub subject: String,
    /// `roles` or `role`, for policies and applications.
    pub roles: Vec<String>,
    /// `iss`.
    pub issuer: String,
}

impl Verifier {
    /// Takes tokens of these issuers. A key that cannot be used is left out: its tokens are refused.
    pub fn new(issuers: &[JwtIssuer]) -> Self {
        let mut keys: HashMap<(String, JwtAlgorithm), Vec<TrustedKey>> = HashMap::new();
        for (index, issuer) in issuers.iter().enumerate() {
            for key in &issuer.keys {
                let Some(decoding) = decoding_key(key) else {
                    tracing::warn!(kid = %key.id, issuer = %issuer.issuer, "unusable key left out");
                    continue;
                };
                let trusted = TrustedKey { issuer: index, key: decoding };
                keys.entry((key.id.clone(), key.algorithm)).or_default().push(trusted);
            }
        }
        Self { keys, issuers: issuers.iter().map(|i| (i.issuer.clone(), i.audiences.clone())).collect() }
    }

    /// Checks the one bearer token of a request. `now` is in Unix seconds.
    pub fn verify(&self, fields: &Fields, now: u64) -> Result<Claims, Refusal> {
        let mut credentials = fields.all(&AUTHORIZATION);
        let (Some(only), None) = (credentials.next(), credentials.next()) else {
            return Err(match fields.count(&AUTHORIZATION) {
                0 => Refusal::new(Reason::JwtMissing, "the request carries no Authorization: Bearer token"),
                _ => Refusal::new(Reason::JwtMalformed, "the request carries several credentials"),
            });
        };
        let malformed = |why| Refusal::new(Reason::JwtMalformed, why);
        let text = std::str::from_utf8(only).map_err(|_not_utf8| malformed("the credentials are not ASCII"))?;
        let (scheme, token) =
            text.split_once(' ').ok_or_else(|| malformed("the credentials are not `Bearer TOKEN`"))?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(Refusal::new(Reason::JwtMissing, "the credentials are of another scheme than Bearer"));
        }
        self.verify_token(token, now)
    }

    /// Checks a token.
    pub fn verify_token(&self, token: &str, now: u64) -> Result<Claims, Refusal> {
        let malformed = |why: &'static str| Refusal::new(Reason::JwtMalformed, why);
        if token.len() > MAX_TOKEN {
            return Err(malformed("the token is longer than 8 KiB"));
        }
        let mut parts = token.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(malformed("a token has three parts"));
        };
        let header = object(header).ok_or_else(|| malformed("the token's header is no JSON object"))?;
        let key = self.key(&header)?;
        let message = signed_part(token, signature);
        let algorithm = algorithm(&header)?;
        let genuine = jsonwebtoken::crypto::verify(signature, message.as_bytes(), &key.key, library(algorithm));
        if !genuine.unwrap_or(false) {
            return Err(Refusal::new(Reason::JwtSignature, "the token's signature does not fit its content"));
        }
        let claims = object(payload).ok_or_else(|| malformed("the token's claims are no JSON object"))?;
        let (issuer, audiences) = self.issuers.get(key.issuer).ok_or_else(|| malformed("the key has no issuer"))?;
        check_claims(&claims, issuer, audiences, now)
    }

    fn key(&self, header: &Claim) -> Result<&TrustedKey, Refusal> {
        let malformed = |why: &'static str| Refusal::new(Reason::JwtMalformed, why);
        if ["crit", "b64", "zip"].iter().any(|name| header.contains_key(*name)) {
            return Err(malformed("the token's header demands what is not supported"));
        }
        let algorithm = algorithm(header)?;
        let id = match header.get("kid") {
            None => "",
            Some(Value::String(id)) if id.len() <= MAX_KEY_ID => id,
            Some(_) => return Err(malformed("the token's kid is no text of at most 256 bytes")),
        };
        let keys = match self.keys.get(&(id.to_owned(), algorithm)) {
            Some(keys) => keys.as_slice(),
            None => &[],
        };
        keys.first().ok_or_else(|| {
            let detail = format!("the token's key is not among the {} keys of the issuers taken here", self.keys.len());
            Refusal::new(Reason::JwtUnknownKey, detail)
        })
    }
}

/// All of a token before its last dot.
fn signed_part<'a>(token: &'a str, signature: &str) -> &'a str {
    token.get(..token.len().saturating_sub(signature.len() + 1)).unwrap_or_default()
}

fn decoding_key(key: &JwtKey) -> Option<DecodingKey> {
    let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_str(&key.jwk).ok()?;
    DecodingKey::from_jwk(&jwk).ok()
}

fn algorithm(header: &Claim) -> Result<JwtAlgorithm, Refusal> {
    let named = header.get("alg").and_then(Value::as_str);
    named
        .and_then(JwtAlgorithm::parse)
        .ok_or_else(|| Refusal::new(Reason::JwtAlgorithm, "the token's algorithm is none of RS256, ES256 and EdDSA"))
}

fn library(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
        JwtAlgorithm::EdDsa => Algorithm::EdDSA,
    }
}

fn check_claims(claims: &Claim, issuer: &str, audiences: &[String], now: u64) -> Result<Claims, Refusal> {
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(Refusal::new(Reason::JwtIssuer, "the token's issuer is not the one that owns its key"));
    }
    let named: Vec<&str> = match claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !named.iter().any(|audience| audiences.iter().any(|own| own == audience)) {
        return Err(Refusal::new(Reason::JwtAudience, "the token is for another audience"));
    }
    match seconds(claims, "exp")? {
        None => return Err(Refusal::new(Reason::JwtMalformed, "the token has no expiry")),
        Some(expires) if expires.saturating_add(LEEWAY) <= now => {
            return Err(Refusal::new(Reason::JwtExpired, format!("the token expired {} s ago", now - expires)));
        }
        Some(_) => {}
    }
    for claim in ["nbf", "iat"] {
        if let Some(begins) = seconds(claims, claim)?
            && begins > now.saturating_add(LEEWAY)
        {
            let detail = format!("the token is not valid for another {} s", begins - now);
            return Err(Refusal::new(Reason::JwtNotYetValid, detail));
        }
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let roles = match claims.get("roles").or_else(|| claims.get("role")) {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    Ok(Claims { subject: text("sub"), roles, issuer: issuer.to_owned() })
}

/// A `NumericDate` claim (RFC 7519 §2). One that is there and no sane number is never read as absent.
fn seconds(claims: &Claim, name: &str) -> Result<Option<u64>, Refusal> {
    let malformed = || Refusal::new(Reason::JwtMalformed, format!("the token's {name} is no number of seconds"));
    match claims.get(name) {
        None => Ok(None),
        Some(Value::Number(number)) => {
            let whole = number.as_u64().or_else(|| {
                let float = number.as_f64().filter(|f| f.is_finite() && *f >= 0.0)?;
                format!("{float:.0}").parse().ok()
            });
            whole.filter(|seconds| *seconds <= MAX_SECONDS).map(Some).ok_or_else(malformed)
        }
        Some(_) => Err(malformed()),
    }
}

type Claim = HashMap<String, Value>;

/// Decodes one part of a token: strict base64url without padding, one JSON object, no name twice, not too deep.
fn object(part: &str) -> Option<Claim> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    let mut deserializer = serde_json::Deserializer::from_slice(&bytes);
    let StrictValue(value) = StrictSeed { depth: MAX_DEPTH }.deserialize(&mut deserializer).ok()?;
    deserializer.end().ok()?;
    match value {
        Value::Object(map) => Some(map.into_iter().collect()),
        _ => None,
    }
}

/// A JSON value in which no object names a key twice.
struct StrictValue(Value);

#[derive(Clone, Copy)]
struct StrictSeed {
    depth: u8,
}

impl<'de> DeserializeSeed<'de> for StrictSeed {
    type Value = StrictValue;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<StrictValue, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl StrictSeed {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        self.depth.checked_sub(1).map(|depth| Self { depth }).ok_or_else(|| E::custom("nested too deeply"))
    }
}

impl<'de> Visitor<'de> for StrictSeed {
    type Value = StrictValue;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<StrictValue, A::Error> {
        let inner = self.inner()?;
        let mut object = serde_json::Map::new();
        while let Some(name) = map.next_key::<String>()? {
            let StrictValue(value) = map.next_value_seed(inner)?;
            if object.insert(name, value).is_some() {
                return Err(A::Error::custom("a name stands twice"));
            }
        }
        Ok(StrictValue(Value::Object(object)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<StrictValue, A::Error> {
        let inner = self.inner()?;
        let mut items = Vec::new();
        while let Some(StrictValue(value)) = seq.next_element_seed(inner)? {
            items.push(value);
        }
        Ok(StrictValue(Value::Array(items)))
    }

    fn visit_str<E>(self, v: &str) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::String(v.to_owned())))
    }

    fn visit_bool<E>(self, v: bool) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::Bool(v)))
    }

    fn visit_u64<E>(self, v: u64) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::from(v)))
    }

    fn visit_i64<E>(self, v: i64) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::from(v)))
    }

    fn visit_f64<E>(self, v: f64) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::from(v)))
    }

    fn visit_unit<E>(self) -> Result<StrictValue, E> {
        Ok(StrictValue(Value::Null))
    }
}

#[cfg(test)]
mod tests;
