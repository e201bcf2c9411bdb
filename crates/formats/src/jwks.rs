//! A token issuer's public keys (JSON Web Key Set, RFC 7517).
//!
//! Keys for other purposes or of other algorithms, which issuers publish side by side, are left out with a warning. A key that
//! is broken, weak or private is an error: the whole set is then not to be used, and the last good one stays. Findings never
//! show the file's text, since a private key may have been put there by mistake.

use std::collections::BTreeMap;

use hms_model::finding::Finding;
use hms_model::policy::JwtKey;
use hms_model::policy::jwt::JwtAlgorithm;
use serde_json::{Map, Value as Json};

use crate::document::{self, Node, Value, short};
use crate::read::{Field, Reader, Span, Table};
use crate::source::Source;

/// Most keys of a set.
pub const MAX_KEYS: usize = 100;
/// Longest `kid`, in bytes.
const MAX_ID: usize = 256;
/// Bounds of an RSA modulus, in bits. 2048 is NIST SP 800-131A's floor; verifying with more than 8192 takes too long.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
/// Members that only a private or shared key has (RFC 7518 §6).
const SECRET: [&str; 8] = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/// Reads a set. The keys are those that may verify tokens: RS256, ES256 and `EdDSA` (Ed25519).
pub fn parse(source: &Source) -> (Vec<JwtKey>, Vec<Finding>) {
    let mut reader = Reader::default();
    let keys = reader.add(source).and_then(|file| {
        let root = document::parse_json(&mut reader, file)?;
        let keys = set(&mut reader, &root);
        if keys.is_empty() && !reader.has_errors(file) {
            let finding = Finding::error(2105, "the set has no key that could verify a token");
            reader.report(root.span, finding.fix("ask the issuer for an RS256, ES256 or EdDSA signing key"));
        }
        (!reader.has_errors(file)).then_some(keys)
    });
    let mut findings = reader.into_findings();
    for place in findings.iter_mut().filter_map(|finding| finding.place.as_mut()) {
        place.source.clear();
    }
    (keys.unwrap_or_default(), findings)
}

fn set(reader: &mut Reader<'_>, root: &Node) -> Vec<JwtKey> {
    let mut keys = Vec::new();
    let Some(table) = reader.open_table(root, "") else { return keys };
    let Some(field) = reader.need(&table, "keys", "\"keys\": [...]").cloned() else { return keys };
    let items = reader.list(&field, "a list of keys").unwrap_or_default();
    if items.len() > MAX_KEYS {
        let finding = Finding::error(2112, format!("the set has {} keys; at most {MAX_KEYS} are read", items.len()));
        reader.report(field.key, finding.fix("keep the keys that are in use"));
        return keys;
    }
    let mut ids: BTreeMap<String, Span> = BTreeMap::new();
    for item in items {
        let Some((key, span)) = key(reader, &item) else { continue };
        if let Some(first) = ids.get(&key.id) {
            let finding = Finding::error(2110, format!("two keys have the id `{}`", short(&key.id)))
                .because(format!("first at {}; which of them is meant would be a guess", reader.place(*first)));
            reader.report(span, finding.fix("give each key its own `kid`"));
            continue;
        }
        ids.insert(key.id.clone(), span);
        keys.push(key);
    }
    keys
}

/// One key, and where its id stands. `None` if it cannot be used; the finding is made.
fn key(reader: &mut Reader<'_>, item: &Field<'_>) -> Option<(JwtKey, Span)> {
    let table = reader.open_table(item.node, &item.path)?;
    let kty = member(reader, &table, "kty")?;
    // A shared secret (`oct`) is refused here as well: it must not stand in a public file.
    if let Some(secret) = table.fields().iter().find(|field| SECRET.contains(&field.name)) {
        let finding = Finding::error(2105, format!("`{}` is part of a private key", secret.path))
            .because("whoever reads this file could issue tokens")
            .fix("replace the key at its issuer, and save only the public part here");
        reader.report(secret.key, finding);
        return None;
    }
    let algorithm = purpose(reader, &table, kty)?;
    let id_field = reader.need(&table, "kid", "\"kid\": \"...\" as the tokens' header names it").cloned()?;
    let id = reader.line(&id_field, "an id of at most 256 bytes", MAX_ID)?;
    let names: &[&str] = match algorithm {
        JwtAlgorithm::Rs256 => &["n", "e"],
        JwtAlgorithm::Es256 => &["crv", "x", "y"],
        JwtAlgorithm::EdDsa => &["crv", "x"],
    };
    let mut jwk = Map::new();
    for (name, value) in [("kty", kty), ("kid", id), ("alg", algorithm.as_str()), ("use", "sig")] {
        jwk.insert(name.to_owned(), Json::from(value));
    }
    for name in names {
        let value = member(reader, &table, name)?;
        let field = table.field(name)?;
        check(reader, field, algorithm, value)?;
        jwk.insert((*name).to_owned(), Json::from(value));
    }
    let key = JwtKey { id: id.to_owned(), algorithm, jwk: Json::Object(jwk).to_string() };
    Some((key, id_field.node.span))
}

/// A member that must be a text.
fn member<'n>(reader: &mut Reader<'_>, table: &Table<'n>, name: &str) -> Option<&'n str> {
    let field = reader.need(table, name, &format!("\"{name}\": \"...\"")).cloned()?;
    text(reader, &field)
}

/// JSON text; a number is none.
fn text<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<&'n str> {
    if let Value::Scalar(text, document::Form::Quoted) = &field.node.value {
        return Some(text);
    }
    reader.mismatch(field.node, &field.path, "a text");
    None
}

