//! What becomes of a request, as a line of text.

use std::time::Duration;

use hms_formats::Source;
use hms_formats::objects;
use hms_model::http_route::{Backend, Bound, HeaderEdits, HttpRule, Scheme};
use hms_model::mesh::{Assigned, Mesh, assemble};
use hms_model::message::RequestHead;
use hms_model::names::ServiceName;
use hms_model::resource::{Declaration, Resource};
use hms_model::split::Share;
use hms_traffic::dice::Dice;
use hms_traffic::http_route::{HttpTable, Selected, Whose, act};
use hms_traffic::split;

use crate::case::{Ask, Case};

/// Calls that are rolled for to see that shares are what they say.
const ROLLS: u32 = 20_000;

/// What of a case does not hold.
pub(crate) fn check(case: &Case) -> Vec<String> {
    let (objects, findings) = objects::translate(&[Source::new(&case.name, &case.text)]);
    let mut codes: Vec<u16> = findings.iter().map(|finding| finding.code.0).collect();
    codes.sort_unstable();
    codes.dedup();
    let mut wrong = Vec::new();
    if codes != case.findings {
        let said = hms_formats::render(&findings, false);
        wrong.push(format!("{}: expected findings {:?}, found {codes:?}\n{said}", case.name, case.findings));
    }
    let declared = case.services.iter().map(|name| Resource::Declaration(Declaration::new(name.clone())));
    let (mesh, _) = assemble(declared.chain(objects.resources()).collect(), |_| Assigned::default());
    for expectation in &case.expectations {
        let found = match &expectation.ask {
            Ask::Request(head, caller) => request(&mesh, head, caller.as_ref()),
            Ask::Connection(service) => match mesh.services.get(service) {
                Some(state) => shares(&state.service.split),
                None => "unknown".to_owned(),
            },
        };
        if found != expectation.outcome {
            wrong.push(format!("{}: {}\n  found: {found}", case.name, expectation.line));
        }
    }
    wrong
}

fn request(mesh: &Mesh, head: &RequestHead, caller: Option<&ServiceName>) -> String {
    let port = head.authority.port();
    let (routes, whose, port, scheme) = match caller {
        None => (&mesh.gateway.routes, None, 0, Scheme::Https),
        Some(caller) => {
            let called = ServiceName::from_host(head.authority.host(), caller.namespace()).expect("a service");
            let Some(state) = mesh.services.get(&called) else { return "unknown".to_owned() };
            (&state.service.http, Some((called, caller)), port.unwrap_or(80), Scheme::Http)
        }
    };
    let whose = whose.as_ref().map_or(Whose::Gateway, |(service, caller)| Whose::Service { service, caller });
    let Some(table) = HttpTable::build(routes, whose) else { return "untouched".to_owned() };
    // A table is the same whatever the order of what it is made of.
    let backwards: Vec<_> = routes.iter().rev().cloned().collect();
    assert_eq!(HttpTable::build(&backwards, whose).as_ref(), Some(&table));
    match table.select(head, port) {
        None => "404".to_owned(),
        // From outside there is no service that was called.
        Some(selected) if caller.is_none() => describe(selected, head, scheme, "500"),
        Some(selected) => describe(selected, head, scheme, "parent"),
    }
}

