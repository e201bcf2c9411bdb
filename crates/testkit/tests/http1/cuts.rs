//! Messages that break off, at every byte (reliability F15, F16): nobody takes the beginning of a message for a whole one.

use std::time::Duration;

use hms_testkit::http1::End;
use hms_testkit::http1::liar::{Script, Then};
use hms_testkit::settings::full_size;
use hms_testkit::{figure, scenario, wait};

use crate::stack::{GET, Stack};

/// At which bytes a message is cut: at all of them, or a sample of them with those around the end of its head.
fn cuts(message: &str) -> Vec<usize> {
    let head = message.find("\r\n\r\n").unwrap() + 4;
    let step = if full_size() { 1 } else { 7 };
    let sampled = (1..message.len()).filter(|at| at % step == 0 || at.abs_diff(head) <= 2 || message.len() - at <= 6);
    sampled.collect()
}

#[test]
fn a_request_that_breaks_off_never_arrives_as_a_whole_one() {
    scenario(Duration::from_mins(5), async {
        let stack = Stack::start().await;
        let _kept = stack.next_contact().await;
        let requests = [
            "GET /cut HTTP/1.1\r\nHost: calc-svc\r\n\r\n",
            "POST /cut HTTP/1.1\r\nHost: calc-svc\r\nContent-Length: 12\r\n\r\nGET / HTTP/1",
            "POST /cut HTTP/1.1\r\nHost: calc-svc\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx: y\r\n\r\n",
        ];
        let mut tried = 0;
        for request in requests {
            let mut whole = stack.liar.requests();
            for at in cuts(request) {
                let mut raw = stack.sent(&request[..at]).await;
                raw.finish().await;
                let _whatever_was_answered = raw.rest().await;
                drop(raw);
                tried += 1;
                // A whole request through the same proxies, so that whatever was on its way has arrived.
                let _next = stack.next_contact().await;
                whole += 1;
                assert_eq!(stack.liar.requests(), whole, "cut at {at} of {request:?}");
            }
            // Every connection that got a part of a request is given up.
            wait::until("aborted requests are given up", Duration::from_secs(10), || {
                let contacts = stack.liar.contacts();
                let left = contacts.into_iter().find(|contact| {
                    contact.ended.is_none() && contact.requests().iter().any(|request| !request.is_whole())
                });
                std::future::ready(left.map_or(Ok(()), |left| Err(format!("{left:?}"))))
            })
            .await;
        }
        figure("requests cut off", tried);
    });
}

#[test]
fn an_answer_that_breaks_off_never_looks_like_a_whole_one() {
    scenario(Duration::from_mins(5), async {
        let stack = Stack::start().await;
        let answers = [
            "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nHTTP/1.1 200",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\nx: y\r\n\r\n",
        ];
        let old = GET.replace("HTTP/1.1", "HTTP/1.0");
        let mut tried = 0;
        for answer in answers {
            let head = answer.find("\r\n\r\n").unwrap() + 4;
            for at in cuts(answer) {
                for then in [Then::Reset, Then::Close] {
                    let got = stack.ask(Script::of(&answer.as_bytes()[..at]).then(then), GET).await;
                    match got {
                        Ok(refusal) => assert_eq!(refusal.status(), 502, "{then:?} at {at} of {answer:?}: {refusal:?}"),
                        Err((part, _)) => {
                            assert!(part.is_some() && at >= head, "{then:?} at {at} of {answer:?}: {part:?}");
                        }
                    }
                    tried += 1;
                    // Enough good ones among the bad that the breaker stays closed.
                    for _ in 0..2 {
                        let _still_serves = stack.next_contact().await;
                    }
                }
            }
        }
        figure("answers cut off", tried);
        // To HTTP/1.0 only the end of the connection tells that an answer is whole; it must not come in order.
        let part = &answers[1].as_bytes()[..answers[1].find("two").unwrap()];
        let got = stack.ask(Script::of(part).then(Then::Reset), &old).await;
        let (part, ended) = got.expect_err("no whole answer");
        assert!(part.is_none() || ended == End::Broken, "{part:?}, {ended:?}");
    });
}
