//! Reliability row D2: chains that are wrong in everything but the name of the leaf.

use hms_identity::verify::{Usage, VerifyError, verify_chain};
use hms_model::spiffe::TrustDomain;
use rcgen::{KeyPair, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use crate::der::{name, null, oid, seq, tlv};
use crate::forge::{
    ANY_PURPOSE, Authority, BASIC, CALC, CLIENT_AUTH, CONSTRAINTS, CRL_SIGN, Cert, DAY, DIGITAL_SIGNATURE, EKU,
    Extension, KEY_CERT_SIGN, KEY_ENCIPHERMENT, KEY_USAGE, NOW, SAN, SERVER_AUTH, URI, World, basic, bundle,
    certificates, eku, ext, key_usage, now, refused, rsa_key, verify,
};
use crate::keys::weak_keys;

type Row = (&'static str, Vec<Vec<u8>>, &'static str);

fn check(world: &World, rows: Vec<Row>) {
    for (label, chain, reason) in rows {
        refused(label, &chain, &world.bundle(), reason);
    }
}

/// Leaves that differ from a sound one in one thing.
fn check_leaves(world: &World, rows: Vec<(&'static str, Cert, &'static str)>) {
    check(world, rows.into_iter().map(|(label, leaf, reason)| (label, world.chain_of(&leaf), reason)).collect());
}

/// Issuers that differ from a sound one in one thing.
fn check_issuers(world: &World, rows: Vec<(&'static str, Cert, &'static str)>) {
    let leaf = world.leaf().sign(&world.issuer.key);
    let chain = |issuer: &Cert| vec![leaf.clone(), issuer.sign(&world.root.key)];
    check(world, rows.into_iter().map(|(label, issuer, reason)| (label, chain(&issuer), reason)).collect());
}

#[test]
fn a_sound_chain_is_believed_on_both_sides() {
    let world = World::new();
    for usage in [Usage::Client, Usage::Server] {
        assert_eq!(verify(&world.chain(), &world.bundle(), usage).unwrap().as_str(), CALC);
    }
    let mut with_root = world.chain();
    with_root.push(world.root.root());
    assert_eq!(verify(&with_root, &world.bundle(), Usage::Client).unwrap().as_str(), CALC);
    let direct = world.leaf().edit(|cert| cert.issuer = name("root")).sign(&world.root.key);
    assert_eq!(verify(&[direct], &world.bundle(), Usage::Client).unwrap().as_str(), CALC);
}

#[test]
fn chains_of_a_wrong_shape_are_refused() {
    let world = World::new();
    let [leaf, issuer] = <[Vec<u8>; 2]>::try_from(world.chain()).unwrap();
    let root = world.root.root();
    let stranger = Authority::new("stranger").root();
    // Every order of these would be a path to try.
    let twin = || Authority::new("root").root();
    let maze = vec![world.leaf().edit(|cert| cert.issuer = name("root")).sign(&world.root.key), twin(), twin(), twin()];
    let large = ext(&[1, 3, 6, 1, 4, 1, 99_999, 1], false, tlv(4, &vec![7; 1 << 20]));
    let middling = || ext(&[1, 3, 6, 1, 4, 1, 99_999, 1], false, tlv(4, &vec![7; 20_000]));
    let half = world.leaf().also(middling()).sign(&world.issuer.key);
    let other_half = world.issuer.cert("root").also(middling()).sign(&world.root.key);
    let rows = vec![
        ("nothing", Vec::new(), "chain-empty"),
        ("five", vec![issuer.clone(); 5], "chain-too-long"),
        ("a hundred", vec![leaf.clone(); 100], "chain-too-long"),
        ("ten thousand empty ones", vec![Vec::new(); 10_000], "chain-too-long"),
        ("a leaf of 1 MB", world.chain_of(&world.leaf().also(large)), "chain-too-large"),
        ("40 KB in two", vec![half, other_half], "chain-too-large"),
        ("issuer first", vec![issuer.clone(), leaf.clone()], "leaf-is-ca"),
        ("only the issuer", vec![issuer.clone()], "leaf-is-ca"),
        ("only the root", vec![root.clone()], "leaf-is-ca"),
        ("the leaf twice", vec![leaf.clone(), leaf.clone()], "issuer-not-ca"),
        ("the issuer twice", vec![leaf.clone(), issuer.clone(), issuer.clone()], "chain-order"),
        ("a stranger behind", vec![leaf.clone(), issuer.clone(), stranger.clone()], "chain-order"),
        ("a stranger between", vec![leaf.clone(), stranger, issuer.clone()], "chain-order"),
        ("issuer and root swapped", vec![leaf.clone(), root, issuer], "chain-order"),
        ("issuers all of one name", maze, "chain-order"),
        ("no issuer", vec![leaf], "unknown-issuer"),
    ];
    check(&world, rows);
}

#[test]
fn chains_of_strangers_are_refused() {
    let (world, stranger) = (World::new(), World::new());
    let [leaf, issuer] = <[Vec<u8>; 2]>::try_from(world.chain()).unwrap();
    let other = Authority::new("other");
    let self_signed =
        world.leaf().edit(|cert| cert.issuer = cert.subject.clone()).sign(&crate::forge::twin(&world.leaf_key));
    let other_leaf = world.leaf().edit(|cert| cert.issuer = name("other")).sign(&other.key);
    let beneath = world.leaf().edit(|cert| cert.issuer = name("leaf"));
    let middle = world.leaf().edit(|cert| cert.subject = name("leaf")).sign(&world.issuer.key);
    let rows = vec![
        ("another mesh of the same names", stranger.chain(), "bad-signature"),
        ("another mesh's issuer", vec![leaf, stranger.chain().remove(1)], "bad-signature"),
        ("self-signed", vec![self_signed], "unknown-issuer"),
        ("an unknown authority", vec![other_leaf.clone()], "unknown-issuer"),
        ("an unknown authority and its root", vec![other_leaf, other.root()], "unknown-issuer"),
        (
            "a leaf under a leaf",
            vec![beneath.sign(&crate::forge::twin(&world.leaf_key)), middle, issuer],
            "issuer-not-ca",
        ),
    ];
    check(&world, rows);
}

#[test]
fn damaged_certificates_are_refused() {
    let world = World::new();
    let [leaf, issuer] = <[Vec<u8>; 2]>::try_from(world.chain()).unwrap();
    let with = |der: Vec<u8>| vec![der, issuer.clone()];
    let flipped = |place: usize| {
        let mut der = leaf.clone();
        der[place] ^= 1;
        der
    };
    let serial = leaf.windows(2).position(|pair| pair == [0x4d, 0x5a]).unwrap();
    let rows = vec![
        ("no bytes", with(Vec::new()), "malformed"),
        ("garbage", with(vec![0x42; 500]), "malformed"),
        ("a length without end", with(vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), "malformed"),
        ("a byte too few", with(leaf[..leaf.len() - 1].to_vec()), "malformed"),
        ("a byte too many", with([&leaf[..], &[0]].concat()), "malformed"),
        ("PEM", with(b"-----BEGIN CERTIFICATE-----".to_vec()), "malformed"),
        ("a damaged issuer", vec![leaf.clone(), issuer[..issuer.len() - 1].to_vec()], "malformed"),
        ("a changed signature", with(flipped(leaf.len() - 1)), "bad-signature"),
        ("a changed serial number", with(flipped(serial)), "bad-signature"),
    ];
    check(&world, rows);
}

#[test]
fn wrong_signature_algorithms_are_refused() {
    let world = World::new();
    let rsa: &[u64] = &[1, 2, 840, 113_549, 1, 1];
    let with_null = |last: u64| seq(&[&oid(&[rsa, &[last]].concat()), &null()]);
    let ecdsa = |parts: &[u64]| seq(&[&oid(&[&[1, 2, 840, 10045, 4][..], parts].concat())]);
    let leaf = |algorithm: Vec<u8>| world.leaf().algorithm(algorithm);
    let mixed = world.leaf().edit(|cert| cert.inner_algorithm = with_null(11));
    check_leaves(
        &world,
        vec![
            ("SHA-1 with RSA", leaf(with_null(5)), "signature-algorithm"),
            ("MD5 with RSA", leaf(with_null(4)), "signature-algorithm"),
            ("SHA-1 with ECDSA", leaf(ecdsa(&[1])), "signature-algorithm"),
            ("SHA-224 with ECDSA", leaf(ecdsa(&[3, 1])), "signature-algorithm"),
            ("SHA-512 with ECDSA", leaf(ecdsa(&[3, 4])), "signature-algorithm"),
            ("ECDSA with parameters", leaf(seq(&[&oid(&[1, 2, 840, 10045, 4, 3, 2]), &null()])), "signature-algorithm"),
            ("an unknown algorithm", leaf(seq(&[&oid(&[1, 2, 3, 4])])), "signature-algorithm"),
            ("RSA of an ECDSA issuer", leaf(with_null(11)), "bad-signature"),
            ("Ed25519 of an ECDSA issuer", leaf(seq(&[&oid(&[1, 3, 101, 112])])), "bad-signature"),
            ("SHA-384 claimed, SHA-256 made", leaf(ecdsa(&[3, 3])), "bad-signature"),
            ("two different claims", mixed, "bad-signature"),
        ],
    );
}

#[test]
fn wrong_versions_and_serial_numbers_are_refused() {
    let world = World::new();
    let version = |version| world.leaf().edit(|cert| cert.version = version);
    let serial = |serial: &[u8]| world.leaf().edit(|cert| cert.serial = serial.to_vec());
    check_leaves(
        &world,
        vec![
            ("version 1", version(None), "version"),
            ("version 2", version(Some(1)), "version"),
            ("version 4", version(Some(3)), "version"),
            ("a serial number of zero", serial(&[0]), "serial"),
            ("no serial number", serial(&[]), "serial"),
            ("a negative serial number", serial(&[0x80, 1]), "serial"),
            ("a serial number of 21 bytes", serial(&[1; 21]), "serial"),
        ],
    );
}

#[test]
fn certificates_out_of_their_time_are_refused() {
    let world = World::new();
    check_leaves(
        &world,
        vec![
            ("ended yesterday", world.leaf().life(NOW - 2 * DAY, NOW - DAY), "expired"),
            ("ended a second ago", world.leaf().life(NOW - DAY, NOW - 1), "expired"),
            ("begins in a second", world.leaf().life(NOW + 1, NOW + DAY), "not-yet-valid"),
            ("begins tomorrow", world.leaf().life(NOW + DAY, NOW + 2 * DAY), "not-yet-valid"),
            ("ends before it begins", world.leaf().life(NOW + DAY, NOW - DAY), "validity"),
        ],
    );
    check_issuers(
        &world,
        vec![
            ("the issuer ended", world.issuer.cert("root").life(NOW - 2 * DAY, NOW - 1), "expired"),
            ("the issuer has not begun", world.issuer.cert("root").life(NOW + 1, NOW + DAY), "not-yet-valid"),
        ],
    );
    let edges = world.chain_of(&world.leaf().life(NOW, NOW));
    assert!(verify(&edges, &world.bundle(), Usage::Client).is_ok(), "first and last second count");
    let before = std::time::SystemTime::UNIX_EPOCH - std::time::Duration::from_secs(1);
    let verdict = verify_chain(&certificates(&world.chain()), &world.bundle(), before, Usage::Client);
    assert_eq!(verdict, Err(VerifyError::Clock));
}

#[test]
fn a_root_out_of_its_time_vouches_for_nobody() {
    let world = World::new();
    let root = |begin, end| world.root.cert("root").life(begin, end).sign(&world.root.key);
    let ended = root(NOW - 2 * DAY, NOW - 1);
    let coming = root(NOW + 1, NOW + DAY);
    let stranger = Authority::new("stranger").root();
    refused("an ended root", &world.chain(), &bundle(vec![ended.clone()]), "root-expired");
    refused("an ended root and a stranger", &world.chain(), &bundle(vec![ended.clone(), stranger]), "root-expired");
    refused("a coming root", &world.chain(), &bundle(vec![coming.clone()]), "root-not-yet-valid");
    let renewed = bundle(vec![ended, coming, world.root.root()]);
    assert!(verify(&world.chain(), &renewed, Usage::Client).is_ok(), "the same key with a living certificate");
}

#[test]
fn leaves_with_rights_of_an_authority_are_refused() {
    let world = World::new();
    let usage = |flags| world.leaf().with(key_usage(flags));
    check_leaves(
        &world,
        vec![
            ("CA:TRUE", world.leaf().with(basic(true, None)), "leaf-is-ca"),
            ("CA:TRUE, path length 0", world.leaf().with(basic(true, Some(0))), "leaf-is-ca"),
            ("keyCertSign", usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN), "leaf-signs"),
            ("only keyCertSign", usage(KEY_CERT_SIGN), "leaf-signs"),
            ("cRLSign", usage(DIGITAL_SIGNATURE | CRL_SIGN), "leaf-signs"),
            ("both", usage(DIGITAL_SIGNATURE | KEY_CERT_SIGN | CRL_SIGN), "leaf-signs"),
            ("no key usage", world.leaf().without(KEY_USAGE), "key-usage"),
            ("no digitalSignature", usage(KEY_ENCIPHERMENT), "key-usage"),
            ("no flag at all", usage(0), "key-usage"),
            ("a key usage that is none", world.leaf().with(ext(KEY_USAGE, true, null())), "malformed"),
        ],
    );
    let silent = world.chain_of(&world.leaf().without(BASIC));
    assert!(verify(&silent, &world.bundle(), Usage::Client).is_ok(), "absent basic constraints mean CA:FALSE");
}

