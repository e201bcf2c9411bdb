//! What the authority signs, what it refuses, and what lies on disk.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_identity::clock::{Clock as _, FixedClock, SystemClock};
use hms_identity::key::PrivateKey;
use hms_identity::svid::Svid;
use hms_identity::verify::{Usage, verify_chain};
use hms_model::spiffe::{SpiffeId, TrustDomain};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType};

use super::attest::Attestation;
use super::{Ca, CaError, IssueError, Life, Lifetimes};

pub(super) const HOUR: Duration = Duration::from_hours(1);
pub(super) const OWN: Attestation = Attestation::Own;

pub(super) fn start() -> SystemTime {
    SystemTime::UNIX_EPOCH + HOUR * 500_000
}

pub(super) fn clock() -> Arc<FixedClock> {
    Arc::new(FixedClock::new(start()))
}

pub(super) fn domain() -> TrustDomain {
    TrustDomain::new("k3.hms").unwrap()
}

pub(super) fn identity(name: &str) -> SpiffeId {
    SpiffeId::new(&domain(), "default", name).unwrap()
}

pub(super) fn open(directory: &Path, clock: Arc<FixedClock>) -> Result<Ca, CaError> {
    Ca::open(&directory.join("ca"), Some(&domain()), Lifetimes::default(), clock)
}

pub(super) fn names(der: &[u8]) -> Vec<String> {
    let (_, leaf) = x509_parser::parse_x509_certificate(der).unwrap();
    let names = leaf.subject_alternative_name().unwrap().unwrap();
    names.value.general_names.iter().map(|name| format!("{name:?}")).collect()
}

#[test]
fn an_issued_chain_verifies_and_says_who_was_attested() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let ca = open(directory.path(), Arc::clone(&clock)).unwrap();
    let key = PrivateKey::generate().unwrap();
    let issued = ca.issue(&key.csr().unwrap(), &identity("calc-svc"), None, &OWN).unwrap();
    for usage in [Usage::Client, Usage::Server] {
        let who = verify_chain(&issued.chain, &ca.bundle(), clock.now(), usage);
        assert_eq!(who, Ok(identity("calc-svc")));
    }
    assert_eq!(issued.not_after, start() + HOUR * 24);
    assert_eq!(issued.not_before, start() - Duration::from_mins(5));
    let svid = Svid::new(issued.chain.clone(), key).unwrap();
    assert_eq!(svid.serial(), issued.serial);
    assert_eq!((svid.not_before(), svid.not_after()), (issued.not_before, issued.not_after));
    assert!(verify_chain(&issued.chain, &ca.bundle(), start() + HOUR * 25, Usage::Client).is_err());
    assert_eq!(ca.issued(), 1);
}

#[test]
fn a_leaf_has_the_shape_of_a_workload_certificate_and_no_other() {
    let directory = tempfile::tempdir().unwrap();
    let ca = open(directory.path(), clock()).unwrap();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let issued = ca.issue(&csr, &identity("calc-svc"), None, &OWN).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    let constraints = leaf.basic_constraints().unwrap().unwrap();
    assert!(constraints.critical && !constraints.value.ca);
    let usage = leaf.key_usage().unwrap().unwrap();
    assert!(usage.critical && usage.value.digital_signature() && usage.value.flags == 1);
    let extended = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(extended.server_auth && extended.client_auth && !extended.any && extended.other.is_empty());
    let identifiers = leaf.iter_extensions().map(|extension| extension.oid.to_id_string()).collect::<Vec<_>>();
    assert!(identifiers.contains(&"2.5.29.14".to_owned()) && identifiers.contains(&"2.5.29.35".to_owned()));
    assert_eq!(leaf.raw_serial().len(), 17);
    let (_, issuer) = x509_parser::parse_x509_certificate(&issued.chain[1]).unwrap();
    assert_eq!(issuer.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(0));
    let root = ca.bundle().roots;
    let (_, root) = x509_parser::parse_x509_certificate(&root[0]).unwrap();
    assert_eq!(root.basic_constraints().unwrap().unwrap().value.path_len_constraint, Some(1));
}

