//! Reliability row D1: leaves with wrong names, signed by the right authority.

use hms_identity::verify::{Usage, VerifyError};

use crate::der::{name, oid, tlv};
use crate::forge::{CALC, DNS, Extension, SAN, URI, World, ext, refused, san, uri, verify};

type Names<'a> = &'a [(u8, &'a [u8])];

/// Leaf names that are no identity at all, each with the reason that must come out.
pub(crate) fn wrong_names() -> Vec<(String, Extension, &'static str)> {
    let mut cases: Vec<(String, Extension, &'static str)> = wrong_uris()
        .into_iter()
        .map(|text| (format!("URI {text:?}"), san(&[(URI, text.as_slice())]), "not-spiffe"))
        .collect();
    let calc = CALC.as_bytes();
    let other = b"spiffe://k3.hms/ns/default/sa/sum-svc".as_slice();
    let directory = name("calc-svc");
    let other_name = [oid(&[1, 3, 6, 1, 4, 1, 311, 20, 2, 3]), tlv(0xa0, &tlv(12, calc))].concat();
    let lists: [(&str, Names<'_>, &str); 16] = [
        ("an empty list", &[], "no-uri"),
        ("a DNS name", &[(DNS, b"calc-svc.default.mesh")], "no-uri"),
        ("a wildcard", &[(DNS, b"*.default.mesh")], "no-uri"),
        ("the URI as a DNS name", &[(DNS, calc)], "no-uri"),
        ("the URI as an e-mail address", &[(0x81, calc)], "no-uri"),
        ("an IP address", &[(0x87, &[127, 0, 0, 1])], "no-uri"),
        ("a directory name", &[(0xa4, &directory)], "no-uri"),
        ("another name", &[(0xa0, &other_name)], "no-uri"),
        ("two URIs", &[(URI, calc), (URI, other)], "several-uris"),
        ("the same URI twice", &[(URI, calc), (URI, calc)], "several-uris"),
        ("a URI and a web address", &[(URI, calc), (URI, b"https://calc-svc")], "several-uris"),
        ("two URIs and a DNS name", &[(URI, calc), (DNS, b"a"), (URI, other)], "several-uris"),
        ("a URI and a DNS name", &[(URI, calc), (DNS, b"calc-svc")], "other-name"),
        ("an IP address and a URI", &[(0x87, &[127, 0, 0, 1]), (URI, calc)], "other-name"),
        ("a URI and an e-mail address", &[(URI, calc), (0x81, b"a@k3.hms")], "other-name"),
        ("a URI and a directory name", &[(URI, calc), (0xa4, &directory)], "other-name"),
    ];
    cases.extend(lists.map(|(label, names, reason)| (label.to_owned(), san(names), reason)));
    for (label, text) in [
        ("another trust domain", "spiffe://k4.hms/ns/default/sa/calc-svc"),
        ("a longer trust domain", "spiffe://k3.hms.evil/ns/default/sa/calc-svc"),
        ("a shorter trust domain", "spiffe://k3/ns/default/sa/calc-svc"),
        ("a prefixed trust domain", "spiffe://xk3.hms/ns/default/sa/calc-svc"),
        ("a trust domain with a trailing dot", "spiffe://k3.hms./ns/default/sa/calc-svc"),
    ] {
        cases.push((label.to_owned(), uri(text), "trust-domain"));
    }
    cases
}

fn wrong_uris() -> Vec<Vec<u8>> {
    let mut texts: Vec<Vec<u8>> = [
        "",
        "spiffe://",
        "spiffe://k3.hms",
        "spiffe://k3.hms/",
        "spiffe:///ns/default/sa/calc-svc",
        "SPIFFE://k3.hms/ns/default/sa/calc-svc",
        "spiffe://K3.hms/ns/default/sa/calc-svc",
        "https://k3.hms/ns/default/sa/calc-svc",
        "spiffe:/k3.hms/ns/default/sa/calc-svc",
        "spiffe://k3.hms:443/ns/default/sa/calc-svc",
        "spiffe://user@k3.hms/ns/default/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc?x=1",
        "spiffe://k3.hms/ns/default/sa/calc-svc#x",
        "spiffe://k3.hms/ns/default/sa/calc%2dsvc",
        "spiffe://k3.hms/ns/default/sa/%2e%2e",
        "spiffe://k3.hms/ns/default/../default/sa/calc-svc",
        "spiffe://k3.hms/ns/./sa/calc-svc",
        "spiffe://k3.hms//ns/default/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc/",
        "spiffe://k3.hms/ns/default/sa/calc-svc/x",
        "spiffe://k3.hms/ns/default/sa/",
        "spiffe://k3.hms/ns//sa/calc-svc",
        "spiffe://k3.hms/sa/calc-svc/ns/default",
        "spiffe://k3.hms/NS/default/SA/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc svc",
        "spiffe://k3.hms/ns/default/sa/calc\\svc",
        "spiffe://k3.hms/ns/default/sa/*",
        "spiffe://*/ns/default/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc\0",
        "spiffe://k3.hms/ns/default/sa/calc-svc\0.evil",
        "spiffe://k3.hms\0.evil/ns/default/sa/calc-svc",
        " spiffe://k3.hms/ns/default/sa/calc-svc",
        "spiffe://k3.hms/ns/default/sa/calc-svc\n",
        "spiffe://k3.hms/ns/default/sa/calc-svc,spiffe://k3.hms/ns/default/sa/sum-svc",
    ]
    .iter()
    .map(|text| text.as_bytes().to_vec())
    .collect();
    texts.push(format!("spiffe://{}/ns/default/sa/calc-svc", "k".repeat(256)).into_bytes());
    texts.push(format!("spiffe://k3.hms/ns/default/sa/{}", "c".repeat(2048)).into_bytes());
    texts
}

#[test]
fn every_wrong_name_is_refused_with_its_reason() {
    let world = World::new();
    let cases = wrong_names();
    assert!(cases.len() >= 40, "{}", cases.len());
    for (label, names, reason) in cases {
        refused(&label, &world.chain_of(&world.leaf().with(names)), &world.bundle(), reason);
    }
}

#[test]
fn a_name_that_is_no_text_is_no_identity() {
    let world = World::new();
    let mut bytes = CALC.as_bytes().to_vec();
    bytes.push(0xff);
    refused(
        "bytes beyond ASCII",
        &world.chain_of(&world.leaf().with(san(&[(URI, &bytes)]))),
        &world.bundle(),
        "no-uri",
    );
    let umlaut = "spiffe://k3.hms/ns/default/sa/cälc-svc".as_bytes();
    let error = verify(&world.chain_of(&world.leaf().with(san(&[(URI, umlaut)]))), &world.bundle(), Usage::Client);
    assert!(matches!(error, Err(VerifyError::NoUri | VerifyError::NotSpiffe(_))), "{error:?}");
}

#[test]
fn a_common_name_is_never_an_identity() {
    let world = World::new();
    let leaf = world.leaf().without(SAN).edit(|cert| cert.subject = name(CALC));
    refused("only a common name", &world.chain_of(&leaf), &world.bundle(), "no-uri");
}

#[test]
fn a_second_list_of_names_is_refused() {
    let world = World::new();
    let leaf = world.leaf().also(uri("spiffe://k3.hms/ns/default/sa/sum-svc"));
    refused("two lists", &world.chain_of(&leaf), &world.bundle(), "duplicate-extension");
}

#[test]
fn bytes_behind_the_list_of_names_are_refused() {
    let world = World::new();
    let mut value = san(&[(URI, CALC.as_bytes())]).value;
    value.extend(tlv(0x30, &tlv(URI, b"spiffe://k3.hms/ns/default/sa/sum-svc")));
    refused("a hidden list", &world.chain_of(&world.leaf().with(ext(SAN, true, value))), &world.bundle(), "malformed");
}

#[test]
fn a_common_name_beside_the_identity_changes_nothing() {
    let world = World::new();
    let leaf = world.leaf().edit(|cert| cert.subject = name("somebody else"));
    let identity = verify(&world.chain_of(&leaf), &world.bundle(), Usage::Client).unwrap();
    assert_eq!(identity.as_str(), CALC);
}
