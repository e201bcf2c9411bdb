//! Real handshakes over streams in memory, each side as the mesh configures it or as an attacker would.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use hms_identity::clock::FixedClock;
use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_identity::tls::{
    TlsError, bootstrap_client_config, bootstrap_server_config, client_config, edge_server_config, peer_identity,
    provider, server_config, server_name, verify_error, verify_error_of_io,
};
use hms_model::spiffe::SpiffeId;
use hms_model::trust::TrustBundle;
use rustls::client::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::server::ServerConfig;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    AlertDescription, ClientConnection, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion,
    ServerConnection, SignatureScheme, SupportedProtocolVersion,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::forge::{CALC, DAY, World, certificates, now, uri};
use crate::names::wrong_names;

const SUM: &str = "spiffe://k3.hms/ns/default/sa/sum-svc";
const ALPN: &[&[u8]] = &[b"hms/1", b"h2"];

fn id(text: &str) -> SpiffeId {
    SpiffeId::parse(text).unwrap()
}

fn only(text: &str) -> BTreeSet<SpiffeId> {
    BTreeSet::from([id(text)])
}

fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::new(now()))
}

fn svid(world: &World, identity: &str) -> Svid {
    let key = PrivateKey::generate().unwrap();
    let leaf = world.leaf().with(uri(identity)).edit(|cert| cert.spki = key.public_key_der().to_vec());
    Svid::new(certificates(&world.chain_of(&leaf)), key).unwrap()
}

fn mesh_server(world: &World) -> Arc<ServerConfig> {
    server_config(&svid(world, CALC), &world.bundle(), ALPN, clock()).unwrap()
}

fn mesh_client(world: &World, expected: &str) -> Arc<ClientConfig> {
    client_config(&svid(world, SUM), &world.bundle(), &only(expected), ALPN, clock()).unwrap()
}

type Sides = (io::Result<server::TlsStream<DuplexStream>>, io::Result<client::TlsStream<DuplexStream>>);

async fn shake(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> Sides {
    let (near, far) = duplex(64 * 1024);
    let connector = TlsConnector::from(client);
    tokio::join!(TlsAcceptor::from(server).accept(near), connector.connect(server_name(), far))
}

fn reason(error: &io::Error) -> &'static str {
    verify_error_of_io(error).map_or("none", hms_identity::verify::VerifyError::reason)
}

/// Believes anybody: the attacker does not care who answers.
#[derive(Debug)]
struct Credulous;

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
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An attacker's client with this chain, or without any.
fn foreign_client(
    certified: Option<CertifiedKey>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    Arc::new(match certified {
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
        None => builder.with_no_client_auth(),
    })
}

/// An attacker's server with this chain.
fn foreign_server(certified: CertifiedKey) -> Arc<ServerConfig> {
    let config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    Arc::new(config)
}

/// A chain with the world's leaf key, whether or not it makes an SVID.
fn certified(world: &World, chain: &[Vec<u8>]) -> CertifiedKey {
    let key = PrivateKeyDer::try_from(world.leaf_key.to_pkcs8_der().to_vec()).unwrap();
    CertifiedKey::new(certificates(chain), provider().key_provider.load_private_key(key).unwrap())
}

/// A handshake without a runtime: the server's verdict, then the client's.
fn shake_now(server: Arc<ServerConfig>, client: Arc<ClientConfig>) -> [Result<(), rustls::Error>; 2] {
    let mut server = ServerConnection::new(server).unwrap();
    let mut client = ClientConnection::new(client, server_name()).unwrap();
    let mut verdicts = [Ok(()), Ok(())];
    for _ in 0..6 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while verdicts[0].is_ok() && !rest.is_empty() {
            server.read_tls(&mut rest).unwrap();
            verdicts[0] = server.process_new_packets().map(|_| ());
        }
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut rest = wire.as_slice();
        while verdicts[1].is_ok() && !rest.is_empty() {
            client.read_tls(&mut rest).unwrap();
            verdicts[1] = client.process_new_packets().map(|_| ());
        }
    }
    verdicts
}

fn reason_now(verdict: &Result<(), rustls::Error>) -> &'static str {
    verdict.as_ref().err().and_then(verify_error).map_or("none", hms_identity::verify::VerifyError::reason)
}