#[test]
fn serial_numbers_do_not_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let ca = open(directory.path(), clock()).unwrap();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let serials: std::collections::BTreeSet<String> =
        (0..50).map(|_| ca.issue(&csr, &identity("a"), None, &OWN).unwrap().serial).collect();
    assert_eq!(serials.len(), 50);
}

/// Requests that ask for more than they may have. Each is well formed and signed by its own key.
fn greedy_requests() -> Vec<(&'static str, Vec<u8>)> {
    let mut cases: Vec<(&'static str, CertificateParams)> = Vec::new();
    let mut add = |name, change: &dyn Fn(&mut CertificateParams)| {
        let mut parameters = CertificateParams::default();
        change(&mut parameters);
        cases.push((name, parameters));
    };
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    add("another service", &|p| p.subject_alt_names = vec![uri("spiffe://k3.hms/ns/default/sa/admin")]);
    add("the gateway", &|p| p.subject_alt_names = vec![uri("spiffe://k3.hms/ns/hms-system/sa/gateway")]);
    add("the control plane", &|p| p.subject_alt_names = vec![uri("spiffe://k3.hms/ns/hms-system/sa/control")]);
    add("another domain", &|p| p.subject_alt_names = vec![uri("spiffe://evil/ns/default/sa/calc-svc")]);
    add("two identities", &|p| {
        p.subject_alt_names =
            vec![uri("spiffe://k3.hms/ns/default/sa/calc-svc"), uri("spiffe://k3.hms/ns/default/sa/admin")];
    });
    add("no spiffe", &|p| p.subject_alt_names = vec![uri("https://example.com")]);
    add("every service", &|p| p.subject_alt_names = vec![dns("*.svc")]);
    add("a web site", &|p| p.subject_alt_names = vec![dns("example.com")]);
    add("everything", &|p| p.subject_alt_names = vec![dns("*")]);
    add("a name with a NUL", &|p| p.subject_alt_names = vec![dns("a\0b")]);
    add("an address", &|p| p.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())]);
    add("mail", &|p| p.subject_alt_names = vec![SanType::Rfc822Name("root@example.com".try_into().unwrap())]);
    add("two hundred names", &|p| {
        p.subject_alt_names = (0..200).map(|n| SanType::DnsName(format!("a{n}.mesh").try_into().unwrap())).collect();
    });
    add("an authority", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained));
    add("a short authority", &|p| p.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    add("signing certificates", &|p| p.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign]);
    add("enciphering", &|p| p.key_usages = vec![KeyUsagePurpose::KeyEncipherment]);
    add("signing code", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning]);
    add("any purpose", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any]);
    add("answering for the authority", &|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::OcspSigning]);
    add("a common name", &|p| p.distinguished_name.push(rcgen::DnType::CommonName, "admin.example.com"));
    add("a uri as common name", &|p| {
        p.distinguished_name.push(rcgen::DnType::CommonName, "spiffe://k3.hms/ns/default/sa/admin");
    });
    cases
        .into_iter()
        .map(|(name, parameters)| {
            let key = KeyPair::generate().unwrap();
            (name, parameters.serialize_request(&key).unwrap().der().to_vec())
        })
        .collect()
}

