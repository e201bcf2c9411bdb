//! What a head grows to when it is decoded, and what a window that stays closed holds (reliability B4).

use std::time::Duration;

use hms_testkit::http2::raw::{Outcome, Raw};
use hms_testkit::http2::wire::{
    END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, INITIAL_WINDOW_SIZE, RST_STREAM, frame, headers, indexed, literals,
    remembered,
};
use hms_testkit::processes::resident_kib;
use hms_testkit::{figure, scenario, wait};

use crate::stack::{HOST, Stack};

const MEBIBYTE: u64 = 1024;
/// The most that any of these may add.
const MOST: u64 = 8 * MEBIBYTE;

/// The pseudo-header fields of a request.
fn request() -> Vec<u8> {
    literals(&[(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/echo")])
}

/// A field of 4000 bytes that one byte brings back.
fn bomb(references: usize) -> Vec<u8> {
    [request(), remembered(b"x", &[b'b'; 3900]), vec![indexed(62); references]].concat()
}

/// Memory while an attack stands, and after it.
async fn stands<F: Future<Output = Vec<Raw>>>(stack: &Stack, name: &str, attack: F) -> u64 {
    let pid = stack.gateway.process.pid();
    let before = resident_kib(pid);
    let open = attack.await;
    let grown = resident_kib(pid).saturating_sub(before);
    drop(open);
    figure(name, format!("+{grown} KiB"));
    assert!(grown <= MOST, "{name}: {grown} KiB");
    wait::until(&format!("{name} is forgotten"), Duration::from_secs(5), || {
        let left = resident_kib(pid).saturating_sub(before);
        std::future::ready(if left <= MOST / 2 { Ok(()) } else { Err(format!("{left} KiB")) })
    })
    .await;
    stack.serves().await;
    grown
}

#[test]
fn a_head_that_grows_when_it_is_decoded_is_refused_before_it_is_large() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let before = stack.app.hits();
        let _grown = stands(&stack, "60 MB from one head", async {
            let mut raw = stack.begun().await;
            assert!(raw.send(&headers(1, true, &bomb(12_000))).await);
            assert_eq!(raw.outcome_of(1).await, Outcome::GoAway(ENHANCE_YOUR_CALM));
            vec![raw]
        })
        .await;
        let _grown = stands(&stack, "a little too large", async {
            let mut raw = stack.begun().await;
            assert!(raw.send(&headers(1, true, &bomb(12))).await);
            assert_eq!(raw.outcome_of(1).await, Outcome::Status(431));
            vec![raw]
        })
        .await;
        let _grown = stands(&stack, "60 MB in two pieces", async {
            let mut raw = stack.begun().await;
            let block = bomb(12_000);
            let (first, second) = block.split_at(8000);
            let second = frame(0x9, END_HEADERS, 1, second);
            assert!(raw.send(&[frame(HEADERS, 1, 1, first), second].concat()).await);
            assert_eq!(raw.outcome_of(1).await, Outcome::GoAway(ENHANCE_YOUR_CALM));
            vec![raw]
        })
        .await;
        for (name, field) in [("host", HOST), ("cookie", "a=b"), ("x", "")] {
            let _grown = stands(&stack, &format!("10 000 times {name}"), async {
                let mut raw = stack.begun().await;
                let block =
                    [request(), remembered(name.as_bytes(), field.as_bytes()), vec![indexed(62); 10_000]].concat();
                assert!(raw.send(&headers(1, true, &block)).await);
                let outcome = raw.outcome_of(1).await;
                assert!(
                    matches!(outcome, Outcome::GoAway(ENHANCE_YOUR_CALM) | Outcome::Status(431)),
                    "{name}: {outcome:?}"
                );
                vec![raw]
            })
            .await;
        }
        assert!(stack.app.hits() <= before + 6, "nothing but the checks that it still serves");
    });
}

#[test]
fn heads_that_are_nearly_too_large_and_answers_that_cannot_leave_hold_little() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let _grown = stands(&stack, "100 heads of 30 KB whose answers cannot leave", async {
            let mut raw = stack.raw().await;
            raw.begin(&[(INITIAL_WINDOW_SIZE, 0)]).await;
            let first = bomb(6);
            let again = [request(), vec![indexed(62); 7]].concat();
            for number in 0..100 {
                assert!(raw.send(&headers(2 * number + 1, true, if number == 0 { &first } else { &again })).await);
            }
            for _ in 0..100 {
                let _head_without_its_body = raw.next_head().await;
            }
            vec![raw]
        })
        .await;
    });
}

#[test]
fn a_stream_whose_window_stays_closed_is_reset_after_30_seconds() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let mut raw = stack.raw().await;
        raw.begin(&[(INITIAL_WINDOW_SIZE, 1000)]).await;
        assert!(raw.send(&headers(1, true, &stack.block("GET", "/bytes/10000000"))).await);
        assert_eq!(raw.outcome_of(1).await, Outcome::Status(200));
        let begun = tokio::time::Instant::now();
        let reset = loop {
            let seen = raw.next().await.expect("the connection lives");
            if seen.kind == RST_STREAM {
                break seen;
            }
        };
        figure("time until a closed window is given up", format!("{:?}", begun.elapsed()));
        assert_eq!((reset.stream, reset.code()), (1, Some(8)));
        assert!(begun.elapsed() > Duration::from_secs(25) && begun.elapsed() < Duration::from_secs(36));
        assert!(raw.send(&headers(3, true, &stack.block("GET", "/echo"))).await);
        assert_eq!(raw.outcome_of(3).await, Outcome::Status(200), "the connection lives on");
    });
}
