//! The issuer: signs workload certificates, and has itself renewed by the root before anybody notices.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use hms_identity::clock::Clock;
use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_model::spiffe::{SpiffeId, TrustDomain};
use hms_model::trust::TrustBundle;
use rcgen::{
    BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PublicKeyData, SanType,
    SubjectPublicKeyInfo,
};
use rustls_pki_types::CertificateDer;

use super::attest::Attestation;
use super::files::{self, Certificate, Pair, Paths};
use super::root::Root;
use super::{CaError, DAY, Forecast, IssueError, Life, Lifetimes, named, parameters};

/// Life of an issuer. One year.
const LIFE: Duration = DAY.saturating_mul(365);
/// What is left of an issuer when it is renewed. A quarter of its life, and far more than any workload certificate lives.
const RENEW_AT: Duration = DAY.saturating_mul(91);

/// The authority of one trust domain.
pub struct Ca {
    root: Root,
    key: KeyPair,
    current: ArcSwap<Current>,
    lifetimes: Lifetimes,
    clock: Arc<dyn Clock>,
    directory: PathBuf,
    issued: AtomicU64,
}

/// The issuer's certificate and its end.
struct Current {
    certificate: Certificate,
    not_after: SystemTime,
}

/// A certificate that was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, then the issuer, without the root.
    pub chain: Vec<CertificateDer<'static>>,
    /// Serial number, lower-case hexadecimal.
    pub serial: String,
    /// From when it is valid.
    pub not_before: SystemTime,
    /// Until when.
    pub not_after: SystemTime,
}

impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("domain", &self.root.domain)
            .field("directory", &self.directory)
            .finish_non_exhaustive()
    }
}

impl Ca {
    /// Opens the authority kept in `directory` (0700; made if missing). At the first start root and issuer are made, for the
    /// trust domain `wanted` or for one nobody else has; later `wanted` must be what the root says.
    pub fn open(
        directory: &Path,
        wanted: Option<&TrustDomain>,
        lifetimes: Lifetimes,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, CaError> {
        let lock = files::lock(directory)?;
        let now = clock.now();
        let root = Root::open(directory, wanted, now)?;
        let paths = Paths::new(directory, "issuer");
        let (pair, not_after) = if let Some(pair) = files::load(&paths)? {
            let not_after =
                check(&pair, &root).map_err(|reason| CaError::Mismatch { path: paths.certificate, reason })?;
            (pair, not_after)
        } else {
            let key = KeyPair::generate().map_err(|error| CaError::Make(error.to_string()))?;
            let made = certify(&root, &key, now).map_err(CaError::Make)?;
            let pair = Pair { certificate: made.certificate, key };
            files::store(&paths, &pair)?;
            (pair, made.not_after)
        };
        drop(lock);
        let Pair { certificate, key } = pair;
        let current = ArcSwap::from_pointee(Current { certificate, not_after });
        let ca =
            Self { root, key, current, lifetimes, clock, directory: directory.to_owned(), issued: AtomicU64::new(0) };
        ca.renew_issuer(now);
        Ok(ca)
    }

    /// The trust domain.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.root.domain
    }

    /// What to verify identities of this domain with.
    pub fn bundle(&self) -> TrustBundle {
        TrustBundle { trust_domain: self.root.domain.clone(), roots: vec![self.root.certificate().der.to_vec()] }
    }

    /// The root in PEM; public.
    pub fn root_pem(&self) -> String {
        self.root.certificate().pem.clone()
    }

    /// How long certificates may live.
    pub fn lifetimes(&self) -> Lifetimes {
        self.lifetimes
    }

    /// How many certificates were issued since the start.
    pub fn issued(&self) -> u64 {
        self.issued.load(Ordering::Relaxed)
    }

    /// When root and issuer end.
    pub fn forecast(&self) -> Forecast {
        Forecast { root: self.root.not_after, issuer: self.current.load().not_after }
    }

    /// Issues a certificate for the key of a PKCS#10 request. Whose it is, `attestation` has proved; what the request says
    /// beside its key is not read. The life asked for is brought within bounds.
    pub fn issue(
        &self,
        request: &[u8],
        identity: &SpiffeId,
        validity: Option<Duration>,
        attestation: &Attestation,
    ) -> Result<Issued, IssueError> {
        if identity.trust_domain() != self.root.domain.as_str() {
            return Err(IssueError::ForeignIdentity(identity.to_string()));
        }
        let key = requested_key(request)?;
        let now = self.clock.now();
        self.renew_issuer(now);
        let current = self.current.load_full();
        let life = Life::from(now, self.lifetimes.clamp(validity)).within(current.not_after);
        let (leaf, serial) = self.sign(&key, identity, &life, &current).map_err(IssueError::Sign)?;
        self.issued.fetch_add(1, Ordering::Relaxed);
        let not_after = jiff::Timestamp::try_from(life.not_after).unwrap_or_default();
        tracing::info!(target: "audit", %identity, serial, %not_after, proof = %attestation, "issued a certificate");
        let chain = vec![leaf, current.certificate.der.clone()];
        Ok(Issued { chain, serial, not_before: life.not_before, not_after: life.not_after })
    }