#[test]
fn leaves_for_other_purposes_are_refused() {
    let world = World::new();
    let kp = |last: u64| -> &'static [u64] {
        match last {
            3 => &[1, 3, 6, 1, 5, 5, 7, 3, 3],
            4 => &[1, 3, 6, 1, 5, 5, 7, 3, 4],
            8 => &[1, 3, 6, 1, 5, 5, 7, 3, 8],
            9 => &[1, 3, 6, 1, 5, 5, 7, 3, 9],
            _ => &[1, 3, 6, 1, 4, 1, 99_999, 7],
        }
    };
    let leaf = |purposes: &[&[u64]]| world.leaf().with(eku(purposes));
    check_leaves(
        &world,
        vec![
            ("no purpose", world.leaf().without(EKU), "eku-missing"),
            ("any purpose", leaf(&[ANY_PURPOSE]), "eku-any"),
            ("any and client", leaf(&[CLIENT_AUTH, ANY_PURPOSE]), "eku-any"),
            ("server only", leaf(&[SERVER_AUTH]), "eku-wrong"),
            ("code signing", leaf(&[kp(3)]), "eku-wrong"),
            ("e-mail", leaf(&[kp(4)]), "eku-wrong"),
            ("time stamps", leaf(&[kp(8)]), "eku-wrong"),
            ("client and code signing", leaf(&[CLIENT_AUTH, kp(3)]), "eku-wrong"),
            ("client and e-mail", leaf(&[CLIENT_AUTH, kp(4)]), "eku-wrong"),
            ("client and time stamps", leaf(&[CLIENT_AUTH, kp(8)]), "eku-wrong"),
            ("client and OCSP", leaf(&[CLIENT_AUTH, kp(9)]), "eku-wrong"),
            ("an unknown purpose", leaf(&[kp(0)]), "eku-wrong"),
            ("client and an unknown purpose", leaf(&[CLIENT_AUTH, kp(0)]), "eku-wrong"),
        ],
    );
    let empty = verify(&world.chain_of(&leaf(&[])), &world.bundle(), Usage::Client);
    assert!(matches!(empty, Err(VerifyError::EkuWrong | VerifyError::Malformed)), "{empty:?}");
    let client_only = world.chain_of(&leaf(&[CLIENT_AUTH]));
    assert!(verify(&client_only, &world.bundle(), Usage::Client).is_ok());
    assert_eq!(verify(&client_only, &world.bundle(), Usage::Server), Err(VerifyError::EkuWrong));
}

