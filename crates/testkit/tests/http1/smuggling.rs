//! Bytes of one request that could become another (reliability A2, A3, A4, G1).

use std::time::Duration;

use hms_testkit::http1::End;
use hms_testkit::http1::liar::{Contact, POLITE, Script, Then, When};
use hms_testkit::http1::message::Kind;
use hms_testkit::{scenario, wait};

use crate::stack::{GET, Stack};

#[test]
fn a_chunk_that_is_not_what_it_says_aborts_the_request_and_its_connection() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let before = stack.next_contact().await;
        let whole = stack.liar.requests();
        let head = "POST /broken HTTP/1.1\r\nHost: calc-svc\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut raw = stack.sent(head).await;
        assert!(raw.send("5\r\nhello\r\n").await);
        let is_broken = |bytes: &[u8]| bytes.windows(12).any(|window| window == b"POST /broken");
        let find = || stack.liar.contacts().iter().position(|contact| is_broken(&contact.bytes));
        let number = wait::until("the head arrives", Duration::from_secs(10), || {
            std::future::ready(find().ok_or_else(|| format!("{:?}", stack.liar.contacts())))
        })
        .await;
        assert!(raw.send("5\r\nhelloXX0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: calc-svc\r\n\r\n").await);
        if let Ok(answer) = raw.answer(Kind::Answer).await {
            assert!(answer.status() >= 400 && answer.field("connection") == "close", "{answer:?}");
        }
        assert!(raw.rest().await.0.is_empty(), "one answer at most");
        let _ended = stack.liar.until_ended(number).await;
        let contact = stack.liar.contacts().swap_remove(number);
        let last = contact.requests().pop().unwrap();
        assert!(!last.is_whole() && last.first.starts_with("POST /broken"), "aborted, never a clean end: {last:?}");
        assert_eq!(stack.liar.requests(), whole, "nothing behind the broken chunk is a request");
        assert!(stack.next_contact().await > number.max(before), "on a new connection");
    });
}

#[test]
fn a_connection_that_is_owed_bytes_carries_no_other_request() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        stack.liar.play(Script { when: When::Head, pieces: vec![POLITE.to_vec()], then: Then::Keep });
        let mut raw =
            stack.sent("POST /owing HTTP/1.1\r\nHost: calc-svc\r\nContent-Length: 100000\r\n\r\n0123456789").await;
        let early = raw.answer(Kind::Answer).await.expect("an answer before the body is complete");
        assert_eq!((early.status(), early.text().as_str()), (200, "ok"));
        let owing = |bytes: &[u8]| bytes.windows(11).any(|window| window == b"POST /owing");
        let number = stack.liar.contacts().iter().position(|contact| owing(&contact.bytes));
        let number = number.expect("it arrived");
        // Another client, while the first one still owes.
        assert_ne!(stack.next_contact().await, number, "it is not used again");
        // What is still owed looks like a request.
        let _gone_is_fine = raw.send("GET /smuggled HTTP/1.1\r\nHost: calc-svc\r\n\r\n").await;
        drop(raw);
        let _ended = stack.liar.until_ended(number).await;
        assert_ne!(stack.next_contact().await, number);
        for contact in stack.liar.contacts() {
            assert!(contact.requests().iter().all(|request| !request.first.contains("/smuggled")), "{contact:?}");
        }
    });
}

#[test]
fn what_is_no_websocket_is_no_upgrade_and_what_follows_is_a_request_of_its_own() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let upgrades = [
            ("Upgrade: foo\r\nConnection: Upgrade\r\n", ["upgrade", "connection"].as_slice()),
            (
                "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
                &["upgrade", "connection", "http2-settings"],
            ),
            ("Connection: x-gone, close\r\nX-Gone: 1\r\n", &["connection", "x-gone"]),
        ];
        for (number, (fields, dropped)) in upgrades.into_iter().enumerate() {
            let before = stack.liar.requests();
            let path = format!("/ws{number}");
            let head = format!("GET {path} HTTP/1.1\r\nHost: calc-svc\r\n{fields}\r\n");
            let mut raw = stack.sent(head + "GET /second HTTP/1.1\r\nHost: calc-svc\r\n\r\n").await;
            let answer = raw.answer(Kind::Answer).await.unwrap();
            assert_eq!(answer.status(), 200, "{answer:?}");
            let says_close = fields.contains("close");
            if says_close {
                assert_eq!(raw.rest().await, (b"".as_slice(), End::Clean), "what follows `close` is nothing");
            } else {
                assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
            }
            assert_eq!(stack.liar.requests() - before, if says_close { 1 } else { 2 });
            let requests: Vec<_> = stack.liar.contacts().iter().flat_map(Contact::requests).collect();
            let seen = requests.iter().find(|request| request.first.contains(&path)).unwrap();
            for name in dropped {
                assert!(!seen.has(name), "{fields}: {seen:?}");
            }
        }
    });
}

#[test]
fn a_websocket_that_is_not_granted_leaves_a_connection_that_speaks_http() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let asks = "GET /ws HTTP/1.1\r\nHost: calc-svc\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stack.liar.play(Script::of("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"));
        let mut raw = stack.sent(format!("{asks}\x01\x02not http")).await;
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(403));
        let refusal = raw.answer(Kind::Answer).await.expect("what follows is read as a request, and is none");
        assert_eq!((refusal.status(), refusal.field("connection")), (400, "close"));
        for contact in stack.liar.contacts() {
            assert!(!contact.bytes.windows(8).any(|window| window == b"not http"), "{contact:?}");
        }
        // A wrong acceptance is no tunnel either.
        let wrong = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                     sec-websocket-accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n";
        stack.liar.play(Script::of(wrong));
        let mut raw = stack.sent(asks).await;
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(502));
        let _next = stack.next_contact().await;
        assert!(stack.raw().await.send(GET).await);
    });
}
