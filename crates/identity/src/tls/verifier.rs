//! The two verifiers through which rustls asks about a peer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_model::spiffe::SpiffeId;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::verify_tls13_signature;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::SIGNATURES;
use crate::verify::{Anchors, MAX_CHAIN, Usage, VerifyError};

/// Used by an accepting side: any workload of the trust domain, identified by its SVID.
#[derive(Debug)]
pub(super) struct MeshClientVerifier {
    anchors: Anchors,
    mandatory: bool,
}

impl MeshClientVerifier {
    pub(super) fn new(anchors: Anchors, mandatory: bool) -> Self {
        Self { anchors, mandatory }
    }
}

impl ClientCertVerifier for MeshClientVerifier {
    fn offer_client_auth(&self) -> bool {
        true
    }

    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // A workload has one SVID; there is nothing to choose, and hints would tell a stranger whom we believe.
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        verify(&self.anchors, end_entity, intermediates, now, Usage::Client).map_err(refuse)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_in_the_mesh())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

/// Used by an opening side: exactly one of the identities that were called.
#[derive(Debug)]
pub(super) struct MeshServerVerifier {
    anchors: Anchors,
    expected: BTreeSet<SpiffeId>,
}

impl MeshServerVerifier {
    pub(super) fn new(anchors: Anchors, expected: BTreeSet<SpiffeId>) -> Self {
        Self { anchors, expected }
    }
}

impl ServerCertVerifier for MeshServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let identity = verify(&self.anchors, end_entity, intermediates, now, Usage::Server).map_err(refuse)?;
        if !self.expected.contains(&identity) {
            return Err(refuse(VerifyError::UnexpectedIdentity(Box::new(identity))));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(not_in_the_mesh())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &SIGNATURES)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SIGNATURES.supported_schemes()
    }
}

fn verify(
    anchors: &Anchors,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    now: UnixTime,
    usage: Usage,
) -> Result<SpiffeId, VerifyError> {
    // Counted before anything is gathered: a peer may send thousands of empty certificates.
    if intermediates.len() >= MAX_CHAIN {
        return Err(VerifyError::ChainTooLong);
    }
    let chain: Vec<CertificateDer<'_>> = std::iter::once(end_entity)
        .chain(intermediates)
        .map(|certificate| CertificateDer::from(certificate.as_ref()))
        .collect();
    let now = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(now.as_secs())).ok_or(VerifyError::Clock)?;
    anchors.verify(&chain, now, usage)
}

/// Wraps a reason so that it comes out of the handshake again; the peer only reads the alert `certificate_unknown`.
fn refuse(error: VerifyError) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
}

/// The configurations enable TLS 1.3 alone, so rustls never asks; should it ask, the answer is no.
fn not_in_the_mesh() -> Error {
    Error::General("TLS 1.2 is not spoken inside the mesh".to_owned())
}
