use std::sync::Arc;
use std::time::Duration;

use hms_formats::{Source, objects};
use hms_model::http_route::{Backend, HttpRoute, HttpRule, Parent};
use hms_model::mesh::{Assigned, Mesh, assemble};
use hms_model::resource::Declaration;
use hms_model::route::Route;
use hms_model::snapshot::Scope;
use hms_model::split::{Share, Split};

use super::*;
use crate::compile::{Compiled, compile};
use crate::live::{Reach, RefusedReport};

fn name(text: &str) -> ServiceName {
    ServiceName::from_host(text, "default").unwrap()
}

fn declared(text: &str) -> Resource {
    Resource::Declaration(Declaration::new(name(text)))
}

fn route(parents: Vec<Parent>, backends: Vec<Backend>) -> HttpRoute {
    HttpRoute { name: name("r"), parents, hosts: Vec::new(), rules: vec![HttpRule::to(backends)] }
}

fn about(service: &str) -> Parent {
    Parent::Service { service: name(service), port: None }
}

fn split(service: &str, others: &[&str]) -> Resource {
    let share = |other: &&str| Share { service: name(other), version: String::new(), weight: 1 };
    Resource::Split(Split { service: name(service), shares: others.iter().map(share).collect() })
}

fn view(resources: &[Resource]) -> View {
    let (mesh, _) = assemble(resources.to_vec(), |_| Assigned::default());
    let compiled = compile(&mesh, (&Mesh::default(), &Compiled::default()));
    let resources = Arc::new(resources.iter().map(|one| (one.key(), Arc::new(one.clone()))).collect());
    View { mesh, resources, compiled, ..View::default() }
}

/// An object of revision 40 that a view first showed as 42.
fn age(at: Instant) -> Age {
    Age { config: Revision(40), shown: Revision(42), at }
}

fn judged(view: &View, proxies: Vec<Reach>, resource: &Resource, at: Instant) -> Status {
    of(view, &Proxies::new(proxies), resource, age(at), |_| None)
}

/// Every condition that does not hold, and how many have it.
fn faults(resources: &[Resource], of: &Resource) -> Vec<(&'static str, &'static str, String)> {
    let status = judged(&view(resources), Vec::new(), of, Instant::now());
    let faults = status.conditions.into_iter().filter(|one| one.fault.is_some());
    faults.map(|one| (one.about.as_str(), one.reason(), one.message)).collect()
}

fn said(found: &[(&'static str, &'static str, String)]) -> Vec<String> {
    found.iter().map(|(about, reason, words)| format!("{about} {reason}: {words}")).collect()
}

const NOWHERE: &str = "Programmed Invalid: it is not accepted, so no proxy is sent it";

#[test]
fn what_is_about_nothing_that_exists_is_not_accepted() {
    for lost in [
        split("ghost", &["pay"]),
        Resource::Route(Route { service: name("ghost"), rules: Vec::new() }),
        Resource::HttpRoute(route(vec![about("ghost")], vec![Backend::all(name("pay"))])),
    ] {
        let found = faults(&[declared("pay"), lost.clone()], &lost);
        assert_eq!(said(&found), ["Accepted NoMatchingParent: there is no service `ghost`", NOWHERE], "{lost:?}");
    }
    let port = Parent::Service { service: name("pay"), port: Some(81) };
    let port = Resource::HttpRoute(route(vec![port], Vec::new()));
    let found = faults(&[declared("pay"), port.clone()], &port);
    assert_eq!(said(&found), ["Accepted NoMatchingParent: `pay` has no port 81", NOWHERE]);
    let nobody = Resource::HttpRoute(route(Vec::new(), Vec::new()));
    let found = faults(std::slice::from_ref(&nobody), &nobody);
    assert_eq!(said(&found), ["Accepted NoMatchingParent: it is about nobody's requests", NOWHERE]);
    let hosts = vec!["shop.example".to_owned()];
    let unheard = Resource::HttpRoute(HttpRoute { hosts, ..route(vec![Parent::Gateway], Vec::new()) });
    let found = faults(std::slice::from_ref(&unheard), &unheard);
    let first = "Accepted NoMatchingListenerHostname: the gateway answers for none of shop.example";
    assert_eq!(said(&found), [first, NOWHERE]);
}

#[test]
fn one_parent_that_takes_a_route_is_enough_and_the_others_are_named() {
    let both = Resource::HttpRoute(route(vec![about("pay"), about("ghost")], Vec::new()));
    let status = judged(&view(&[declared("pay"), both.clone()]), Vec::new(), &both, Instant::now());
    let [accepted, ..] = status.conditions;
    assert_eq!((accepted.fault, accepted.reason()), (None, "Accepted"));
    assert_eq!(accepted.message, "1 of 2 parents take it: there is no service `ghost`");
}

#[test]
fn what_refers_to_something_that_is_not_there_says_what() {
    let missing = split("pay", &["pay", "ghost"]);
    let found = faults(&[declared("pay"), missing.clone()], &missing);
    assert_eq!(said(&found), ["ResolvedRefs BackendNotFound: there is no service `ghost`"]);
    let missing = Resource::HttpRoute(route(vec![about("pay")], vec![Backend::all(name("ghost"))]));
    let found = faults(&[declared("pay"), missing.clone()], &missing);
    assert_eq!(said(&found), ["ResolvedRefs BackendNotFound: there is no service `ghost`"]);
}

