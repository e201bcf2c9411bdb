//! Key sets: only keys that may verify, within the bounds, and nothing secret in a finding.
#![no_main]

use hms_formats::{Source, jwks};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Source::from_bytes("jwks.json", bytes) else { return };
    let (keys, findings) = jwks::parse(&source);
    assert!(keys.len() <= jwks::MAX_KEYS);
    assert!(!keys.is_empty() || !findings.is_empty(), "a set without a key is never silently empty");
    if findings.iter().any(|finding| finding.is_error()) {
        assert!(keys.is_empty());
    }
    assert!(findings.iter().filter_map(|finding| finding.place.as_ref()).all(|place| place.source.is_empty()));
    let mut ids: Vec<&str> = keys.iter().map(|key| key.id.as_str()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), keys.len());
});
