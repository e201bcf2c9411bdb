//! Response heads: those that are refused with the rule they break, and how the others are framed.

use hms_http1::{Asked, Framing, Limits, Reject, Response, Scanner, response};
use proptest::prelude::*;

fn read(bytes: &[u8], asked: Asked) -> Result<Response, Reject> {
    let end = Scanner::default().find_end(bytes, &Limits::RESPONSE)?.ok_or(Reject::Unfinished)?;
    response(&bytes[..end], asked, &Limits::RESPONSE)
}

/// Heads that no request makes acceptable.
const REFUSED: &[(&[u8], Reject)] = &[
    (b"HTTP/1.1 2000 OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 20 OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 2x0 OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 -20 OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 200OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1  200 OK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1\t200 OK\r\n\r\n", Reject::VersionSyntax),
    (b"HTTP/1.1\r\n\r\n", Reject::VersionSyntax),
    (b"HTTP/1.1 \r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 200 O\x01K\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 200 O\x7fK\r\n\r\n", Reject::StatusLine),
    (b"HTTP/1.1 099 Low\r\n\r\n", Reject::Status),
    (b"HTTP/1.1 000 Zero\r\n\r\n", Reject::Status),
    (b"HTTP/1.1 600 High\r\n\r\n", Reject::Status),
    (b"HTTP/1.1 999 High\r\n\r\n", Reject::Status),
    (b"HTTP/1.2 200 OK\r\n\r\n", Reject::Version),
    (b"HTTP/2.0 200 OK\r\n\r\n", Reject::Version),
    (b"HTTP/0.9 200 OK\r\n\r\n", Reject::Version),
    (b"HTTP/1.10 200 OK\r\n\r\n", Reject::VersionSyntax),
    (b"HTTP/2 200 OK\r\n\r\n", Reject::VersionSyntax),
    (b"http/1.1 200 OK\r\n\r\n", Reject::StatusLine),
    (b"ICY 200 OK\r\n\r\n", Reject::StatusLine),
    (b"200 OK\r\n\r\n", Reject::StatusLine),
    (b"hello\r\n\r\n", Reject::StatusLine),
    (b"<html>\r\n\r\n", Reject::Method),
    (b"\x15\x03\x03\x00\x02\x02\x28", Reject::Method),
    (b"\r\nHTTP/1.1 200 OK\r\n\r\n", Reject::EmptyLines),
    (b"\r\n\r\nHTTP/1.1 200 OK\r\n\r\n", Reject::EmptyLines),
    (b"HTTP/1.1 200 OK\n\n", Reject::BareLf),
    (b"HTTP/1.1 200 OK\n\r\n", Reject::BareLf),
    (b"HTTP/1.1 200 OK\r\nA: b\nC: d\r\n\r\n", Reject::BareLf),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n\n", Reject::BareLf),
    (b"HTTP/1.1 200 O\rK\r\n\r\n", Reject::BareCr),
    (b"HTTP/1.1 200 OK\r\nA: b\rc\r\n\r\n", Reject::BareCr),
    (b"HTTP/1.1 200 OK\r\r\n\r\n", Reject::BareCr),
    (b"HTTP/1.1 200 \0\r\n\r\n", Reject::Nul),
    (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", Reject::Nul),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n", Reject::LineFold),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n\tc\r\n\r\n", Reject::LineFold),
    (b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n", Reject::LeadingSpace),
    (b"HTTP/1.1 200 OK\r\nA : b\r\n\r\n", Reject::SpaceBeforeColon),
    (b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello", Reject::SpaceBeforeColon),
    (b"HTTP/1.1 200 OK\r\nA\r\n\r\n", Reject::NoColon),
    (b"HTTP/1.1 200 OK\r\n: b\r\n\r\n", Reject::FieldName),
    (b"HTTP/1.1 200 OK\r\nA B: b\r\n\r\n", Reject::FieldName),
    (b"HTTP/1.1 200 OK\r\nA\xff: b\r\n\r\n", Reject::FieldName),
    (b"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n", Reject::FieldValue),
    (b"HTTP/1.1 200 OK\r\nA: \x7f\r\n\r\n", Reject::FieldValue),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", Reject::ManyLengths),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n", Reject::ManyLengths),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\n", Reject::ManyLengths),
    (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", Reject::Length),
    (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n", Reject::Length),
    (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n", Reject::Length),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 1e3\r\n\r\n", Reject::Length),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", Reject::Length),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::LengthAndCoding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", Reject::LengthAndCoding),
    (b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n", Reject::LengthAndCoding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Reject::Coding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n", Reject::Coding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Reject::UnknownCoding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", Reject::Coding),
    (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::ManyCodings),
    (b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::CodingInHttp10),
    (b"HTTP/1.1 100 Continue\r\nContent-Length: 5\r\n\r\n", Reject::BodyForbidden),
    (b"HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n", Reject::BodyForbidden),
    (b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello", Reject::BodyForbidden),
    (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", Reject::BodyForbidden),
    (b"HTTP/1.1 101 Switching Protocols\r\nContent-Length: 5\r\n\r\n", Reject::BodyForbidden),
    (b"HTTP/1.1 200", Reject::Unfinished),
    (b"HTTP/1.1 200 OK\r\nA: b\r\n", Reject::Unfinished),
];

const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn each_broken_head_is_refused_by_its_own_rule() {
    for (bytes, rule) in REFUSED {
        for asked in [Asked::Other, Asked::Head, Asked::Upgrade] {
            assert_eq!(read(bytes, asked).err(), Some(*rule), "{} {asked:?}", bytes.escape_ascii());
        }
    }
}

#[test]
fn heads_beyond_the_limits_are_refused() {
    for (bytes, rule) in [
        (format!("HTTP/1.1 200 {}\r\n\r\n", "a".repeat(2_000)), Reject::TargetTooLong),
        (format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(40_000)), Reject::FieldTooLarge),
        (format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101)), Reject::TooManyFields),
        (format!("HTTP/1.1 200 OK\r\n{}", format!("A: {}\r\n", "a".repeat(30_000)).repeat(3)), Reject::HeadTooLarge),
    ] {
        assert_eq!(read(bytes.as_bytes(), Asked::Other).err(), Some(rule));
    }
}

#[test]
fn an_unscanned_head_is_refused_as_well() {
    for (bytes, rule) in REFUSED {
        let found = response(bytes, Asked::Other, &Limits::RESPONSE).err();
        assert!(found.is_some(), "{rule:?}: {}", bytes.escape_ascii());
    }
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(101));
    assert_eq!(response(many.as_bytes(), Asked::Other, &Limits::RESPONSE).err(), Some(Reject::TooManyFields));
    let more = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(200));
    assert_eq!(response(more.as_bytes(), Asked::Other, &Limits::RESPONSE).err(), Some(Reject::TooManyFields));
    let two = b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(response(two, Asked::Other, &Limits::RESPONSE).err(), Some(Reject::Unfinished));
}

