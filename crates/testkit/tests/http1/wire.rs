//! Framing, as each side sees it.

use std::time::Duration;

use hms_testkit::client::Http;
use hms_testkit::http1::End;
use hms_testkit::http1::liar::{Contact, POLITE, Script, Then, When};
use hms_testkit::http1::message::Kind;
use hms_testkit::http2::raw::Raw;
use hms_testkit::http2::wire::{DATA, END_STREAM, RST_STREAM, headers, literals};
use hms_testkit::sidecar::{Plan, Proxy};
use hms_testkit::{http1, scenario, wait};
use http::Method;

use crate::stack::{GET, Stack};

#[test]
fn requests_sent_ahead_are_answered_in_their_order() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let before = stack.liar.requests();
        let post = "POST /second HTTP/1.1\r\nHost: calc-svc\r\nContent-Length: 4\r\n\r\nbody";
        let mut raw =
            stack.sent(format!("{}{post}{}", GET.replace("next", "first"), GET.replace("next", "third"))).await;
        for _ in 0..3 {
            assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
        }
        assert_eq!(stack.liar.requests() - before, 3);
        let bytes: Vec<u8> = stack.liar.contacts().into_iter().flat_map(|contact| contact.bytes).collect();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let places = ["GET /first", "POST /second", "GET /third"].map(|line| text.find(line).expect(line));
        assert!(places.is_sorted(), "{places:?}");
    });
}

#[test]
fn who_expects_100_gets_it_when_its_body_is_wanted_and_only_then() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let head = |path: &str| {
            format!("POST {path} HTTP/1.1\r\nHost: calc-svc\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
        };
        let mut raw = stack.sent(head("/wanted")).await;
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(100));
        assert!(raw.send("body").await);
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
        let refused = head("/refused").replace("Host: calc-svc", "Host: a\r\nHost: b");
        let mut raw = stack.sent(refused).await;
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(400), "without 100 before it");
        assert!(raw.rest().await.0.is_empty());
        // Through the port for all services nobody has this name.
        let mut raw = http1::raw::Raw::plain(stack.client.address("outbound")).await;
        assert!(raw.send(head("/nobody").replace("Host: calc-svc", "Host: nobody-svc")).await);
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(404), "without 100 before it");
    });
}

#[test]
fn answers_without_a_body_have_none_and_keep_the_connection() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let cases = [
            ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5000\r\n\r\n", Some("5000")),
            ("HEAD", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", None),
            ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
            ("GET", "HTTP/1.1 304 Not Modified\r\ncontent-length: 5000\r\netag: \"a\"\r\n\r\n", Some("5000")),
            ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some("0")),
        ];
        let mut raw = stack.raw().await;
        for (method, answer, length) in cases {
            stack.liar.play(Script::of(answer));
            assert!(raw.send(GET.replacen("GET", method, 1)).await);
            let kind = if method == "HEAD" { Kind::AnswerToHead } else { Kind::Answer };
            let got = raw.answer(kind).await.unwrap_or_else(|part| panic!("{method} {answer:?}: {part:?}"));
            assert!(got.body.is_empty(), "{got:?}");
            if let Some(length) = length {
                assert_eq!(got.field("content-length"), length, "{method} {answer:?}: {got:?}");
            }
            assert!(!(got.status() == 204 && (got.has("content-length") || got.has("transfer-encoding"))), "{got:?}");
        }
    });
}

