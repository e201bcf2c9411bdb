//! What of a request leads it to an endpoint: a key that is hashed, or what an endpoint was remembered by.

use hms_model::message::RequestHead;
use hms_model::policy::{Affinity, HashKey};
use http::header::COOKIE;

use super::hashed;
use crate::stable_hash::{SEED, hash, mix};

/// The key of a request; `source` is who calls. A request without what is asked for has none.
pub fn of(key: &HashKey, head: &RequestHead, source: &[u8]) -> Option<u64> {
    let found = match key {
        HashKey::Header(name) => head.fields.first(name),
        HashKey::Cookie(name) => cookie(head, name),
        HashKey::Query(name) => head.query.as_deref().and_then(|query| parameter(query.as_bytes(), name)),
        HashKey::Source => Some(source),
    };
    found.filter(|value| !value.is_empty()).map(hashed::key)
}

/// What an endpoint of a service is remembered by: a number that says nothing of where it is, the same in every proxy.
pub fn token(service: &str, endpoint: &str) -> u64 {
    mix(hash(hash(hash(SEED, service.as_bytes()), &[0]), endpoint.as_bytes()))
}

/// A token as callers hold it.
pub fn write_token(token: u64) -> String {
    format!("{token:016x}")
}

/// The token that a request shows; `None` without one, or with something that is none.
pub fn shown(affinity: &Affinity, head: &RequestHead) -> Option<u64> {
    let text = match affinity {
        Affinity::Cookie { name, .. } => cookie(head, name),
        Affinity::Header(name) => head.fields.first(name),
    };
    let text = std::str::from_utf8(text?).ok()?;
    let is_token = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if is_token { u64::from_str_radix(text, 16).ok() } else { None }
}

/// The value of a cookie (RFC 6265 §4.2.1), of the first that has this name. HTTP/2 may bring each in a field of its own.
fn cookie<'a>(head: &'a RequestHead, name: &str) -> Option<&'a [u8]> {
    let pairs = head.fields.all(&COOKIE).flat_map(|line| line.split(|byte| *byte == b';'));
    pairs.map(<[u8]>::trim_ascii).find_map(|pair| value(pair, name))
}

/// The value of a parameter, as it is written.
fn parameter<'a>(query: &'a [u8], name: &str) -> Option<&'a [u8]> {
    query.split(|byte| *byte == b'&').find_map(|pair| value(pair, name))
}

/// What stands after `name=`.
fn value<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use hms_model::message::{Authority, CanonicalPath, Fields};
    use http::{HeaderName, HeaderValue, Method};
    use proptest::prelude::*;

    use super::*;

    fn head(query: Option<&str>, fields: &[(&'static str, &'static str)]) -> RequestHead {
        let mut all = Fields::new();
        for (name, value) in fields {
            all.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let path = CanonicalPath::parse("/").expect("a path");
        let authority = Authority::parse("calc-svc").expect("a name");
        let query = query.map(Into::into);
        RequestHead { method: Method::GET, authority, path, query, fields: all }
    }

    const USER: HeaderName = HeaderName::from_static("x-user");

    #[test]
    fn each_kind_of_key_is_found_where_it_stands() {
        let head = head(
            Some("a=1&user=ann&user=bob&userx=no"),
            &[("x-user", "ann"), ("cookie", "other=1; sid=ann; sid=bob"), ("cookie", "last=ann")],
        );
        let ann = Some(hashed::key(b"ann"));
        let cookie = |name: &str| HashKey::Cookie(name.to_owned());
        for key in [HashKey::Header(USER), cookie("sid"), cookie("last"), HashKey::Query("user".to_owned())] {
            assert_eq!(of(&key, &head, b"me"), ann, "{key:?}");
        }
        assert_eq!(of(&HashKey::Source, &head, b"me"), Some(hashed::key(b"me")));
    }

    #[test]
    fn a_request_without_its_key_has_none() {
        let head = head(Some("use=1&user"), &[("x-user", ""), ("cookie", "si=1; sidx=2; =; ;")]);
        let keys = [HashKey::Header(USER), HashKey::Cookie("sid".to_owned()), HashKey::Query("user".to_owned())];
        for key in keys {
            assert_eq!(of(&key, &head, b""), None, "{key:?}");
        }
        assert_eq!(of(&HashKey::Source, &head, b""), None);
    }

    #[test]
    fn what_is_no_token_is_none() {
        let affinity = Affinity::Header(USER);
        let long = "00000000000000001";
        for text in ["", "0", "g000000000000000", "+00000000000000f", "00000000000000FF", long] {
            assert_eq!(shown(&affinity, &head(None, &[("x-user", text)])), None, "{text}");
        }
        assert_eq!(shown(&affinity, &head(None, &[("x-user", "00000000000000ff")])), Some(255));
    }

    #[test]
    fn a_token_tells_services_and_endpoints_apart_and_stays_over_releases() {
        assert_eq!(write_token(token("calc-svc", "calc-svc/0")), "ac8692a9c775b9ca");
        assert_ne!(token("a", "b/c"), token("a/b", "c"));
        assert_ne!(token("a", "c"), token("b", "c"));
    }

    proptest! {
        #[test]
        fn any_token_is_read_as_it_was_written(token: u64) {
            let text: &'static str = write_token(token).leak();
            let sid = Affinity::Cookie { name: "sid".to_owned(), ttl: None };
            let cookie: &'static str = format!("a=b; sid={text}").leak();
            prop_assert_eq!(shown(&sid, &head(None, &[("cookie", cookie)])), Some(token));
        }
    }
}
