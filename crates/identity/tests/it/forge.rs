//! A certificate authority for tests that signs whatever it is told to.

use std::time::{Duration, SystemTime};

use hms_identity::key::PrivateKey;
use hms_identity::verify::{Usage, VerifyError, verify_chain};
use hms_model::spiffe::{SpiffeId, TrustDomain};
use hms_model::trust::TrustBundle;
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData as _, SigningKey as _};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::der::{bits, integer, name, null, oid, seq, tlv, utc_time};

/// Now, for every test: 2026-11-20.
pub(crate) const NOW: i64 = 1_795_132_800;
pub(crate) const HOUR: i64 = 3600;
pub(crate) const DAY: i64 = 24 * HOUR;
pub(crate) const DOMAIN: &str = "k3.hms";
pub(crate) const CALC: &str = "spiffe://k3.hms/ns/default/sa/calc-svc";

pub(crate) const SAN: &[u64] = &[2, 5, 29, 17];
pub(crate) const BASIC: &[u64] = &[2, 5, 29, 19];
pub(crate) const KEY_USAGE: &[u64] = &[2, 5, 29, 15];
pub(crate) const EKU: &[u64] = &[2, 5, 29, 37];
pub(crate) const CONSTRAINTS: &[u64] = &[2, 5, 29, 30];

pub(crate) const SERVER_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 1];
pub(crate) const CLIENT_AUTH: &[u64] = &[1, 3, 6, 1, 5, 5, 7, 3, 2];
pub(crate) const ANY_PURPOSE: &[u64] = &[2, 5, 29, 37, 0];

pub(crate) const ECDSA_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];

pub(crate) const URI: u8 = 0x86;
pub(crate) const DNS: u8 = 0x82;

pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(NOW).unwrap())
}

pub(crate) fn new_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

/// The same key, once to sign in the forge and once as the product holds it.
pub(crate) fn twin(key: &PrivateKey) -> KeyPair {
    let der = key.to_pkcs8_der();
    KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(der.as_slice()), &PKCS_ECDSA_P256_SHA256).unwrap()
}

#[derive(Clone)]
pub(crate) struct Extension {
    pub(crate) oid: &'static [u64],
    pub(crate) critical: bool,
    pub(crate) value: Vec<u8>,
}

pub(crate) fn ext(oid: &'static [u64], critical: bool, value: Vec<u8>) -> Extension {
    Extension { oid, critical, value }
}

pub(crate) fn san(names: &[(u8, &[u8])]) -> Extension {
    let names: Vec<u8> = names.iter().flat_map(|(tag, value)| tlv(*tag, value)).collect();
    ext(SAN, true, tlv(0x30, &names))
}

pub(crate) fn uri(text: &str) -> Extension {
    san(&[(URI, text.as_bytes())])
}

pub(crate) fn basic(ca: bool, path_len: Option<u8>) -> Extension {
    let mut content = Vec::new();
    if ca {
        content.extend(tlv(1, &[0xff]));
    }
    if let Some(path_len) = path_len {
        content.extend(integer(&[path_len]));
    }
    ext(BASIC, true, tlv(0x30, &content))
}

pub(crate) const DIGITAL_SIGNATURE: u8 = 0x80;
pub(crate) const KEY_ENCIPHERMENT: u8 = 0x20;
pub(crate) const KEY_CERT_SIGN: u8 = 0x04;
pub(crate) const CRL_SIGN: u8 = 0x02;

pub(crate) fn key_usage(flags: u8) -> Extension {
    let unused = u8::try_from(flags.trailing_zeros().min(7)).unwrap();
    ext(KEY_USAGE, true, tlv(3, &[unused, flags]))
}

pub(crate) fn eku(purposes: &[&[u64]]) -> Extension {
    let purposes: Vec<u8> = purposes.iter().flat_map(|purpose| oid(purpose)).collect();
    ext(EKU, false, tlv(0x30, &purposes))
}

/// A certificate before it is signed; every field may be wrong.
#[derive(Clone)]
pub(crate) struct Cert {
    pub(crate) version: Option<u8>,
    pub(crate) serial: Vec<u8>,
    pub(crate) inner_algorithm: Vec<u8>,
    pub(crate) outer_algorithm: Vec<u8>,
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: Vec<u8>,
    pub(crate) begin: i64,
    pub(crate) end: i64,
    pub(crate) spki: Vec<u8>,
    pub(crate) extensions: Vec<Extension>,
}

impl Cert {
    pub(crate) fn new(issuer: &str, subject: Vec<u8>, spki: Vec<u8>) -> Self {
        let algorithm = seq(&[&oid(ECDSA_SHA256)]);
        Self {
            version: Some(2),
            serial: vec![0x4d, 0x5a, 1, 2, 3, 4, 5, 6, 7],
            inner_algorithm: algorithm.clone(),
            outer_algorithm: algorithm,
            issuer: name(issuer),
            subject,
            begin: NOW - HOUR,
            end: NOW + DAY,
            spki,
            extensions: Vec::new(),
        }
    }

    /// Replaces the extension of the same kind.
    pub(crate) fn with(mut self, extension: Extension) -> Self {
        self.extensions.retain(|kept| kept.oid != extension.oid);
        self.also(extension)
    }

