//! Paths and authorities: the canonical form is its own canonical form and has nothing left that two servers read differently.
#![no_main]

use hms_model::message::{Authority, CanonicalPath};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(path) = CanonicalPath::parse(text) {
        let form = path.as_str();
        assert_eq!(CanonicalPath::parse(form).as_ref(), Ok(&path));
        assert!(form == "*" || form.starts_with('/'));
        assert!(form.bytes().all(|byte| matches!(byte, 0x21..=0x7e)));
        assert!(!form.contains("//") && !form.contains('#') && !form.contains('\\'));
        assert!(form.split('/').all(|segment| segment != "." && segment != ".."));
        let lower = form.to_ascii_lowercase();
        assert!(["%00", "%2f", "%5c", "%2e", "%41", "%7e"].iter().all(|encoded| !lower.contains(encoded)));
        assert!(form.len() <= text.len(), "canonical is never longer");
    }
    if let Ok(authority) = Authority::parse(text) {
        let form = authority.to_string();
        assert_eq!(Authority::parse(&form).as_ref(), Ok(&authority));
        assert!(!form.contains('@') && !authority.host().is_empty() && !authority.host().ends_with('.'));
        assert_eq!(form, form.to_ascii_lowercase());
    }
});