/// The one algorithm a key may be used with. Without `alg` it follows from the type of the key.
fn purpose(reader: &mut Reader<'_>, table: &Table<'_>, kty: &str) -> Option<JwtAlgorithm> {
    let by_type = match (kty, table.field("crv").map(|field| &field.node.value)) {
        ("RSA", _) => Some(JwtAlgorithm::Rs256),
        ("EC", Some(Value::Scalar(curve, _))) if curve == "P-256" => Some(JwtAlgorithm::Es256),
        ("OKP", Some(Value::Scalar(curve, _))) if curve == "Ed25519" => Some(JwtAlgorithm::EdDsa),
        _ => None,
    };
    let Some(algorithm) = by_type else {
        return left_out(reader, table, &format!("keys of the type {} are not used", short(kty)));
    };
    if let Some(field) = table.field("use") {
        let text = text(reader, field)?;
        if text != "sig" {
            return left_out(reader, table, &format!("its use is {}, not sig", short(text)));
        }
    }
    if let Some(field) = table.field("key_ops") {
        let operations = reader.list(field, "a list of operations")?;
        let operations: Vec<&str> = operations.iter().filter_map(|item| text(reader, item)).collect();
        if !operations.contains(&"verify") {
            return left_out(reader, table, "its key_ops do not contain verify");
        }
    }
    if let Some(field) = table.field("alg") {
        let text = text(reader, field)?;
        match JwtAlgorithm::parse(text) {
            Some(stated) if stated == algorithm => {}
            Some(stated) => {
                let finding =
                    Finding::error(2105, format!("a key of the type {kty} cannot be used with {}", stated.as_str()));
                reader.report(field.node.span, finding.fix(format!("write \"alg\": \"{}\"", algorithm.as_str())));
                return None;
            }
            None => return left_out(reader, table, &format!("its algorithm {} is not used", short(text))),
        }
    }
    Some(algorithm)
}

/// The warning that a key is none for us.
fn left_out<T>(reader: &mut Reader<'_>, table: &Table<'_>, why: &str) -> Option<T> {
    let finding = Finding::warning(2107, format!("`{}` is left out", table.path)).because(why);
    reader.report(table.span, finding.fix("tokens signed with it are refused; RS256, ES256 and EdDSA keys are used"));
    None
}

/// Checks one number of a key.
fn check(reader: &mut Reader<'_>, field: &Field<'_>, algorithm: JwtAlgorithm, value: &str) -> Option<()> {
    if field.name == "crv" {
        return Some(());
    }
    let why = match base64url(value) {
        None => "it is base64url without padding (RFC 7515 §2)".to_owned(),
        Some(bytes) => match (algorithm, field.name) {
            (JwtAlgorithm::Rs256, "n") if !RSA_BITS.contains(&bits(&bytes)) => {
                format!("the modulus has {} to {} bits, this one {}", RSA_BITS.start(), RSA_BITS.end(), bits(&bytes))
            }
            (JwtAlgorithm::Rs256, "n") if bytes.last().is_none_or(|last| last % 2 == 0) => {
                "a modulus is odd".to_owned()
            }
            (JwtAlgorithm::Rs256, "e") if !good_exponent(&bytes) => {
                "the exponent is odd, at least 3 and below 2^33".to_owned()
            }
            (JwtAlgorithm::Es256 | JwtAlgorithm::EdDsa, _) if bytes.len() != 32 => {
                format!("a coordinate has 32 bytes, this one {}", bytes.len())
            }
            (JwtAlgorithm::Es256, _) if bytes.iter().all(|byte| *byte == 0) => "a coordinate is not zero".to_owned(),
            _ => return Some(()),
        },
    };
    let finding = Finding::error(2105, format!("`{}` is no usable part of a key", field.path)).because(why);
    reader.report(field.node.span, finding.fix("save the key again as its issuer publishes it"));
    None
}

/// Number of bits of a big-endian number.
fn bits(bytes: &[u8]) -> usize {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    let rest = bytes.get(first..).unwrap_or_default();
    let unused = rest.first().map_or(0, |byte| byte.leading_zeros());
    (rest.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or_default())
}

/// An exponent of 1 makes any text a valid signature; an even one is none.
fn good_exponent(bytes: &[u8]) -> bool {
    (2..=33).contains(&bits(bytes)) && bytes.last().is_some_and(|last| last % 2 == 1)
}

/// Decodes base64url without padding; `None` for anything else, stray bits at the end included.
fn base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut held, mut count) = (0_u32, 0);
    for byte in text.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            b'_' => 63,
            _ => return None,
        };
        held = held << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(held >> count & 0xff).ok()?);
            held &= (1 << count) - 1;
        }
    }
    (count < 6 && held == 0 && !text.is_empty()).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64url_takes_exactly_its_own_alphabet() {
        assert_eq!(base64url("AQAB"), Some(vec![1, 0, 1]));
        assert_eq!(base64url("-_8"), Some(vec![0xfb, 0xff]));
        for text in ["", "A", "AQ==", "A+/B", "AQA B", "AR", "AQAB\n"] {
            assert_eq!(base64url(text), None, "{text:?}");
        }
    }

    #[test]
    fn bits_are_counted_from_the_first_that_is_set() {
        assert_eq!((bits(&[]), bits(&[0, 0]), bits(&[0, 1]), bits(&[0x80, 0])), (0, 0, 1, 16));
        assert!(good_exponent(&[1, 0, 1]) && good_exponent(&[3]));
        assert!(!good_exponent(&[1]) && !good_exponent(&[2]) && !good_exponent(&[0]) && !good_exponent(&[1; 6]));
    }
}
