//! Route files: an error yields no file, findings stand inside the text, and what is read survives as a table of routes.
#![no_main]

use hms_formats::{Source, render, route_yaml, routes_json};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Source::from_bytes("route.yaml", bytes) else { return };
    let lines = source.text.split(['\n', '\r']).count();
    let (mut files, findings) = route_yaml::translate(&[source]);
    let errors = findings.iter().any(|finding| finding.is_error());
    assert!(!errors || files.is_empty());
    for place in findings.iter().filter_map(|finding| finding.place.as_ref()) {
        assert!(place.line as usize <= lines && place.source.chars().count() <= 501);
    }
    // For a terminal: no control byte of the file gets there.
    let shown = render(&findings, false);
    assert!(shown.chars().all(|character| character == '\n' || !character.is_control()), "{shown:?}");

    if !files.is_empty() {
        let (mut again, findings) = routes_json::import(&Source::new("routes.json", routes_json::export(&files)));
        // Where a rule came from is the one thing that differs.
        for rule in files.iter_mut().chain(&mut again).flat_map(|file| &mut file.route.rules) {
            rule.origin = Default::default();
        }
        assert!(!findings.iter().any(|finding| finding.is_error()), "{findings:?}");
        files.sort_by(|left, right| left.service.cmp(&right.service));
        assert_eq!(again, files);
    }
});
