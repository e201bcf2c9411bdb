use hms_model::http_route::{Backend, Fault, PathRewrite, Pattern, Portion, QueryCondition, Redirect};
use hms_model::message::{Authority, CanonicalPath, Fields};
use hms_model::route::PathPattern;
use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::dice::Dice;

fn service(text: &str) -> ServiceName {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    ServiceName::in_namespace(namespace, name).unwrap()
}

/// `GET pay-svc/path?query x-user=anna`.
fn head(text: &str) -> RequestHead {
    let mut words = text.split(' ');
    let method = Method::from_bytes(words.next().unwrap().as_bytes()).unwrap();
    let target = words.next().unwrap();
    let (host, rest) = target.split_at(target.find('/').unwrap());
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query.into())));
    let mut fields = Fields::new();
    for (field, value) in words.map(|word| word.split_once('=').unwrap()) {
        fields.append(HeaderName::try_from(field).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let host = if host.is_empty() { "pay-svc" } else { host };
    let (authority, path) = (Authority::parse(host).unwrap(), CanonicalPath::parse(path).unwrap());
    RequestHead { method, authority, path, query, fields }
}

fn exact(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathCondition::Exact(path.to_owned())), ..HttpMatch::default() }
}

fn prefix(path: &str) -> HttpMatch {
    HttpMatch { path: Some(PathCondition::Prefix(path.to_owned())), ..HttpMatch::default() }
}

fn with_header(mut condition: HttpMatch, field: &'static str, value: &str) -> HttpMatch {
    let value = ValueCondition::Exact(value.to_owned());
    condition.headers.push(FieldCondition { name: HeaderName::from_static(field), value, is_negated: false });
    condition
}

fn rule(title: &str, matches: Vec<HttpMatch>) -> HttpRule {
    HttpRule { name: title.to_owned(), matches, ..HttpRule::to(vec![Backend::all(service("v2-svc"))]) }
}

fn route(object: &str, rules: Vec<HttpRule>) -> HttpRoute {
    let parents = vec![Parent::Service { service: service("pay-svc"), port: None }];
    HttpRoute { name: service(object), parents, hosts: Vec::new(), rules }
}

fn table(routes: &[HttpRoute]) -> HttpTable {
    table_for(routes, "web-svc").unwrap()
}

fn table_for(routes: &[HttpRoute], caller: &str) -> Option<HttpTable> {
    HttpTable::build(routes, Whose::Service { service: &service("pay-svc"), caller: &service(caller) })
}

fn found(table: &HttpTable, request: &str) -> String {
    table.select(&head(request), 0).map_or_else(|| "none".to_owned(), |selected| selected.rule.title.to_string())
}

#[test]
fn the_most_particular_rule_wins_wherever_it_stands() {
    let template = HttpMatch {
        path: Some(PathCondition::Template(PathPattern::parse("/a/{id}").unwrap())),
        ..HttpMatch::default()
    };
    let regex =
        HttpMatch { path: Some(PathCondition::Regex(Pattern::parse("/a/[0-9]+").unwrap())), ..HttpMatch::default() };
    let get = HttpMatch { method: Some(Method::GET), ..prefix("/a") };
    let table = table(&[route(
        "r",
        vec![
            rule("all", vec![]),
            rule("prefix", vec![prefix("/a")]),
            rule("get", vec![get]),
            rule("user", vec![with_header(prefix("/a"), "x-user", "anna")]),
            rule("regex", vec![regex]),
            rule("template", vec![template]),
            rule("exact", vec![exact("/a/1")]),
            rule("long", vec![prefix("/a/b/c")]),
        ],
    )]);
    for (request, expected) in [
        ("GET /a/1", "exact"),
        ("GET /a/2", "template"),
        ("GET /a/2/x", "get"),
        ("POST /a/2/x", "prefix"),
        ("POST /a x-user=anna", "user"),
        ("GET /a x-user=anna", "get"),
        ("GET /a/b/c/d", "long"),
        ("GET /ab", "all"),
    ] {
        assert_eq!(found(&table, request), expected, "{request}");
    }
}

#[test]
fn between_equals_the_route_by_name_and_then_the_place_decides() {
    let routes = [
        route("b", vec![rule("b1", vec![prefix("/x")])]),
        route("a", vec![rule("a1", vec![prefix("/x")]), rule("a2", vec![prefix("/x")])]),
    ];
    let table = table(&routes);
    assert_eq!(found(&table, "GET /x"), "a1");
    let shadowed: Vec<String> = table.shadowed().map(|rule| rule.title.to_string()).collect();
    assert_eq!(shadowed, ["a2", "b1"]);
}