#[test]
fn http_1_0_is_kept_only_when_it_asks_for_it_and_never_sees_chunks() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
        let head = "GET / HTTP/1.0\r\nHost: calc-svc\r\n";
        stack.liar.play(Script::of(POLITE));
        let mut raw = stack.sent(format!("{head}\r\n")).await;
        let answer = raw.answer(Kind::Answer).await.unwrap();
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("ok", "close"));
        assert_eq!(raw.rest().await, (b"".as_slice(), End::Clean));

        let mut raw = stack.sent(format!("{head}Connection: keep-alive\r\n\r\n")).await;
        let answer = raw.answer(Kind::Answer).await.unwrap();
        assert_eq!((answer.text().as_str(), answer.field("connection")), ("ok", "keep-alive"));
        assert!(raw.send(format!("{head}\r\n")).await);
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.text()), Ok("ok".to_owned()));

        stack.liar.play(Script::of(chunked));
        let mut raw = stack.sent(format!("{head}Connection: keep-alive\r\n\r\n")).await;
        let part = raw.answer(Kind::Answer).await.unwrap_err().unwrap();
        assert!(part.until_close && !part.has("transfer-encoding") && part.text() == "onetwo", "{part:?}");
        assert_eq!(raw.rest().await.1, End::Clean);
    });
}

#[test]
fn chunks_with_extensions_and_trailers_arrive_without_the_extensions() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let head = "POST /chunks HTTP/1.1\r\nHost: calc-svc\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
                    Connection: TE\r\nTrailer: x-sum\r\n\r\n";
        let mut raw = stack.sent(format!("{head}3;a=b\r\none\r\n3;c=\"d\"\r\ntwo\r\n0;e\r\nx-sum: 6\r\n\r\n")).await;
        assert_eq!(raw.answer(Kind::Answer).await.map(|answer| answer.status()), Ok(200));
        let requests: Vec<_> = stack.liar.contacts().iter().flat_map(Contact::requests).collect();
        let seen = requests.iter().find(|request| request.first.contains("/chunks")).unwrap();
        assert_eq!(seen.text(), "onetwo");
        assert_eq!(seen.trailers, [("x-sum".to_owned(), "6".to_owned())]);
        assert!(stack.liar.contacts().iter().all(|contact| !contact.bytes.windows(3).any(|window| window == b"a=b")));
    });
}

#[test]
fn a_body_that_follows_its_head_later_arrives_over_http2() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        let gateway = Proxy::start(&stack.mesh, Plan::gateway()).await;
        let root = stack.mesh.rest().send(Method::GET, "/v1/ca/edge", "").await.text();
        let (https, token) = (gateway.address("https"), stack.mesh.jwt().await);
        let outside = Http::tls(https, "gateway.local", &root).bearer(&token);
        wait::until("the gateway passes a call", Duration::from_secs(20), || async {
            let answer = outside.get("/next").await?;
            if answer.status == 200 { Ok(()) } else { Err(answer.text()) }
        })
        .await;
        let length = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\n";
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
        let answers = [
            (vec![length, "one", "two"], Then::Keep),
            (vec![chunked, "3\r\none\r\n", "3\r\ntwo\r\n", "0\r\n\r\n"], Then::Keep),
            (vec!["HTTP/1.1 200 OK\r\n\r\n", "one", "two"], Then::Close),
        ];
        let bearer = format!("Bearer {token}");
        for (pieces, then) in answers {
            let mut raw = Raw::tls(https, "gateway.local", &root).await;
            raw.begin(&[]).await;
            let pieces = pieces.into_iter().map(|piece| piece.as_bytes().to_vec()).collect();
            stack.liar.play(Script { when: When::Whole, pieces, then });
            let block = literals(&[
                (":method", "GET"),
                (":scheme", "https"),
                (":authority", "gateway.local"),
                (":path", "/late"),
                ("authorization", bearer.as_str()),
            ]);
            assert!(raw.send(&headers(1, true, &block)).await);
            let head = raw.next_head().await;
            assert_eq!(head.flags & END_STREAM, 0, "{then:?}: a body is still to come");
            // Each piece leaves when the one before it has arrived.
            let mut body = Vec::new();
            let mut ended = false;
            while !ended {
                stack.liar.release();
                let frame = raw.next().await.expect("more of the answer");
                assert_ne!(frame.kind, RST_STREAM, "{then:?}: {frame:?}");
                if frame.kind == DATA {
                    body.extend_from_slice(&frame.payload);
                    ended = frame.flags & END_STREAM != 0;
                }
            }
            assert_eq!(body, b"onetwo", "{then:?}");
        }
    });
}
