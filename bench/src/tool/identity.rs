//! The TLS client of the generators: whose certificate it shows, which key exchange it offers.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use crate::Outcome;
use hms_model::names::ServiceName;
use hms_wire::hello::PeerHello;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ClientConfig, ClientConnection, Resumption};
use rustls::crypto::aws_lc_rs::{default_provider, kx_group};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::{DigitallySignedStruct, SignatureScheme, StreamOwned};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};

/// Names of the files of an identity: those in which a proxy of the mesh keeps its own.
pub(crate) const KEY: &str = "key.der";
/// Certificates, each behind its length in four bytes.
pub(crate) const CHAIN: &str = "chain";

/// HTTP/1.1 between proxies of the mesh.
const MESH: &[u8] = b"hms1-http/1.1";

/// A connection through TLS.
pub(crate) type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Which key exchange a client offers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offer {
    /// X25519 and P-256: what every peer here can do.
    Classic,
    /// X25519 with ML-KEM-768 first, as proxies of the mesh do among themselves.
    Hybrid,
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Classic => "classic",
            Self::Hybrid => "hybrid",
        })
    }
}

impl FromStr for Offer {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, ()> {
        [Self::Classic, Self::Hybrid].into_iter().find(|offer| offer.to_string() == word).ok_or(())
    }
}

/// A client's certificate with its key.
pub(crate) struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// One that was just made.
    pub(crate) fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key }
    }

    /// Reads it from a folder.
    pub(crate) fn load(folder: &Path) -> io::Result<Self> {
        let key = PrivateKeyDer::try_from(fs::read(folder.join(KEY))?).map_err(io::Error::other)?;
        let bytes = fs::read(folder.join(CHAIN))?;
        let chain = split(&bytes).ok_or_else(|| io::Error::other("no chain of certificates"))?;
        Ok(Self { chain, key })
    }

    /// Writes it into a folder, for a generator to read.
    pub(crate) fn save(&self, folder: &Path) -> io::Result<()> {
        let mut bytes = Vec::new();
        for certificate in &self.chain {
            bytes.extend_from_slice(&u32::try_from(certificate.len()).map_err(io::Error::other)?.to_be_bytes());
            bytes.extend_from_slice(certificate);
        }
        fs::write(folder.join(KEY), self.key.secret_der())?;
        fs::write(folder.join(CHAIN), bytes)
    }

    /// A client with this identity that never resumes a session: every handshake is a full one.
    pub(crate) fn client(self, offer: Offer) -> Outcome<Arc<ClientConfig>> {
        let failed = |error: rustls::Error| format!("TLS: {error}");
        let mut provider = default_provider();
        provider.kx_groups = match offer {
            Offer::Classic => vec![kx_group::X25519, kx_group::SECP256R1],
            Offer::Hybrid => vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        };
        let provider = Arc::new(provider);
        let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(failed)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer(provider)))
            .with_client_auth_cert(self.chain, self.key)
            .map_err(failed)?;
        config.resumption = Resumption::disabled();
        config.alpn_protocols = vec![MESH.to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// A connection after its handshake, and after the greeting that our proxies expect of each other.
pub(crate) fn secured(config: &Arc<ClientConfig>, stream: TcpStream) -> io::Result<Secured> {
    let name = ServerName::try_from("bench.local").map_err(io::Error::other)?;
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut tls = StreamOwned::new(connection, stream);
    while tls.conn.is_handshaking() {
        tls.conn.complete_io(&mut tls.sock)?;
    }
    if tls.conn.alpn_protocol() == Some(MESH) {
        tls.write_all(&greeting()?)?;
    }
    Ok(tls)
}

/// The greeting of the caller's proxy, which each connection between proxies begins with.
fn greeting() -> io::Result<Vec<u8>> {
    let service = |name| ServiceName::in_namespace("default", name).map_err(io::Error::other);
    let hello = PeerHello {
        outside: None,
        destination: service("bench-svc")?,
        destination_port: 0,
        source: service("caller-svc")?,
        workload: "bench".to_owned(),
        version: String::new(),
        zone: String::new(),
        level: 0,
    };
    hello.encode().map_err(io::Error::other)
}

fn split(mut bytes: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let mut chain = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (one, rest) = rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        chain.push(CertificateDer::from(one.to_vec()));
        bytes = rest;
    }
    Some(chain)
}

/// A generator talks to whatever it was pointed at on loopback; whose name that is differs from peer to peer and is not measured.
#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("only TLS 1.3 is measured".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        let chain = vec![certificate.der().clone(), certificate.der().clone()];
        let made = Identity::new(chain.clone(), PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        made.save(folder.path()).unwrap();
        let read = Identity::load(folder.path()).unwrap();
        assert_eq!(read.chain, chain);
        assert!(read.client(Offer::Hybrid).is_ok());
        assert!(split(&[0, 0, 0, 9, 1]).is_none());
    }
}
