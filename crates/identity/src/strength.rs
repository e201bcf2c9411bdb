//! Which public keys are strong enough for the mesh: P-256, P-384, Ed25519, RSA of 2048 to 8192 bits.

use rustls_pki_types::alg_id;
use x509_parser::asn1_rs::FromDer as _;
use x509_parser::public_key::PublicKey;
use x509_parser::x509::SubjectPublicKeyInfo;

use crate::der::{SEQUENCE, element};

/// The kind of a public key that was found strong enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA on NIST P-256.
    P256,
    /// ECDSA on NIST P-384.
    P384,
    /// Ed25519 (RFC 8410).
    Ed25519,
    /// RSA with a modulus of so many bits.
    Rsa {
        /// 2048 to 8192.
        bits: u32,
    },
}

/// The smallest RSA modulus, in bits.
const RSA_MIN: u32 = 2048;
/// The largest RSA modulus, in bits: beyond it a signature check costs a peer's work for nothing.
const RSA_MAX: u32 = 8192;
/// The smallest RSA exponent; smaller ones have a history of forged signatures.
const EXPONENT_MIN: u64 = 65_537;
/// The largest RSA exponent that the cryptographic library verifies with (33 bits).
const EXPONENT_MAX: u64 = (1 << 33) - 1;

/// Tells the kind of a DER `SubjectPublicKeyInfo`, or `None` if it is weak, unknown or not canonical.
///
/// The algorithm identifier is compared byte by byte, parameters included: an elliptic curve given by explicit
/// parameters (CVE-2020-0601) is no known curve.
pub fn classify(spki_der: &[u8]) -> Option<KeyKind> {
    let (rest, spki) = SubjectPublicKeyInfo::from_der(spki_der).ok()?;
    if !rest.is_empty() || spki.subject_public_key.unused_bits != 0 {
        return None;
    }
    let algorithm = element(element(spki_der, SEQUENCE)?.content, SEQUENCE)?.content;
    let key = spki.subject_public_key.data.as_ref();
    let is = |id: &[u8]| algorithm == id;
    if is(&alg_id::ECDSA_P256) {
        uncompressed(key, 65).then_some(KeyKind::P256)
    } else if is(&alg_id::ECDSA_P384) {
        uncompressed(key, 97).then_some(KeyKind::P384)
    } else if is(&alg_id::ED25519) {
        (key.len() == 32).then_some(KeyKind::Ed25519)
    } else if is(&alg_id::RSA_ENCRYPTION) {
        rsa(&spki)
    } else {
        None
    }
}

/// An uncompressed point (SEC 1 §2.3.3) of `length` bytes.
fn uncompressed(key: &[u8], length: usize) -> bool {
    key.len() == length && key.first() == Some(&4)
}

fn rsa(spki: &SubjectPublicKeyInfo<'_>) -> Option<KeyKind> {
    let PublicKey::RSA(key) = spki.parsed().ok()? else {
        return None;
    };
    let start = key.modulus.iter().position(|byte| *byte != 0)?;
    let modulus = key.modulus.get(start..)?;
    let unused = modulus.first()?.leading_zeros();
    let bits = u32::try_from(modulus.len()).ok()?.checked_mul(8)?.checked_sub(unused)?;
    let exponent = key.try_exponent().ok()?;
    let sound = (RSA_MIN..=RSA_MAX).contains(&bits)
        && (EXPONENT_MIN..=EXPONENT_MAX).contains(&exponent)
        && exponent % 2 == 1
        && modulus.last()? % 2 == 1;
    sound.then_some(KeyKind::Rsa { bits })
}
