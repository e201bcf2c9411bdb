//! Bodies: what is data, where they end, what is refused, and that what we write is what we read.

use hms_http1::{Decoder, Framing, Reject, Step, write};
use hms_model::message::Fields;
use proptest::prelude::*;

#[derive(Debug, Default, PartialEq)]
struct Read {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    /// Bytes that belonged to the body, once it has ended.
    taken: Option<usize>,
}

/// Reads a body that comes in pieces of the given sizes.
fn read(framing: Framing, bytes: &[u8], sizes: &[usize]) -> Result<Read, Reject> {
    let mut decoder = Decoder::new(framing);
    let mut read = Read::default();
    let mut sizes = sizes.iter().copied().cycle();
    let (mut at, mut there) = (0, 0);
    loop {
        match decoder.next(&bytes[at..there])? {
            Step::Data { skip, data } => {
                assert!(data > 0);
                read.data.extend_from_slice(&bytes[at + skip..at + skip + data]);
                at += skip + data;
            }
            Step::More { skip } => {
                at += skip;
                assert_eq!(at, there);
                if there == bytes.len() {
                    return Ok(read);
                }
                there = (there + sizes.next().unwrap_or(usize::MAX).max(1)).min(bytes.len());
            }
            Step::End { skip, trailers } => {
                at += skip;
                let trailers = trailers.unwrap_or_default();
                read.trailers = trailers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                read.taken = Some(at);
                assert!(decoder.is_end());
                assert!(matches!(decoder.next(&bytes[at..]), Ok(Step::End { skip: 0, trailers: None })));
                return Ok(read);
            }
        }
    }
}

fn chunked(bytes: &[u8]) -> Result<Read, Reject> {
    read(Framing::Chunked, bytes, &[usize::MAX])
}

