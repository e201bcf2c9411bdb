//! SVIDs: a chain and a key that belong together.

use std::time::Duration;

use hms_identity::key::PrivateKey;
use hms_identity::svid::{Svid, SvidError};

use crate::forge::{
    CALC, CLIENT_AUTH, CRL_SIGN, DAY, DIGITAL_SIGNATURE, EKU, HOUR, SERVER_AUTH, World, basic, certificates, eku,
    key_usage, now,
};
use crate::names::wrong_names;

fn key_of(world: &World) -> PrivateKey {
    PrivateKey::from_pkcs8_der(&world.leaf_key.to_pkcs8_der()).unwrap()
}

#[test]
fn an_svid_knows_who_it_is_and_how_long() {
    let world = World::new();
    let svid = Svid::new(certificates(&world.chain()), key_of(&world)).unwrap();
    assert_eq!(svid.identity().as_str(), CALC);
    assert_eq!(svid.serial(), "4d5a01020304050607");
    assert_eq!(svid.not_before(), now() - Duration::from_secs(HOUR.unsigned_abs()));
    assert_eq!(svid.not_after(), now() + Duration::from_secs(DAY.unsigned_abs()));
    assert_eq!(svid.chain().len(), 2);
    assert_eq!(svid.key().public_key_der(), svid.clone().key().public_key_der());
}

#[test]
fn an_svid_shows_nothing_of_its_key() {
    let world = World::new();
    let svid = Svid::new(certificates(&world.chain()), key_of(&world)).unwrap();
    let shown = format!("{svid:?}");
    assert!(shown.contains(CALC) && !shown.contains("key") && shown.len() < 250, "{shown}");
}

#[test]
fn a_certificate_for_another_key_makes_no_svid() {
    let world = World::new();
    let error = Svid::new(certificates(&world.chain()), PrivateKey::generate().unwrap()).unwrap_err();
    assert_eq!(error, SvidError::OtherKey);
}

#[test]
fn no_chain_with_a_wrong_name_makes_an_svid() {
    let world = World::new();
    for (label, names, reason) in wrong_names() {
        let made = Svid::new(certificates(&world.chain_of(&world.leaf().with(names))), key_of(&world));
        // Which trust domain is ours is known to the bundle, not to the SVID.
        match made {
            Ok(_) => assert_eq!(reason, "trust-domain", "{label}"),
            Err(error) => assert_eq!(error.reason(), reason, "{label}"),
        }
    }
}

#[test]
fn a_leaf_that_is_unfit_makes_no_svid() {
    let world = World::new();
    let leaf = || world.leaf();
    let cases = [
        (leaf().with(basic(true, None)), "leaf-is-ca"),
        (leaf().with(key_usage(DIGITAL_SIGNATURE | CRL_SIGN)), "leaf-signs"),
        (leaf().with(eku(&[SERVER_AUTH])), "eku-wrong"),
        (leaf().with(eku(&[CLIENT_AUTH])), "eku-wrong"),
        (leaf().without(EKU), "eku-missing"),
        (leaf().edit(|cert| (cert.begin, cert.end) = (cert.end, cert.begin)), "validity"),
        (leaf().life(-DAY, DAY), "validity"),
    ];
    for (leaf, reason) in cases {
        let error = Svid::new(certificates(&world.chain_of(&leaf)), key_of(&world)).unwrap_err();
        assert_eq!(error.reason(), reason);
    }
    assert_eq!(Svid::new(Vec::new(), key_of(&world)).unwrap_err().reason(), "chain-empty");
    assert_eq!(Svid::new(certificates(&vec![vec![0]; 5]), key_of(&world)).unwrap_err().reason(), "chain-too-long");
    assert_eq!(Svid::new(certificates(&[vec![0]]), key_of(&world)).unwrap_err().reason(), "malformed");
}
