//! Every request of the corpus through running proxies: what is refused reaches nobody, what is accepted arrives once.

use std::time::Duration;

use hms_testkit::http1::End;
use hms_testkit::http1::liar::{POLITE, Script};
use hms_testkit::http1::message::Kind;
use hms_testkit::{figure, scenario};

use crate::corpus::{self, Case};
use crate::stack::{Stack, refused};

/// Bounds that only hold for callers from outside; a workload may send this much.
const ONLY_AT_THE_EDGE: &[&str] = &["target-too-long", "field-too-large", "head-too-large"];
/// A connection that begins with it speaks HTTP/2, which a sidecar's port takes as well.
const HTTP2: &str = "http2-preface";

/// The longest that a case may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many requests are accepted, and the status of the refusal behind them.
fn expected(case: &Case) -> (usize, Option<u16>) {
    let accepted = case.ours.split(' ').take_while(|word| *word == "accept").count();
    (accepted, case.ours.split(' ').nth(accepted).map(|status| status.parse().unwrap()))
}

/// Whether it is the body that is refused: its head was sent on already.
fn in_the_body(case: &Case) -> bool {
    case.name.starts_with("chunk-")
}

/// What is wrong with how a case went.
async fn try_case(stack: &Stack, case: &Case) -> Result<(), String> {
    let (accepted, refusal) = expected(case);
    let (requests, bytes) = (stack.liar.requests(), stack.liar.bytes());
    let mut raw = stack.sent(&case.bytes).await;
    let kind = if case.bytes.starts_with(b"HEAD") { Kind::AnswerToHead } else { Kind::Answer };
    for number in 0..accepted {
        let mut answer = raw.answer(kind).await.map_err(|part| format!("no answer to {number} but {part:?}"))?;
        if answer.status() == 100 {
            answer = raw.answer(kind).await.map_err(|part| format!("nothing after 100 but {part:?}"))?;
        }
        ensure(answer.status() == 200, || format!("{answer:?}"))?;
    }
    let arrived = || stack.liar.requests() - requests;
    ensure(arrived() == accepted, || format!("{} requests arrived", arrived()))?;
    let Some(status) = refusal else { return Ok(()) };
    match raw.answer(Kind::Answer).await {
        Ok(answer) => {
            refused(&answer)?;
            ensure(answer.field("connection") == "close", || format!("it goes on: {answer:?}"))?;
            ensure(answer.status() == status, || format!("{status}, not {answer:?}"))?;
        }
        Err(part) => ensure(in_the_body(case) && part.is_none(), || format!("no answer but {part:?}"))?,
    }
    let (rest, ended) = raw.rest().await;
    ensure(rest.is_empty(), || format!("more after the refusal: {}", rest.escape_ascii()))?;
    ensure(ended == End::Clean, || "the connection is reset, which may lose the answer".to_owned())?;
    ensure(arrived() == accepted, || "part of it became a request".to_owned())?;
    let untouched = stack.liar.bytes() == bytes || accepted > 0 || in_the_body(case);
    ensure(untouched, || format!("{} bytes of it arrived", stack.liar.bytes() - bytes))
}

fn ensure(is_so: bool, otherwise: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(otherwise()) }
}

#[test]
fn what_is_refused_reaches_nobody_and_what_is_accepted_arrives_once() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        stack.liar.play(Script::of(POLITE));
        let mut wrong = Vec::new();
        let mut tried = 0;
        for case in
            corpus::cases().iter().filter(|case| case.name != HTTP2 && !ONLY_AT_THE_EDGE.contains(&case.name.as_str()))
        {
            let done = tokio::time::timeout(PATIENCE, try_case(&stack, case)).await;
            if let Err(what) = done.unwrap_or_else(|_late| Err(format!("no answer within {PATIENCE:?}"))) {
                wrong.push(format!("{}: {what}", case.name));
            }
            tried += 1;
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        figure("requests of the corpus through a pair of proxies", tried);
        assert!(tried >= 120, "{tried}");
    });
}
