//! Trust bundles from and to PEM, and what a root must be before anything is believed because of it.

use hms_model::spiffe::TrustDomain;
use hms_model::trust::TrustBundle;
use rustls_pki_types::pem::{self, PemObject as _, SectionKind};
use sha2::{Digest as _, Sha256};

use crate::token::push_hex;
use crate::verify::Anchors;

/// The largest PEM text that is looked at, in bytes.
pub const MAX_PEM: usize = 256 * 1024;
/// The largest number of roots in a bundle. A rotation needs two or three.
pub const MAX_ROOTS: usize = 16;
/// The largest root certificate, in bytes.
pub const MAX_ROOT: usize = 16 * 1024;

/// Why a bundle is refused. A bundle is believed whole or not at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// More than [`MAX_PEM`] bytes of PEM, or a root of more than [`MAX_ROOT`] bytes.
    #[error("the trust bundle is too large")]
    TooLarge,
    /// The PEM armour or its base64 is broken.
    #[error("the trust bundle is no valid PEM")]
    Pem,
    /// A section is something else than a certificate, for example a private key.
    #[error("the trust bundle holds something other than certificates")]
    NotACertificate,
    /// No root at all.
    #[error("the trust bundle holds no root")]
    Empty,
    /// More than [`MAX_ROOTS`] roots.
    #[error("the trust bundle holds more than 16 roots")]
    TooManyRoots,
    /// A root is no X.509 v3 certificate in DER.
    #[error("a root of the trust bundle is no X.509 certificate")]
    Malformed,
    /// A root is no certificate authority (CA:TRUE and keyCertSign).
    #[error("a root of the trust bundle is no certificate authority")]
    NotACa,
    /// A root's key is weak or of a kind the mesh does not use.
    #[error("a root of the trust bundle has a weak key")]
    WeakKey,
}

impl BundleError {
    /// A stable word for logs, metrics and problem codes.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TooLarge => "bundle-too-large",
            Self::Pem => "bundle-pem",
            Self::NotACertificate => "bundle-not-certificate",
            Self::Empty => "bundle-empty",
            Self::TooManyRoots => "bundle-too-many-roots",
            Self::Malformed => "bundle-malformed",
            Self::NotACa => "bundle-not-ca",
            Self::WeakKey => "bundle-weak-key",
        }
    }
}

/// Reads the roots of `trust_domain` from PEM and checks each; repeated roots are kept once, in order.
pub fn from_pem(trust_domain: TrustDomain, text: &[u8]) -> Result<TrustBundle, BundleError> {
    if text.len() > MAX_PEM {
        return Err(BundleError::TooLarge);
    }
    let mut roots: Vec<Vec<u8>> = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(text) {
        let (kind, der) = section.map_err(|_error: pem::Error| BundleError::Pem)?;
        if kind != SectionKind::Certificate {
            return Err(BundleError::NotACertificate);
        }
        if !roots.contains(&der) {
            roots.push(der);
        }
    }
    let bundle = TrustBundle { trust_domain, roots };
    check(&bundle)?;
    Ok(bundle)
}

/// Checks every root of a bundle: sizes, encoding, CA:TRUE with keyCertSign, key strength. Times are checked when a
/// chain is verified, since an expired root may stand in a bundle during a rotation.
pub fn check(bundle: &TrustBundle) -> Result<(), BundleError> {
    Anchors::new(bundle).map(|_anchors| ())
}

/// The roots as PEM (RFC 7468), 64 characters a line.
pub fn to_pem(bundle: &TrustBundle) -> String {
    let mut text = String::new();
    for root in &bundle.roots {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        for line in root.chunks(48) {
            push_base64(&mut text, line);
            text.push('\n');
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The SHA-256 of a certificate in DER as 64 lower-case hexadecimal digits: how operators compare roots by eye.
pub fn fingerprint(der: &[u8]) -> String {
    let mut text = String::with_capacity(64);
    push_hex(&mut text, &Sha256::digest(der));
    text
}

/// Appends base64 (RFC 4648 §4, padded).
fn push_base64(text: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for group in bytes.chunks(3) {
        let word = group.iter().chain([0, 0].iter()).take(3).fold(0_u32, |word, byte| word << 8 | u32::from(*byte));
        for place in 0..4_usize {
            let index = usize::try_from(word >> (18 - 6 * place) & 63).unwrap_or_default();
            let digit = ALPHABET.get(index).copied().unwrap_or(b'A');
            text.push(if place <= group.len() { char::from(digit) } else { '=' });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_follows_the_test_vectors_of_rfc_4648() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")]
        {
            let mut text = String::new();
            push_base64(&mut text, bytes.as_bytes());
            assert_eq!(text, expected);
        }
    }

    #[test]
    fn a_fingerprint_is_the_sha256_in_hexadecimal() {
        assert_eq!(fingerprint(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
