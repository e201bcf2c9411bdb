//! Chunked bodies: any split gives the same data, end and trailers; what is written again is read as the same.
#![no_main]

use hms_http1::{Decoder, Framing, Reject, Step, write};
use hms_model::message::Fields;
use libfuzzer_sys::fuzz_target;

#[derive(Debug, Default, PartialEq)]
struct Read {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    taken: Option<usize>,
}

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, bytes.len());
    for size in [1, 2, bytes.len() % 23 + 1] {
        assert_eq!(read(bytes, size), whole);
    }
    let Ok(body) = whole else { return };
    let Some(taken) = body.taken else { return };
    assert!(taken <= bytes.len());
    let mut sent = Vec::new();
    write::chunk_head(&mut sent, body.data.len());
    if !body.data.is_empty() {
        sent.extend_from_slice(&body.data);
        sent.extend_from_slice(write::CHUNK_TAIL);
    }
    let mut trailers = Fields::new();
    for (name, value) in &body.trailers {
        trailers.push_line(name, value);
    }
    write::last_chunk(&mut sent, Some(&trailers));
    let again = read(&sent, sent.len());
    assert_eq!(again, Ok(Read { taken: Some(sent.len()), ..body }));
});

fn read(bytes: &[u8], size: usize) -> Result<Read, Reject> {
    let mut decoder = Decoder::new(Framing::Chunked);
    let mut read = Read::default();
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
                there = (there + size.max(1)).min(bytes.len());
            }
            Step::End { skip, trailers } => {
                assert!(decoder.is_end());
                let trailers = trailers.unwrap_or_default();
                read.trailers = trailers.iter().map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
                read.taken = Some(at + skip);
                return Ok(read);
            }
        }
    }
}
