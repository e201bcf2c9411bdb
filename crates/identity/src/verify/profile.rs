//! What a single certificate must look like, whoever signed it.

use std::collections::BTreeSet;

use hms_model::spiffe::SpiffeId;
use x509_parser::asn1_rs::{Any, FromDer as _};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{ExtendedKeyUsage, GeneralName, KeyUsage, ParsedExtension, SubjectAlternativeName};
use x509_parser::x509::X509Version;

use super::{Usage, VerifyError};
use crate::strength::classify;

/// The longest serial number, in bytes (RFC 5280 §4.1.2.2).
const MAX_SERIAL: usize = 20;

/// The extensions this crate decides by; at most one of each.
#[derive(Default)]
struct Rights<'c, 'a> {
    names: Option<&'c SubjectAlternativeName<'a>>,
    is_ca: bool,
    path_len: Option<u32>,
    key_usage: Option<&'c KeyUsage>,
    purposes: Option<&'c ExtendedKeyUsage<'a>>,
}

/// Checks a leaf by itself and answers its identity. Without `usage` it must be fit for both sides of a handshake, as
/// every SVID of ours is.
pub(crate) fn leaf(certificate: &X509Certificate<'_>, usage: Option<Usage>) -> Result<SpiffeId, VerifyError> {
    let rights = common(certificate)?;
    if rights.is_ca {
        return Err(VerifyError::LeafIsCa);
    }
    let key_usage = rights.key_usage.ok_or(VerifyError::KeyUsage)?;
    if key_usage.key_cert_sign() || key_usage.crl_sign() {
        return Err(VerifyError::LeafSigns);
    }
    if !key_usage.digital_signature() {
        return Err(VerifyError::KeyUsage);
    }
    purposes(rights.purposes.ok_or(VerifyError::EkuMissing)?, usage)?;
    identity(rights.names)
}

/// Checks an issuer (an intermediate or a root) by itself and answers how many issuers may stand below it.
pub(crate) fn issuer(certificate: &X509Certificate<'_>) -> Result<Option<u32>, VerifyError> {
    let rights = common(certificate)?;
    if !rights.is_ca {
        return Err(VerifyError::IssuerNotCa);
    }
    if !rights.key_usage.is_some_and(KeyUsage::key_cert_sign) {
        return Err(VerifyError::IssuerKeyUsage);
    }
    Ok(rights.path_len)
}

/// What holds for every certificate: version 3, a sound serial number, each extension once and readable, a strong key.
fn common<'c, 'a>(certificate: &'c X509Certificate<'a>) -> Result<Rights<'c, 'a>, VerifyError> {
    if certificate.version() != X509Version::V3 {
        return Err(VerifyError::Version);
    }
    let serial = certificate.raw_serial();
    let negative = serial.first().is_none_or(|first| first & 0x80 != 0);
    if negative || serial.len() > MAX_SERIAL || serial.iter().all(|byte| *byte == 0) {
        return Err(VerifyError::Serial);
    }
    if certificate.signature_algorithm != certificate.signature {
        return Err(VerifyError::BadSignature);
    }
    let rights = rights(certificate)?;
    classify(certificate.public_key().raw).ok_or(VerifyError::WeakKey)?;
    Ok(rights)
}

fn rights<'c, 'a>(certificate: &'c X509Certificate<'a>) -> Result<Rights<'c, 'a>, VerifyError> {
    let mut rights = Rights::default();
    let mut seen = BTreeSet::new();
    for extension in certificate.extensions() {
        if !seen.insert(extension.oid.as_bytes()) {
            return Err(VerifyError::DuplicateExtension);
        }
        match extension.parsed_extension() {
            ParsedExtension::ParseError { .. } => return Err(VerifyError::Malformed),
            ParsedExtension::SubjectAlternativeName(names) => rights.names = Some(names),
            ParsedExtension::BasicConstraints(constraints) => {
                rights.is_ca = constraints.ca;
                rights.path_len = constraints.path_len_constraint;
            }
            ParsedExtension::KeyUsage(usage) => rights.key_usage = Some(usage),
            ParsedExtension::ExtendedKeyUsage(purposes) => rights.purposes = Some(purposes),
            _ => continue,
        }
        // The parser reads a value and leaves what follows it; two readers must never see two different certificates.
        if !matches!(Any::from_der(extension.value), Ok(([], _))) {
            return Err(VerifyError::Malformed);
        }
    }
    Ok(rights)
}

/// The purposes must be of TLS and nothing else, and contain the one asked for.
fn purposes(found: &ExtendedKeyUsage<'_>, usage: Option<Usage>) -> Result<(), VerifyError> {
    if found.any {
        return Err(VerifyError::EkuAny);
    }
    let foreign = found.code_signing
        || found.email_protection
        || found.time_stamping
        || found.ocsp_signing
        || !found.other.is_empty();
    let fits = match usage {
        Some(Usage::Client) => found.client_auth,
        Some(Usage::Server) => found.server_auth,
        None => found.client_auth && found.server_auth,
    };
    if foreign || !fits { Err(VerifyError::EkuWrong) } else { Ok(()) }
}

/// Exactly one URI and nothing else. The subject of the certificate is never looked at.
fn identity(names: Option<&SubjectAlternativeName<'_>>) -> Result<SpiffeId, VerifyError> {
    let names = names.map(|names| names.general_names.as_slice()).unwrap_or_default();
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let Some(uri) = uris.next() else {
        return Err(VerifyError::NoUri);
    };
    if uris.next().is_some() {
        return Err(VerifyError::SeveralUris);
    }
    if names.len() != 1 {
        return Err(VerifyError::OtherName);
    }
    SpiffeId::parse(uri).map_err(VerifyError::NotSpiffe)
}