/// Requests that are not even requests.
fn broken_requests() -> Vec<(&'static str, Vec<u8>)> {
    let good = PrivateKey::generate().unwrap().csr().unwrap();
    let flipped = |index: usize| {
        let mut bytes = good.clone();
        bytes[index] ^= 1;
        bytes
    };
    let key = good.windows(4).position(|window| window == [0x03, 0x42, 0x00, 0x04]).unwrap();
    vec![
        ("nothing", Vec::new()),
        ("text", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec()),
        ("one megabyte", vec![0x30; 1 << 20]),
        ("cut off", good[..good.len() - 1].to_vec()),
        ("something after it", [good.as_slice(), &[0]].concat()),
        ("a bad signature", flipped(good.len() - 1)),
        ("another key than signed", flipped(key + 20)),
        ("an endless length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("an indefinite length", vec![0x30, 0x80, 0x00, 0x00]),
        ("a certificate", {
            let key = KeyPair::generate().unwrap();
            CertificateParams::default().self_signed(&key).unwrap().der().to_vec()
        }),
    ]
}

#[test]
fn whatever_a_request_asks_for_it_gets_the_attested_identity_or_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let ca = open(directory.path(), Arc::clone(&clock)).unwrap();
    let (greedy, broken) = (greedy_requests(), broken_requests());
    assert!(greedy.len() + broken.len() >= 30);
    for (name, request) in greedy {
        let Ok(issued) = ca.issue(&request, &identity("calc-svc"), None, &OWN) else { continue };
        assert_eq!(names(&issued.chain[0]), [r#"URI("spiffe://k3.hms/ns/default/sa/calc-svc")"#], "{name}");
        let who = verify_chain(&issued.chain, &ca.bundle(), clock.now(), Usage::Client);
        assert_eq!(who, Ok(identity("calc-svc")), "{name}");
    }
    let before = ca.issued();
    for (name, request) in broken {
        let refused = ca.issue(&request, &identity("calc-svc"), None, &OWN);
        assert!(matches!(refused, Err(IssueError::Request(_))), "{name}");
    }
    assert_eq!(ca.issued(), before);
}

#[test]
fn a_life_is_clamped_and_an_identity_of_another_domain_refused() {
    let directory = tempfile::tempdir().unwrap();
    let ca = open(directory.path(), clock()).unwrap();
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let end = |asked| ca.issue(&csr, &identity("a"), Some(asked), &OWN).unwrap().not_after;
    assert_eq!(end(Duration::from_secs(1)), start() + Duration::from_mins(1));
    assert_eq!(end(HOUR), start() + HOUR);
    assert_eq!(end(HOUR * 24 * 365 * 100), start() + HOUR * 24 * 7);
    let foreign = SpiffeId::parse("spiffe://other/ns/default/sa/a").unwrap();
    assert!(matches!(ca.issue(&csr, &foreign, None, &OWN), Err(IssueError::ForeignIdentity(_))));
}

#[test]
fn the_authority_survives_a_restart_and_belongs_to_one_domain() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path(), clock()).unwrap().bundle();
    assert_eq!(open(directory.path(), clock()).unwrap().bundle(), first);
    let path = directory.path().join("ca");
    let again = Ca::open(&path, None, Lifetimes::default(), clock()).unwrap();
    assert_eq!(again.trust_domain(), &domain());
    let other = TrustDomain::new("other.hms").unwrap();
    let refused = Ca::open(&path, Some(&other), Lifetimes::default(), clock());
    assert!(matches!(refused, Err(CaError::OtherDomain { .. })));
}

#[test]
fn a_domain_that_nobody_named_is_new_every_time() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let domain = |directory: &Path| {
        Ca::open(&directory.join("ca"), None, Lifetimes::default(), clock()).unwrap().trust_domain().clone()
    };
    assert_ne!(domain(one.path()), domain(two.path()));
}

#[test]
fn an_issuer_near_its_end_is_signed_again_before_it_issues() {
    let directory = tempfile::tempdir().unwrap();
    let clock = clock();
    let ca = open(directory.path(), Arc::clone(&clock)).unwrap();
    let end = ca.forecast().issuer;
    clock.advance(HOUR * 24 * 300);
    let csr = PrivateKey::generate().unwrap().csr().unwrap();
    let issued = ca.issue(&csr, &identity("a"), None, &OWN).unwrap();
    assert!(ca.forecast().issuer > end + HOUR * 24 * 200);
    assert_eq!(verify_chain(&issued.chain, &ca.bundle(), clock.now(), Usage::Server), Ok(identity("a")));
    let reopened = open(directory.path(), clock).unwrap();
    assert_eq!(reopened.forecast(), ca.forecast());
}

#[test]
fn keys_are_for_their_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path(), clock()).unwrap());
    let ca = directory.path().join("ca");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&ca), 0o700);
    for file in ["root.pem", "root.key", "issuer.pem", "issuer.key"] {
        assert_eq!(mode(&ca.join(file)), 0o600, "{file}");
    }
    let key = ca.join("root.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(open(directory.path(), clock()), Err(CaError::Unsafe { .. })));
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    let elsewhere = directory.path().join("elsewhere.key");
    std::fs::rename(&key, &elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &key).unwrap();
    assert!(matches!(open(directory.path(), clock()), Err(CaError::Unsafe { .. })));
    std::fs::remove_file(&key).unwrap();
    std::fs::rename(&elsewhere, &key).unwrap();
    std::fs::set_permissions(&ca, std::fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(open(directory.path(), clock()), Err(CaError::Unsafe { .. })));
}