#[test]
fn weak_keys_are_refused_anywhere_in_the_chain() {
    let world = World::new();
    for (label, key) in weak_keys() {
        let leaf = world.leaf().edit(|cert| cert.spki.clone_from(&key));
        refused(label, &world.chain_of(&leaf), &world.bundle(), "weak-key");
        let issuer = world.issuer.cert("root").edit(|cert| cert.spki = key).sign(&world.root.key);
        let chain = vec![world.leaf().sign(&world.issuer.key), issuer];
        refused(label, &chain, &world.bundle(), "weak-key");
    }
    let weak_root = world.root.cert("root").edit(|cert| cert.spki = rsa_key(1024, &[1, 0, 1])).sign(&world.root.key);
    refused("a weak root", &world.chain(), &bundle(vec![weak_root]), "bundle");
}

#[test]
fn every_strong_kind_of_issuer_is_believed() {
    let world = World::new();
    let rsa = seq(&[&oid(&[1, 2, 840, 113_549, 1, 1, 11]), &null()]);
    for (algorithm, id) in [
        (&PKCS_ECDSA_P384_SHA384, seq(&[&oid(&[1, 2, 840, 10045, 4, 3, 3])])),
        (&PKCS_ED25519, seq(&[&oid(&[1, 3, 101, 112])])),
        (&PKCS_RSA_SHA256, rsa),
    ] {
        let issuer = Authority { name: "issuer", key: KeyPair::generate_for(algorithm).unwrap() };
        let chain = [world.leaf().algorithm(id).sign(&issuer.key), issuer.cert("root").sign(&world.root.key)];
        assert_eq!(verify(&chain, &world.bundle(), Usage::Server).unwrap().as_str(), CALC, "{algorithm:?}");
    }
}

