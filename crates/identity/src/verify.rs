//! Verification of a peer's certificate chain: who is it, and may it be believed?
//!
//! rustls-webpki finds the path and checks signatures, times, path lengths and name constraints. Everything it leaves
//! open is checked here, before any signature is: sizes, exactly one URI SAN of the SPIFFE shape and no other name,
//! CA:FALSE, key usages, extended key usages, key strength, order of the chain; and after the path is found, the life
//! and path length of the root it ends in. All of it is strict, because both ends of a mesh connection are ours.

mod anchors;
mod error;
mod profile;

use std::time::SystemTime;

use hms_model::spiffe::SpiffeId;
use hms_model::trust::TrustBundle;
use rustls_pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer as _;

pub use self::anchors::Anchors;
pub use self::error::VerifyError;
pub(crate) use self::profile::leaf as leaf_profile;

/// The largest number of certificates in a chain, leaf included.
pub const MAX_CHAIN: usize = 4;
/// The largest chain, in bytes of DER.
pub const MAX_CHAIN_BYTES: usize = 32 * 1024;

/// In which part of a handshake a certificate is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Usage {
    /// The peer opened the connection (id-kp-clientAuth).
    Client,
    /// The peer accepted the connection (id-kp-serverAuth).
    Server,
}

/// Verifies `chain` (leaf first, each certificate issued by the next) against the roots of one trust domain.
///
/// Answers the identity in the leaf, or the one named reason why there is none. Reads the bundle anew at each call; for
/// many calls build [`Anchors`] once.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: SystemTime,
    usage: Usage,
) -> Result<SpiffeId, VerifyError> {
    Anchors::new(bundle).map_err(VerifyError::Bundle)?.verify(chain, now, usage)
}

/// Refuses chains by count and size before a byte of them is read.
pub(crate) fn check_sizes(chain: &[CertificateDer<'_>]) -> Result<(), VerifyError> {
    if chain.is_empty() {
        return Err(VerifyError::EmptyChain);
    }
    if chain.len() > MAX_CHAIN {
        return Err(VerifyError::ChainTooLong);
    }
    let bytes = chain.iter().try_fold(0_usize, |sum, certificate| sum.checked_add(certificate.len()));
    if bytes.is_none_or(|bytes| bytes > MAX_CHAIN_BYTES) {
        return Err(VerifyError::ChainTooLarge);
    }
    Ok(())
}

/// Reads one certificate; bytes after it are refused.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, VerifyError> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(VerifyError::Malformed),
    }
}
