//! Requests on a connection: any split into reads gives the same result, and what is accepted is sent on as exactly one request.
#![no_main]

#[path = "../../../crates/http1/tests/differential/connection.rs"]
mod connection;

use connection::{check_rewritten, describe, read, read_in_pieces};
use hms_http1::Limits;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = read(bytes, Limits::EDGE);
    let described = describe(&whole);
    for cuts in [&[1][..], &[bytes.len() % 31 + 1, 2, 7]] {
        assert_eq!(describe(&read_in_pieces(bytes, cuts, Limits::EDGE)), described);
    }
    for message in whole.messages.iter().filter(|message| message.complete) {
        check_rewritten(message);
    }
});