#[test]
fn odd_extensions_are_refused() {
    let world = World::new();
    let unknown = |critical| ext(&[1, 3, 6, 1, 4, 1, 99_999, 5], critical, tlv(4, b"x"));
    let policies = ext(&[2, 5, 29, 32], true, seq(&[&seq(&[&oid(&[2, 5, 29, 32, 0])])]));
    let longer = |extension: Extension| ext(extension.oid, extension.critical, [extension.value, null()].concat());
    let leaf = |extension| world.leaf().also(extension);
    check_leaves(
        &world,
        vec![
            ("critical and unknown", leaf(unknown(true)), "critical-extension"),
            ("critical policies", leaf(policies), "critical-extension"),
            ("unknown, twice", leaf(unknown(false)).also(unknown(false)), "duplicate-extension"),
            ("basic constraints twice", leaf(basic(false, None)), "duplicate-extension"),
            ("key usage twice", leaf(key_usage(KEY_CERT_SIGN)), "duplicate-extension"),
            ("purposes twice", leaf(eku(&[CLIENT_AUTH])), "duplicate-extension"),
            ("more after basic constraints", world.leaf().with(longer(basic(false, None))), "malformed"),
            ("more after key usage", world.leaf().with(longer(key_usage(DIGITAL_SIGNATURE))), "malformed"),
            ("more after purposes", world.leaf().with(longer(eku(&[CLIENT_AUTH]))), "malformed"),
            ("names that are none", world.leaf().with(ext(SAN, true, null())), "malformed"),
            ("purposes that are none", world.leaf().with(ext(EKU, false, vec![0x30, 5])), "malformed"),
        ],
    );
    check_issuers(
        &world,
        vec![("critical and unknown", world.issuer.cert("root").also(unknown(true)), "critical-extension")],
    );
    assert!(verify(&world.chain_of(&leaf(unknown(false))), &world.bundle(), Usage::Client).is_ok());
}