#[test]
fn a_body_ends_where_its_framing_says() {
    for (framing, bytes, data, taken) in [
        (Framing::None, &b"GET"[..], &b""[..], Some(0)),
        (Framing::Length(0), b"GET", b"", Some(0)),
        (Framing::Length(5), b"helloGET", b"hello", Some(5)),
        (Framing::Length(5), b"hel", b"hel", None),
        (Framing::UntilClose, b"hello", b"hello", None),
        (Framing::Chunked, b"5\r\nhello\r\n0\r\n\r\nGET", b"hello", Some(15)),
        (Framing::Chunked, b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", b"hello!", Some(21)),
        (Framing::Chunked, b"5\r\nhel", b"hel", None),
        (Framing::Chunked, b"5\r\nhello\r\n0\r\n", b"hello", None),
        (Framing::Chunked, b"0\r\n\r", b"", None),
        (Framing::Chunked, b"a;x\r\n0123456789\r\n0000000000000000\r\n\r\n", b"0123456789", Some(37)),
    ] {
        let found = read(framing, bytes, &[usize::MAX]).unwrap();
        assert_eq!((found.data.as_slice(), found.taken), (data, taken), "{framing:?} {}", bytes.escape_ascii());
    }
}

#[test]
fn a_decoder_tells_what_is_left() {
    let mut decoder = Decoder::new(Framing::Length(5));
    assert_eq!((decoder.remaining(), decoder.is_end()), (Some(5), false));
    assert!(matches!(decoder.next(b"hel"), Ok(Step::Data { skip: 0, data: 3 })));
    assert_eq!((decoder.remaining(), decoder.is_end()), (Some(2), false));
    assert!(matches!(decoder.next(b"loGET"), Ok(Step::Data { skip: 0, data: 2 })));
    // The driver need not ask again to know that it is over.
    assert_eq!((decoder.remaining(), decoder.is_end()), (Some(0), true));
    assert!(Decoder::new(Framing::None).is_end());
    assert!(Decoder::new(Framing::UntilClose).ends_with_connection());
    assert!(!Decoder::new(Framing::Chunked).ends_with_connection());
    assert_eq!(Decoder::new(Framing::Chunked).remaining(), None);
}

#[test]
fn broken_chunks_are_refused() {
    for (bytes, rule) in [
        (&b"\r\n"[..], Reject::ChunkSize),
        (b"g\r\n", Reject::ChunkSize),
        (b" 5\r\n", Reject::ChunkSize),
        (b"5 \r\n", Reject::ChunkSize),
        (b"5\t;a\r\n", Reject::ChunkSize),
        (b"5\n", Reject::ChunkSize),
        (b"5\rx", Reject::ChunkSize),
        (b"0x5\r\n", Reject::ChunkSize),
        (b"-1\r\n", Reject::ChunkSize),
        (b";a\r\n", Reject::ChunkSize),
        (b"5,5\r\n", Reject::ChunkSize),
        (b"\xff\r\n", Reject::ChunkSize),
        (b"00000000000000000\r\n", Reject::ChunkSize),
        (b"8000000000000000\r\n", Reject::ChunkSize),
        (b"ffffffffffffffff\r\n", Reject::ChunkSize),
        (b"5;a\n", Reject::ChunkExtension),
        (b"5;a\0\r\n", Reject::ChunkExtension),
        (b"5;a\x7f\r\n", Reject::ChunkExtension),
        (b"5;a\r\r\n", Reject::ChunkSize),
        (b"5\r\nhelloX\r\n", Reject::ChunkEnd),
        (b"5\r\nhello\n", Reject::ChunkEnd),
        (b"5\r\nhello\rX", Reject::ChunkEnd),
        (b"5\r\nhello5\r\n", Reject::ChunkEnd),
        (b"0\n\n", Reject::ChunkSize),
        (b"0\r\n\n", Reject::BareLf),
        (b"0\r\n\rX", Reject::BareCr),
        (b"0\r\nA: b\n\r\n", Reject::BareLf),
        (b"0\r\nA: \0\r\n\r\n", Reject::Nul),
        (b"0\r\nA: \x01\r\n\r\n", Reject::FieldValue),
        (b"0\r\nA\r\n\r\n", Reject::NoColon),
        (b"0\r\n: b\r\n\r\n", Reject::FieldName),
        (b"0\r\nA : b\r\n\r\n", Reject::SpaceBeforeColon),
        (b"0\r\n A: b\r\n\r\n", Reject::LeadingSpace),
        (b"0\r\nA: b\r\n c\r\n\r\n", Reject::LineFold),
    ] {
        assert_eq!(chunked(bytes), Err(rule), "{}", bytes.escape_ascii());
        assert_eq!(read(Framing::Chunked, bytes, &[1]), Err(rule), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_frames_a_body_is_bounded() {
    let extension = |length: usize| format!("1;{}\r\nx\r\n", "e".repeat(length - 1));
    let body = |chunks: String| chunked((chunks + "0\r\n\r\n").as_bytes()).map(|read| read.data.len());
    assert_eq!(body(extension(256)), Ok(1));
    assert_eq!(body(extension(257)), Err(Reject::ChunkExtension));
    assert_eq!(body(extension(128).repeat(32)), Ok(32));
    assert_eq!(body(extension(128).repeat(32) + "1;\r\nx\r\n"), Err(Reject::ChunkExtension));

    let trailers = |lines: String| chunked(format!("0\r\n{lines}\r\n").as_bytes()).map(|read| read.trailers.len());
    assert_eq!(trailers("A: b\r\n".repeat(32)), Ok(32));
    assert_eq!(trailers("A: b\r\n".repeat(33)), Err(Reject::TrailersTooLarge));
    // With its name, its line end and the empty line it is 8 KiB.
    assert_eq!(trailers(format!("A: {}\r\n", "b".repeat(8_185))), Ok(1));
    assert_eq!(trailers(format!("A: {}\r\n", "b".repeat(8_186))), Err(Reject::TrailersTooLarge));
    // What counts is how it is written again.
    assert_eq!(trailers(format!("A:{}\r\n", "b".repeat(8_185))), Ok(1));
    assert_eq!(trailers(format!("A:{}\r\n", "b".repeat(8_186))), Err(Reject::TrailersTooLarge));
    // An end that never comes is not waited for.
    assert_eq!(chunked(format!("0\r\nA: {}", "b".repeat(9_000)).as_bytes()), Err(Reject::TrailersTooLarge));
}

#[test]
fn trailers_that_mean_something_elsewhere_are_dropped() {
    let forbidden = [
        "Content-Length",
        "transfer-encoding",
        "HOST",
        "Authorization",
        "Cookie",
        "Set-Cookie",
        "TE",
        "Trailer",
        "Connection",
        "Keep-Alive",
        "Upgrade",
        "Proxy-Authorization",
        "X-Forwarded-For",
        "x-forwarded-client-cert",
        "X-HMS-Attempt",
        "Content-Type",
        "Content-Encoding",
        "Expect",
        "Max-Forwards",
        "Cache-Control",
        "If-Match",
        "Range",
        "Forwarded",
        "Sec-WebSocket-Key",
        "WWW-Authenticate",
        "Location",
        "Via",
        "Date",
    ];
    for name in forbidden {
        let found = chunked(format!("0\r\n{name}: 1\r\ngrpc-status: 0\r\n\r\n").as_bytes()).unwrap();
        assert_eq!(found.trailers, [("grpc-status".to_owned(), b"0".to_vec())], "{name}");
    }
    let found = chunked(b"0\r\nHost: a\r\n\r\n").unwrap();
    assert_eq!((found.trailers.len(), found.taken), (0, Some(14)));
}

#[test]
fn numbers_are_written_without_leading_zeros() {
    for (number, decimal, hexadecimal) in [
        (0, "content-length: 0\r\n", ""),
        (9, "content-length: 9\r\n", "9\r\n"),
        (10, "content-length: 10\r\n", "a\r\n"),
        (4_096, "content-length: 4096\r\n", "1000\r\n"),
        (usize::MAX, "content-length: 18446744073709551615\r\n", "ffffffffffffffff\r\n"),
    ] {
        let mut out = Vec::new();
        write::framing(&mut out, &Framing::Length(u64::try_from(number).unwrap()));
        assert_eq!(out, decimal.as_bytes());
        out.clear();
        write::chunk_head(&mut out, number);
        assert_eq!(out, hexadecimal.as_bytes());
    }
}

#[test]
fn a_field_that_would_be_two_lines_is_not_written() {
    let mut out = Vec::new();
    for (name, value) in
        [("a", &b"b\r\nc: d"[..]), ("a", b"\n"), ("a", b"\0"), ("a\r\nb", b"c"), ("a\0", b""), ("", b"b")]
    {
        write::field(&mut out, name, value);
        assert!(out.is_empty(), "{name:?} {}", value.escape_ascii());
    }
    write::field(&mut out, "a", b"");
    assert_eq!(out, b"a: \r\n");
}

#[test]
fn heads_are_written_as_they_are_read() {
    let mut out = Vec::new();
    write::status_line(&mut out, http::StatusCode::NOT_FOUND);
    write::status_line(&mut out, http::StatusCode::from_u16(599).unwrap());
    write::request_line(&mut out, &http::Method::GET, "/a", Some("b"));
    write::request_line(&mut out, &http::Method::OPTIONS, "*", None);
    write::framing(&mut out, &Framing::Chunked);
    write::framing(&mut out, &Framing::None);
    write::framing(&mut out, &Framing::UntilClose);
    write::end(&mut out);
    assert_eq!(
        out,
        b"HTTP/1.1 404 Not Found\r\nHTTP/1.1 599 \r\nGET /a?b HTTP/1.1\r\nOPTIONS * HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    );
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..8),
        trailers in prop::collection::vec(("x-[a-z]{1,8}", "[!-~]([ -~]{0,8}[!-~])?"), 0..4),
        sizes in prop::collection::vec(1..30_usize, 1..5),
        after in prop::collection::vec(any::<u8>(), 0..10),
    ) {
        // `x-hms-…` and the like are dropped, which is another test.
        let trailers: Vec<_> = trailers.into_iter().map(|(name, value)| (format!("x-t{name}"), value)).collect();
        let mut fields = Fields::new();
        for (name, value) in &trailers {
            fields.push_line(name, value.as_bytes());
        }
        let mut bytes = Vec::new();
        for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
            write::chunk_head(&mut bytes, chunk.len());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(write::CHUNK_TAIL);
        }
        write::last_chunk(&mut bytes, Some(&fields));
        let length = bytes.len();
        bytes.extend_from_slice(&after);
        let found = read(Framing::Chunked, &bytes, &sizes).unwrap();
        prop_assert_eq!(found.data, chunks.concat());
        let expected: Vec<_> = trailers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
        prop_assert_eq!(found.trailers, expected);
        prop_assert_eq!(found.taken, Some(length));
    }

    #[test]
    fn any_split_gives_the_same_body(
        pieces in prop::collection::vec(prop::sample::select(vec![
            &b"5\r\nhello\r\n"[..], b"1;a=b\r\nx\r\n", b"0\r\n\r\n", b"0\r\nA: b\r\n\r\n", b"\r", b"\n", b"5", b";", b"0\r\nHost: a\r\n",
            b"\r\n", b"A: b\r\n", b"\0", b" ",
        ]), 0..8),
        sizes in prop::collection::vec(1..12_usize, 1..5),
    ) {
        let bytes = pieces.concat();
        prop_assert_eq!(read(Framing::Chunked, &bytes, &sizes), chunked(&bytes));
    }
}
