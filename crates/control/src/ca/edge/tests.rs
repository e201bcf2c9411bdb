use hms_identity::key::PrivateKey;
use rcgen::CertificateParams;
use rustls::client::danger::ServerCertVerifier as _;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::*;
use crate::ca::tests::{HOUR, OWN, clock, open, start};

fn webpki_verdict(edge: &EdgeCa, chain: &[CertificateDer<'_>], name: &str) -> Result<(), String> {
    let root = CertificateDer::from_pem_slice(edge.root_pem().as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier =
        rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let now = UnixTime::since_unix_epoch(start().duration_since(SystemTime::UNIX_EPOCH).unwrap());
    let verdict = verifier.verify_server_cert(&chain[0], &chain[1..], &name, &[], now);
    verdict.map(|_| ()).map_err(|error| error.to_string())
}

#[test]
fn a_gateway_is_believed_under_every_name_it_has() {
    let directory = tempfile::tempdir().unwrap();
    let edge = EdgeCa::open(&directory.path().join("hms"), clock()).unwrap();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let hosts = ["shop.local".to_owned(), "api.shop.mesh".to_owned(), "example.com".to_owned(), "10.0.0.1".to_owned()];
    let issued = edge.issue(&csr, &hosts, &OWN).unwrap();
    for name in ["gateway.local", "localhost", "gateway.localhost", "127.0.0.1", "::1", "shop.local", "api.shop.mesh"] {
        assert_eq!(webpki_verdict(&edge, &issued.chain, name), Ok(()), "{name}");
    }
    for name in ["example.com", "10.0.0.1", "other.local"] {
        assert!(webpki_verdict(&edge, &issued.chain, name).is_err(), "{name}");
    }
    assert_eq!(issued.not_after, start() + HOUR * 24 * 30);
}

#[test]
fn the_edge_root_is_not_believed_about_the_rest_of_the_world() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hms");
    let edge = EdgeCa::open(&path, clock()).unwrap();
    // Somebody has stolen the key and signs what he likes.
    let key = KeyPair::from_pem(&std::fs::read_to_string(path.join("edge-ca.key")).unwrap()).unwrap();
    let issuer = rcgen::Issuer::from_ca_cert_pem(&edge.root_pem(), key).unwrap();
    for (name, believed) in [
        ("gateway.local", true),
        ("127.8.8.8", true),
        ("example.com", false),
        ("local.example.com", false),
        ("notlocal", false),
        ("10.0.0.1", false),
        ("::2", false),
    ] {
        let mut leaf = CertificateParams::new(vec![name.to_owned()]).unwrap();
        leaf.not_before = (start() - HOUR).into();
        leaf.not_after = (start() + HOUR).into();
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let signed = leaf.signed_by(&KeyPair::generate().unwrap(), &issuer).unwrap();
        let verdict = webpki_verdict(&edge, &[signed.into()], name);
        assert_eq!(verdict.is_ok(), believed, "{name}: {verdict:?}");
    }
}

#[test]
fn all_projects_of_a_user_share_the_edge_root() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hms");
    let root = EdgeCa::open(&path, clock()).unwrap().root_pem();
    let handles: Vec<_> = (0..8)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || EdgeCa::open(&path, clock()).unwrap().root_pem())
        })
        .collect();
    for handle in handles {
        assert_eq!(handle.join().unwrap(), root);
    }
}

#[test]
fn a_certificate_without_constraints_is_no_edge_root() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), clock()).unwrap());
    let path = directory.path().join("ca");
    std::fs::rename(path.join("root.pem"), path.join("edge-ca.pem")).unwrap();
    std::fs::rename(path.join("root.key"), path.join("edge-ca.key")).unwrap();
    assert!(matches!(EdgeCa::open(&path, clock()), Err(CaError::Mismatch { .. })));
}
