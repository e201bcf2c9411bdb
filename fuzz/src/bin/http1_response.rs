//! Response heads: the same end in any split, framing that no two readers see differently, no field of the hop left.
#![no_main]

use hms_http1::{Asked, Framing, Limits, Scanner, response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let limits = &Limits::RESPONSE;
    let whole = Scanner::default().find_end(bytes, limits);
    let mut scanner = Scanner::default();
    let pieces = (1..=bytes.len()).map(|end| scanner.find_end(&bytes[..end], limits)).find(|found| *found != Ok(None));
    assert_eq!(pieces.unwrap_or(Ok(None)), whole);

    let Ok(Some(end)) = whole else { return };
    let head = &bytes[..end];
    for asked in [Asked::Other, Asked::Head, Asked::Upgrade] {
        let Ok(read) = response(head, asked, limits) else { continue };
        check(head, asked, &read);
    }
});

fn check(head: &[u8], asked: Asked, read: &hms_http1::Response) {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut lenient = httparse::Response::new(&mut headers);
    assert_eq!(lenient.parse(head), Ok(httparse::Status::Complete(head.len())));
    assert_eq!(lenient.code, Some(read.head.status.as_u16()));
    let count = |name: &str| lenient.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name)).count();
    let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
    assert!(lengths + codings <= 1);
    match read.framing {
        Framing::Chunked => assert_eq!(codings, 1),
        Framing::Length(length) => assert!(length > 0 && lengths == 1 && read.content_length == Some(length)),
        Framing::UntilClose => assert!(!read.persistent && lengths + codings == 0),
        Framing::None => {}
    }
    if asked == Asked::Head || read.is_interim() || [101, 204, 304].contains(&read.head.status.as_u16()) {
        assert_eq!(read.framing, Framing::None);
    }
    assert_eq!(read.upgrade_accept.is_some(), read.head.status.as_u16() == 101);
    for hop in ["connection", "content-length", "transfer-encoding", "upgrade", "keep-alive", "te"] {
        assert!(read.head.fields.iter().all(|(name, _value)| !name.eq_ignore_ascii_case(hop)));
    }
}