#[test]
fn issuers_without_the_right_to_issue_are_refused() {
    let world = World::new();
    let issuer = || world.issuer.cert("root");
    check_issuers(
        &world,
        vec![
            ("CA:FALSE", issuer().with(basic(false, None)), "issuer-not-ca"),
            ("no basic constraints", issuer().without(BASIC), "issuer-not-ca"),
            ("no key usage", issuer().without(KEY_USAGE), "issuer-key-usage"),
            ("only cRLSign", issuer().with(key_usage(CRL_SIGN)), "issuer-key-usage"),
            ("only digitalSignature", issuer().with(key_usage(DIGITAL_SIGNATURE)), "issuer-key-usage"),
            ("for servers only", issuer().with(eku(&[SERVER_AUTH])), "eku-wrong"),
            ("for code signing only", issuer().with(eku(&[&[1, 3, 6, 1, 5, 5, 7, 3, 3]])), "eku-wrong"),
            ("version 1", issuer().edit(|cert| cert.version = None), "version"),
        ],
    );
}

#[test]
fn path_lengths_are_kept_by_issuers_and_roots() {
    let world = World::new();
    let upper = Authority::new("upper");
    let chain = |upper_path| {
        let issuer = world.issuer.cert("upper").sign(&upper.key);
        let above = upper.cert("root").with(basic(true, upper_path)).sign(&world.root.key);
        vec![world.leaf().sign(&world.issuer.key), issuer, above]
    };
    let root = |path| bundle(vec![world.root.cert("root").with(basic(true, Some(path))).sign(&world.root.key)]);
    refused("an issuer that allows none", &chain(Some(0)), &world.bundle(), "path-length");
    refused("a root that allows none", &world.chain(), &root(0), "path-length");
    refused("a root that allows one", &chain(None), &root(1), "path-length");
    assert!(verify(&chain(Some(1)), &root(2), Usage::Client).is_ok());
    assert!(verify(&world.chain(), &root(1), Usage::Client).is_ok());
}

