//! Reliability row D3: requests that ask for more, or prove nothing.

use hms_identity::csr::{MAX_CSR, parse};
use hms_identity::key::PrivateKey;
use hms_identity::strength::KeyKind;
use rcgen::{
    KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
    SigningKey as _,
};

use crate::der::{bits, integer, name, null, oid, seq, tlv};
use crate::forge::{
    ANY_PURPOSE, CALC, CONSTRAINTS, DNS, ECDSA_SHA256, Extension, KEY_CERT_SIGN, URI, World, basic, eku,
    encode_extension, ext, key_usage, new_key, rsa_key, san, uri,
};
use crate::keys::weak_keys;

const EXTENSION_REQUEST: &[u64] = &[1, 2, 840, 113_549, 1, 9, 14];
const CHALLENGE_PASSWORD: &[u64] = &[1, 2, 840, 113_549, 1, 9, 7];

/// A request before it is signed; every field may be wrong.
#[derive(Clone)]
struct Request {
    version: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
    attributes: Vec<u8>,
    algorithm: Vec<u8>,
}

impl Request {
    fn new(key: &KeyPair) -> Self {
        Self {
            version: integer(&[0]),
            subject: tlv(0x30, &[]),
            spki: key.subject_public_key_info(),
            attributes: tlv(0xa0, &[]),
            algorithm: seq(&[&oid(ECDSA_SHA256)]),
        }
    }

    fn asking(key: &KeyPair, extensions: &[Extension]) -> Self {
        let extensions: Vec<u8> = extensions.iter().flat_map(encode_extension).collect();
        Self { attributes: attribute(EXTENSION_REQUEST, &tlv(0x30, &extensions)), ..Self::new(key) }
    }

    fn info(&self) -> Vec<u8> {
        seq(&[&self.version, &self.subject, &self.spki, &self.attributes])
    }

    fn sign(&self, key: &KeyPair) -> Vec<u8> {
        seq(&[&self.info(), &self.algorithm, &bits(&key.sign(&self.info()).unwrap())])
    }
}

fn attribute(kind: &[u64], value: &[u8]) -> Vec<u8> {
    tlv(0xa0, &seq(&[&oid(kind), &tlv(0x31, value)]))
}

#[test]
fn a_request_of_our_own_is_read_back() {
    let key = PrivateKey::generate().unwrap();
    let requested = parse(&key.csr().unwrap()).unwrap();
    assert_eq!(requested.spki_der, key.public_key_der());
    assert_eq!(requested.kind, KeyKind::P256);
    assert_eq!(requested.fingerprint(), parse(&key.csr().unwrap()).unwrap().fingerprint());
}

#[test]
fn a_request_of_our_own_names_nobody_and_asks_for_nothing() {
    let key = PrivateKey::generate().unwrap();
    let csr = key.csr().unwrap();
    // Version 0, then an empty subject.
    assert!(csr.windows(5).any(|window| window == [2, 1, 0, 0x30, 0]));
    assert!(csr.len() < 250, "{}", csr.len());
}

#[test]
fn whatever_a_request_asks_for_only_its_key_is_taken() {
    let key = new_key();
    let sum = "spiffe://k3.hms/ns/default/sa/sum-svc";
    let asks: [(&str, &[Extension]); 13] = [
        ("one identity", &[uri(CALC)]),
        ("several identities", &[san(&[(URI, CALC.as_bytes()), (URI, sum.as_bytes())])]),
        ("another mesh's identity", &[uri("spiffe://k4.hms/ns/default/sa/calc-svc")]),
        ("a wildcard", &[san(&[(DNS, b"*.svc")])]),
        ("an address", &[san(&[(0x87, &[127, 0, 0, 1])])]),
        ("to be an authority", &[basic(true, None)]),
        ("to be a limited authority", &[basic(true, Some(0)), key_usage(KEY_CERT_SIGN)]),
        ("to sign certificates", &[key_usage(KEY_CERT_SIGN)]),
        ("any purpose", &[eku(&[ANY_PURPOSE])]),
        ("code signing", &[eku(&[&[1, 3, 6, 1, 5, 5, 7, 3, 3]])]),
        ("name constraints", &[ext(CONSTRAINTS, true, seq(&[&tlv(0xa0, &seq(&[&tlv(URI, b"k3.hms")]))]))]),
        ("something unknown", &[ext(&[1, 3, 6, 1, 4, 1, 99_999, 1], true, tlv(4, b"x"))]),
        ("the same twice", &[uri(CALC), uri(sum)]),
    ];
    for (label, extensions) in asks {
        let requested = parse(&Request::asking(&key, extensions).sign(&key)).expect(label);
        assert_eq!(requested.spki_der, key.subject_public_key_info(), "{label}");
    }
    let named = Request { subject: name(CALC), ..Request::new(&key) };
    assert_eq!(parse(&named.sign(&key)).unwrap().spki_der, key.subject_public_key_info());
    let password = attribute(CHALLENGE_PASSWORD, &tlv(12, b"secret"));
    let with_password = Request { attributes: password, ..Request::new(&key) };
    assert_eq!(parse(&with_password.sign(&key)).unwrap().spki_der, key.subject_public_key_info());
}

