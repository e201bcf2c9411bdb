//! The TLS configurations of the mesh and of its edge.
//!
//! Inside the mesh: TLS 1.3 only, both sides show an SVID, X25519MLKEM768 first, nothing is ever resumed. A resumed
//! session would skip the checks of today's bundle (RFC 8446 §2.2 re-authenticates nobody), so there are no tickets, no
//! session store and no early data on either side. Certificates are never compressed.
//!
//! A configuration holds one SVID, one bundle and one set of expected identities for good. When any of them changes, a
//! new configuration is built; it costs the reading of the roots and a few allocations.

mod provider;
mod verifier;

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use hms_model::spiffe::SpiffeId;
use hms_model::trust::TrustBundle;
use rustls::client::{ClientConfig, Resumption};
use rustls::server::{NoServerSessionStorage, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{CertificateError, OtherError, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

pub(crate) use self::provider::SIGNATURES;
pub use self::provider::provider;
use self::verifier::{MeshClientVerifier, MeshServerVerifier};
use crate::bundle::BundleError;
use crate::clock::{Clock, ClockTime};
use crate::svid::Svid;
use crate::verify::{Anchors, VerifyError, check_sizes, leaf_profile, parse};

/// Why a TLS configuration could not be built.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The trust bundle is unsound.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The set of expected identities is empty; such a client would trust nobody, or worse, somebody might read it as
    /// everybody.
    #[error("a client must expect at least one identity")]
    NobodyExpected,
    /// The edge certificate and key do not fit together, or rustls refuses the combination.
    #[error(transparent)]
    Rustls(Box<rustls::Error>),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        Self::Rustls(Box::new(error))
    }
}

/// Whether a server of the mesh insists on a certificate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientAuth {
    Mandatory,
    Optional,
}

/// The accepting side between two proxies: a client without a valid SVID of the bundle's trust domain is refused.
///
/// Which of the domain's workloads may speak is a matter of policy, decided with [`peer_identity`] after the handshake.
pub fn server_config(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsError> {
    mesh_server(svid, bundle, alpn, clock, ClientAuth::Mandatory)
}

/// The accepting side of the control plane, where a workload with a join token has no SVID yet.
///
/// A certificate that *is* shown must be valid. [`peer_identity`] is `None` for a client without one; such a connection
/// may do nothing but redeem a token.
pub fn bootstrap_server_config(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsError> {
    mesh_server(svid, bundle, alpn, clock, ClientAuth::Optional)
}

fn mesh_server(
    svid: &Svid,
    bundle: &TrustBundle,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
    auth: ClientAuth,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = MeshClientVerifier::new(Anchors::new(bundle)?, auth == ClientAuth::Mandatory);
    let mut config = ServerConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified())));
    config.alpn_protocols = protocols(alpn);
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(Arc::new(config))
}

/// The opening side between two proxies: the peer must be one of `expected`, byte for byte.
///
/// The name given to rustls plays no part and is not sent; use [`server_name`].
pub fn client_config(
    svid: &Svid,
    bundle: &TrustBundle,
    expected: &BTreeSet<SpiffeId>,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    mesh_client(Some(svid), bundle, expected, alpn, clock)
}

/// The opening side of a workload that has no SVID yet and is about to redeem a join token at the control plane.
pub fn bootstrap_client_config(
    bundle: &TrustBundle,
    expected: &BTreeSet<SpiffeId>,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    mesh_client(None, bundle, expected, alpn, clock)
}

fn mesh_client(
    svid: Option<&Svid>,
    bundle: &TrustBundle,
    expected: &BTreeSet<SpiffeId>,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ClientConfig>, TlsError> {
    if expected.is_empty() {
        return Err(TlsError::NobodyExpected);
    }
    let verifier = MeshServerVerifier::new(Anchors::new(bundle)?, expected.clone());
    let builder = ClientConfig::builder_with_details(provider(), Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    config.resumption = Resumption::disabled();
    config.enable_early_data = false;
    config.enable_sni = true;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(Arc::new(config))
}

/// The gateway's HTTPS side: TLS 1.2 (AEAD suites only) and 1.3, no client certificates, no early data.
///
/// Nobody is authenticated here, so a session may be resumed; the session store belongs to this one configuration.
pub fn edge_server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    alpn: &[&[u8]],
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = provider();
    let certified = CertifiedKey::from_der(chain, key, &provider)?;
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(ClockTime(clock)))
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = protocols(alpn);
    config.max_early_data_size = 0;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(Arc::new(config))
}

/// Authorities that hosts outside of the mesh are verified with.
#[derive(Debug, Clone)]
pub struct Authorities(Arc<RootCertStore>);

impl Authorities {
    /// Those of these certificates that are authorities; the others are left out.
    pub fn new(certificates: Vec<CertificateDer<'static>>) -> Self {
        let mut roots = RootCertStore::empty();
        let _counts = roots.add_parsable_certificates(certificates);
        Self(Arc::new(roots))
    }

    /// Whether there is nobody to believe.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The opening side towards a host outside of the mesh: its certificate must be for its name and lead to `authorities`. With `svid`
/// the workload shows its own when it is asked for one.
pub fn outside_client_config(
    authorities: &Authorities,
    svid: Option<&Svid>,
    alpn: &[&[u8]],
) -> Result<Arc<ClientConfig>, TlsError> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13, &TLS12])?
        .with_root_certificates(Arc::clone(&authorities.0));
    let mut config = match svid {
        Some(svid) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(svid.certified()))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = protocols(alpn);
    config.enable_early_data = false;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(Arc::new(config))
}

/// The identity of a peer whose handshake has succeeded, from the certificates it showed.
///
/// Reads the leaf only and verifies no signature: the verifier of the configuration has done that. `None` without a
/// certificate or without exactly one identity in it.
pub fn peer_identity(certificates: &[CertificateDer<'_>]) -> Option<SpiffeId> {
    check_sizes(certificates).ok()?;
    let leaf = parse(certificates.first()?).ok()?;
    let as_client = leaf_profile(&leaf, Some(crate::verify::Usage::Client));
    as_client.or_else(|_error| leaf_profile(&leaf, Some(crate::verify::Usage::Server))).ok()
}

/// The name to give rustls for a connection inside the mesh. It is never sent nor checked: identities are.
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(Ipv4Addr::UNSPECIFIED.into())
}

/// The reason why our own side refused the peer's certificate, if that is what failed the handshake.
pub fn verify_error(error: &rustls::Error) -> Option<&VerifyError> {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
        _ => None,
    }
}

/// Like [`verify_error`], for the I/O error in which tokio-rustls wraps a failed handshake.
pub fn verify_error_of_io(error: &io::Error) -> Option<&VerifyError> {
    verify_error(error.get_ref()?.downcast_ref()?)
}

fn protocols(alpn: &[&[u8]]) -> Vec<Vec<u8>> {
    alpn.iter().map(|protocol| protocol.to_vec()).collect()
}
