//! Answers that no honest application gives (reliability A5): the caller gets 502 or an aborted answer, never a second one, and the
//! connection they came by is not used again.

use std::time::Duration;

use hms_testkit::http1::liar::{Script, Then};
use hms_testkit::http1::message::Message;
use hms_testkit::{figure, scenario};

use crate::stack::{GET, Stack, refused};

/// What must become of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Refused before any of it is passed on.
    Refused,
    /// Its head may be passed on; it must not end in order.
    Aborted,
    /// Its honest part is passed on as a whole, and nothing else.
    Cut,
}
use Fate::{Aborted, Cut, Refused};

/// Name, what becomes of it, the request's method, the bytes.
type Lie = (&'static str, Fate, &'static str, Vec<u8>);

fn lie(name: &'static str, fate: Fate, bytes: impl Into<Vec<u8>>) -> Lie {
    (name, fate, "GET", bytes.into())
}

/// Lies in the head.
fn heads() -> Vec<Lie> {
    let ok = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\nok");
    vec![
        lie("two different lengths", Refused, ok("content-length: 2\r\ncontent-length: 3")),
        lie("two equal lengths", Refused, ok("content-length: 2\r\ncontent-length: 2")),
        lie("a list of lengths", Refused, ok("content-length: 2, 2")),
        lie("length with a sign", Refused, ok("content-length: +2")),
        lie("length of 20 digits", Refused, ok("content-length: 18446744073709551618")),
        lie("length and coding", Refused, ok("content-length: 2\r\ntransfer-encoding: chunked")),
        lie("gzip, chunked", Refused, ok("transfer-encoding: gzip, chunked")),
        lie("chunked twice", Refused, ok("transfer-encoding: chunked, chunked")),
        lie("chunked behind another coding", Refused, ok("transfer-encoding: identity\r\ntransfer-encoding: chunked")),
        lie("bare CR in a value", Refused, ok("x: a\rb\r\ncontent-length: 2")),
        lie("bare LF as line end", Refused, "HTTP/1.1 200 OK\ncontent-length: 2\n\nok"),
        lie("NUL in a value", Refused, ok("x: a\0b\r\ncontent-length: 2")),
        lie("folded line", Refused, ok("x: a\r\n b\r\ncontent-length: 2")),
        lie("space before colon", Refused, ok("content-length : 2")),
        lie("no colon", Refused, ok("content-length 2")),
        lie("space before the first field", Refused, ok(" content-length: 2")),
        lie("empty name", Refused, ok(": 2\r\ncontent-length: 2")),
        lie("status 2000", Refused, "HTTP/1.1 2000 OK\r\ncontent-length: 2\r\n\r\nok"),
        lie("status 20", Refused, "HTTP/1.1 20 OK\r\ncontent-length: 2\r\n\r\nok"),
        lie("status 099", Refused, "HTTP/1.1 099 OK\r\ncontent-length: 2\r\n\r\nok"),
        lie("status 600", Refused, "HTTP/1.1 600 OK\r\ncontent-length: 2\r\n\r\nok"),
        lie("HTTP/2.0", Refused, "HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        lie("HTTP/0.9", Refused, "hello, I am a page\n\n"),
        lie("an SSH server", Refused, "SSH-2.0-OpenSSH_9.2p1\r\n\r\n"),
        lie("an empty line first", Refused, ok("content-length: 2").replace("HTTP/", "\r\nHTTP/")),
        lie("101 that nobody asked for", Refused, "HTTP/1.1 101 Switching Protocols\r\nupgrade: foo\r\n\r\nxx"),
        lie(
            "10 000 interim answers",
            Refused,
            "HTTP/1.1 103 Early Hints\r\n\r\n".repeat(10_000) + &ok("content-length: 2"),
        ),
        lie("head of 80 KiB", Refused, ok(&format!("{}content-length: 2", "x: 0123456789abcdef\r\n".repeat(4096)))),
        lie("field of 80 KiB", Refused, ok(&format!("x: {}\r\ncontent-length: 2", "y".repeat(80 << 10)))),
        lie("200 fields", Refused, ok(&format!("{}content-length: 2", "x: y\r\n".repeat(200)))),
    ]
}

/// Lies in the body and behind it.
fn bodies() -> Vec<Lie> {
    let chunked = |body: &str| format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{body}");
    let second = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nhacked";
    let length = format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok{second}");
    vec![
        lie("a second answer behind the first", Cut, length),
        lie("junk behind the body", Cut, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokjunk"),
        lie("a second answer behind chunks", Cut, chunked(&format!("2\r\nok\r\n0\r\n\r\n{second}"))),
        lie("204 with a body", Cut, "HTTP/1.1 204 No Content\r\n\r\nok"),
        lie("304 with a body", Cut, "HTTP/1.1 304 Not Modified\r\n\r\nok"),
        ("HEAD with a body", Cut, "HEAD", b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_vec()),
        ("HEAD with a second answer", Cut, "HEAD", format!("HTTP/1.1 200 OK\r\n\r\n{second}").into()),
        lie(
            "205 and 204 that promise bodies",
            Refused,
            "HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        lie("chunk that is longer than said", Aborted, chunked("2\r\nok!!\r\n0\r\n\r\n")),
        lie("chunk size with a prefix", Aborted, chunked("0x2\r\nok\r\n0\r\n\r\n")),
        lie("chunk size with a sign", Aborted, chunked("+2\r\nok\r\n0\r\n\r\n")),
        lie("chunk size of 17 digits", Aborted, chunked("00000000000000002\r\nok\r\n0\r\n\r\n")),
        lie("chunk size that wraps", Aborted, chunked("10000000000000002\r\nok\r\n0\r\n\r\n")),
        lie("chunk lines that end in LF", Aborted, chunked("2\nok\n0\n\n")),
        lie("chunk extension of 40 KiB", Aborted, chunked(&format!("2;{}\r\nok\r\n0\r\n\r\n", "x".repeat(40 << 10)))),
        lie("trailers of 40 KiB", Aborted, chunked(&format!("2\r\nok\r\n0\r\nx: {}\r\n\r\n", "y".repeat(40 << 10)))),
        lie("trailer with a folded line", Aborted, chunked("2\r\nok\r\n0\r\nx: a\r\n b\r\n\r\n")),
    ]
}

/// What is wrong with how a lie went.
async fn try_lie(stack: &Stack, (_, fate, method, bytes): &Lie) -> Result<(), String> {
    let before = stack.next_contact().await;
    let request = GET.replacen("GET", method, 1);
    let got = stack.ask(Script::of(bytes.clone()), &request).await;
    match (fate, &got) {
        (Refused, Ok(answer)) => {
            refused(answer)?;
            ensure(answer.status() == 502, || format!("{answer:?}"))?;
        }
        (Aborted, Ok(answer)) => {
            refused(answer)?;
            ensure(answer.status() == 502, || format!("{answer:?}"))?;
        }
        (Aborted, Err((part, _))) => ensure(part.is_some(), || "neither a refusal nor a head".to_owned())?,
        (Cut, Ok(answer)) => honest(answer)?,
        (Refused | Cut, Err(part)) => return Err(format!("{part:?}")),
    }
    let after = stack.next_contact().await;
    ensure(after > before, || format!("connection {before} was used again as {after}"))
}

/// Nothing but the part that was true.
fn honest(answer: &Message) -> Result<(), String> {
    let status = answer.status();
    let body = answer.text();
    ensure(matches!((status, body.as_str()), (200, "ok") | (200 | 204 | 304, "")), || format!("{answer:?}"))
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

async fn try_all(lies: Vec<Lie>) {
    let stack = Stack::start().await;
    let mut wrong = Vec::new();
    for lie in &lies {
        if let Err(what) = try_lie(&stack, lie).await {
            wrong.push(format!("{}: {what}", lie.0));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    figure("hostile answers that hurt nobody", lies.len());
}

#[test]
fn answers_with_a_lying_head_are_refused() {
    scenario(Duration::from_mins(2), try_all(heads()));
}

#[test]
fn answers_with_a_lying_body_are_cut_off_or_aborted() {
    scenario(Duration::from_mins(2), try_all(bodies()));
}

#[test]
fn an_application_that_hangs_up_is_a_502_and_nothing_is_kept() {
    scenario(Duration::from_mins(1), async {
        let stack = Stack::start().await;
        for then in [Then::Close, Then::Reset] {
            let before = stack.next_contact().await;
            let answer = stack.ask(Script::of("").then(then), GET).await.unwrap();
            assert_eq!((refused(&answer), answer.status()), (Ok(()), 502), "{then:?}: {answer:?}");
            assert!(stack.next_contact().await > before, "{then:?}");
        }
    });
}