#[test]
fn queries_are_compared_decoded_and_the_first_counts() {
    let condition = |value: ValueCondition| HttpMatch {
        query: vec![QueryCondition { name: "who".to_owned(), value }],
        ..HttpMatch::default()
    };
    let table = table(&[route(
        "r",
        vec![
            rule("exact", vec![condition(ValueCondition::Exact("a b".to_owned()))]),
            rule("regex", vec![condition(ValueCondition::Regex(Pattern::parse("x.*").unwrap()))]),
            rule("there", vec![condition(ValueCondition::Present)]),
        ],
    )]);
    for (request, expected) in [
        ("GET /?who=a+b", "exact"),
        ("GET /?x=1&wh%6F=a%20b", "exact"),
        ("GET /?who=xyz", "regex"),
        ("GET /?who", "there"),
        ("GET /?who=b&who=a+b", "there"),
        ("GET /?whom=a", "none"),
        ("GET /", "none"),
    ] {
        assert_eq!(found(&table, request), expected, "{request}");
    }
}

#[test]
fn a_callers_own_route_replaces_the_services_for_its_namespace_only() {
    let own = HttpRoute { name: service("shop/mine"), ..route("x", vec![rule("own", vec![])]) };
    let routes = [route("theirs", vec![rule("theirs", vec![])]), own];
    assert_eq!(found(&table_for(&routes, "shop/web-svc").unwrap(), "GET /"), "own");
    assert_eq!(found(&table_for(&routes, "web-svc").unwrap(), "GET /"), "theirs");
    assert!(table_for(&routes[1..], "web-svc").is_none(), "for others there is no route at all");
}

#[test]
fn sources_and_ports_narrow_a_rule() {
    let from = HttpMatch { sources: vec![Source::Service(service("web-svc"))], ..HttpMatch::default() };
    let mut routes = [route("r", vec![rule("web", vec![from]), rule("rest", vec![prefix("/rest")])])];
    assert_eq!(found(&table_for(&routes, "web-svc").unwrap(), "GET /"), "web");
    assert_eq!(found(&table_for(&routes, "other-svc").unwrap(), "GET /"), "none");
    routes[0].parents = vec![Parent::Service { service: service("pay-svc"), port: Some(8080) }];
    let table = table(&routes);
    assert!(table.select(&head("GET /"), 8080).is_some());
    assert!(table.select(&head("GET /"), 80).is_none());
}

#[test]
fn at_the_gateway_the_host_decides_first() {
    let parents = vec![Parent::Gateway];
    let hosts = |hosts: &[&str]| hosts.iter().map(|host| (*host).to_owned()).collect();
    let routes = [
        HttpRoute {
            parents: parents.clone(),
            hosts: hosts(&["*.shop.example"]),
            ..route("a", vec![rule("star", vec![exact("/x")])])
        },
        HttpRoute {
            parents: parents.clone(),
            hosts: hosts(&["www.shop.example"]),
            ..route("b", vec![rule("www", vec![])])
        },
        HttpRoute { parents, ..route("c", vec![rule("any", vec![])]) },
    ];
    let table = HttpTable::build(&routes, Whose::Gateway).unwrap();
    for (request, expected) in [
        ("GET www.shop.example/x", "www"),
        ("GET a.shop.example/x", "star"),
        ("GET a.b.shop.example/x", "star"),
        ("GET a.shop.example/y", "any"),
        ("GET shop.example/x", "any"),
    ] {
        assert_eq!(found(&table, request), expected, "{request}");
    }
}

#[test]
fn at_the_gateway_nothing_is_decided_on_what_an_outsider_claims() {
    let internal = HttpMatch { sources: vec![Source::Service(service("admin-svc"))], ..prefix("/a") };
    let claimed = with_header(prefix("/b"), "x-hms-roles", "admin");
    let redirect = Redirect { scheme: Some(Scheme::Https), host: None, port: None, path: None, status: 301 };
    let actions = hms_model::http_route::Actions { redirect: Some(redirect), ..Default::default() };
    let circle = HttpRule { actions, ..rule("circle", vec![]) };
    let rules = vec![rule("internal", vec![internal]), rule("claimed", vec![claimed]), circle, rule("rest", vec![])];
    let routes = [HttpRoute { parents: vec![Parent::Gateway], ..route("r", rules) }];
    let table = HttpTable::build(&routes, Whose::Gateway).unwrap();
    for request in ["GET /a", "GET /b x-hms-roles=admin", "GET /"] {
        assert_eq!(found(&table, request), "rest", "{request}");
    }
}

