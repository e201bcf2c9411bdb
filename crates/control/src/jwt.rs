//! The built-in issuer of tokens, for `hms up` on a laptop (ruling R12): one ES256 key, kept beside the authority's.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_identity::clock::Clock;
use hms_model::policy::jwt::{JwtAlgorithm, JwtIssuer, JwtKey};
use jsonwebtoken::jwk::{Jwk, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde::Serialize;
use zeroize::Zeroizing;

use crate::ca::CaError;
use crate::ca::files;

/// The `iss` claim of every token of ours.
pub const ISSUER: &str = "hms-dev";
/// The `aud` claim when none is asked for.
pub const AUDIENCE: &str = "hms";
/// Life of a token when none is asked for. One hour.
pub const DEFAULT_LIFE: Duration = Duration::from_hours(1);
/// Longest life of a token. 30 days.
pub const LONGEST_LIFE: Duration = Duration::from_hours(30 * 24);

/// Signs tokens that the gateway of this project takes.
pub struct DevIssuer {
    key: EncodingKey,
    public: Jwk,
    id: String,
    clock: Arc<dyn Clock>,
}

/// What a token is to say.
#[derive(Debug, Clone, Default)]
pub struct TokenRequest {
    /// Whom it speaks of.
    pub subject: String,
    /// What that one may do, for policies and applications.
    pub roles: Vec<String>,
    /// For whom it is; [`AUDIENCE`] if none.
    pub audience: Option<String>,
    /// How long it holds; [`DEFAULT_LIFE`] if none, at most [`LONGEST_LIFE`].
    pub life: Option<Duration>,
}

/// A signed token.
pub struct Token {
    /// The compact form.
    pub text: String,
    /// Until when it holds.
    pub expires_at: SystemTime,
}

/// RFC 7519 §4.1.
#[derive(Serialize)]
struct Claims<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    iat: u64,
    nbf: u64,
    exp: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    roles: &'a [String],
}

impl fmt::Debug for DevIssuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DevIssuer").field("id", &self.id).finish_non_exhaustive()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_at", &self.expires_at).finish_non_exhaustive()
    }
}

impl DevIssuer {
    /// Reads the key in `path` (PKCS#8 PEM, 0600), or makes one. The directory must exist and be private.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, CaError> {
        let mismatch = |reason: &str| CaError::Mismatch { path: path.to_owned(), reason: reason.to_owned() };
        let pair = if let Some(pem) = files::read(path)? {
            let pair = std::str::from_utf8(&pem).ok().and_then(|pem| KeyPair::from_pem(pem).ok());
            pair.ok_or_else(|| mismatch("it holds no private key; move it away to start over with a new one"))?
        } else {
            let pair = KeyPair::generate().map_err(|error| CaError::Make(error.to_string()))?;
            files::write(path, Zeroizing::new(pair.serialize_pem()).as_bytes())?;
            pair
        };
        let key = EncodingKey::from_ec_der(&Zeroizing::new(pair.serialize_der()));
        let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256)
            .map_err(|_secret| mismatch("its key is none for ES256; move it away to start over with a new one"))?;
        let id = public.thumbprint(ThumbprintHash::SHA256).map_err(|error| CaError::Make(error.to_string()))?;
        public.common.key_id = Some(id.clone());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { key, public, id, clock })
    }

    /// Signs a token.
    pub fn issue(&self, request: &TokenRequest) -> Result<Token, String> {
        let now = self.clock.now().duration_since(SystemTime::UNIX_EPOCH).map_err(|error| error.to_string())?.as_secs();
        let life = request.life.unwrap_or(DEFAULT_LIFE).min(LONGEST_LIFE).as_secs();
        let claims = Claims {
            iss: ISSUER,
            sub: &request.subject,
            aud: request.audience.as_deref().unwrap_or(AUDIENCE),
            iat: now,
            nbf: now,
            exp: now + life,
            roles: &request.roles,
        };
        let header = Header { kid: Some(self.id.clone()), ..Header::new(Algorithm::ES256) };
        let text = jsonwebtoken::encode(&header, &claims, &self.key).map_err(|error| error.to_string())?;
        Ok(Token { text, expires_at: SystemTime::UNIX_EPOCH + Duration::from_secs(now + life) })
    }

    /// This issuer as the gateway is to know it.
    pub fn as_issuer(&self) -> JwtIssuer {
        let jwk = serde_json::to_string(&self.public).unwrap_or_default();
        JwtIssuer {
            issuer: ISSUER.to_owned(),
            audiences: vec![AUDIENCE.to_owned()],
            keys: vec![JwtKey { id: self.id.clone(), algorithm: JwtAlgorithm::Es256, jwk }],
        }
    }

    /// The public key as a set (RFC 7517 §5).
    pub fn key_set(&self) -> serde_json::Value {
        serde_json::json!({ "keys": [self.public] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hms_identity::clock::SystemClock;
    use jsonwebtoken::{DecodingKey, Validation};

    fn open(directory: &Path) -> Result<DevIssuer, CaError> {
        DevIssuer::open(&directory.join("jwt.key"), Arc::new(SystemClock))
    }

    #[test]
    fn a_token_verifies_with_the_published_key_and_says_what_was_asked() {
        let directory = tempfile::tempdir().unwrap();
        let issuer = open(directory.path()).unwrap();
        let request =
            TokenRequest { subject: "lena".to_owned(), roles: vec!["ops".to_owned()], ..TokenRequest::default() };
        let token = issuer.issue(&request).unwrap();
        let jwk: Jwk = serde_json::from_str(&issuer.as_issuer().keys[0].jwk).unwrap();
        let mut validation = Validation::new(Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.validate_nbf = true;
        let key = DecodingKey::from_jwk(&jwk).unwrap();
        let decoded = jsonwebtoken::decode::<serde_json::Value>(&token.text, &key, &validation).unwrap();
        assert_eq!(decoded.claims["sub"], "lena");
        assert_eq!(decoded.claims["roles"][0], "ops");
        assert_eq!(decoded.header.kid, jwk.common.key_id);
    }

    #[test]
    fn the_key_survives_a_restart_and_nobody_else_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path()).unwrap().id;
        assert_eq!(open(directory.path()).unwrap().id, first);
        let path = directory.path().join("jwt.key");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(open(directory.path()), Err(CaError::Unsafe { .. })));
    }

    #[test]
    fn a_damaged_key_is_an_error_and_not_a_new_key() {
        let directory = tempfile::tempdir().unwrap();
        files::write(&directory.path().join("jwt.key"), b"-----BEGIN").unwrap();
        assert!(matches!(open(directory.path()), Err(CaError::Mismatch { .. })));
    }
}
