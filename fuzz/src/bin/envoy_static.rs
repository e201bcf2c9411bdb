//! Static files of Envoy's: an error yields nothing to run by, findings stand inside the text, and what is read survives the trip into
//! the file that leads a proxy.
#![no_main]

use hms_formats::{Source, envoy_static, render};
use hms_wire::{decode_standalone, encode_standalone};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Source::from_bytes("envoy.yaml", bytes) else { return };
    let lines = source.text.split(['\n', '\r']).count();
    let _recognised = envoy_static::recognises(&source);
    let (standalone, findings) = envoy_static::translate(&source);
    assert!(standalone.is_none() || !findings.iter().any(|finding| finding.is_error()));
    for place in findings.iter().filter_map(|finding| finding.place.as_ref()) {
        assert!(place.line as usize <= lines && place.source.chars().count() <= 501);
    }
    let shown = render(&findings, false);
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");
    if let Some(standalone) = standalone {
        let again = decode_standalone(&encode_standalone(&standalone));
        assert_eq!(again.expect("what a file says fits into a snapshot"), standalone);
    }
});
