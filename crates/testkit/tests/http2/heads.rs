//! Heads and bodies that are no request: each has one answer, and nothing of it reaches an application (reliability B7).

use std::time::Duration;

use hms_testkit::http2::raw::Outcome::{self, GoAway, Reset, Status};
use hms_testkit::http2::wire::{DATA, END_HEADERS, END_STREAM, HEADERS, frame, headers, literals};
use hms_testkit::scenario;

use crate::stack::{HOST, Stack};

/// `PROTOCOL_ERROR`.
const PROTOCOL: u32 = 0x1;

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "https");
const AUTHORITY: (&str, &str) = (":authority", HOST);
const PATH: (&str, &str) = (":path", "/echo");

type Fields = &'static [(&'static str, &'static str)];

/// A good head with one field more, and the answer.
const MORE: &[(&str, &str, Outcome)] = &[
    // Fields of one connection (RFC 9113 §8.2.2).
    ("connection", "close", Reset(PROTOCOL)),
    ("connection", "x-forwarded-for", Reset(PROTOCOL)),
    ("transfer-encoding", "chunked", Reset(PROTOCOL)),
    ("transfer-encoding", "identity", Reset(PROTOCOL)),
    ("upgrade", "websocket", Reset(PROTOCOL)),
    ("upgrade", "h2c", Reset(PROTOCOL)),
    ("keep-alive", "timeout=5", Reset(PROTOCOL)),
    ("proxy-connection", "keep-alive", Reset(PROTOCOL)),
    ("te", "gzip", Reset(PROTOCOL)),
    ("te", "trailers, deflate", Reset(PROTOCOL)),
    ("te", "Trailers", Reset(PROTOCOL)),
    ("te", "", Reset(PROTOCOL)),
    // Names and values (§8.2.1).
    ("X-Upper", "1", GoAway(PROTOCOL)),
    ("x-Upper", "1", GoAway(PROTOCOL)),
    ("", "1", GoAway(PROTOCOL)),
    ("x y", "1", GoAway(PROTOCOL)),
    ("x:y", "1", GoAway(PROTOCOL)),
    ("x\0", "1", GoAway(PROTOCOL)),
    ("x\r\nhost", "evil", GoAway(PROTOCOL)),
    ("x\u{7f}", "1", GoAway(PROTOCOL)),
    ("x\u{e9}", "1", GoAway(PROTOCOL)),
    ("x-value", "a\r\nhost: evil", GoAway(PROTOCOL)),
    ("x-value", "a\nb", GoAway(PROTOCOL)),
    ("x-value", "a\rb", GoAway(PROTOCOL)),
    ("x-value", "a\0b", GoAway(PROTOCOL)),
    ("x-value", "a\u{7f}b", GoAway(PROTOCOL)),
    ("x-value", " a", Status(400)),
    ("x-value", "a ", Status(400)),
    ("x-value", "a\t", Status(400)),
    // Pseudo-header fields (§8.3).
    (":method", "GET", Reset(PROTOCOL)),
    (":path", "/admin", Reset(PROTOCOL)),
    (":authority", "evil", Reset(PROTOCOL)),
    (":status", "200", Reset(PROTOCOL)),
    (":protocol", "websocket", Reset(PROTOCOL)),
    (":unknown", "1", GoAway(PROTOCOL)),
    // Who is meant (§8.3.1).
    ("host", "evil", Status(400)),
    ("host", "gateway.local:8443", Status(400)),
    ("host", "", Status(400)),
    ("host", "a b", Status(400)),
    ("host", "user@gateway.local", Status(400)),
    // How long it is (§8.1.1).
    ("content-length", "5", Reset(PROTOCOL)),
    ("content-length", "-1", Reset(PROTOCOL)),
    ("content-length", "+0", Reset(PROTOCOL)),
    ("content-length", "0, 0", Reset(PROTOCOL)),
    ("content-length", "99999999999999999999", Reset(PROTOCOL)),
    ("content-length", "", Status(400)),
];

