//! An authority for the peers, with one certificate for both ends of a pair: P-256, as ours are.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256,
};
use rustls_pki_types::PrivateKeyDer;
use tempfile::TempDir;

use crate::Outcome;
use crate::tool::Identity;

/// A folder with `ca.pem`, `cert.pem`, `key.pem`, `both.pem`, and the same identity for our generators.
pub(crate) struct Certificates(TempDir);

impl Certificates {
    /// Makes them.
    pub(crate) fn make() -> Outcome<Self> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        make(folder.path())?;
        Ok(Self(folder))
    }

    /// The identity for generators.
    pub(crate) fn folder(&self) -> &Path {
        self.0.path()
    }

    /// What templates call them.
    pub(crate) fn blanks(&self) -> BTreeMap<&'static str, String> {
        [("CERTIFICATES", self.0.path().display().to_string())].into()
    }
}

fn make(folder: &Path) -> Outcome {
    let failed = |error: rcgen::Error| format!("certificates: {error}");
    let authority_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut authority = CertificateParams::new(Vec::new()).map_err(failed)?;
    // Names that differ: an issuer called like its subject is taken for self-signed.
    authority.distinguished_name.push(DnType::CommonName, "bench authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let root = authority.self_signed(&authority_key).map_err(failed)?;
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed)?;
    let mut params = CertificateParams::new(vec!["bench.local".to_owned()]).map_err(failed)?;
    params.distinguished_name.push(DnType::CommonName, "bench.local");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let leaf = params.signed_by(&key, &issuer).map_err(failed)?;
    let files = [
        ("ca.pem", root.pem()),
        ("cert.pem", leaf.pem()),
        ("key.pem", key.serialize_pem()),
        ("both.pem", [leaf.pem(), key.serialize_pem()].concat()),
    ];
    for (name, text) in files {
        fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))?;
    }
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    Identity::new(vec![leaf.der().clone()], key).save(folder).map_err(|error| format!("identity: {error}"))
}
