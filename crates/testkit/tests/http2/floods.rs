//! Frames that cost the sender nothing must not cost us much (reliability B1, B2, B3, B5, B6).

use std::time::Duration;

use hms_testkit::http2::raw::{Outcome, Raw};
use hms_testkit::http2::wire::{
    CONTINUATION, DATA, END_HEADERS, ENHANCE_YOUR_CALM, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    cancel, frame, headers, indexed, literals, remembered,
};
use hms_testkit::processes::{own_processor_time, processor_time, resident_kib};
use hms_testkit::{figure, scenario, wait};

use crate::stack::{HOST, Stack};

/// A few frames less than this end every flood.
const BEFORE: usize = 2000;
const FLOOD: usize = 20_000;
const MEBIBYTE: u64 = 1024;

/// A request whose long token is sent once and named after that.
struct Asking {
    first: Vec<u8>,
    again: Vec<u8>,
}

impl Asking {
    fn of(stack: &Stack, method: &str, path: &str) -> Self {
        let names = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)];
        let first = [literals(&names), remembered(b"authorization", stack.bearer().as_bytes())].concat();
        Self { first, again: [literals(&names), vec![indexed(62)]].concat() }
    }

    fn block(&self, number: u32) -> &[u8] {
        if number == 0 { &self.first } else { &self.again }
    }
}

/// The stream of the client's request with this number.
fn stream(number: u32) -> u32 {
    2 * number + 1
}

#[test]
fn a_rapid_reset_ends_within_200_frames_and_hardly_reaches_the_application() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let asking = Asking::of(&stack, "GET", "/slow/5000");
        let before = stack.app.hits();
        let mut raw = stack.begun().await;
        let pair = |number| [headers(stream(number), true, asking.block(number)), cancel(stream(number))].concat();
        let pairs: Vec<u8> = (0..100).flat_map(pair).collect();
        assert!(raw.send(&pairs).await);
        assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM), "200 frames were enough");
        let mut raw = stack.begun().await;
        let pairs: Vec<u8> = (0..3000).flat_map(pair).collect();
        let _cut_short = raw.send(&pairs).await;
        assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM));
        stack.serves().await;
        let reached = stack.app.hits() - before - 1;
        figure("requests of two rapid resets that reached the application", reached);
        assert!(reached <= 40, "{reached}");
        stack.until_breaches(&["resets", "library"], 2.0).await;
    });
}

/// A name, and what each stream gets after its head.
type Way = (&'static str, fn(u32) -> Vec<u8>);

#[test]
fn making_the_server_reset_streams_ends_like_resetting_them() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let asking = Asking::of(&stack, "POST", "/echo");
        let before = stack.app.hits();
        let ways: [Way; 3] = [
            ("a window of nothing more", |id| frame(WINDOW_UPDATE, 0, id, &[0; 4])),
            ("a window beyond its end", |id| frame(WINDOW_UPDATE, 0, id, &[0x7f, 0xff, 0xff, 0xff]).repeat(2)),
            ("a dependency on itself", |id| frame(PRIORITY, 0, id, &[&id.to_be_bytes()[..], &[0]].concat())),
        ];
        for (name, after) in ways {
            let mut raw = stack.begun().await;
            let pairs = |from: u32, to: u32| -> Vec<u8> {
                let pair =
                    |number| [headers(stream(number), false, asking.block(number)), after(stream(number))].concat();
                (from..to).flat_map(pair).collect()
            };
            let _sent = raw.send(&pairs(0, 100)).await && raw.send(&pairs(100, 3000)).await;
            let code = raw.farewell().await;
            figure(&format!("code of the farewell after {name}"), format!("{code:?}"));
            // `h2` takes the first two for errors of the connection at once.
            assert!(matches!(code, Some(1 | 3 | ENHANCE_YOUR_CALM)), "{name}: {code:?}");
        }
        // A body that is longer than announced: `h2` resets the stream.
        let mut raw = stack.begun().await;
        let lying = |number: u32| {
            let block = [asking.block(number), &literals(&[("content-length", "1")])].concat();
            [headers(stream(number), false, &block), frame(DATA, 0, stream(number), &[0; 100])].concat()
        };
        let pairs: Vec<u8> = (0..100).flat_map(lying).collect();
        assert!(raw.send(&pairs).await);
        assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM));
        stack.serves().await;
        figure("requests made to be reset that reached the application", stack.app.hits() - before - 1);
        wait::until("the application has nothing left to do", Duration::from_secs(2), || {
            let left = stack.app.under_way();
            std::future::ready(if left == 0 { Ok(()) } else { Err(left.to_string()) })
        })
        .await;
    });
}

#[test]
fn a_header_block_in_too_many_pieces_ends_at_once() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let begun = |block: &[u8]| frame(HEADERS, 0, 1, block);
        let piece = literals(&[("x-filler", "x".repeat(1000).as_str())]);
        for (name, piece, most) in [("of 1 KiB", piece.as_slice(), 40), ("empty", &[], 8)] {
            let before = resident_kib(stack.gateway.process.pid());
            let mut raw = stack.begun().await;
            let pieces = frame(CONTINUATION, 0, 1, piece).repeat(most);
            assert!(raw.send(&[begun(&stack.block("GET", "/echo")), pieces].concat()).await);
            assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM), "{most} {name}");
            let mut raw = stack.begun().await;
            let _cut_short =
                raw.send(&begun(&[])).await && raw.send(&frame(CONTINUATION, 0, 1, piece).repeat(5000)).await;
            assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM), "5000 {name}");
            let grown = resident_kib(stack.gateway.process.pid()).saturating_sub(before);
            assert!(grown <= 8 * MEBIBYTE, "{grown} KiB for pieces {name}");
        }
        stack.serves().await;
        // `h2` itself takes at most five pieces of a block this small; the rest of the rule is ours.
        stack.until_breaches(&["header_block", "library"], 4.0).await;
    });
}