/// The table of the specification (`HTTPPathModifier.replacePrefixMatch`).
#[test]
fn prefixes_are_replaced_as_the_specification_says() {
    for (path, prefix, other, expected) in [
        ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
        ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
        ("/foo", "/foo", "/xyz", "/xyz"),
        ("/foo/", "/foo", "/xyz", "/xyz/"),
        ("/foo/bar", "/foo", "", "/bar"),
        ("/foo/", "/foo", "", "/"),
        ("/foo", "/foo", "", "/"),
        ("/foo/", "/foo", "/", "/"),
        ("/foo", "/foo", "/", "/"),
    ] {
        let rewrite = PathRewrite::Prefix(other.to_owned());
        let path = CanonicalPath::parse(path).unwrap();
        let new = act::rewrite(&rewrite, Some(prefix.trim_end_matches('/')), &path).unwrap();
        assert_eq!(new.as_str(), expected, "{path} {prefix} {other}");
    }
}

#[test]
fn a_redirect_keeps_what_it_does_not_say() {
    let nothing = Redirect { scheme: None, host: None, port: None, path: None, status: 302 };
    let location = |redirect: &Redirect, port: Option<u16>| {
        act::location(redirect, Some("/a"), &head("GET pay-svc/a/b?x=1"), (Scheme::Http, port))
    };
    assert_eq!(location(&nothing, None), "http://pay-svc/a/b?x=1");
    assert_eq!(location(&nothing, Some(8080)), "http://pay-svc:8080/a/b?x=1");
    let https = Redirect { scheme: Some(Scheme::Https), ..nothing.clone() };
    assert_eq!(location(&https, Some(8080)), "https://pay-svc/a/b?x=1");
    let moved = Redirect {
        host: Some("other.example".to_owned()),
        port: Some(8443),
        path: Some(PathRewrite::Prefix("/new".to_owned())),
        ..nothing
    };
    assert_eq!(location(&moved, Some(80)), "http://other.example:8443/new/b?x=1");
}

#[test]
fn faults_strike_as_often_as_was_asked_and_only_where_triggered() {
    let mut dice = Dice::seeded(3);
    let fault = Fault { abort: Some((503, Portion::millionths(100_000))), ..Fault::default() };
    let plain = head("GET /");
    let hit = (0..100_000).filter(|_| act::fault(&fault, &plain, &mut dice).abort.is_some()).count();
    // Five deviations of 100 000 · 0.1 · 0.9.
    assert!(hit.abs_diff(10_000) < 475, "{hit}");
    let triggered = Fault {
        abort: Some((503, Portion::ALL)),
        trigger: Some(HeaderName::from_static("x-fault")),
        ..Fault::default()
    };
    assert_eq!(act::fault(&triggered, &plain, &mut dice).abort, None);
    assert_eq!(act::fault(&triggered, &head("GET / x-fault=1"), &mut dice).abort, Some(503));
}

#[test]
fn browsers_are_told_what_they_may_do_and_strangers_nothing() {
    let cors = hms_model::http_route::Cors {
        origins: vec!["https://*.shop.example".to_owned()],
        credentials: true,
        methods: Some(vec![Method::GET, Method::PUT]),
        expose: vec![HeaderName::from_static("x-total")],
        max_age: std::time::Duration::from_mins(1),
        ..hms_model::http_route::Cors::default()
    };
    let asked = head(
        "OPTIONS /a origin=https://www.shop.example access-control-request-method=PUT access-control-request-headers=x-a",
    );
    assert!(act::is_preflight(&asked));
    let told = |told: act::Told| told.into_iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>();
    assert_eq!(
        told(act::preflight(&cors, &asked)),
        [
            "access-control-allow-origin: https://www.shop.example",
            "vary: Origin",
            "access-control-allow-credentials: true",
            "access-control-allow-methods: GET, PUT",
            "access-control-allow-headers: x-a",
            "access-control-max-age: 60",
        ]
    );
    for origin in ["https://evil.example", "https://www.shop.example.evil.example", "https://x/.shop.example", "null"] {
        let stranger = head(&format!("OPTIONS / origin={origin} access-control-request-method=GET"));
        assert_eq!(act::preflight(&cors, &stranger), vec![], "{origin}");
    }
    let page = head("GET /a origin=https://www.shop.example");
    assert_eq!(
        told(act::exposed(&cors, &page)).last().map(String::as_str),
        Some("access-control-expose-headers: x-total")
    );
    // The rule that will take the request answers the question about it.
    let put = HttpMatch { method: Some(Method::PUT), ..prefix("/a") };
    assert_eq!(
        found(
            &table(&[route("r", vec![rule("put", vec![put])])]),
            "OPTIONS /a origin=x access-control-request-method=PUT"
        ),
        "put"
    );
}

