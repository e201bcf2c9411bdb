//! The roots of one trust domain, read once, and the search for a path to them.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::time::SystemTime;

use hms_model::spiffe::{SpiffeId, TrustDomain};
use hms_model::trust::TrustBundle;
use rustls_pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage, VerifiedPath};
use x509_parser::certificate::{Validity, X509Certificate};

use super::{Usage, VerifyError, check_sizes, parse, profile};
use crate::bundle::{BundleError, MAX_ROOT, MAX_ROOTS};
use crate::tls::SIGNATURES;

/// id-kp-serverAuth (1.3.6.1.5.5.7.3.1), the content of its DER.
const SERVER_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 1];
/// id-kp-clientAuth (1.3.6.1.5.5.7.3.2), the content of its DER.
const CLIENT_AUTH: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 3, 2];

/// What webpki does not keep of a root.
#[derive(Debug, Clone, Copy)]
struct Root {
    /// Unix time in seconds.
    not_before: i64,
    /// Unix time in seconds, inclusive.
    not_after: i64,
    path_len: Option<u32>,
}

/// The roots of one trust domain, checked and ready for many verifications.
#[derive(Debug, Clone)]
pub struct Anchors {
    trust_domain: TrustDomain,
    /// The roots as webpki takes them.
    trusted: Vec<TrustAnchor<'static>>,
    /// What else is known of them, in the same order.
    roots: Vec<Root>,
}

impl Anchors {
    /// Reads a bundle. One unsound root refuses the whole bundle: a bundle is a decision, not a suggestion.
    pub fn new(bundle: &TrustBundle) -> Result<Self, BundleError> {
        if bundle.roots.is_empty() {
            return Err(BundleError::Empty);
        }
        if bundle.roots.len() > MAX_ROOTS {
            return Err(BundleError::TooManyRoots);
        }
        let mut trusted = Vec::with_capacity(bundle.roots.len());
        let mut roots = Vec::with_capacity(bundle.roots.len());
        for der in &bundle.roots {
            let (anchor, root) = read_root(der)?;
            trusted.push(anchor);
            roots.push(root);
        }
        Ok(Self { trust_domain: bundle.trust_domain.clone(), trusted, roots })
    }

    /// The domain these roots vouch for.
    pub fn trust_domain(&self) -> &TrustDomain {
        &self.trust_domain
    }

    /// Verifies a chain, leaf first; see [`verify_chain`](super::verify_chain).
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: SystemTime, usage: Usage) -> Result<SpiffeId, VerifyError> {
        check_sizes(chain)?;
        let now = now.duration_since(SystemTime::UNIX_EPOCH).map_err(|_error| VerifyError::Clock)?;
        let seconds = i64::try_from(now.as_secs()).map_err(|_error| VerifyError::Clock)?;
        let parsed = chain.iter().map(|der| parse(der)).collect::<Result<Vec<_>, _>>()?;
        let (leaf, issuers) = parsed.split_first().ok_or(VerifyError::EmptyChain)?;
        let identity = profile::leaf(leaf, Some(usage))?;
        if identity.trust_domain() != self.trust_domain.as_str() {
            return Err(VerifyError::TrustDomain);
        }
        for issuer in issuers {
            profile::issuer(issuer)?;
        }
        check_order(&parsed)?;
        for certificate in &parsed {
            check_life(certificate.validity(), seconds)?;
        }
        self.find_path(chain, UnixTime::since_unix_epoch(now), seconds, usage)?;
        Ok(identity)
    }

    /// Lets webpki search for a path, and refuses paths to roots that may not end one.
    fn find_path(
        &self,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
        seconds: i64,
        usage: Usage,
    ) -> Result<(), VerifyError> {
        let (leaf, issuers) = chain.split_first().ok_or(VerifyError::EmptyChain)?;
        let leaf = EndEntityCert::try_from(leaf).map_err(|error| VerifyError::from_webpki(&error))?;
        let purpose = match usage {
            Usage::Client => KeyUsage::required_if_present(CLIENT_AUTH),
            Usage::Server => KeyUsage::required_if_present(SERVER_AUTH),
        };
        // webpki carries only its own errors, so ours travels beside them.
        let refused = Cell::new(None);
        let judge = |path: &VerifiedPath<'_>| {
            self.judge_root(path, seconds).map_err(|error| {
                refused.set(Some(error));
                webpki::Error::UnknownIssuer
            })
        };
        match leaf.verify_for_usage(SIGNATURES.all, &self.trusted, issuers, now, purpose, None, Some(&judge)) {
            Ok(_) => Ok(()),
            Err(error) => Err(refused.take().unwrap_or_else(|| VerifyError::from_webpki(&error))),
        }
    }

    fn judge_root(&self, path: &VerifiedPath<'_>, seconds: i64) -> Result<(), VerifyError> {
        let found = self.trusted.iter().zip(&self.roots).find(|(anchor, _)| std::ptr::eq(*anchor, path.anchor()));
        let (_, root) = found.ok_or(VerifyError::UnknownIssuer)?;
        if seconds < root.not_before {
            return Err(VerifyError::RootNotYetValid);
        }
        if seconds > root.not_after {
            return Err(VerifyError::RootExpired);
        }
        let below = u32::try_from(path.intermediate_certificates().count()).unwrap_or(u32::MAX);
        if root.path_len.is_some_and(|allowed| below > allowed) {
            return Err(VerifyError::PathLength);
        }
        Ok(())
    }
}

fn read_root(der: &[u8]) -> Result<(TrustAnchor<'static>, Root), BundleError> {
    if der.len() > MAX_ROOT {
        return Err(BundleError::TooLarge);
    }
    let certificate = parse(der).map_err(|_error| BundleError::Malformed)?;
    let path_len = profile::issuer(&certificate).map_err(|error| match error {
        VerifyError::IssuerNotCa | VerifyError::IssuerKeyUsage => BundleError::NotACa,
        VerifyError::WeakKey => BundleError::WeakKey,
        _ => BundleError::Malformed,
    })?;
    let der = CertificateDer::from(der);
    let anchor = webpki::anchor_from_trusted_cert(&der).map_err(|_error| BundleError::Malformed)?.to_owned();
    let validity = certificate.validity();
    let root =
        Root { not_before: validity.not_before.timestamp(), not_after: validity.not_after.timestamp(), path_len };
    Ok((anchor, root))
}

/// Each certificate must be issued by the next (RFC 8446 §4.4.2 asks for it), and no two issuers may share a name. So
/// there is one possible path, and the search costs at most one signature per root and certificate, whatever a peer sends.
fn check_order(chain: &[X509Certificate<'_>]) -> Result<(), VerifyError> {
    let mut issuers = BTreeSet::new();
    for (below, above) in chain.iter().zip(chain.iter().skip(1)) {
        let issuer = above.subject().as_raw();
        if below.issuer().as_raw() != issuer || !issuers.insert(issuer) {
            return Err(VerifyError::ChainOrder);
        }
    }
    Ok(())
}

fn check_life(validity: &Validity, seconds: i64) -> Result<(), VerifyError> {
    let (start, end) = (validity.not_before.timestamp(), validity.not_after.timestamp());
    if end < start {
        return Err(VerifyError::Validity);
    }
    if seconds < start {
        return Err(VerifyError::NotYetValid);
    }
    if seconds > end {
        return Err(VerifyError::Expired);
    }
    Ok(())
}