#[test]
fn name_constraints_on_uris_fail_closed() {
    let world = World::new();
    let subtree =
        |which: u8, tag: u8, text: &[u8]| ext(CONSTRAINTS, true, seq(&[&tlv(which, &seq(&[&tlv(tag, text)]))]));
    let issuer = |extension| world.issuer.cert("root").also(extension);
    check_issuers(
        &world,
        vec![
            ("a permitted URI", issuer(subtree(0xa0, URI, b"k3.hms")), "name-constraint"),
            ("another permitted URI", issuer(subtree(0xa0, URI, b"k4.hms")), "name-constraint"),
            ("an excluded URI", issuer(subtree(0xa1, URI, b"k3.hms")), "name-constraint"),
        ],
    );
    let root = world.root.cert("root").also(subtree(0xa0, URI, b"k3.hms")).sign(&world.root.key);
    refused("a root with a permitted URI", &world.chain(), &bundle(vec![root]), "name-constraint");
}

#[test]
fn the_bundle_of_another_trust_domain_vouches_for_nobody_here() {
    let world = World::new();
    let mut bundle = world.bundle();
    bundle.trust_domain = TrustDomain::new("k4.hms").unwrap();
    refused("the right root for another domain", &world.chain(), &bundle, "trust-domain");
    bundle.roots.clear();
    refused("no roots", &world.chain(), &bundle, "bundle");
}

#[test]
fn the_worst_chain_that_is_read_at_all_is_small() {
    // One path is possible, so the work is at most a signature per certificate and one per root of the right name.
    assert_eq!((hms_identity::verify::MAX_CHAIN, hms_identity::verify::MAX_CHAIN_BYTES), (4, 32 * 1024));
    assert_eq!(hms_identity::bundle::MAX_ROOTS, 16);
    let world = World::new();
    let twins: Vec<_> = (0..16).map(|_| Authority::new("root").root()).collect();
    let error = verify_chain(&certificates(&world.chain()), &bundle(twins), now(), Usage::Client).unwrap_err();
    assert_eq!(error.reason(), "bad-signature");
}

#[test]
fn no_changed_byte_and_no_shortened_chain_survives() {
    let world = World::new();
    let (chain, bundle) = (world.chain(), world.bundle());
    for which in 0..chain.len() {
        for place in 0..chain[which].len() {
            for mask in [0x01, 0x20, 0x80] {
                let mut changed = chain.clone();
                changed[which][place] ^= mask;
                assert!(verify(&changed, &bundle, Usage::Client).is_err(), "{which} {place} {mask}");
            }
            let mut shortened = chain.clone();
            shortened[which].truncate(place);
            assert_eq!(verify(&shortened, &bundle, Usage::Client), Err(VerifyError::Malformed));
        }
    }
}
