//! The Gateway API's conformance, written from the specification's text: every file of `conformance/` holds objects as somebody
//! applies them, and in its comments what must become of requests. The way is the mesh's own, without its sockets: what formats read,
//! the mesh puts together, and the table of a caller or of the gateway decides about.
//!
//! ```text
//! #! services: pay pay-v2.shop         those that exist
//! #! findings: 2107                    codes of what is found in the objects; none without the line
//! #> GET pay/charge?x=1 a=b => pay-v2:80*9 pay:80*1; path /v2/charge; rule charge
//! #> from other/web GET pay/ => untouched     another caller; no route is about these requests
//! #> outside GET shop.example/ => 404         at the gateway; no rule takes it
//! #> connect db => db-v2*1                    connections
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot read its own files has failed")]

#[path = "conformance/case.rs"]
mod case;
#[path = "conformance/outcome.rs"]
mod outcome;

use std::fs;
use std::path::{Path, PathBuf};

use case::Case;
use hms_formats::{Source, convert, objects};
use hms_model::http_route::HttpRoute;
use hms_model::policy::Egress;
use hms_model::resource::{Declaration, Resource};
use hms_traffic::dice::Dice;
use hms_wire::{RESOURCE_BYTES, decode, encode};

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = all.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_case_of_the_specification_holds() {
    let mut wrong = Vec::new();
    let (mut cases, mut expectations) = (0, 0);
    for path in files() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let case = Case::read(&name, &fs::read_to_string(&path).unwrap());
        cases += 1;
        expectations += case.expectations.len();
        assert!(!case.expectations.is_empty() || !case.findings.is_empty(), "{name} expects nothing");
        wrong.extend(outcome::check(&case));
    }
    assert!(wrong.is_empty(), "{} of {expectations} are wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 60 && expectations >= 250, "{cases} cases, {expectations} expectations");
}

/// Every resource that is read can be stored and sent, and comes back as it was.
fn travels(name: &str, text: &str) -> usize {
    let (objects, _) = objects::translate(&[Source::new(name, text)]);
    let mut count = 0;
    let declared = objects.services.iter().map(|(name, policies)| {
        let mut declaration = Declaration::new(name.clone());
        policies.over(&mut declaration);
        Resource::Declaration(declaration)
    });
    let egress = Resource::Egress(Egress { hosts: objects.egress.clone(), ..Egress::default() });
    for resource in objects.resources().chain(declared).chain([egress]) {
        let bytes = encode(&resource);
        assert!(bytes.len() <= RESOURCE_BYTES, "{name}: {} bytes", bytes.len());
        assert_eq!(decode(&bytes).as_ref(), Ok(&resource), "{name}:\n{text}");
        count += 1;
    }
    count
}

/// A text with some of its lines left out, repeated, exchanged, or with a word of another.
fn spoilt(texts: &[String], dice: &mut Dice) -> String {
    let words =
        ["0", "65535", "1000000", "\"\"", "*", "a", "/", "/%41", "0s", "604800s", "[]", "{}", "-1", "ä", "x: y"];
    let mut lines: Vec<String> = texts[dice.below(texts.len())].lines().map(str::to_owned).collect();
    for _ in 0..=dice.below(2) {
        let (one, other) = (dice.below(lines.len()), dice.below(lines.len()));
        match dice.below(5) {
            0 => drop(lines.remove(one)),
            1 => lines.insert(other, lines[one].clone()),
            2 => lines.swap(one, other),
            _ => {
                let parts: Vec<String> = lines[one].split_inclusive([' ', ',', '{', '[']).map(str::to_owned).collect();
                let place = dice.below(parts.len().max(1));
                let word = words[dice.below(words.len())];
                let changed = parts.iter().enumerate().map(|(at, part)| if at == place { word } else { part.as_str() });
                lines[one] = changed.collect();
            }
        }
        lines.push(String::new());
    }
    lines.join("\n")
}

#[test]
fn whatever_is_read_can_be_stored_and_sent() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../formats/tests/golden/objects");
    let cases = fs::read_dir(golden).unwrap().flat_map(|case| fs::read_dir(case.unwrap().path()).unwrap());
    let golden = cases.map(|file| file.unwrap().path()).filter(|path| !path.ends_with("out.txt"));
    let mut paths: Vec<PathBuf> = golden.chain(files()).collect();
    paths.sort();
    let texts: Vec<String> = paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let whole: usize = texts.iter().map(|text| travels("a.yaml", text)).sum();
    let (mut dice, mut spoilt_ones) = (Dice::seeded(5), 0);
    for _ in 0..4_000 {
        spoilt_ones += travels("a.yaml", &spoilt(&texts, &mut dice));
    }
    assert!(whole >= 100 && spoilt_ones >= 600, "{whole} and {spoilt_ones} resources");
}

/// Routes without what does not travel in a file: where they were written, and what was refused.
fn plain(mut routes: Vec<HttpRoute>) -> Vec<HttpRoute> {
    for rule in routes.iter_mut().flat_map(|route| &mut route.rules) {
        rule.origin.clear();
        for backend in &mut rule.backends {
            backend.refused = None;
        }
    }
    routes.sort_by(|a, b| a.name.cmp(&b.name));
    routes
}

#[test]
fn what_the_gateway_api_said_it_says_again_after_a_conversion() {
    let mut compared = 0;
    for path in files() {
        let text = fs::read_to_string(&path).unwrap();
        let (first, findings) = objects::translate(&[Source::new("a.yaml", text)]);
        let (written, lost) = convert::to_gateway_api(&first);
        let refused = findings.iter().any(|finding| finding.is_error() || finding.code.0 == 2175);
        if refused || !first.splits.is_empty() || !lost.is_empty() {
            continue;
        }
        let (second, findings) = objects::translate(&[Source::new("b.yaml", &written)]);
        assert!(!findings.iter().any(hms_model::finding::Finding::is_error), "{}\n{written}", path.display());
        assert_eq!(plain(first.routes), plain(second.routes), "{}\n{written}", path.display());
        compared += 1;
    }
    assert!(compared >= 60, "{compared}");
}
