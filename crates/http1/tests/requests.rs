//! Request heads that are accepted, and what becomes of them.

#![expect(clippy::unwrap_used, reason = "the helpers of a test fail by panicking, as the test does")]

use hms_http1::{Asked, Framing, Limits, Reject, Request, request, response};
use http::Method;

fn read(head: &str) -> Request {
    request(format!("{head}\r\n\r\n").as_bytes(), &Limits::EDGE).unwrap()
}

fn fields(request: &Request) -> Vec<(&str, &str)> {
    request.head.fields.iter().map(|(name, value)| (name, str::from_utf8(value).unwrap())).collect()
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: chat\r\nOrigin: o";

#[test]
fn a_head_is_taken_apart() {
    let found =
        read("POST /a/../b?c=d HTTP/1.1\r\nX-One: 1\r\nHOST: Calc.:80\r\nx-two:\t2 \r\nContent-Length: 5\r\nX-One: 3");
    assert_eq!(found.head.method, Method::POST);
    assert_eq!(found.head.authority.to_string(), "calc:80");
    assert_eq!(found.head.path.as_str(), "/b");
    assert_eq!(found.head.query.as_deref(), Some("c=d"));
    assert_eq!(found.framing, Framing::Length(5));
    assert_eq!(fields(&found), [("X-One", "1"), ("x-two", "2"), ("X-One", "3")]);
    assert!(found.persistent && !found.http10 && !found.expects_continue && found.upgrade.is_none());
}

#[test]
fn targets_become_canonical_in_every_form() {
    for (line, path, query) in [
        ("GET /", "/", None),
        ("GET /?", "/", Some("")),
        ("GET /a?b?c", "/a", Some("b?c")),
        ("GET //a//./b/%7e", "/a/b/~", None),
        ("GET http://a", "/", None),
        ("GET http://a?b", "/", Some("b")),
        ("GET HTTPS://A./x?y", "/x", Some("y")),
        ("OPTIONS *", "*", None),
        ("OPTIONS http://a", "*", None),
        ("OPTIONS http://a/", "/", None),
        ("OPTIONS http://a?b", "/", Some("b")),
    ] {
        let found = read(&format!("{line} HTTP/1.1\r\nHost: a"));
        assert_eq!((found.head.path.as_str(), found.head.query.as_deref()), (path, query), "{line}");
    }
}

#[test]
fn fields_for_one_hop_stay_behind() {
    let found = read(
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nConnection: keep-alive, x-hop\r\nX-Hop: 1\r\nProxy-Connection: x\r\n\
         Proxy-Authorization: x\r\nProxy-Authenticate: x\r\nTE: trailers\r\nUpgrade: h2c\r\nHTTP2-Settings: x\r\nExpect: 100-continue\r\n\
         Content-Length: 0\r\nTrailer: X\r\nx-HOP: 2\r\nAccept: y",
    );
    assert_eq!(fields(&found), [("Trailer", "X"), ("Accept", "y"), ("te", "trailers")]);
    assert_eq!(found.framing, Framing::None);
}

#[test]
fn te_is_passed_on_only_if_it_says_trailers_and_nothing_else() {
    for (lines, kept) in [
        ("TE: trailers", true),
        ("te: Trailers\r\nConnection: TE", true),
        ("TE: trailers, gzip", false),
        ("TE: gzip", false),
        ("TE:", false),
        ("TE: trailers\r\nTE: gzip", false),
    ] {
        let found = read(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}"));
        assert_eq!(fields(&found) == [("te", "trailers")], kept, "{lines}");
        assert_eq!(found.head.fields.is_empty(), !kept, "{lines}");
    }
}

#[test]
fn a_connection_is_kept_as_version_and_options_say() {
    for (version, option, persistent) in [
        ("1.1", "x", true),
        ("1.1", "close", false),
        ("1.1", "Close", false),
        ("1.1", "keep-alive", true),
        ("1.1", "keep-alive, close", false),
        ("1.1", "closed", true),
        ("1.0", "x", false),
        ("1.0", "keep-alive", true),
        ("1.0", "Keep-Alive", true),
        ("1.0", "keep-alive, close", false),
    ] {
        let found = read(&format!("GET / HTTP/{version}\r\nHost: a\r\nConnection: {option}"));
        assert_eq!((found.persistent, found.http10), (persistent, version == "1.0"), "{version} {option}");
    }
}

#[test]
fn only_a_request_with_a_body_expects_to_go_on() {
    for (version, framing, expects) in [
        ("1.1", "Content-Length: 5", true),
        ("1.1", "Transfer-Encoding: chunked", true),
        ("1.1", "Content-Length: 0", false),
        ("1.1", "X: y", false),
        ("1.0", "Content-Length: 5", false),
    ] {
        let found = read(&format!("POST / HTTP/{version}\r\nHost: a\r\nExpect: 100-Continue\r\n{framing}"));
        assert_eq!(found.expects_continue, expects, "{version} {framing}");
        assert!(found.head.fields.first(&http::header::EXPECT).is_none());
    }
}

#[test]
fn a_websocket_handshake_is_offered_and_its_answer_checked() {
    let found = read(HANDSHAKE);
    let offer = found.upgrade.unwrap();
    // The example of RFC 6455 §1.3.
    assert_eq!(offer.accept().as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert_eq!(fields(&found), [("Sec-WebSocket-Protocol", "chat"), ("Origin", "o")]);
    let mut out = Vec::new();
    offer.write(&mut out);
    assert_eq!(
        out,
        b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    );

    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\n".to_vec();
    offer.accept().write(&mut answer);
    answer.extend_from_slice(b"\r\n");
    let good = response(&answer, Asked::Upgrade, &Limits::RESPONSE).unwrap();
    assert_eq!(offer.check(&good), Ok(()));
    let other = String::from_utf8(answer).unwrap().replace("s3pP", "S3pP");
    let other = response(other.as_bytes(), Asked::Upgrade, &Limits::RESPONSE).unwrap();
    assert_eq!(offer.check(&other), Err(Reject::Handshake));
    let refused = response(b"HTTP/1.1 403 Forbidden\r\n\r\n", Asked::Upgrade, &Limits::RESPONSE).unwrap();
    assert_eq!(offer.check(&refused), Err(Reject::Handshake));
}

#[test]
fn an_upgrade_that_is_not_meant_for_us_leaves_nothing_behind() {
    for head in [
        HANDSHAKE.replace("keep-alive, Upgrade", "keep-alive"),
        HANDSHAKE.replace("HTTP/1.1", "HTTP/1.0"),
        HANDSHAKE.replace("WebSocket\r\n", "websocket2\r\n"),
        HANDSHAKE.replace("Upgrade: WebSocket", "Upgrade: h2c"),
    ] {
        let found = read(&head);
        assert!(found.upgrade.is_none());
        assert!(found.head.fields.first(&http::header::UPGRADE).is_none());
    }
}

#[test]
fn a_head_that_is_not_exactly_one_is_refused() {
    for (bytes, rule) in [
        (&b""[..], Reject::Unfinished),
        (b"GET / HTTP/1.1\r\n", Reject::Unfinished),
        (b"GET / HTTP/1.1\r\nHost: a\r\n", Reject::Unfinished),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nx", Reject::Unfinished),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Reject::Unfinished),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\r\n", Reject::Unfinished),
        (b"\r\n\r\n", Reject::Unfinished),
        (b"\r\n\r\n\r\n", Reject::EmptyLines),
    ] {
        assert_eq!(request(bytes, &Limits::EDGE).err(), Some(rule), "{}", bytes.escape_ascii());
    }
}

#[test]
fn limits_hold_for_a_head_that_was_not_scanned() {
    let tight = Limits { head: 55, target: 8, field: 12, fields: 2 };
    for (head, rule) in [
        ("GET /aaaaaaa HTTP/1.1\r\nHost: a", None),
        ("GET /aaaaaaaa HTTP/1.1\r\nHost: a", Some(Reject::TargetTooLong)),
        ("GET / HTTP/1.1\r\nHost: aaaaaa", None),
        ("GET / HTTP/1.1\r\nHost: aaaaaaaa", Some(Reject::FieldTooLarge)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1", None),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 1", Some(Reject::TooManyFields)),
        ("GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1\r\nX: 1", Some(Reject::HeadTooLarge)),
    ] {
        assert_eq!(request(format!("{head}\r\n\r\n").as_bytes(), &tight).err(), rule, "{head}");
    }
}
