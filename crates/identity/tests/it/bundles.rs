//! Trust bundles: what may stand in one, and how one is written.

use hms_identity::bundle::{BundleError, check, fingerprint, from_pem, to_pem};
use hms_identity::verify::Usage;
use hms_model::spiffe::TrustDomain;

use crate::der::tlv;
use crate::forge::{
    Authority, BASIC, CALC, DIGITAL_SIGNATURE, DOMAIN, KEY_USAGE, World, basic, bundle, ext, key_usage, rsa_key, verify,
};

fn domain() -> TrustDomain {
    TrustDomain::new(DOMAIN).unwrap()
}

#[test]
fn a_bundle_survives_being_written_as_pem_and_read_again() {
    let roots: Vec<_> = (0..3).map(|_| Authority::new("root").root()).collect();
    let written = bundle(roots);
    let text = to_pem(&written);
    assert_eq!(from_pem(domain(), text.as_bytes()), Ok(written));
    assert!(text.lines().all(|line| line.len() <= 64));
}

#[test]
fn a_repeated_root_is_kept_once() {
    let world = World::new();
    let bundle = world.bundle();
    let text = to_pem(&bundle).repeat(20);
    assert_eq!(from_pem(domain(), text.as_bytes()), Ok(bundle));
}

#[test]
fn every_wrong_text_is_refused_with_its_reason() {
    let good = to_pem(&World::new().bundle());
    let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    let cases = [
        (String::new(), BundleError::Empty),
        ("no PEM at all".to_owned(), BundleError::Empty),
        (key.to_owned(), BundleError::NotACertificate),
        (format!("{good}{key}"), BundleError::NotACertificate),
        (good.replace("-----END", "----END"), BundleError::Pem),
        (good.replacen("MII", "M*I", 1), BundleError::Pem),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_owned(), BundleError::Malformed),
        (good.repeat(1000), BundleError::TooLarge),
    ];
    for (text, expected) in cases {
        assert_eq!(from_pem(domain(), text.as_bytes()), Err(expected), "{}", text.get(..60).unwrap_or(&text));
    }
}

#[test]
fn every_unsound_root_refuses_the_whole_bundle() {
    let root = Authority::new("root");
    let good = root.root();
    let signed = |cert: crate::forge::Cert| cert.sign(&root.key);
    let cert = || root.cert("root");
    let huge = ext(&[1, 2, 3, 4], false, tlv(4, &vec![7; 17_000]));
    let cases = [
        ("no certificate", vec![1, 2, 3], BundleError::Malformed),
        ("empty", Vec::new(), BundleError::Malformed),
        ("a byte too many", [good.clone(), vec![0]].concat(), BundleError::Malformed),
        ("CA:FALSE", signed(cert().with(basic(false, None))), BundleError::NotACa),
        ("no basic constraints", signed(cert().without(BASIC)), BundleError::NotACa),
        ("no key usage", signed(cert().without(KEY_USAGE)), BundleError::NotACa),
        ("no keyCertSign", signed(cert().with(key_usage(DIGITAL_SIGNATURE))), BundleError::NotACa),
        ("RSA-1024", signed(cert().edit(|cert| cert.spki = rsa_key(1024, &[1, 0, 1]))), BundleError::WeakKey),
        ("version 1", signed(cert().edit(|cert| cert.version = None)), BundleError::Malformed),
        ("a serial number of zero", signed(cert().edit(|cert| cert.serial = vec![0])), BundleError::Malformed),
        ("17 KiB", signed(cert().also(huge)), BundleError::TooLarge),
    ];
    for (label, bad, expected) in cases {
        assert_eq!(check(&bundle(vec![bad.clone()])), Err(expected), "{label}");
        assert_eq!(check(&bundle(vec![good.clone(), bad])), Err(expected), "{label} beside a good root");
    }
    assert_eq!(check(&bundle(Vec::new())), Err(BundleError::Empty));
    assert_eq!(check(&bundle(vec![good.clone(); 17])), Err(BundleError::TooManyRoots));
    assert_eq!(check(&bundle(vec![good; 16])), Ok(()));
}

#[test]
fn any_root_of_the_bundle_may_vouch_during_a_rotation() {
    let world = World::new();
    let roots = vec![Authority::new("next").root(), world.root.root(), Authority::new("root").root()];
    assert_eq!(verify(&world.chain(), &bundle(roots), Usage::Server).unwrap().as_str(), CALC);
}

#[test]
fn fingerprints_tell_roots_apart() {
    let (one, other) = (Authority::new("root").root(), Authority::new("root").root());
    assert_ne!(fingerprint(&one), fingerprint(&other));
    assert_eq!(fingerprint(&one).len(), 64);
}