#[test]
fn a_header_block_that_is_never_complete_ends_after_its_deadline() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mut raw = stack.begun().await;
        assert!(raw.send(&frame(HEADERS, 0, 1, &stack.block("GET", "/echo"))).await);
        assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM));
        stack.until_breaches(&["header_deadline"], 1.0).await;
    });
}

/// A name, what goes before, and the frame.
type Flood = (&'static str, Vec<u8>, Vec<u8>);

fn floods(stack: &Stack) -> Vec<Flood> {
    let open = headers(1, false, &stack.block("POST", "/echo"));
    vec![
        ("PING", Vec::new(), frame(PING, 0, 0, &[0; 8])),
        ("PING ACK", Vec::new(), frame(PING, 1, 0, &[0; 8])),
        ("SETTINGS", Vec::new(), frame(SETTINGS, 0, 0, &[])),
        ("SETTINGS with a parameter", Vec::new(), frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 255, 255])),
        ("PRIORITY", Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 0, 1])),
        ("WINDOW_UPDATE", Vec::new(), frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        ("RST_STREAM", [open.clone(), cancel(1)].concat(), cancel(1)),
        ("empty DATA", open.clone(), frame(DATA, 0, 1, &[])),
        ("1-byte DATA", open, frame(DATA, 0, 1, b"x")),
        ("unknown", Vec::new(), frame(0xee, 0, 0, &[])),
    ]
}

#[test]
fn floods_of_frames_without_work_end_before_2000_of_them() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        for (name, before, flood) in floods(&stack) {
            let mut raw = stack.begun().await;
            assert!(raw.send(&[before, flood.repeat(BEFORE - 1)].concat()).await, "{name}");
            assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM), "{name}");
        }
        stack.serves().await;
    });
}

#[test]
fn floods_cost_the_sender_as_much_as_us() {
    scenario(Duration::from_mins(3), async {
        let stack = Stack::start().await;
        let pid = stack.gateway.process.pid();
        for (name, before, flood) in floods(&stack) {
            let resident = resident_kib(pid);
            let (ours, theirs) = (processor_time(pid), own_processor_time());
            let mut raw = stack.begun().await;
            let _begun = raw.send(&before).await;
            let mut sent = 0;
            while sent < FLOOD && raw.send(&flood.repeat(20)).await {
                sent += 20;
            }
            assert_eq!(raw.farewell().await, Some(ENHANCE_YOUR_CALM), "{name}");
            let ours = processor_time(pid).saturating_sub(ours);
            let theirs = own_processor_time().saturating_sub(theirs);
            let grown = resident_kib(pid).saturating_sub(resident);
            figure(name, format!("{sent} frames sent, gateway {ours:?}, sender {theirs:?}, +{grown} KiB"));
            // Both handshakes are in it, and neither build is optimised; a hundredfold cost would still show.
            assert!(ours < theirs * 3 + Duration::from_millis(100), "{name}: {ours:?} for {theirs:?}");
            assert!(grown <= 8 * MEBIBYTE, "{name}: {grown} KiB");
        }
        stack.serves().await;
    });
}

#[test]
fn streams_above_the_limit_are_refused_from_the_first_frame() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let asking = Asking::of(&stack, "POST", "/echo");
        let mut raw = stack.begun().await;
        // Before our SETTINGS could have been read, and without ever acknowledging them.
        let all: Vec<u8> = (0..300).flat_map(|number| headers(stream(number), false, asking.block(number))).collect();
        assert!(raw.send(&all).await);
        let refused = refused(&mut raw, 200).await;
        assert_eq!(refused, (100..300).map(stream).collect::<Vec<_>>(), "exactly those above the limit");
        assert!(raw.send(&frame(DATA, 1, stream(0), b"the body")).await);
        assert_eq!(raw.outcome_of(stream(0)).await, Outcome::Status(200), "the connection lives");
        assert!(raw.finished(stream(0)).await, "the whole answer comes");
        let next = headers(stream(300), true, asking.block(1));
        assert!(raw.send(&next).await);
        assert_eq!(raw.outcome_of(stream(300)).await, Outcome::Status(200), "a place is free again");
    });
}

/// The streams that are refused, in order.
async fn refused(raw: &mut Raw, count: usize) -> Vec<u32> {
    let mut refused = Vec::new();
    while refused.len() < count {
        let seen = raw.next().await.expect("the connection lives");
        if seen.kind == RST_STREAM {
            assert_eq!(seen.code(), Some(7), "REFUSED_STREAM");
            refused.push(seen.stream);
        }
    }
    assert!(raw.next_within(Duration::from_millis(200)).await.is_none_or(|seen| seen.kind != RST_STREAM));
    refused
}

#[test]
fn a_header_in_two_frames_is_still_a_request() {
    scenario(Duration::from_mins(2), async {
        let stack = Stack::start().await;
        let mut raw = stack.begun().await;
        let block = stack.block("GET", "/echo");
        let (first, second) = block.split_at(30);
        let frames = [frame(HEADERS, 1, 1, first), frame(CONTINUATION, END_HEADERS, 1, second)].concat();
        // A byte at a time: no cut of the bytes matters.
        for byte in frames {
            assert!(raw.send(&[byte]).await);
        }
        assert_eq!(raw.outcome_of(1).await, Outcome::Status(200));
    });
}
