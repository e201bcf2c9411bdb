//! Every case of the corpus: our verdict, hyper's beside it, and what is sent on.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::connection::{Message, Outcome, check_rewritten, describe, pairs, read, read_in_pieces, rewrite};
use crate::{corpus, hyper_server};
use hms_http1::{Limits, Reject, request};

fn verdict(outcome: &Outcome) -> String {
    let mut words: Vec<String> = outcome.messages.iter().filter(|m| m.complete).map(|_| "accept".to_owned()).collect();
    match outcome.fault {
        Some(fault) => words.push(format!("{} {fault:?}", fault.status().as_u16())),
        None if !outcome.rest.is_empty() || outcome.messages.iter().any(|message| !message.complete) => {
            words.push("incomplete".to_owned());
        }
        None => {}
    }
    words.join(" ")
}

/// The differences as one text, so that a run shows all of them.
fn differences(found: impl Iterator<Item = (String, String, String)>) -> String {
    let mut text = String::new();
    for (name, said, is) in found.filter(|(_name, said, is)| said != is) {
        writeln!(text, "{name}: {said} -> {is}").unwrap();
    }
    text
}

#[test]
fn every_case_gets_the_verdict_it_stands_with() {
    let cases = corpus::cases();
    assert!(cases.len() >= 120);
    let names: BTreeSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "each name once");
    let found =
        cases.iter().map(|case| (case.name.clone(), case.ours.clone(), verdict(&read(&case.bytes, Limits::EDGE))));
    assert_eq!(differences(found), "");
}

#[test]
fn a_head_that_was_not_scanned_is_refused_as_well() {
    // A field's length is only exact in its line.
    let differs = |fault: Option<Reject>| matches!(fault, Some(Reject::FieldTooLarge));
    for case in corpus::cases() {
        let outcome = read(&case.bytes, Limits::EDGE);
        if outcome.messages.is_empty() && !differs(outcome.fault) {
            assert!(request(&case.bytes, &Limits::EDGE).is_err(), "{}", case.name);
        }
    }
}

#[test]
fn hyper_gives_the_verdict_that_stands_beside_ours() {
    let found = corpus::cases().into_iter().map(|case| {
        let is = hyper_server::serve(&case.bytes).verdict();
        (case.name, case.hyper, is)
    });
    assert_eq!(differences(found), "");
}

#[test]
fn the_verdict_does_not_depend_on_how_the_bytes_come() {
    for case in corpus::cases() {
        let whole = describe(&read(&case.bytes, Limits::EDGE));
        for cuts in [&[][..], &[2], &[3, 1], &[17], &[64, 1, 1]] {
            let pieces = describe(&read_in_pieces(&case.bytes, cuts, Limits::EDGE));
            assert_eq!(pieces, whole, "{} cut by {cuts:?}", case.name);
        }
    }
}

#[test]
fn what_is_sent_on_is_exactly_the_request_that_was_accepted() {
    let mut sent = 0;
    for case in corpus::cases() {
        for message in read(&case.bytes, Limits::EDGE).messages.iter().filter(|message| message.complete) {
            check_rewritten(message);
            check_with_hyper(message);
            sent += 1;
        }
    }
    assert!(sent > 50, "{sent}");
}

#[test]
fn every_rule_for_requests_refuses_a_case() {
    let tried: String = corpus::cases().into_iter().map(|case| case.ours + "\n").collect();
    let of_responses = [
        Reject::StatusLine,
        Reject::Status,
        Reject::Unasked,
        Reject::Handshake,
        Reject::BodyForbidden,
        // Only a caller that does not scan first can meet it.
        Reject::Unfinished,
    ];
    for rule in Reject::ALL.iter().filter(|rule| !of_responses.contains(rule)) {
        let word = format!(" {rule:?}\n");
        assert!(tried.contains(&word), "{rule:?}");
    }
}

/// What is sent on must be exactly that one request to hyper.
pub(crate) fn check_with_hyper(message: &Message) {
    let sent = rewrite(message);
    let seen = hyper_server::serve(&sent);
    let head = &message.request.head;
    assert!(!seen.failed && seen.requests.len() == 1, "{}: {seen:?}", sent.escape_ascii());
    let got = &seen.requests[0];
    assert_eq!(got.head.method, head.method);
    let target = head.query.as_ref().map_or_else(|| head.path.to_string(), |query| format!("{}?{query}", head.path));
    assert_eq!(got.head.uri, target.as_str());
    let (body, trailers) = got.body.as_ref().unwrap();
    assert_eq!(body, &message.body);
    let mut map = got.head.headers.clone();
    for own in ["host", "content-length", "transfer-encoding"] {
        map.remove(own);
    }
    if message.request.upgrade.is_some() {
        for own in ["connection", "upgrade", "sec-websocket-key", "sec-websocket-version"] {
            map.remove(own);
        }
    }
    let sorted = |map: &http::HeaderMap| {
        let mut pairs: Vec<_> = map.iter().map(|(n, v)| (n.as_str().to_owned(), v.as_bytes().to_vec())).collect();
        pairs.sort();
        pairs
    };
    let mut ours = pairs(&head.fields);
    ours.sort();
    assert_eq!(sorted(&map), ours);
    let mut announced = message.trailers.as_ref().map(pairs).unwrap_or_default();
    announced.sort();
    assert_eq!(sorted(trailers), announced);
}
