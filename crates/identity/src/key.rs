//! Private keys of workloads: made here, kept in memory that is wiped, shown to nobody.

use std::fmt;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::{Zeroize as _, Zeroizing};

/// The largest PKCS#8 document of a P-256 key that is looked at, in bytes; real ones have about 140.
const MAX_PKCS8: usize = 1024;

/// Why a key could not be made, read or used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The random source or the key generation failed.
    #[error("no key pair could be generated")]
    Generation,
    /// The bytes are no PKCS#8 document of a P-256 key, or its public half does not fit.
    #[error("not a PKCS#8 document of a P-256 key")]
    Malformed,
    /// The signing request could not be signed.
    #[error("the certificate signing request could not be signed")]
    Signing,
}

/// A P-256 key pair. The secret half is wiped from memory on drop and appears in no `Debug` output.
pub struct PrivateKey {
    pkcs8: Zeroizing<Vec<u8>>,
    public: Vec<u8>,
}

impl PrivateKey {
    /// Makes a new key from the operating system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(|_error| KeyError::Generation)?;
        Ok(Self::keep(pair))
    }

    /// Reads a PKCS#8 document (RFC 5958, unencrypted). Anything but a P-256 key is refused.
    pub fn from_pkcs8_der(der: &[u8]) -> Result<Self, KeyError> {
        if der.len() > MAX_PKCS8 {
            return Err(KeyError::Malformed);
        }
        Self::pair(der).map(Self::keep)
    }

    /// The PKCS#8 document, in memory that is wiped on drop. Only ever for a file of mode 0600 or another process's memory.
    pub fn to_pkcs8_der(&self) -> Zeroizing<Vec<u8>> {
        self.pkcs8.clone()
    }

    /// The public half as a DER `SubjectPublicKeyInfo` (RFC 5280 §4.1.2.7).
    pub fn public_key_der(&self) -> &[u8] {
        &self.public
    }

    /// A signing request (PKCS#10, RFC 2986, DER) with an empty subject and no extensions: it asks for nothing and
    /// proves possession of the key.
    pub fn csr(&self) -> Result<Vec<u8>, KeyError> {
        let mut pair = Self::pair(&self.pkcs8)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let request = params.serialize_request(&pair).map_err(|_error| KeyError::Signing);
        pair.zeroize();
        Ok(request?.der().to_vec())
    }

    /// The key in the form rustls loads; rustls wipes its copy.
    pub(crate) fn to_rustls(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.pkcs8.to_vec()))
    }

    fn pair(der: &[u8]) -> Result<KeyPair, KeyError> {
        KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der), &PKCS_ECDSA_P256_SHA256)
            .map_err(|_error| KeyError::Malformed)
    }

    fn keep(mut pair: KeyPair) -> Self {
        let kept = Self { pkcs8: Zeroizing::new(pair.serialize_der()), public: pair.subject_public_key_info() };
        pair.zeroize();
        kept
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(P-256, secret)")
    }
}
