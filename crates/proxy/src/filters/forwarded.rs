//! Who a request came from, in the fields that applications read. Nothing an outsider claims survives (reliability §2 F).

use std::net::SocketAddr;

use hms_model::message::RequestHead;
use http::{HeaderName, HeaderValue};

use hms_traffic::http_route::CLAIMS;

use super::jwt::Claims;
use crate::transport::Edits;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Envoy's `x-forwarded-client-cert`.
pub const CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
/// The `sub` of the caller's token.
pub const SUBJECT: HeaderName = HeaderName::from_static("x-hms-subject");
/// The roles of the caller's token, joined by commas.
pub const ROLES: HeaderName = HeaderName::from_static("x-hms-roles");
/// Which try this is, from the second on.
pub const ATTEMPT: HeaderName = HeaderName::from_static("x-hms-attempt");
/// How long the caller's proxy will wait for the answer, in milliseconds; Envoy's name. Only proxies of the mesh are believed.
pub const EXPECTED: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");

/// At the gateway: drops what the caller claims about itself, sets what is known of it.
pub fn at_the_gateway(head: &RequestHead, peer: SocketAddr, claims: &Claims, edits: &mut Edits) {
    from_outside(head, peer, "https", edits);
    if !claims.subject.is_empty() {
        set(edits, SUBJECT, &claims.subject);
    }
    if !claims.roles.is_empty() {
        set(edits, ROLES, &claims.roles.join(","));
    }
}

/// The same where callers come in the clear and without a token.
pub fn at_a_listener(head: &RequestHead, peer: SocketAddr, edits: &mut Edits) {
    from_outside(head, peer, "http", edits);
}

fn from_outside(head: &RequestHead, peer: SocketAddr, scheme: &str, edits: &mut Edits) {
    let claimed = head.fields.iter().map(|(name, _)| name);
    let claimed = claimed.filter(|name| CLAIMS.iter().any(|own| begins(name, own)) || is_address_claim(name));
    claimed.filter_map(|name| name.parse().ok()).for_each(|name| edits.remove(name));
    set(edits, FORWARDED_FOR, &peer.ip().to_string());
    set(edits, FORWARDED_PROTO, scheme);
    set(edits, FORWARDED_HOST, &head.authority.to_string());
}

/// At the destination: who called, from the certificate and nothing else. Other spellings of the field reach some applications as
/// the same variable, so they go too.
pub fn at_the_destination(head: &RequestHead, client_cert: Option<&HeaderValue>, edits: &mut Edits) {
    let own_name = CLIENT_CERT.as_str().len();
    for (name, _) in head.fields.iter().filter(|(name, _)| name.len() == own_name && begins(name, CLIENT_CERT.as_str()))
    {
        name.parse().into_iter().for_each(|name| edits.remove(name));
    }
    if let Some(value) = client_cert {
        edits.set(CLIENT_CERT, value.clone());
    }
}

fn is_address_claim(name: &str) -> bool {
    ["forwarded", "x-real-ip", "x-client-ip", "true-client-ip"].iter().any(|own| name.eq_ignore_ascii_case(own))
}

/// Whether a name begins so for an application: `X_Forwarded_For` and `X.Forwarded.For` reach some as the same variable.
fn begins(name: &str, with: &str) -> bool {
    let folded = |byte: u8| if matches!(byte, b'_' | b'.') { b'-' } else { byte.to_ascii_lowercase() };
    name.len() >= with.len() && name.bytes().map(folded).zip(with.bytes()).all(|(own, asked)| own == asked)
}

/// A value that cannot stand in a field, say a claim with a line break, is left out rather than sent broken.
fn set(edits: &mut Edits, name: HeaderName, value: &str) {
    match HeaderValue::from_str(value) {
        Ok(value) => edits.set(name, value),
        Err(_) => edits.remove(name),
    }
}
