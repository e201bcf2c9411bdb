//! Objects that somebody applies: nothing panics, findings point into the file, and what is read can be stored and sent.
#![no_main]

use hms_formats::{Source, objects, render};
use hms_model::policy::Egress;
use hms_model::resource::{Declaration, Resource};
use hms_wire::{RESOURCE_BYTES, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(source) = Source::from_bytes("a.yaml", bytes) else { return };
    let _known = objects::recognises(&source);
    let (read, findings) = objects::translate(std::slice::from_ref(&source));
    let lines = source.text.split(['\n', '\r']).count();
    for finding in &findings {
        let place = finding.place.as_ref().expect("a place");
        assert!(usize::try_from(place.line).is_ok_and(|line| line <= lines) && place.length >= 1);
    }
    let _shown = render(&findings, true);
    let declared = read.services.iter().map(|(name, policies)| {
        let mut declaration = Declaration::new(name.clone());
        policies.over(&mut declaration);
        Resource::Declaration(declaration)
    });
    let egress = Resource::Egress(Egress { hosts: read.egress.clone(), ..Egress::default() });
    for resource in read.resources().chain(declared).chain([egress]) {
        let sent = encode(&resource);
        assert!(sent.len() <= RESOURCE_BYTES);
        assert_eq!(decode(&sent).as_ref(), Ok(&resource));
    }
});