/// The reasons are found in words that another crate writes, so they are read from a file here.
#[test]
fn a_reference_that_may_not_be_followed_says_why() {
    let route = |backend: &str| {
        let text = format!(
            "apiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {{name: r}}\nspec:\n  parentRefs: \
             [{{group: \"\", kind: Service, name: pay}}]\n  rules: [{{backendRefs: [{backend}]}}]\n"
        );
        let (objects, findings) = objects::translate(&[Source::new("r.yaml", text)]);
        objects.routes.first().cloned().map_or_else(|| panic!("{findings:?}"), Resource::HttpRoute)
    };
    let foreign = route("{name: old, namespace: prod, port: 80}");
    let found = faults(&[declared("pay"), declared("old.prod"), foreign.clone()], &foreign);
    assert_eq!(said(&found), ["ResolvedRefs RefNotPermitted: prod grants default no reference to old"]);
    let bucket = route("{group: storage.example, kind: Bucket, name: files}");
    let found = faults(&[declared("pay"), bucket.clone()], &bucket);
    assert_eq!(said(&found), ["ResolvedRefs InvalidKind: files is no service"]);
}

#[test]
fn only_proxies_that_hold_what_carries_it_are_counted() {
    let begin = Instant::now();
    let at = |seconds: u64| begin + Duration::from_secs(seconds);
    let resources = [declared("pay"), declared("other"), split("pay", &["pay"])];
    let view = view(&resources);
    let scopes = |service: &str| [Scope::Mesh, Scope::Service(name(service))];
    let pay = |who: &str, steps: &[(u64, Instant)]| Reach::of(who, scopes("pay"), steps);
    let stranger = Reach::of("stranger", scopes("other"), &[(7, at(0))]);
    let all = vec![pay("a", &[(30, at(0)), (42, at(5))]), pay("b", &[(44, at(9)), (99, at(50))]), stranger.clone()];
    let status = judged(&view, all, &resources[2], at(3));
    let [.., programmed] = status.conditions;
    assert_eq!((status.observed, status.programmed, status.proxies), (Revision(40), 2, 2));
    assert_eq!((programmed.fault, programmed.message.as_str()), (None, "2 of 2 proxies have it"));
    assert_eq!(programmed.since, at(9), "when the last of them had it");

    let late = vec![pay("a", &[(42, at(5))]), pay("b", &[(41, at(1))]), stranger.clone()];
    let status = judged(&view, late, &resources[2], at(3));
    let [.., programmed] = status.conditions;
    assert_eq!((status.programmed, status.proxies, programmed.since), (1, 2, at(3)));
    assert_eq!(programmed.fault, Some(Reason::Pending));
    assert_eq!(programmed.message, "1 of 2 proxies have it; b has revision 41");

    let mut refuser = pay("b", &[(42, at(6))]);
    let refusal = |name: &str| RefusedReport { name: name.to_owned(), reason: "needs level 9".to_owned() };
    refuser.refused = vec![refusal("service/default/other"), refusal("service/default/pay")];
    let status = judged(&view, vec![pay("a", &[(42, at(5))]), refuser, stranger], &resources[2], at(3));
    let [.., programmed] = status.conditions;
    assert_eq!((status.programmed, status.proxies, programmed.since), (1, 2, at(6)));
    assert_eq!(programmed.fault, Some(Reason::Invalid));
    assert_eq!(programmed.message, "b refuses service/default/pay (needs level 9)");
}

#[test]
fn a_gateway_is_concerned_by_its_routes_and_by_what_it_serves() {
    let now = Instant::now();
    let served = Resource::Route(Route { service: name("pay"), rules: Vec::new() });
    let outside = Resource::HttpRoute(route(vec![Parent::Gateway], vec![Backend::all(name("pay"))]));
    let inside = split("other", &["pay"]);
    let resources = [declared("pay"), declared("other"), served.clone(), outside.clone(), inside.clone()];
    let view = view(&resources);
    let proxies = || {
        let gateway = Reach::of("gateway", [Scope::Mesh, Scope::Gateway], &[(41, now)]);
        vec![gateway, Reach::of("web", [Scope::Mesh, Scope::Service(name("pay"))], &[(42, now)])]
    };
    let counted = |resource| {
        let status = judged(&view, proxies(), resource, now);
        (status.programmed, status.proxies)
    };
    assert_eq!(counted(&served), (1, 2), "who calls it, and the gateway");
    assert_eq!(counted(&outside), (0, 1));
    assert_eq!(counted(&inside), (0, 0), "nobody asked for this one");
    assert_eq!(counted(&declared("pay")), (1, 2), "everybody knows its name");
}

#[test]
fn what_concerns_everybody_waits_for_everybody_and_for_nobody_it_is_done() {
    let now = Instant::now();
    let resources = [declared("pay")];
    let view = view(&resources);
    let programmed = |proxies| {
        let status = judged(&view, proxies, &resources[0], now);
        (status.programmed, status.proxies, status.conditions[2].reason())
    };
    assert_eq!(programmed(vec![Reach::of("a", [Scope::Mesh], &[])]), (0, 1, "Pending"));
    assert_eq!(programmed(vec![Reach::of("a", [Scope::Mesh], &[(50, now)])]), (1, 1, "Programmed"));
    assert_eq!(programmed(Vec::new()), (0, 0, "Programmed"));
}

#[test]
fn a_condition_is_as_old_as_what_last_decided_it() {
    let begin = Instant::now();
    let later = begin + Duration::from_mins(1);
    let resources = [declared("pay"), declared("old"), split("pay", &["pay", "old"])];
    let touched = |service: &ServiceName| Some(if *service == name("old") { later } else { begin });
    let status = of(&view(&resources), &Proxies::default(), &resources[2], age(begin), touched);
    assert_eq!(status.conditions.map(|one| one.since), [begin, later, begin]);
}
