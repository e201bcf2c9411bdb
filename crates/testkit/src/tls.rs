//! TLS peers that are not what they should be: without a certificate, with a stolen one, with one that nobody here issued.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme, SupportedProtocolVersion};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// What our proxies speak HTTP/1.1 with each other under.
pub const ALPN: &[u8] = b"hms1-http/1.1";

/// A certificate chain with its key.
#[derive(Debug)]
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Identity {
    /// What a proxy keeps in its private folder, stolen.
    pub fn stolen_from(folder: &Path) -> Self {
        let key = std::fs::read(folder.join("key.der")).unwrap();
        let bytes = std::fs::read(folder.join("chain")).unwrap();
        let mut rest = bytes.as_slice();
        let mut chain = Vec::new();
        // Each certificate stands behind its length.
        while let Some((length, more)) = rest.split_first_chunk::<4>() {
            let (der, more) = more.split_at(usize::try_from(u32::from_be_bytes(*length)).unwrap());
            chain.push(CertificateDer::from(der.to_vec()));
            rest = more;
        }
        Self { chain, key: PrivateKeyDer::try_from(key).unwrap() }
    }

    /// A certificate for `spiffe` from an authority that nobody trusts.
    pub fn of_a_strange_authority(spiffe: &str) -> Self {
        let authority = rcgen::KeyPair::generate().unwrap();
        let mut root = rcgen::CertificateParams::new(Vec::new()).unwrap();
        root.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let root_certificate = root.self_signed(&authority).unwrap();
        let issuer = rcgen::Issuer::new(root, authority);
        let key = rcgen::KeyPair::generate().unwrap();
        let mut leaf = rcgen::CertificateParams::new(Vec::new()).unwrap();
        leaf.subject_alt_names.push(rcgen::SanType::URI(spiffe.try_into().unwrap()));
        leaf.extended_key_usages =
            vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth, rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let chain = vec![leaf.der().clone(), root_certificate.der().clone()];
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        Self { chain, key }
    }
}

/// Connects to a proxy's inbound port, believes whatever it shows, sends `bytes` and reads to the end. `Err` is how TLS ended.
pub async fn speak(
    address: SocketAddr,
    identity: Option<Identity>,
    versions: &[&'static SupportedProtocolVersion],
    bytes: &[u8],
) -> Result<Vec<u8>, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(versions).unwrap();
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(Credulous(provider)));
    let mut config = match identity {
        Some(identity) => builder.with_client_auth_cert(identity.chain, identity.key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    let text = |error: std::io::Error| error.to_string();
    let stream = TcpStream::connect(address).await.map_err(text)?;
    let name = ServerName::try_from("peer.invalid").unwrap();
    let connecting = Box::pin(TlsConnector::from(Arc::new(config)).connect(name, stream));
    let mut stream = connecting.await.map_err(text)?;
    stream.write_all(bytes).await.map_err(text)?;
    stream.flush().await.map_err(text)?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    // The end of the first answer is enough; the connection may stay open.
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        match stream.read(&mut part).await.map_err(text)? {
            0 => break,
            length => answer.extend_from_slice(&part[..length]),
        }
    }
    if answer.is_empty() { Err("closed without an answer".to_owned()) } else { Ok(answer) }
}

/// Listens at `address` with somebody's certificate, and tells how each connection went: the bytes that arrived, or how TLS
/// ended. Ends with the scenario.
pub async fn impersonate(
    address: SocketAddr,
    identity: Identity,
) -> tokio::sync::mpsc::UnboundedReceiver<Result<Vec<u8>, String>> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_no_client_auth().with_single_cert(identity.chain, identity.key).unwrap();
    config.alpn_protocols = vec![ALPN.to_vec(), b"hms1-h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(address).await.unwrap();
    let (told, connections) = tokio::sync::mpsc::unbounded_channel();
    let _until_the_end = crate::tasks::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let outcome = match acceptor.accept(stream).await {
                Err(error) => Err(error.to_string()),
                Ok(mut stream) => {
                    let mut bytes = vec![0; 4096];
                    let read = stream.read(&mut bytes).await;
                    read.map_err(|error| error.to_string()).map(|length| bytes[..length].to_vec())
                }
            };
            if told.send(outcome).is_err() {
                return;
            }
        }
    });
    connections
}

/// Believes every certificate; only for showing what a peer accepts.
#[derive(Debug)]
struct Credulous(Arc<CryptoProvider>);

impl ServerCertVerifier for Credulous {
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
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
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