#[tokio::test]
async fn two_workloads_of_the_mesh_know_each_other() {
    let world = World::new();
    let (server, client) = shake(mesh_server(&world), mesh_client(&world, CALC)).await;
    let (mut server, mut client) = (server.unwrap(), client.unwrap());
    assert_eq!(server.get_ref().1.peer_certificates().and_then(peer_identity), Some(id(SUM)));
    assert_eq!(client.get_ref().1.peer_certificates().and_then(peer_identity), Some(id(CALC)));
    assert_eq!(client.get_ref().1.alpn_protocol(), Some(&b"hms/1"[..]));
    assert_eq!(server.get_ref().1.server_name(), None, "no name is sent");
    client.write_all(b"ping").await.unwrap();
    let mut read = [0; 4];
    server.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"ping");
}

#[tokio::test]
async fn the_key_exchange_is_hybrid_and_needs_one_round() {
    let world = World::new();
    let (server, client) = shake(mesh_server(&world), mesh_client(&world, CALC)).await;
    let (server, client) = (server.unwrap(), client.unwrap());
    let (near, far) = (server.get_ref().1, client.get_ref().1);
    for version in [near.protocol_version(), far.protocol_version()] {
        assert_eq!(version, Some(ProtocolVersion::TLSv1_3));
    }
    for group in [near.negotiated_key_exchange_group(), far.negotiated_key_exchange_group()] {
        assert_eq!(group.unwrap().name(), NamedGroup::X25519MLKEM768);
    }
    // A group the client had sent no share for would have taken a second round.
    for kind in [near.handshake_kind(), far.handshake_kind()] {
        assert_eq!(kind, Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn nothing_is_ever_resumed() {
    let world = World::new();
    let (server, client) = (mesh_server(&world), mesh_client(&world, CALC));
    for _ in 0..3 {
        let (near, far) = shake(Arc::clone(&server), Arc::clone(&client)).await;
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        near.write_all(b"pong").await.unwrap();
        let mut read = [0; 4];
        far.read_exact(&mut read).await.unwrap();
        assert_eq!(far.get_ref().1.tls13_tickets_received(), 0);
        assert_eq!(far.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
    assert_eq!((server.send_tls13_tickets, server.max_early_data_size), (0, 0));
    assert!(!server.ticketer.enabled() && !server.session_storage.can_cache() && !client.enable_early_data);
}

#[tokio::test]
async fn a_sound_workload_that_was_not_called_is_refused() {
    let world = World::new();
    let (server, client) = shake(mesh_server(&world), mesh_client(&world, SUM)).await;
    assert_eq!(reason(&client.unwrap_err()), "unexpected-identity");
    assert!(server.is_err());
}

#[tokio::test]
async fn any_of_several_expected_identities_will_do() {
    let world = World::new();
    let expected = BTreeSet::from([id(SUM), id(CALC)]);
    let client = client_config(&svid(&world, SUM), &world.bundle(), &expected, ALPN, clock()).unwrap();
    assert!(shake(mesh_server(&world), client).await.1.is_ok());
}

#[test]
fn names_that_only_resemble_the_expected_one_are_refused() {
    let world = World::new();
    let client = mesh_client(&world, CALC);
    for near in [
        "spiffe://k3.hms/ns/other/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc2",
        "spiffe://k3.hms/ns/default/sa/calc-sv",
        "spiffe://k3.hms/ns/default/sa/xcalc-svc",
        "spiffe://k3.hms/ns/default/sa/Calc-svc",
        "spiffe://k3.hms/ns/Default/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc_svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc.",
        "spiffe://k3.hms/ns/calc-svc/sa/default",
    ] {
        let server = foreign_server(certified(&world, &world.chain_of(&world.leaf().with(uri(near)))));
        let [_, verdict] = shake_now(server, Arc::clone(&client));
        assert_eq!(reason_now(&verdict), "unexpected-identity", "{near}");
    }
}

#[test]
fn every_wrong_name_fails_the_handshake_on_either_side() {
    let world = World::new();
    let (server, client) = (mesh_server(&world), mesh_client(&world, CALC));
    for (label, names, reason) in wrong_names() {
        let chain = world.chain_of(&world.leaf().with(names));
        let attacker = foreign_client(Some(certified(&world, &chain)), &[&TLS13]);
        let [verdict, seen] = shake_now(Arc::clone(&server), attacker);
        assert_eq!(reason_now(&verdict), reason, "{label}, as client");
        let alert = rustls::Error::AlertReceived(AlertDescription::CertificateUnknown);
        assert_eq!(seen, Err(alert), "{label}: the peer learns no reason");
        let [_, verdict] = shake_now(foreign_server(certified(&world, &chain)), Arc::clone(&client));
        assert_eq!(reason_now(&verdict), reason, "{label}, as server");
    }
}

#[tokio::test]
async fn another_trust_domain_is_refused_on_either_side() {
    let world = World::new();
    let foreign = svid(&world, "spiffe://k4.hms/ns/default/sa/sum-svc");
    let expected = only(CALC);
    let client = client_config(&foreign, &world.bundle(), &expected, ALPN, clock()).unwrap();
    let (server, _) = shake(mesh_server(&world), client).await;
    assert_eq!(reason(&server.unwrap_err()), "trust-domain");
    let server = server_config(&foreign, &world.bundle(), ALPN, clock()).unwrap();
    let (_, client) = shake(server, mesh_client(&world, CALC)).await;
    assert_eq!(reason(&client.unwrap_err()), "trust-domain");
}

#[tokio::test]
async fn another_mesh_of_the_same_name_is_refused() {
    let (world, other) = (World::new(), World::new());
    let client = client_config(&svid(&other, SUM), &world.bundle(), &only(CALC), ALPN, clock()).unwrap();
    let (server, _) = shake(mesh_server(&world), client).await;
    assert_eq!(reason(&server.unwrap_err()), "bad-signature");
    let (_, client) = shake(mesh_server(&other), mesh_client(&world, CALC)).await;
    assert_eq!(reason(&client.unwrap_err()), "bad-signature");
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let world = World::new();
    let (server, client) = shake(mesh_server(&world), foreign_client(None, &[&TLS13])).await;
    let error = server.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(inner, Some(&rustls::Error::NoCertificatesPresented));
    // The client believes itself connected until it reads the alert.
    assert!(client.unwrap().read(&mut [0; 1]).await.is_err());
}

#[tokio::test]
async fn a_client_with_somebody_elses_certificate_is_refused() {
    let (world, thief) = (World::new(), World::new());
    let stolen = certified(&thief, &world.chain());
    let (server, _) = shake(mesh_server(&world), foreign_client(Some(stolen), &[&TLS13])).await;
    assert!(server.is_err());
}

#[tokio::test]
async fn an_svid_that_expires_is_refused_from_the_next_handshake_on() {
    let world = World::new();
    let (near, far) = (clock(), clock());
    let near_clock = Arc::<FixedClock>::clone(&near);
    let far_clock = Arc::<FixedClock>::clone(&far);
    let server = server_config(&svid(&world, CALC), &world.bundle(), ALPN, near_clock).unwrap();
    let client = client_config(&svid(&world, SUM), &world.bundle(), &only(CALC), ALPN, far_clock).unwrap();
    assert!(shake(Arc::clone(&server), Arc::clone(&client)).await.0.is_ok());
    let past_the_end = Duration::from_secs(DAY.unsigned_abs() + 1);
    near.advance(past_the_end);
    let refused = shake(Arc::clone(&server), Arc::clone(&client)).await.0.unwrap_err();
    assert_eq!(reason(&refused), "expired");
    far.advance(past_the_end);
    assert_eq!(reason(&shake(server, client).await.1.unwrap_err()), "expired");
}

#[tokio::test]
async fn tls_1_2_is_not_spoken_inside_the_mesh() {
    let world = World::new();
    let chain = world.chain();
    let (server, client) = shake(mesh_server(&world), foreign_client(Some(certified(&world, &chain)), &[&TLS12])).await;
    assert!(server.is_err());
    let error = client.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(inner, Some(&rustls::Error::AlertReceived(AlertDescription::ProtocolVersion)));
}

#[tokio::test]
async fn without_a_common_protocol_there_is_no_connection() {
    let world = World::new();
    let client = client_config(&svid(&world, SUM), &world.bundle(), &only(CALC), &[b"http/1.1"], clock()).unwrap();
    let error = shake(mesh_server(&world), client).await.1.unwrap_err();
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    assert_eq!(inner, Some(&rustls::Error::AlertReceived(AlertDescription::NoApplicationProtocol)));
}

#[test]
fn too_many_certificates_are_refused_before_they_are_read() {
    let world = World::new();
    let mut chain = world.chain();
    chain.resize(1000, vec![0x30, 0]);
    let [verdict, _] = shake_now(mesh_server(&world), foreign_client(Some(certified(&world, &chain)), &[&TLS13]));
    assert_eq!(reason_now(&verdict), "chain-too-long");
}

#[test]
fn a_client_that_expects_nobody_or_trusts_nobody_is_not_built() {
    let world = World::new();
    let svid = svid(&world, SUM);
    let nobody = client_config(&svid, &world.bundle(), &BTreeSet::new(), ALPN, clock());
    assert!(matches!(nobody, Err(TlsError::NobodyExpected)));
    let empty = TrustBundle { roots: Vec::new(), ..world.bundle() };
    assert!(matches!(client_config(&svid, &empty, &only(CALC), ALPN, clock()), Err(TlsError::Bundle(_))));
    assert!(matches!(server_config(&svid, &empty, ALPN, clock()), Err(TlsError::Bundle(_))));
}

#[tokio::test]
async fn a_workload_without_an_svid_reaches_only_a_bootstrap_server() {
    let world = World::new();
    let server = bootstrap_server_config(&svid(&world, CALC), &world.bundle(), ALPN, clock()).unwrap();
    let newcomer = bootstrap_client_config(&world.bundle(), &only(CALC), ALPN, clock()).unwrap();
    let (near, far) = shake(Arc::clone(&server), Arc::clone(&newcomer)).await;
    assert!(far.is_ok());
    assert_eq!(near.unwrap().get_ref().1.peer_certificates().and_then(peer_identity), None);
    let (near, _) = shake(Arc::clone(&server), mesh_client(&world, CALC)).await;
    assert_eq!(near.unwrap().get_ref().1.peer_certificates().and_then(peer_identity), Some(id(SUM)));
    let (near, _) = shake(mesh_server(&world), Arc::clone(&newcomer)).await;
    assert!(near.is_err(), "a proxy's listener insists on a certificate");
    let stranger = client_config(&svid(&World::new(), SUM), &world.bundle(), &only(CALC), ALPN, clock()).unwrap();
    assert_eq!(reason(&shake(server, stranger).await.0.unwrap_err()), "bad-signature", "a shown one must be valid");
    let other = bootstrap_client_config(&world.bundle(), &only(SUM), ALPN, clock()).unwrap();
    assert_eq!(reason(&shake(mesh_server(&world), other).await.1.unwrap_err()), "unexpected-identity");
}

#[tokio::test]
async fn the_edge_speaks_tls_1_2_and_1_3_without_client_certificates() {
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["gateway.local".to_owned()]).unwrap();
    let chain = vec![params.self_signed(&key).unwrap().der().clone()];
    let der = || PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = edge_server_config(chain.clone(), der(), &[b"h2"], clock()).unwrap();
    for (version, expected) in [(&TLS12, ProtocolVersion::TLSv1_2), (&TLS13, ProtocolVersion::TLSv1_3)] {
        let (near, _) = shake(Arc::clone(&config), foreign_client(None, &[version])).await;
        let near = near.unwrap();
        assert_eq!(near.get_ref().1.protocol_version(), Some(expected));
        assert_eq!(near.get_ref().1.peer_certificates().and_then(peer_identity), None);
    }
    assert_eq!(config.max_early_data_size, 0);
    let other = PrivateKeyDer::try_from(rcgen::KeyPair::generate().unwrap().serialize_der()).unwrap();
    assert!(matches!(edge_server_config(chain, other, &[b"h2"], clock()), Err(TlsError::Rustls(_))));
}

#[test]
fn a_peer_without_exactly_one_identity_has_none() {
    let world = World::new();
    assert_eq!(peer_identity(&[]), None);
    assert_eq!(peer_identity(&certificates(&[vec![1, 2, 3]])), None);
    assert_eq!(peer_identity(&certificates(&world.chain())), Some(id(CALC)));
    assert_eq!(peer_identity(&certificates(&[world.root.root()])), None);
    for (label, names, reason) in wrong_names() {
        let found = peer_identity(&certificates(&world.chain_of(&world.leaf().with(names))));
        assert_eq!(found.is_some(), reason == "trust-domain", "{label}");
    }
}