#[test]
fn every_strong_kind_of_key_may_request() {
    let rsa = seq(&[&oid(&[1, 2, 840, 113_549, 1, 1, 11]), &null()]);
    for (kind, algorithm, expected) in [
        (&PKCS_ECDSA_P256_SHA256, seq(&[&oid(ECDSA_SHA256)]), KeyKind::P256),
        (&PKCS_ECDSA_P384_SHA384, seq(&[&oid(&[1, 2, 840, 10045, 4, 3, 3])]), KeyKind::P384),
        (&PKCS_ED25519, seq(&[&oid(&[1, 3, 101, 112])]), KeyKind::Ed25519),
        (&PKCS_RSA_SHA256, rsa, KeyKind::Rsa { bits: 2048 }),
    ] {
        let key = KeyPair::generate_for(kind).unwrap();
        let request = Request { algorithm, ..Request::new(&key) };
        assert_eq!(parse(&request.sign(&key)).unwrap().kind, expected);
    }
}

#[test]
fn weak_keys_may_not_request() {
    let key = new_key();
    for (label, spki) in weak_keys() {
        let request = Request { spki, ..Request::new(&key) };
        let error = parse(&request.sign(&key)).expect_err(label);
        assert_eq!(error.reason(), "csr-weak-key", "{label}");
    }
}

#[test]
fn requests_that_prove_nothing_are_refused() {
    let (key, other) = (new_key(), new_key());
    let request = Request::new(&key);
    let good = request.sign(&key);
    let signature = key.sign(&request.info()).unwrap();
    let algorithm = |id: &[u64]| Request { algorithm: seq(&[&oid(id)]), ..request.clone() }.sign(&key);
    let changed = {
        let named = Request { subject: name("changed afterwards"), ..request.clone() };
        seq(&[&named.info(), &request.algorithm, &bits(&signature)])
    };
    let with_null = Request { algorithm: seq(&[&oid(ECDSA_SHA256), &null()]), ..request.clone() };
    let unused_bits = tlv(3, &[&[1][..], &signature].concat());
    let flipped = [&good[..good.len() - 1], &[good[good.len() - 1] ^ 1]].concat();
    let stolen = Request { spki: rsa_key(2048, &[1, 0, 1]), ..request.clone() };
    let rows = [
        ("signed by another key", request.sign(&other), "csr-bad-signature"),
        ("changed after signing", changed, "csr-bad-signature"),
        ("a changed signature", flipped, "csr-bad-signature"),
        ("no signature", seq(&[&request.info(), &request.algorithm, &bits(&[])]), "csr-bad-signature"),
        ("zeros for a signature", seq(&[&request.info(), &request.algorithm, &bits(&[0; 64])]), "csr-bad-signature"),
        ("SHA-384 claimed, SHA-256 made", algorithm(&[1, 2, 840, 10045, 4, 3, 3]), "csr-bad-signature"),
        ("SHA-1", algorithm(&[1, 2, 840, 10045, 4, 1]), "csr-signature-algorithm"),
        ("SHA-512", algorithm(&[1, 2, 840, 10045, 4, 3, 4]), "csr-signature-algorithm"),
        ("Ed25519 of an ECDSA key", algorithm(&[1, 3, 101, 112]), "csr-signature-algorithm"),
        ("an unknown algorithm", algorithm(&[1, 2, 3, 4]), "csr-signature-algorithm"),
        ("parameters where none belong", with_null.sign(&key), "csr-signature-algorithm"),
        ("somebody's RSA key", stolen.sign(&key), "csr-signature-algorithm"),
        ("unused bits", seq(&[&request.info(), &request.algorithm, &unused_bits]), "csr-malformed"),
    ];
    for (label, csr, reason) in rows {
        assert_eq!(parse(&csr).expect_err(label).reason(), reason, "{label}");
    }
}

#[test]
fn bytes_that_are_no_request_are_refused() {
    let key = new_key();
    let world = World::new();
    let request = Request::new(&key);
    let good = request.sign(&key);
    let version = |version: &[u8]| Request { version: integer(version), ..request.clone() }.sign(&key);
    let broken = Request { attributes: tlv(0xa0, &[0x30, 0x7f]), ..request.clone() }.sign(&key);
    let rows = [
        ("nothing", Vec::new(), "csr-malformed"),
        ("garbage", vec![0x42; 300], "csr-malformed"),
        ("PEM", b"-----BEGIN CERTIFICATE REQUEST-----".to_vec(), "csr-malformed"),
        ("a byte too few", good[..good.len() - 1].to_vec(), "csr-malformed"),
        ("a byte too many", [&good[..], &[0]].concat(), "csr-malformed"),
        ("a request in a request", seq(&[&good]), "csr-malformed"),
        ("a certificate", world.chain().remove(0), "csr-malformed"),
        ("a key", key.subject_public_key_info(), "csr-malformed"),
        ("version 2", version(&[1]), "csr-malformed"),
        ("broken attributes", broken, "csr-malformed"),
        ("no signature field", seq(&[&request.info(), &request.algorithm]), "csr-malformed"),
        ("a length without end", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff], "csr-malformed"),
        ("one byte over the limit", vec![0x30; MAX_CSR + 1], "csr-too-large"),
        ("1 MB", Request { subject: name(&"x".repeat(1 << 20)), ..request.clone() }.sign(&key), "csr-too-large"),
    ];
    for (label, csr, reason) in rows {
        assert_eq!(parse(&csr).expect_err(label).reason(), reason, "{label}");
    }
}

#[test]
fn no_changed_byte_and_no_shortened_request_survives() {
    let key = new_key();
    let csr = Request::asking(&key, &[uri(CALC)]).sign(&key);
    for place in 0..csr.len() {
        for mask in [0x01, 0x20, 0x80] {
            let mut changed = csr.clone();
            changed[place] ^= mask;
            assert!(parse(&changed).is_err(), "{place} {mask}");
        }
        assert!(parse(&csr[..place]).is_err());
    }
}