#[test]
fn a_linked_directory_is_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    let real = directory.path().join("real");
    std::fs::create_dir(&real).unwrap();
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::os::unix::fs::symlink(&real, directory.path().join("ca")).unwrap();
    assert!(matches!(open(directory.path(), clock()), Err(CaError::Unsafe { .. })));
}

#[test]
fn a_pair_that_is_not_whole_is_an_error_and_never_replaced() {
    for (removed, left) in [("root.key", "root.pem"), ("root.pem", "root.key"), ("issuer.key", "issuer.pem")] {
        let directory = tempfile::tempdir().unwrap();
        drop(open(directory.path(), clock()).unwrap());
        let ca = directory.path().join("ca");
        let before = std::fs::read(ca.join(left)).unwrap();
        std::fs::remove_file(ca.join(removed)).unwrap();
        let error = open(directory.path(), clock()).unwrap_err();
        assert!(matches!(error, CaError::Half { .. }), "{removed}");
        assert!(error.to_string().contains(removed));
        assert_eq!(std::fs::read(ca.join(left)).unwrap(), before);
    }
}

#[test]
fn a_pair_that_does_not_fit_is_an_error() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    drop(open(one.path(), clock()).unwrap());
    drop(open(two.path(), clock()).unwrap());
    for file in ["root.key", "root.pem", "issuer.pem", "issuer.key"] {
        let (own, foreign) = (one.path().join("ca").join(file), two.path().join("ca").join(file));
        let before = std::fs::read(&own).unwrap();
        std::fs::write(&own, std::fs::read(&foreign).unwrap()).unwrap();
        assert!(matches!(open(one.path(), clock()), Err(CaError::Mismatch { .. })), "{file}");
        std::fs::write(&own, "garbage").unwrap();
        assert!(matches!(open(one.path(), clock()), Err(CaError::Mismatch { .. })), "{file}");
        std::fs::write(&own, before).unwrap();
    }
    // Root and issuer whole, but of two domains' making.
    for file in ["issuer.pem", "issuer.key"] {
        std::fs::copy(two.path().join("ca").join(file), one.path().join("ca").join(file)).unwrap();
    }
    assert!(matches!(open(one.path(), clock()), Err(CaError::Mismatch { .. })));
}

#[test]
fn nothing_shows_a_key() {
    let directory = tempfile::tempdir().unwrap();
    let ca = open(directory.path(), clock()).unwrap();
    assert!(!format!("{ca:?}").contains("PRIVATE"));
    assert!(ca.root_pem().starts_with("-----BEGIN CERTIFICATE-----"));
    assert!(!ca.root_pem().contains("PRIVATE"));
}

#[test]
fn the_clock_of_the_machine_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let ca = Ca::open(&directory.path().join("ca"), None, Lifetimes::default(), clock).unwrap();
    let own = SpiffeId::new(ca.trust_domain(), "hms-system", "control").unwrap();
    let svid = ca.own_svid(&own).unwrap();
    assert_eq!(verify_chain(svid.chain(), &ca.bundle(), SystemClock.now(), Usage::Server), Ok(own));
}

#[test]
fn a_life_asked_for_is_kept_within_bounds() {
    let lifetimes = Lifetimes::default();
    let seconds = |n| Some(Duration::from_secs(n));
    assert_eq!(lifetimes.clamp(None), super::DAY);
    assert_eq!(lifetimes.clamp(seconds(1)), Duration::from_mins(1));
    assert_eq!(lifetimes.clamp(seconds(u64::MAX)), super::DAY * 7);
    let short = Lifetimes { minimum: Duration::ZERO, ..lifetimes };
    assert_eq!(short.clamp(seconds(0)), Lifetimes::FLOOR);
}

#[test]
fn a_short_life_is_dated_back_by_a_tenth_only() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    assert_eq!(Life::from(now, super::DAY).not_before, now - super::BACKDATE);
    assert_eq!(Life::from(now, Duration::from_mins(1)).not_before, now - Duration::from_secs(6));
}
