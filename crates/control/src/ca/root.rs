//! The root of the trust domain. It signs issuers and nothing else, and names its domain, so that stored state and domain
//! cannot be mixed up.

use std::path::Path;
use std::time::SystemTime;

use hms_model::spiffe::TrustDomain;
use rand::TryRngCore as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType};
use rustls_pki_types::CertificateDer;
use x509_parser::extensions::GeneralName;

use super::files::{self, Certificate, Pair, Paths};
use super::{CaError, DAY, Life, hex, named, parameters};

/// Life of a root. Ten years.
const LIFE: std::time::Duration = DAY.saturating_mul(3652);

/// A loaded or newly made root.
pub(super) struct Root {
    /// Its trust domain.
    pub(super) domain: TrustDomain,
    /// Its end.
    pub(super) not_after: SystemTime,
    pair: Pair,
}

impl Root {
    /// Loads the root of `directory`, or makes one for `wanted`, or for a domain of its own making. The caller holds the lock
    /// on the directory.
    pub(super) fn open(directory: &Path, wanted: Option<&TrustDomain>, now: SystemTime) -> Result<Self, CaError> {
        let paths = Paths::new(directory, "root");
        let Some(pair) = files::load(&paths)? else {
            let domain = wanted.cloned().map_or_else(random_domain, Ok)?;
            let (pair, not_after) = make(&domain, now).map_err(CaError::Make)?;
            files::store(&paths, &pair)?;
            tracing::info!(target: "audit", trust_domain = %domain, "made the root of a new trust domain");
            return Ok(Self { domain, not_after, pair });
        };
        let mismatch = |reason| CaError::Mismatch { path: paths.certificate.clone(), reason };
        let (domain, not_after) = read(&pair.certificate.der).map_err(mismatch)?;
        if let Some(wanted) = wanted
            && *wanted != domain
        {
            let (found, wanted) = (domain.as_str().into(), wanted.as_str().into());
            return Err(CaError::OtherDomain { path: paths.certificate, found, wanted });
        }
        Ok(Self { domain, not_after, pair })
    }

    /// The certificate.
    pub(super) fn certificate(&self) -> &Certificate {
        &self.pair.certificate
    }

    /// Signs an issuer's certificate.
    pub(super) fn sign(&self, parameters: &CertificateParams, key: &impl PublicKeyData) -> Result<Certificate, String> {
        let issuer = rcgen::Issuer::from_ca_cert_der(&self.pair.certificate.der, &self.pair.key);
        let signed = issuer.and_then(|issuer| parameters.signed_by(key, &issuer));
        signed.map(Into::into).map_err(|error| error.to_string())
    }
}

/// A domain nobody else has: `9f3c51d07ab2.hms`.
fn random_domain() -> Result<TrustDomain, CaError> {
    let mut bytes = [0; 6];
    rand::rngs::OsRng.try_fill_bytes(&mut bytes).map_err(|error| CaError::Make(error.to_string()))?;
    TrustDomain::new(&format!("{}.hms", hex(&bytes))).map_err(|error| CaError::Make(error.to_string()))
}

fn make(domain: &TrustDomain, now: SystemTime) -> Result<(Pair, SystemTime), String> {
    let key = KeyPair::generate().map_err(|error| error.to_string())?;
    let life = Life::from(now, LIFE);
    let (mut root, _serial) = parameters(&life)?;
    named(&mut root, &format!("root of {domain}"));
    root.is_ca = IsCa::Ca(BasicConstraints::Constrained(1));
    root.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // The trust domain as SPIFFE's X.509-SVID §3.1 has a signing certificate carry it.
    let uri = format!("spiffe://{domain}").try_into().map_err(|error: rcgen::Error| error.to_string())?;
    root.subject_alt_names = vec![SanType::URI(uri)];
    let certificate = root.self_signed(&key).map_err(|error| error.to_string())?.into();
    Ok((Pair { certificate, key }, life.not_after))
}

/// The trust domain and the end of a root.
fn read(certificate: &CertificateDer<'_>) -> Result<(TrustDomain, SystemTime), String> {
    let (_rest, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|error| error.to_string())?;
    let names = parsed.subject_alternative_name().map_err(|error| error.to_string())?;
    let uri = names.and_then(|names| match names.value.general_names.as_slice() {
        [GeneralName::URI(uri)] => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    let domain = uri.ok_or_else(|| "it names no trust domain, so it was not made here".to_owned())?;
    if !parsed.is_ca() {
        return Err("it may not sign certificates".to_owned());
    }
    let domain = TrustDomain::new(domain).map_err(|error| error.to_string())?;
    Ok((domain, parsed.validity().not_after.to_datetime().into()))
}