#[test]
fn bodies_are_framed_by_status_request_and_fields() {
    use Asked::{Head, Other};
    for (text, asked, framing, persistent, length) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", Other, Framing::Length(5), true, Some(5)),
        ("HTTP/1.1 200\r\nContent-Length: 5", Other, Framing::Length(5), true, Some(5)),
        ("HTTP/1.1 200 \r\nContent-Length: 5", Other, Framing::Length(5), true, Some(5)),
        ("HTTP/1.1 200 \u{e4}\r\nContent-Length: 5", Other, Framing::Length(5), true, Some(5)),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0", Other, Framing::None, true, Some(0)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Other, Framing::Chunked, true, None),
        ("HTTP/1.1 200 OK\r\nA: b", Other, Framing::UntilClose, false, None),
        ("HTTP/1.1 200 OK\r\nConnection: keep-alive", Other, Framing::UntilClose, false, None),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close", Other, Framing::Length(5), false, Some(5)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5", Other, Framing::Length(5), false, Some(5)),
        ("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive", Other, Framing::Length(5), true, Some(5)),
        (
            "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, close",
            Other,
            Framing::Length(5),
            false,
            Some(5),
        ),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5", Head, Framing::None, true, Some(5)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", Head, Framing::None, true, None),
        ("HTTP/1.1 200 OK\r\nA: b", Head, Framing::None, true, None),
        ("HTTP/1.1 304 Not Modified\r\nContent-Length: 5", Other, Framing::None, true, Some(5)),
        ("HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked", Other, Framing::None, true, None),
        ("HTTP/1.1 204 No Content\r\nContent-Length: 0", Other, Framing::None, true, None),
        ("HTTP/1.1 204 No Content\r\nA: b", Other, Framing::None, true, None),
        ("HTTP/1.1 100 Continue\r\nA: b", Other, Framing::None, true, None),
        ("HTTP/1.1 599 Own\r\nContent-Length: 1", Other, Framing::Length(1), true, Some(1)),
    ] {
        let found = read(format!("{text}\r\n\r\n").as_bytes(), asked).unwrap();
        assert_eq!((found.framing, found.persistent, found.content_length), (framing, persistent, length), "{text}");
    }
}