/// Whole heads, and the answers.
const WHOLE: &[(&str, Fields, Outcome)] = &[
    ("no method", &[SCHEME, AUTHORITY, PATH], Reset(PROTOCOL)),
    ("no scheme", &[METHOD, AUTHORITY, PATH], Reset(PROTOCOL)),
    ("no path", &[METHOD, SCHEME, AUTHORITY], Reset(PROTOCOL)),
    ("no authority", &[METHOD, SCHEME, PATH], Status(400)),
    ("nothing", &[], Reset(PROTOCOL)),
    ("an empty path", &[METHOD, SCHEME, AUTHORITY, (":path", "")], Reset(PROTOCOL)),
    ("a path without a slash", &[METHOD, SCHEME, AUTHORITY, (":path", "admin")], Reset(PROTOCOL)),
    ("a path that is a URL", &[METHOD, SCHEME, AUTHORITY, (":path", "http://evil/")], Reset(PROTOCOL)),
    ("a path with a space", &[METHOD, SCHEME, AUTHORITY, (":path", "/a b")], Reset(PROTOCOL)),
    ("a path with a NUL", &[METHOD, SCHEME, AUTHORITY, (":path", "/a\0b")], Reset(PROTOCOL)),
    ("a path with a line", &[METHOD, SCHEME, AUTHORITY, (":path", "/a\r\nx: y")], Reset(PROTOCOL)),
    ("a path with a backslash", &[METHOD, SCHEME, AUTHORITY, (":path", "/a\\..\\b")], Status(400)),
    ("a path above the root", &[METHOD, SCHEME, AUTHORITY, (":path", "/../etc")], Status(400)),
    ("a separator in disguise", &[METHOD, SCHEME, AUTHORITY, (":path", "/a%2fb")], Status(400)),
    ("a bad percent", &[METHOD, SCHEME, AUTHORITY, (":path", "/a%zz")], Status(400)),
    ("an asterisk for GET", &[METHOD, SCHEME, AUTHORITY, (":path", "*")], Status(400)),
    ("a method with a space", &[(":method", "GET /"), SCHEME, AUTHORITY, PATH], GoAway(PROTOCOL)),
    ("an empty method", &[(":method", ""), SCHEME, AUTHORITY, PATH], GoAway(PROTOCOL)),
    ("a method with a line", &[(":method", "GET\r\n"), SCHEME, AUTHORITY, PATH], GoAway(PROTOCOL)),
    ("CONNECT", &[(":method", "CONNECT"), AUTHORITY], Status(405)),
    ("CONNECT with a path", &[(":method", "CONNECT"), SCHEME, AUTHORITY, PATH], Reset(PROTOCOL)),
    ("a scheme with a space", &[METHOD, (":scheme", "ht tp"), AUTHORITY, PATH], Reset(PROTOCOL)),
    ("another scheme", &[METHOD, (":scheme", "ftp"), AUTHORITY, PATH], Status(400)),
    ("an authority with a user", &[METHOD, SCHEME, (":authority", "user@gateway.local"), PATH], Status(400)),
    ("an authority with a space", &[METHOD, SCHEME, (":authority", "a b"), PATH], Reset(PROTOCOL)),
    ("an authority with a path", &[METHOD, SCHEME, (":authority", "a/b"), PATH], Reset(PROTOCOL)),
    ("a pseudo-header after a field", &[METHOD, SCHEME, AUTHORITY, ("x-a", "1"), PATH], Reset(PROTOCOL)),
    ("two hosts", &[METHOD, SCHEME, PATH, ("host", HOST), ("host", HOST)], Status(400)),
    ("two lengths", &[METHOD, SCHEME, AUTHORITY, PATH, ("content-length", "0"), ("content-length", "0")], Status(400)),
];

