//! Private keys and which public keys count as strong.

use hms_identity::key::{KeyError, PrivateKey};
use hms_identity::strength::{KeyKind, classify};
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
};

use crate::der::{bits, integer, null, oid, seq};
use crate::forge::{foreign_key, rsa_key};

const EC: &[u64] = &[1, 2, 840, 10045, 2, 1];
const P256: &[u64] = &[1, 2, 840, 10045, 3, 1, 7];

/// Public keys that are weak, unknown or not canonical, as DER `SubjectPublicKeyInfo`.
pub(crate) fn weak_keys() -> Vec<(&'static str, Vec<u8>)> {
    let point = |first: u8, length: usize| {
        let mut point = vec![0x55; length];
        point[0] = first;
        point
    };
    let curve = |curve: &[u64], point: &[u8]| foreign_key(EC, &oid(curve), point);
    let rsa_oid: &[u64] = &[1, 2, 840, 113_549, 1, 1, 1];
    let modulus = [&[0][..], &[0xa5; 256][..]].concat();
    let rsa = seq(&[&integer(&modulus), &integer(&[1, 0, 1])]);
    let even = [&[0][..], &[0xa4; 256][..]].concat();
    let explicit = seq(&[&integer(&[1]), &seq(&[&oid(&[1, 2, 840, 10045, 1, 1]), &integer(&[7; 32])])]);
    vec![
        ("RSA of 512 bits", rsa_key(512, &[1, 0, 1])),
        ("RSA of 1024 bits", rsa_key(1024, &[1, 0, 1])),
        ("RSA of 2047 bits", rsa_key(2047, &[1, 0, 1])),
        ("RSA of 16384 bits", rsa_key(16_384, &[1, 0, 1])),
        ("RSA with the exponent 1", rsa_key(2048, &[1])),
        ("RSA with the exponent 3", rsa_key(2048, &[3])),
        ("RSA with an even exponent", rsa_key(2048, &[1, 0, 2])),
        ("RSA with a giant exponent", rsa_key(2048, &[0x55; 64])),
        ("RSA with an even modulus", { foreign_key(rsa_oid, &null(), &seq(&[&integer(&even), &integer(&[1, 0, 1])])) }),
        ("RSA without parameters", foreign_key(rsa_oid, &[], &rsa)),
        ("RSA for PSS only", foreign_key(&[1, 2, 840, 113_549, 1, 1, 10], &[], &rsa)),
        ("RSA that is no RSA", foreign_key(rsa_oid, &null(), &[1, 2, 3])),
        ("P-521", curve(&[1, 3, 132, 0, 35], &point(4, 133))),
        ("P-224", curve(&[1, 3, 132, 0, 33], &point(4, 57))),
        ("secp256k1", curve(&[1, 3, 132, 0, 10], &point(4, 65))),
        ("a curve given by parameters", foreign_key(EC, &explicit, &point(4, 65))),
        ("a curve without parameters", foreign_key(EC, &[], &point(4, 65))),
        ("a compressed point", curve(P256, &point(2, 33))),
        ("a hybrid point", curve(P256, &point(6, 65))),
        ("a short point", curve(P256, &point(4, 64))),
        ("an empty point", curve(P256, &[])),
        ("X25519", foreign_key(&[1, 3, 101, 110], &[], &[9; 32])),
        ("Ed448", foreign_key(&[1, 3, 101, 113], &[], &[9; 57])),
        ("a short Ed25519 key", foreign_key(&[1, 3, 101, 112], &[], &[9; 31])),
        ("DSA", foreign_key(&[1, 2, 840, 10040, 4, 1], &null(), &integer(&[7; 128]))),
    ]
}

#[test]
fn every_weak_key_is_refused() {
    for (label, key) in weak_keys() {
        assert_eq!(classify(&key), None, "{label}");
    }
}

#[test]
fn bytes_that_are_no_key_are_refused() {
    let good = PrivateKey::generate().unwrap().public_key_der().to_vec();
    let algorithm = seq(&[&oid(EC), &oid(P256)]);
    let mut unused = good.clone();
    // The byte in front of the point counts the unused bits of the string.
    let place = unused.len() - 66;
    unused[place] = 4;
    for wrong in [Vec::new(), vec![0], good[1..].to_vec(), [&good[..], &[0]].concat(), seq(&[&algorithm]), unused] {
        assert_eq!(classify(&wrong), None, "{wrong:?}");
    }
    assert_eq!(classify(&seq(&[&bits(&[1]), &algorithm])), None);
}

#[test]
fn strong_keys_are_told_apart() {
    let kind = |algorithm| classify(&KeyPair::generate_for(algorithm).unwrap().subject_public_key_info());
    assert_eq!(kind(&PKCS_ECDSA_P256_SHA256), Some(KeyKind::P256));
    assert_eq!(kind(&PKCS_ECDSA_P384_SHA384), Some(KeyKind::P384));
    assert_eq!(kind(&PKCS_ED25519), Some(KeyKind::Ed25519));
    assert_eq!(kind(&PKCS_RSA_SHA256), Some(KeyKind::Rsa { bits: 2048 }));
    assert_eq!(classify(&rsa_key(3072, &[1, 0, 1])), Some(KeyKind::Rsa { bits: 3072 }));
}

#[test]
fn a_key_survives_being_written_and_read() {
    let key = PrivateKey::generate().unwrap();
    let read = PrivateKey::from_pkcs8_der(&key.to_pkcs8_der()).unwrap();
    assert_eq!(read.public_key_der(), key.public_key_der());
    assert_eq!(read.to_pkcs8_der(), key.to_pkcs8_der());
    assert_ne!(PrivateKey::generate().unwrap().public_key_der(), key.public_key_der());
}

#[test]
fn a_key_shows_nothing_of_itself() {
    assert_eq!(format!("{:?}", PrivateKey::generate().unwrap()), "PrivateKey(P-256, secret)");
}

#[test]
fn only_pkcs8_of_p256_is_a_private_key() {
    let p384 = KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap().serialize_der();
    let ed25519 = KeyPair::generate_for(&PKCS_ED25519).unwrap().serialize_der();
    let good = PrivateKey::generate().unwrap().to_pkcs8_der().to_vec();
    for wrong in [Vec::new(), vec![0; 2000], p384, ed25519, good[..good.len() - 1].to_vec()] {
        assert_eq!(PrivateKey::from_pkcs8_der(&wrong).unwrap_err(), KeyError::Malformed);
    }
}