/// Everything that a rule does with a request; `nobody` is who gets it if the rule names no backend.
fn describe(selected: Selected<'_>, head: &RequestHead, scheme: Scheme, nobody: &str) -> String {
    let Selected { rule, prefix } = selected;
    let HttpRule { name, actions, timeouts, retry, .. } = &rule.rule;
    let mut parts = Vec::new();
    if let Some(cors) = actions.cors.as_ref().filter(|_| act::is_preflight(head)) {
        let told = act::preflight(cors, head).into_iter().map(|(name, value)| format!("{name}={value}"));
        return format!("preflight {}", told.collect::<Vec<_>>().join(" ")).trim_end().to_owned();
    }
    match &actions.redirect {
        Some(redirect) => {
            let location = act::location(redirect, prefix, head, (scheme, head.authority.port()));
            parts.push(format!("{} {location}", redirect.status));
        }
        None if rule.rule.backends.is_empty() => parts.push(nobody.to_owned()),
        None => parts.push(backends(&rule.rule.backends)),
    }
    if !name.is_empty() {
        parts.push(format!("rule {name}"));
    }
    if let Some(rewrite) = &actions.rewrite {
        parts.extend(rewrite.host.as_ref().map(|host| format!("host {host}")));
        let path = rewrite.path.as_ref().and_then(|path| act::rewrite(path, prefix, &head.path));
        parts.extend(path.map(|path| format!("path {}", path.as_str())));
    }
    edits(&mut parts, "", &actions.request_headers);
    edits(&mut parts, "answer ", &actions.response_headers);
    for backend in &rule.rule.backends {
        let whom = backend.share.service.name();
        edits(&mut parts, &format!("to {whom} "), &backend.request_headers);
        edits(&mut parts, &format!("answer of {whom} "), &backend.response_headers);
    }
    for mirror in &actions.mirrors {
        let portion = f64::from(mirror.portion.get()) / 10_000.0;
        parts.push(format!("mirror {} {portion}%", mirror.share.service));
    }
    parts.extend(timeouts.request.map(|bound| format!("within {}", time(bound))));
    parts.extend(timeouts.attempt.map(|bound| format!("each {}", time(bound))));
    if let Some(retry) = retry {
        let on = if retry.on.status_5xx { retry.statuses.as_slice() } else { &[0] };
        parts.push(format!("retries {} on {on:?} after {:?}", retry.retries, retry.backoff_same));
    }
    if let Some(cors) = &actions.cors {
        let told = act::exposed(cors, head).into_iter().map(|(name, value)| format!("{name}={value}"));
        parts.push(format!("tells {}", told.collect::<Vec<_>>().join(" ")).trim_end().to_owned());
    }
    parts.join("; ")
}

fn time(bound: Bound) -> String {
    match bound {
        Bound::Lifted => "no limit".to_owned(),
        Bound::After(time) if time < Duration::from_secs(1) => format!("{}ms", time.as_millis()),
        Bound::After(time) => format!("{}s", time.as_secs()),
    }
}

fn edits(parts: &mut Vec<String>, whose: &str, edits: &HeaderEdits) {
    for (word, pairs) in [("set", &edits.set), ("add", &edits.add)] {
        let texts = pairs.iter().map(|(name, value)| format!("{name}={}", value.to_str().expect("a text")));
        parts.extend(texts.map(|text| format!("{whose}{word} {text}")));
    }
    parts.extend(edits.remove.iter().map(|name| format!("{whose}remove {name}")));
}

/// Who gets it: a refused part is 500, and so is everything if nobody has a share.
fn backends(backends: &[Backend]) -> String {
    let live: Vec<&Backend> = backends.iter().filter(|backend| backend.share.weight > 0).collect();
    rolled(&backends.iter().map(|backend| backend.share.clone()).collect::<Vec<_>>());
    let shown = |backend: &&Backend| {
        let weight = if live.len() > 1 { format!("*{}", backend.share.weight) } else { String::new() };
        match (&backend.refused, backend.port) {
            (Some(_), _) => format!("500{weight}"),
            (None, Some(port)) => format!("{}:{port}{weight}", backend.share.service),
            (None, None) => format!("{}{weight}", backend.share.service),
        }
    };
    if live.is_empty() { "500".to_owned() } else { live.iter().map(shown).collect::<Vec<_>>().join(" ") }
}

fn shares(shares: &[Share]) -> String {
    if shares.is_empty() {
        return "undivided".to_owned();
    }
    rolled(shares);
    shares.iter().map(|share| format!("{}*{}", share.service, share.weight)).collect::<Vec<_>>().join(" ")
}

/// What is rolled is what the weights say, within five standard deviations.
fn rolled(shares: &[Share]) {
    let sum: u32 = shares.iter().map(|share| share.weight).sum();
    let mut dice = Dice::seeded(7);
    let mut counts = vec![0_u32; shares.len()];
    for _ in 0..ROLLS {
        match split::choose(shares, |_| true, &mut dice) {
            Some(place) => counts[place] += 1,
            None => assert_eq!(sum, 0),
        }
    }
    for (share, count) in shares.iter().zip(counts).filter(|_| sum > 0) {
        let part = f64::from(share.weight) / f64::from(sum);
        let deviation = (f64::from(ROLLS) * part * (1.0 - part)).sqrt();
        let off = (f64::from(count) - f64::from(ROLLS) * part).abs();
        assert!(off <= 5.0 * deviation + 0.5, "{} got {count} of {ROLLS}", share.service);
    }
}
