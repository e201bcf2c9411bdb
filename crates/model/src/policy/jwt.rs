//! Whose tokens the gateway takes.

/// One issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtIssuer {
    /// The exact `iss` claim.
    pub issuer: String,
    /// One of these must stand in `aud`; never empty.
    pub audiences: Vec<String>,
    /// Its public keys.
    pub keys: Vec<JwtKey>,
}

/// One public key of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtKey {
    /// `kid` as the token's header names it; at most 256 bytes.
    pub id: String,
    /// The only algorithm this key may be used with.
    pub algorithm: JwtAlgorithm,
    /// The key as one JSON Web Key (RFC 7517).
    pub jwk: String,
}

/// Asymmetric algorithms only: a shared secret would let every verifier issue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JwtAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

impl JwtAlgorithm {
    /// The `alg` header value (RFC 7518 §3.1, RFC 8037).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::EdDsa => "EdDSA",
        }
    }

    /// Reads an `alg` header value; any other algorithm is none of ours.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Rs256, Self::Es256, Self::EdDsa].into_iter().find(|a| a.as_str() == text)
    }
}
