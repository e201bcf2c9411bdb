//! The greeting between proxies: complete with its last byte, refused with the byte that is wrong, the same after another trip.
#![no_main]

use hms_wire::hello::{HELLO_BYTES, PeerHello};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match PeerHello::decode(bytes) {
        Ok(Some(received)) => {
            assert!(received.length <= bytes.len() && received.length <= HELLO_BYTES + 2);
            // Not a byte earlier, and what follows does not matter.
            assert!(matches!(PeerHello::decode(&bytes[..received.length - 1]), Ok(None)));
            assert_eq!(PeerHello::decode(&bytes[..received.length]).ok().flatten().as_ref(), Some(&received));
            let again = received.hello.encode().expect("what came within the bounds is within the bounds");
            let again = PeerHello::decode(&again).expect("our own").expect("complete");
            assert_eq!(again.hello, received.hello);
        }
        Ok(None) => assert!(bytes.len() < HELLO_BYTES + 2),
        Err(_refused) => assert!(bytes.len() >= 2),
    }
});
