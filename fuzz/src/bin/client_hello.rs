//! The first message of a TLS client: complete with its last byte, refused with the byte that is wrong, whatever follows it.
#![no_main]

use hms_identity::client_hello::{self, MOST_WIRE};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match client_hello::read(bytes) {
        Ok(Some(hello)) => {
            // What follows does not matter, and no part of it is enough for another answer.
            let more = [bytes, b"\x17\x03\x03\x00\x01x"].concat();
            assert_eq!(client_hello::read(&more), Ok(Some(hello.clone())));
            let mut decided = false;
            for end in 0..=bytes.len() {
                match client_hello::read(&bytes[..end]) {
                    Ok(None) => assert!(!decided),
                    Ok(Some(sooner)) => {
                        decided = true;
                        assert_eq!(sooner, hello);
                    }
                    Err(refused) => panic!("{refused} at {end}, and yet it was taken"),
                }
            }
            if let Some(name) = hello.server_name {
                assert!(name.is_ascii() && !name.is_empty() && name.len() <= 253 && !name.ends_with('.'));
            }
        }
        Ok(None) => assert!(bytes.len() < MOST_WIRE),
        Err(refused) => assert_eq!(client_hello::read(&[bytes, &[0; 9]].concat()), Err(refused)),
    }
});
