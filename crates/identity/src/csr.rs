//! Signing requests as the certificate authority reads them: proof that the sender holds a key, and nothing else.
//!
//! Subject, names, extensions and lifetimes of a request are never looked at. What a workload is called comes from its
//! attestation alone (CVE-2022-40716 is what happens otherwise).

use rustls_pki_types::SubjectPublicKeyInfoDer;
use sha2::{Digest as _, Sha256};
use webpki::RawPublicKeyEntity;
use x509_parser::asn1_rs::FromDer as _;
use x509_parser::certification_request::X509CertificationRequest;

use crate::der::{BIT_STRING, SEQUENCE, element};
use crate::strength::{KeyKind, classify};
use crate::tls::SIGNATURES;

/// The largest request that is looked at, in bytes.
pub const MAX_CSR: usize = 16 * 1024;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// More than [`MAX_CSR`] bytes.
    #[error("the certificate signing request is larger than 16 KiB")]
    TooLarge,
    /// Not a PKCS#10 request in DER (RFC 2986), or bytes follow it.
    #[error("not a certificate signing request in DER")]
    Malformed,
    /// The key is weak or of a kind the mesh does not use.
    #[error("the key is none of P-256, P-384, Ed25519 or RSA of 2048 to 8192 bits")]
    WeakKey,
    /// The request is signed with an algorithm the mesh does not use (such as SHA-1).
    #[error("the request is signed with an unsupported algorithm")]
    SignatureAlgorithm,
    /// The signature was not made by the key in the request.
    #[error("the request is not signed by the key it carries")]
    BadSignature,
}

impl CsrError {
    /// A stable word for logs, metrics and problem codes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "csr-too-large",
            Self::Malformed => "csr-malformed",
            Self::WeakKey => "csr-weak-key",
            Self::SignatureAlgorithm => "csr-signature-algorithm",
            Self::BadSignature => "csr-bad-signature",
        }
    }
}

/// The one thing taken from a request: a public key whose possession was proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedKey {
    /// The key as a DER `SubjectPublicKeyInfo`.
    pub spki_der: Vec<u8>,
    /// Its kind.
    pub kind: KeyKind,
}

impl RequestedKey {
    /// SHA-256 of the key: what a join token is bound to at its first use.
    pub fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(&self.spki_der).into()
    }
}

/// Reads a request and checks that its sender holds the key in it.
pub fn parse(der: &[u8]) -> Result<RequestedKey, CsrError> {
    if der.len() > MAX_CSR {
        return Err(CsrError::TooLarge);
    }
    let raw = split(der).ok_or(CsrError::Malformed)?;
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_error| CsrError::Malformed)?;
    // Version 1 is written as 0 (RFC 2986 §4.1); there is no other.
    if !rest.is_empty() || request.certification_request_info.version.0 != 0 {
        return Err(CsrError::Malformed);
    }
    let spki_der = request.certification_request_info.subject_pki.raw;
    let kind = classify(spki_der).ok_or(CsrError::WeakKey)?;
    let algorithm = SIGNATURES
        .all
        .iter()
        .find(|algorithm| algorithm.signature_alg_id().as_ref() == raw.algorithm && signs_with(**algorithm, kind))
        .ok_or(CsrError::SignatureAlgorithm)?;
    let key = SubjectPublicKeyInfoDer::from(spki_der);
    RawPublicKeyEntity::try_from(&key)
        .and_then(|key| key.verify_signature(*algorithm, raw.signed, raw.signature))
        .map_err(|_error| CsrError::BadSignature)?;
    Ok(RequestedKey { spki_der: spki_der.to_vec(), kind })
}

/// Whether `algorithm` verifies with keys of `kind`; one signature algorithm exists once per curve.
fn signs_with(algorithm: &dyn rustls_pki_types::SignatureVerificationAlgorithm, kind: KeyKind) -> bool {
    use rustls_pki_types::alg_id;
    let wanted = match kind {
        KeyKind::P256 => alg_id::ECDSA_P256,
        KeyKind::P384 => alg_id::ECDSA_P384,
        KeyKind::Ed25519 => alg_id::ED25519,
        KeyKind::Rsa { .. } => alg_id::RSA_ENCRYPTION,
    };
    algorithm.public_key_alg_id() == wanted
}

/// The three parts of a request as they stand in the bytes.
struct Raw<'a> {
    signed: &'a [u8],
    algorithm: &'a [u8],
    signature: &'a [u8],
}

/// Cuts a request into its signed part, the content of its algorithm identifier and its signature, without re-encoding.
fn split(der: &[u8]) -> Option<Raw<'_>> {
    let outer = element(der, SEQUENCE)?;
    let info = element(outer.content, SEQUENCE)?;
    let signed = outer.content.get(..outer.content.len().checked_sub(info.rest.len())?)?;
    let algorithm = element(info.rest, SEQUENCE)?;
    let signature = element(algorithm.rest, BIT_STRING)?;
    if !outer.rest.is_empty() || !signature.rest.is_empty() {
        return None;
    }
    // The first byte of a bit string counts the unused bits; a signature has none.
    Some(Raw { signed, algorithm: algorithm.content, signature: signature.content.strip_prefix(&[0])? })
}