    /// Adds an extension, of a kind that is already there or not.
    pub(crate) fn also(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    pub(crate) fn without(mut self, oid: &[u64]) -> Self {
        self.extensions.retain(|kept| kept.oid != oid);
        self
    }

    pub(crate) fn life(mut self, begin: i64, end: i64) -> Self {
        (self.begin, self.end) = (begin, end);
        self
    }

    pub(crate) fn algorithm(mut self, algorithm: Vec<u8>) -> Self {
        self.inner_algorithm.clone_from(&algorithm);
        self.outer_algorithm = algorithm;
        self
    }

    pub(crate) fn edit(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    pub(crate) fn sign(&self, key: &KeyPair) -> Vec<u8> {
        let mut parts = Vec::new();
        if let Some(version) = self.version {
            parts.push(tlv(0xa0, &integer(&[version])));
        }
        parts.push(integer(&self.serial));
        parts.push(self.inner_algorithm.clone());
        parts.push(self.issuer.clone());
        parts.push(seq(&[&utc_time(self.begin), &utc_time(self.end)]));
        parts.push(self.subject.clone());
        parts.push(self.spki.clone());
        if !self.extensions.is_empty() {
            let extensions: Vec<u8> = self.extensions.iter().flat_map(encode_extension).collect();
            parts.push(tlv(0xa3, &tlv(0x30, &extensions)));
        }
        let signed = tlv(0x30, &parts.concat());
        let signature = key.sign(&signed).unwrap();
        seq(&[&signed, &self.outer_algorithm, &bits(&signature)])
    }
}

pub(crate) fn encode_extension(extension: &Extension) -> Vec<u8> {
    let critical = if extension.critical { tlv(1, &[0xff]) } else { Vec::new() };
    seq(&[&oid(extension.oid), &critical, &tlv(4, &extension.value)])
}

/// A certificate authority: a key and the name it signs under.
pub(crate) struct Authority {
    pub(crate) name: &'static str,
    pub(crate) key: KeyPair,
}

impl Authority {
    pub(crate) fn new(name: &'static str) -> Self {
        Self { name, key: new_key() }
    }

    pub(crate) fn spki(&self) -> Vec<u8> {
        self.key.subject_public_key_info()
    }

    /// A sound certificate of this authority, to be signed by `issuer`.
    pub(crate) fn cert(&self, issuer: &str) -> Cert {
        Cert::new(issuer, name(self.name), self.spki())
            .life(NOW - DAY, NOW + 365 * DAY)
            .with(basic(true, None))
            .with(key_usage(KEY_CERT_SIGN | CRL_SIGN))
    }

    /// A sound root certificate.
    pub(crate) fn root(&self) -> Vec<u8> {
        self.cert(self.name).sign(&self.key)
    }
}

/// A root, an issuer under it, and a leaf under that: all sound until changed.
pub(crate) struct World {
    pub(crate) root: Authority,
    pub(crate) issuer: Authority,
    pub(crate) leaf_key: PrivateKey,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            root: Authority::new("root"),
            issuer: Authority::new("issuer"),
            leaf_key: PrivateKey::generate().unwrap(),
        }
    }

    /// A sound leaf, to be signed by the issuer.
    pub(crate) fn leaf(&self) -> Cert {
        Cert::new("issuer", tlv(0x30, &[]), self.leaf_key.public_key_der().to_vec())
            .with(basic(false, None))
            .with(key_usage(DIGITAL_SIGNATURE))
            .with(eku(&[SERVER_AUTH, CLIENT_AUTH]))
            .with(uri(CALC))
    }

    /// The leaf signed by the issuer, and the issuer signed by the root.
    pub(crate) fn chain_of(&self, leaf: &Cert) -> Vec<Vec<u8>> {
        vec![leaf.sign(&self.issuer.key), self.issuer.cert("root").sign(&self.root.key)]
    }

    pub(crate) fn chain(&self) -> Vec<Vec<u8>> {
        self.chain_of(&self.leaf())
    }

    pub(crate) fn bundle(&self) -> TrustBundle {
        bundle(vec![self.root.root()])
    }
}

pub(crate) fn bundle(roots: Vec<Vec<u8>>) -> TrustBundle {
    TrustBundle { trust_domain: TrustDomain::new(DOMAIN).unwrap(), roots }
}

pub(crate) fn certificates(chain: &[Vec<u8>]) -> Vec<CertificateDer<'static>> {
    chain.iter().map(|der| CertificateDer::from(der.clone())).collect()
}

pub(crate) fn verify(chain: &[Vec<u8>], bundle: &TrustBundle, usage: Usage) -> Result<SpiffeId, VerifyError> {
    verify_chain(&certificates(chain), bundle, now(), usage)
}

/// Checks one row of a table of wrong chains.
pub(crate) fn refused(label: &str, chain: &[Vec<u8>], bundle: &TrustBundle, reason: &str) {
    let error = verify(chain, bundle, Usage::Client).expect_err(label);
    assert_eq!(error.reason(), reason, "{label}: {error}");
}

/// A public key that is nobody's: an algorithm and key bits.
pub(crate) fn foreign_key(algorithm: &[u64], parameters: &[u8], key: &[u8]) -> Vec<u8> {
    seq(&[&seq(&[&oid(algorithm), parameters]), &bits(key)])
}

/// An RSA public key of so many bits that nobody can sign with.
pub(crate) fn rsa_key(modulus_bits: usize, exponent: &[u8]) -> Vec<u8> {
    let mut modulus = vec![0xa5; modulus_bits.div_ceil(8)];
    let spare = modulus.len() * 8 - modulus_bits;
    modulus[0] = 0xff >> spare;
    if spare == 0 {
        modulus.insert(0, 0);
    }
    let key = seq(&[&integer(&modulus), &integer(exponent)]);
    foreign_key(&[1, 2, 840, 113_549, 1, 1, 1], &null(), &key)
}