#[test]
fn a_response_keeps_its_own_fields_and_loses_those_of_the_hop() {
    let text = "HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close, X-Hop, Set-Cookie, content-type\r\nX-Hop: 1\r\nSet-Cookie: a\r\n\
                Keep-Alive: timeout=5\r\nProxy-Authenticate: Basic\r\nProxy-Connection: close\r\nUpgrade: h2c\r\nTE: trailers\r\n\
                Trailer: X\r\nset-cookie: b\r\nContent-Type: t\r\nContent-Length: 0\r\n\r\n";
    let found = read(text.as_bytes(), Asked::Other).unwrap();
    let fields: Vec<(&str, &[u8])> = found.head.fields.iter().collect();
    // What a response nominates although it may not is passed on.
    assert_eq!(
        fields,
        [
            ("Server", b"x".as_slice()),
            ("Set-Cookie", b"a"),
            ("Trailer", b"X"),
            ("set-cookie", b"b"),
            ("Content-Type", b"t"),
        ]
    );
}

#[test]
fn interim_heads_are_told_from_final_ones() {
    for (text, interim) in
        [("100 Continue", true), ("103 Early Hints", true), ("200 OK", false), ("304 Not Modified", false)]
    {
        let found = read(format!("HTTP/1.1 {text}\r\n\r\n").as_bytes(), Asked::Other).unwrap();
        assert_eq!(found.is_interim(), interim, "{text}");
    }
    let switched = read(format!("{SWITCH}{ACCEPT}\r\n").as_bytes(), Asked::Upgrade).unwrap();
    assert!(!switched.is_interim());
}

#[test]
fn switching_protocols_is_believed_only_if_it_was_asked_for_and_is_complete() {
    let whole = format!("{SWITCH}{ACCEPT}\r\n");
    for asked in [Asked::Other, Asked::Head] {
        assert_eq!(read(whole.as_bytes(), asked).err(), Some(Reject::Unasked));
    }
    for broken in [
        format!("{SWITCH}\r\n"),
        format!("{SWITCH}{ACCEPT}{ACCEPT}\r\n"),
        format!("{SWITCH}Sec-WebSocket-Accept: abc\r\n\r\n"),
        format!("{SWITCH}{ACCEPT}\r\n").replace("HTTP/1.1", "HTTP/1.0"),
        format!("{SWITCH}{ACCEPT}\r\n").replace("Connection: Upgrade", "Connection: close"),
        format!("{SWITCH}{ACCEPT}\r\n").replace("websocket", "h2c"),
        format!("{SWITCH}{ACCEPT}\r\n").replace("Upgrade: websocket", "X: y"),
    ] {
        assert_eq!(read(broken.as_bytes(), Asked::Upgrade).err(), Some(Reject::Handshake), "{broken}");
    }
    let found = read(whole.as_bytes(), Asked::Upgrade).unwrap();
    assert_eq!(found.upgrade_accept.unwrap().as_bytes(), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    assert!(found.head.fields.is_empty());
    assert_eq!(found.framing, Framing::None);
}

proptest! {
    #[test]
    fn any_split_finds_the_same_end(case in 0..REFUSED.len(), size in 1..9_usize) {
        let bytes = REFUSED[case].0;
        let mut scanner = Scanner::default();
        let mut found = Ok(None);
        for end in (0..bytes.len()).step_by(size).skip(1).chain([bytes.len()]) {
            found = scanner.find_end(&bytes[..end], &Limits::RESPONSE);
            if found != Ok(None) {
                break;
            }
        }
        prop_assert_eq!(found, Scanner::default().find_end(bytes, &Limits::RESPONSE));
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), asked in 0..3_usize) {
        let asked = [Asked::Other, Asked::Head, Asked::Upgrade][asked];
        let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
        head.extend_from_slice(&bytes);
        head.extend_from_slice(b"\r\n\r\n");
        if let Ok(found) = response(&head, asked, &Limits::RESPONSE) {
            prop_assert!(found.head.fields.len() < 100);
        }
    }
}
