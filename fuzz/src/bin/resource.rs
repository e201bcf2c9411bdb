//! Resources from a control plane: whatever is accepted is the same after another trip, and within the bounds of one message.
#![no_main]

use hms_wire::{RESOURCE_BYTES, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(resource) = decode(bytes) else { return };
    assert!(bytes.len() <= RESOURCE_BYTES);
    let sent = encode(&resource);
    let again = decode(&sent).expect("what was accepted is accepted again");
    assert_eq!(encode(&again), sent);
});