fn condition() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof![
        "/[ab]{0,2}(/[ab]){0,2}".prop_map(|path| Some(PathCondition::Exact(path))),
        prop_oneof![Just("/"), Just("/a"), Just("/a/b"), Just("/b")]
            .prop_map(|path| Some(PathCondition::Prefix(path.to_owned()))),
        prop_oneof![Just("/{x}"), Just("/a/{x}")]
            .prop_map(|path| Some(PathCondition::Template(PathPattern::parse(path).unwrap()))),
        prop_oneof![Just("/a.*"), Just("/[ab]")]
            .prop_map(|path| Some(PathCondition::Regex(Pattern::parse(path).unwrap()))),
        Just(None)
    ];
    let method = prop_oneof![Just(None), Just(Some(Method::GET)), Just(Some(Method::POST))];
    let headers = proptest::collection::vec(prop_oneof![Just("x-a"), Just("x-b")], 0..3);
    let query = proptest::collection::vec(prop_oneof![Just("p"), Just("q")], 0..2);
    (path, method, headers, query).prop_map(|(path, method, headers, query)| HttpMatch {
        path,
        method,
        headers: headers
            .into_iter()
            .map(|field| FieldCondition {
                name: HeaderName::from_static(field),
                value: ValueCondition::Exact("1".to_owned()),
                is_negated: false,
            })
            .collect(),
        query: query
            .into_iter()
            .map(|name| QueryCondition { name: name.to_owned(), value: ValueCondition::Present })
            .collect(),
        sources: Vec::new(),
    })
}

/// The specification's words, one after the other: better than what was best before, or not.
fn naive<'r>(routes: &'r [HttpRoute], head: &RequestHead) -> Option<&'r str> {
    let kind = |condition: &HttpMatch| match &condition.path {
        Some(PathCondition::Exact(_)) => 3,
        Some(PathCondition::Template(_)) => 2,
        Some(PathCondition::Regex(_)) => 1,
        Some(PathCondition::Prefix(_)) | None => 0,
    };
    let length = |condition: &HttpMatch| match &condition.path {
        Some(PathCondition::Exact(text) | PathCondition::Prefix(text)) => text.len(),
        Some(PathCondition::Template(own)) => own.as_str().len(),
        Some(PathCondition::Regex(own)) => own.as_str().len(),
        None => 1,
    };
    let mut best: Option<(&'r HttpRoute, &'r HttpRule, &'r HttpMatch)> = None;
    for route in routes {
        for rule in &route.rules {
            for condition in &rule.matches {
                if !fits(condition, head, head.method.as_str()) {
                    continue;
                }
                let better = best.is_none_or(|(other_route, _, other)| {
                    let steps = [
                        kind(condition).cmp(&kind(other)),
                        length(condition).cmp(&length(other)),
                        condition.method.is_some().cmp(&other.method.is_some()),
                        condition.headers.len().cmp(&other.headers.len()),
                        condition.query.len().cmp(&other.query.len()),
                        other_route.name.cmp(&route.name),
                    ];
                    steps.into_iter().find(|step| step.is_ne()).is_some_and(std::cmp::Ordering::is_gt)
                });
                if better {
                    best = Some((route, rule, condition));
                }
            }
        }
    }
    best.map(|(_, rule, _)| rule.name.as_str())
}

proptest! {
    #[test]
    fn the_table_finds_what_the_specifications_words_find(
        rules in proptest::collection::vec(proptest::collection::vec(condition(), 1..4), 1..8),
        path in "/[ab]{0,2}(/[ab]){0,2}", is_get: bool, fields in 0_u8..4, queries in 0_u8..4,
    ) {
        let mut routes: Vec<HttpRoute> = ["r2", "r1", "r3"].iter().map(|object| route(object, Vec::new())).collect();
        for (number, matches) in rules.into_iter().enumerate() {
            routes[number % 3].rules.push(rule(&format!("rule{number}"), matches));
        }
        let mut request = format!("{} {path}?", if is_get { "GET" } else { "POST" });
        request.push_str(["", "p=1", "q", "p&q=2"][usize::from(queries)]);
        request.push_str(["", " x-a=1", " x-b=1", " x-a=1 x-b=1"][usize::from(fields)]);
        let head = head(&request);
        let (called, caller) = (service("pay-svc"), service("web-svc"));
        let whose = Whose::Service { service: &called, caller: &caller };
        let table = HttpTable::build(&routes, whose).unwrap();
        let selected = table.select(&head, 0).map(|selected| selected.rule.rule.name.as_str());
        prop_assert_eq!(selected, naive(&routes, &head));
        // A rule that is said to be out of reach is never found.
        let shadowed: Vec<&str> = table.shadowed().map(|rule| rule.rule.name.as_str()).collect();
        prop_assert!(selected.is_none_or(|name| !shadowed.contains(&name)));
        // The same routes in any order are the same table.
        routes.reverse();
        let again = HttpTable::build(&routes, whose).unwrap();
        prop_assert_eq!(again.select(&head, 0).map(|selected| selected.rule.rule.name.as_str()), selected);
    }
}
