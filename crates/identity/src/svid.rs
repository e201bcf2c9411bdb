//! An SVID (SPIFFE X.509-SVID): a workload's identity document together with the key that proves it.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::spiffe::SpiffeId;
use rustls::sign::CertifiedKey;
use rustls_pki_types::CertificateDer;
use x509_parser::time::ASN1Time;

use crate::key::PrivateKey;
use crate::tls::provider;
use crate::token::push_hex;
use crate::verify::{VerifyError, check_sizes, leaf_profile, parse};

/// Why a chain and a key make no SVID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SvidError {
    /// The chain or its leaf is unsound.
    #[error("the certificate is refused: {0}")]
    Chain(#[from] VerifyError),
    /// The leaf was issued for another key.
    #[error("the certificate was issued for another key")]
    OtherKey,
    /// The key could not be loaded.
    #[error("the key could not be loaded")]
    Key,
}

impl SvidError {
    /// A stable word for logs and metrics.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Chain(error) => error.reason(),
            Self::OtherKey => "other-key",
            Self::Key => "key",
        }
    }
}

struct Inner {
    identity: SpiffeId,
    certified: Arc<CertifiedKey>,
    key: PrivateKey,
    serial: String,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// A workload's certificate chain and private key. Cheap to clone; `Debug` shows no secret.
#[derive(Clone)]
pub struct Svid(Arc<Inner>);

impl Svid {
    /// Joins a chain (leaf first) and the key it was issued for.
    ///
    /// The leaf must carry exactly one URI SAN and no other name, be fit for both sides of a handshake, be no CA, and
    /// match the key. Whether a root vouches for it and whether its time has come is a question for
    /// [`verify_chain`](crate::verify::verify_chain); ask it before using a chain that came over the wire.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKey) -> Result<Self, SvidError> {
        check_sizes(&chain)?;
        let leaf = parse(chain.first().ok_or(VerifyError::EmptyChain)?)?;
        let identity = leaf_profile(&leaf, None)?;
        if leaf.public_key().raw != key.public_key_der() {
            return Err(SvidError::OtherKey);
        }
        let mut serial = String::new();
        push_hex(&mut serial, leaf.raw_serial());
        let not_before = system_time(leaf.validity().not_before).ok_or(VerifyError::Validity)?;
        let not_after = system_time(leaf.validity().not_after).ok_or(VerifyError::Validity)?;
        if not_after < not_before {
            return Err(VerifyError::Validity.into());
        }
        let signer = provider().key_provider.load_private_key(key.to_rustls()).map_err(|_error| SvidError::Key)?;
        let certified = Arc::new(CertifiedKey::new(chain, signer));
        Ok(Self(Arc::new(Inner { identity, certified, key, serial, not_before, not_after })))
    }

    /// Who this is.
    pub fn identity(&self) -> &SpiffeId {
        &self.0.identity
    }

    /// The certificates, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.certified.cert
    }

    /// The private key.
    pub fn key(&self) -> &PrivateKey {
        &self.0.key
    }

    /// The serial number of the leaf in lower-case hexadecimal digits, two per byte as encoded.
    pub fn serial(&self) -> &str {
        &self.0.serial
    }

    /// When the leaf begins to be valid.
    pub fn not_before(&self) -> SystemTime {
        self.0.not_before
    }

    /// The last second in which the leaf is valid.
    pub fn not_after(&self) -> SystemTime {
        self.0.not_after
    }

    /// Chain and signing key as rustls takes them.
    pub(crate) fn certified(&self) -> Arc<CertifiedKey> {
        Arc::clone(&self.0.certified)
    }
}

impl fmt::Debug for Svid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Svid")
            .field("identity", &self.0.identity)
            .field("serial", &self.0.serial)
            .field("not_after", &self.0.not_after)
            .finish_non_exhaustive()
    }
}

/// The instant as wall time; before 1970 there is none.
fn system_time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = u64::try_from(time.timestamp()).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}