#[test]
fn every_bad_head_has_its_answer_and_reaches_no_application() {
    scenario(Duration::from_mins(4), async {
        let stack = Stack::start().await;
        let before = stack.app.hits();
        let good = stack.block("GET", "/echo");
        let more = MORE.iter().map(|(name, value, expected)| {
            let block = [good.as_slice(), &literals(&[(name, value)])].concat();
            (format!("{name:?}: {value:?}"), block, *expected)
        });
        let bearer = literals(&[("authorization", stack.bearer())]);
        let whole = WHOLE.iter().map(|(name, fields, expected)| {
            ((*name).to_owned(), [literals(fields), bearer.clone()].concat(), *expected)
        });
        let mut wrong = Vec::new();
        let mut cases = 0;
        for (name, block, expected) in more.chain(whole) {
            let mut raw = stack.begun().await;
            assert!(raw.send(&headers(1, true, &block)).await, "{name}");
            let outcome = raw.outcome_of(1).await;
            cases += 1;
            if outcome != expected {
                wrong.push(format!("{name}: {outcome:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
        assert_eq!(stack.app.hits(), before, "nothing reached the application");
        stack.serves().await;
    });
}

#[test]
fn heads_that_are_too_large_are_told_so() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let before = stack.app.hits();
        let good = stack.block("GET", "/echo");
        let cases = [
            ("a long field", literals(&[("x-long", "x".repeat(16_384))])),
            ("many fields", literals(&[("x-many", ""); 101])),
            ("many crumbs", literals(&[("cookie", "a=b"); 101])),
        ];
        for (name, more) in cases {
            let mut raw = stack.begun().await;
            let block = [good.as_slice(), &more].concat();
            let (first, second) = block.split_at(block.len() / 2);
            let frames = [frame(HEADERS, END_STREAM, 1, first), frame(0x9, END_HEADERS, 1, second)].concat();
            assert!(raw.send(&frames).await, "{name}");
            assert_eq!(raw.outcome_of(1).await, Status(431), "{name}");
        }
        let mut raw = stack.begun().await;
        assert!(raw.send(&headers(1, true, &stack.block("GET", &format!("/{}", "a".repeat(8192))))).await);
        assert_eq!(raw.outcome_of(1).await, Status(431), "a long path");
        assert_eq!(stack.app.hits(), before);
        stack.serves().await;
    });
}

#[test]
fn a_body_that_is_not_as_long_as_announced_is_never_a_whole_request() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let length = |length: &str| [stack.block("POST", "/echo"), literals(&[("content-length", length)])].concat();
        let data = |flags: u8, bytes: &[u8]| frame(DATA, flags, 1, bytes);
        let trailers = |flags, fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS | flags, 1, &literals(fields));
        let cases = [
            ("longer", "3", data(1, b"four"), Reset(PROTOCOL)),
            ("longer in two", "3", [data(0, b"fo"), data(1, b"ur")].concat(), Reset(PROTOCOL)),
            ("shorter", "5", data(1, b"four"), Reset(PROTOCOL)),
            (
                "shorter with trailers",
                "5",
                [data(0, b"four"), trailers(END_STREAM, &[("x-a", "1")])].concat(),
                Reset(PROTOCOL),
            ),
            // RFC 9113 §8.1 calls this malformed; `h2` drops the pseudo-header, so nobody after us can be misled.
            (
                "trailers with a path",
                "4",
                [data(0, b"four"), trailers(END_STREAM, &[(":path", "/")])].concat(),
                Status(200),
            ),
            (
                "trailers that do not end",
                "4",
                [data(0, b"four"), trailers(0, &[("x-a", "1")])].concat(),
                Reset(PROTOCOL),
            ),
            ("as announced", "4", data(1, b"four"), Status(200)),
        ];
        let mut wrong = Vec::new();
        for (name, announced, frames, expected) in cases {
            let mut raw = stack.begun().await;
            assert!(raw.send(&[headers(1, false, &length(announced)), frames].concat()).await, "{name}");
            let outcome = raw.outcome_of(1).await;
            if outcome != expected {
                wrong.push(format!("{name}: {outcome:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        stack.serves().await;
    });
}

#[test]
fn crumbs_of_cookies_reach_the_application_as_one() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mut raw = stack.begun().await;
        let block =
            [stack.block("GET", "/echo"), literals(&[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")])].concat();
        assert!(raw.send(&headers(1, true, &block)).await);
        assert_eq!(raw.outcome_of(1).await, Status(200));
        let body = raw.next().await.expect("a body");
        let seen: serde_json::Value = serde_json::from_slice(&body.payload).expect("JSON");
        assert_eq!(seen["headers"]["cookie"], "a=1; b=2");
    });
}