    /// A certificate of the control plane's own, with its key.
    pub fn own_svid(&self, identity: &SpiffeId) -> Result<Svid, IssueError> {
        let key = PrivateKey::generate().map_err(|error| IssueError::Sign(error.to_string()))?;
        let request = key.csr().map_err(|error| IssueError::Sign(error.to_string()))?;
        let issued = self.issue(&request, identity, None, &Attestation::Own)?;
        Svid::new(issued.chain, key).map_err(|error| IssueError::Sign(error.to_string()))
    }

    fn sign(
        &self,
        key: &impl PublicKeyData,
        identity: &SpiffeId,
        life: &Life,
        current: &Current,
    ) -> Result<(CertificateDer<'static>, String), String> {
        let text = |error: rcgen::Error| error.to_string();
        let (mut leaf, serial) = parameters(life)?;
        leaf.is_ca = IsCa::ExplicitNoCa;
        leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        leaf.subject_alt_names = vec![SanType::URI(identity.as_str().try_into().map_err(text)?)];
        let issuer = rcgen::Issuer::from_ca_cert_der(&current.certificate.der, &self.key).map_err(text)?;
        let signed = leaf.signed_by(key, &issuer).map_err(text)?;
        Ok((signed.into(), serial))
    }

    /// Has the root sign the issuer's key again when the issuer nears its end. Only the certificate's file changes, so there is
    /// no moment at which key and certificate on disk do not fit. A failure is told and does not stop issuing.
    fn renew_issuer(&self, now: SystemTime) {
        let fresh = |current: &Current| current.not_after.duration_since(now).is_ok_and(|left| left > RENEW_AT);
        if fresh(&self.current.load()) {
            return;
        }
        let renewed = files::lock(&self.directory).and_then(|_lock| {
            let current = certify(&self.root, &self.key, now).map_err(CaError::Make)?;
            let path = Paths::new(&self.directory, "issuer").certificate;
            files::store_certificate(&path, &current.certificate)?;
            Ok(current)
        });
        match renewed {
            Ok(current) => {
                tracing::info!(target: "audit", "renewed the issuer");
                self.current.store(Arc::new(current));
            }
            Err(error) => tracing::error!(%error, "cannot renew the issuer"),
        }
    }
}

/// The only thing taken from a request.
pub(super) fn requested_key(request: &[u8]) -> Result<SubjectPublicKeyInfo, IssueError> {
    let key = hms_identity::csr::parse(request).map_err(|error| IssueError::Request(error.to_string()))?;
    SubjectPublicKeyInfo::from_der(&key.spki_der).map_err(|error| IssueError::Request(error.to_string()))
}

/// Makes the issuer's certificate.
fn certify(root: &Root, key: &KeyPair, now: SystemTime) -> Result<Current, String> {
    let life = Life::from(now, LIFE).within(root.not_after);
    let (mut issuer, _serial) = parameters(&life)?;
    named(&mut issuer, &format!("issuer of {}", root.domain));
    issuer.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    issuer.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    Ok(Current { certificate: root.sign(&issuer, key)?, not_after: life.not_after })
}

/// The end of a stored issuer, if it is one of this root.
fn check(pair: &Pair, root: &Root) -> Result<SystemTime, String> {
    let readable = |error: &dyn fmt::Display| format!("it holds no readable certificate ({error})");
    let (_rest, issuer) =
        x509_parser::parse_x509_certificate(&pair.certificate.der).map_err(|error| readable(&error))?;
    let (_rest, parent) =
        x509_parser::parse_x509_certificate(&root.certificate().der).map_err(|error| readable(&error))?;
    let named = issuer.issuer().as_raw() == parent.subject().as_raw();
    if !named || !issuer.is_ca() || issuer.verify_signature(Some(parent.public_key())).is_err() {
        return Err("it was not signed by the root beside it".to_owned());
    }
    Ok(issuer.validity().not_after.to_datetime().into())
}
