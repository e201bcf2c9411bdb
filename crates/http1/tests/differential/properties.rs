//! What must hold for any bytes, tried on mutations of the corpus.

use std::sync::LazyLock;

use hms_http1::{Limits, request, response};
use proptest::prelude::*;
use proptest::sample::Index;

use crate::connection::{check_rewritten, describe, read, read_in_pieces};
use crate::corpus;
use crate::verdicts::check_with_hyper;

static CORPUS: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    // The large cases only try limits, and make everything slow.
    corpus::cases().into_iter().map(|case| case.bytes).filter(|bytes| bytes.len() < 2_000).collect()
});

/// What matters to a parser, and little else.
const PIECES: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b" ",
    b"\t",
    b":",
    b",",
    b";",
    b"0",
    b"5",
    b"chunked",
    b"close",
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: ",
    b"/",
    b"%2f",
    b"..",
    b"?",
    b"#",
    b"\xff",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"http://a",
    b"TE: trailers\r\n",
    b"Upgrade: websocket\r\n",
    b"\r\n\r\n",
    b"a",
];

/// One change to some bytes.
#[derive(Debug, Clone)]
enum Change {
    Insert(Index, usize),
    Remove(Index, usize),
    Replace(Index, u8),
    Repeat(Index, usize),
    Append(Index),
}

impl Change {
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            (any::<Index>(), 0..PIECES.len()).prop_map(|(at, piece)| Self::Insert(at, piece)),
            (any::<Index>(), 1..8_usize).prop_map(|(at, length)| Self::Remove(at, length)),
            (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Self::Replace(at, byte)),
            (any::<Index>(), 1..30_usize).prop_map(|(at, length)| Self::Repeat(at, length)),
            any::<Index>().prop_map(Self::Append),
        ]
    }

    fn apply(&self, bytes: &mut Vec<u8>) {
        let end = |at: usize, length: usize, bytes: &[u8]| (at + length).min(bytes.len());
        match self {
            Self::Insert(at, piece) => {
                let at = at.index(bytes.len() + 1);
                bytes.splice(at..at, PIECES[*piece].iter().copied());
            }
            Self::Remove(at, length) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes.drain(at..end(at, *length, bytes));
            }
            Self::Replace(at, byte) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                bytes[at] = *byte;
            }
            Self::Repeat(at, length) if !bytes.is_empty() => {
                let at = at.index(bytes.len());
                let slice = bytes[at..end(at, *length, bytes)].to_vec();
                bytes.splice(at..at, slice);
            }
            Self::Append(case) => bytes.extend_from_slice(&CORPUS[case.index(CORPUS.len())]),
            _ => {}
        }
    }
}

fn mutated() -> impl Strategy<Value = Vec<u8>> {
    (any::<Index>(), prop::collection::vec(Change::any(), 0..5)).prop_map(|(case, changes)| {
        let mut bytes = CORPUS[case.index(CORPUS.len())].clone();
        for change in changes {
            change.apply(&mut bytes);
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn any_split_into_reads_gives_the_same_result(bytes in mutated(), cuts in prop::collection::vec(1..40_usize, 0..6)) {
        let whole = describe(&read(&bytes, Limits::EDGE));
        prop_assert_eq!(describe(&read_in_pieces(&bytes, &cuts, Limits::EDGE)), whole);
    }

    #[test]
    fn a_small_limit_is_seen_at_the_same_place_in_any_split(
        bytes in mutated(), cuts in prop::collection::vec(1..40_usize, 0..6), head in 1..120_usize, field in 1..40_usize,
    ) {
        let limits = Limits { head, target: 20, field, fields: 3 };
        let whole = describe(&read(&bytes, limits));
        prop_assert_eq!(describe(&read_in_pieces(&bytes, &cuts, limits)), whole);
    }

    #[test]
    fn what_is_accepted_is_sent_on_as_exactly_one_request(bytes in mutated()) {
        for message in read(&bytes, Limits::EDGE).messages.iter().filter(|message| message.complete) {
            check_rewritten(message);
            check_with_hyper(message);
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), start in any::<Index>()) {
        let mut head = CORPUS[start.index(CORPUS.len())].clone();
        head.extend_from_slice(&bytes);
        head.extend_from_slice(b"\r\n\r\n");
        let _refused = request(&head, &Limits::EDGE).is_err();
        let _refused = response(&head, hms_http1::Asked::Other, &Limits::RESPONSE).is_err();
        let _refused = response(&bytes, hms_http1::Asked::Upgrade, &Limits::RESPONSE).is_err();
    }
}
