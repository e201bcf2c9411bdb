use hms_model::route::Rule;
use proptest::prelude::*;

use super::*;

fn route(service: &str, rules: &[&str]) -> Route {
    let rules =
        rules.iter().map(|text| Rule { matches: Match::parse(text).unwrap(), rate_limit: None, origin: String::new() });
    Route { service: ServiceName::new(service).unwrap(), rules: rules.collect() }
}

fn table(routes: &[Route]) -> RouteTable {
    RouteTable::build(routes.iter().map(|route| (&route.service, route)))
}

fn path(text: &str) -> CanonicalPath {
    CanonicalPath::parse(text).unwrap()
}

/// The pattern that takes a request.
fn taken(table: &RouteTable, method: &Method, text: &str) -> Option<String> {
    match table.select(method, &path(text)) {
        Selection::Found(target) => Some(target.pattern.clone()),
        _ => None,
    }
}

#[test]
fn the_seeds_routes_find_their_services() {
    let table = table(&[route("hello-svc", &["GET /hello"]), route("calc-svc", &["GET /sum/{a}/{b}"])]);
    let asked = path("/sum/2/3");
    let Selection::Found(target) = table.select(&Method::GET, &asked) else { panic!("nothing found") };
    assert_eq!((target.service.name(), target.rule, target.index), ("calc-svc", 0, 0));
    assert_eq!(target.pattern, "GET /sum/{a}/{b}");
    assert_eq!(target.captures(&asked).collect::<Vec<_>>(), [("a", "2"), ("b", "3")]);
    assert_eq!(taken(&table, &Method::HEAD, "/hello/").as_deref(), Some("GET /hello"));
}

#[test]
fn a_literal_beats_a_parameter_beats_the_rest_at_the_first_difference() {
    let table = table(&[route("a", &["/*", "/{x}/b", "/a/{y}", "/a/b", "/a/*"])]);
    for (asked, expected) in [
        ("/a/b", "* /a/b"),
        ("/a/c", "* /a/{y}"),
        ("/a/b/c", "* /a/*"),
        ("/x/b", "* /{x}/b"),
        ("/x/c", "* /*"),
        ("/a", "* /*"),
    ] {
        assert_eq!(taken(&table, &Method::GET, asked).as_deref(), Some(expected), "{asked}");
    }
    assert_eq!(taken(&table, &Method::GET, "/"), None, "the rest is at least one segment");
}

#[test]
fn a_particular_path_for_another_method_does_not_hide_a_general_one() {
    let table = table(&[route("a", &["POST /sum/all", "GET /sum/{a}"])]);
    assert_eq!(taken(&table, &Method::GET, "/sum/all").as_deref(), Some("GET /sum/{a}"));
}

#[test]
fn of_one_path_the_named_method_wins_then_the_service_then_the_place() {
    let one = route("b", &["/x", "GET /x", "HEAD /x", "GET /x/"]);
    let two = route("a", &["GET /x"]);
    for routes in [[one.clone(), two.clone()], [two, one]] {
        let table = table(&routes);
        let Selection::Found(get) = table.select(&Method::GET, &path("/x")) else { panic!("nothing found") };
        assert_eq!((get.service.name(), get.rule), ("a", 0));
        assert_eq!(taken(&table, &Method::HEAD, "/x").as_deref(), Some("HEAD /x"));
        assert_eq!(taken(&table, &Method::PUT, "/x").as_deref(), Some("* /x"));
    }
}

#[test]
fn a_wrong_method_is_told_all_the_right_ones() {
    let table = table(&[route("a", &["POST /x", "GET /{any}", "DELETE /*"])]);
    let Selection::NoMethod { allowed } = table.select(&Method::PATCH, &path("/x")) else { panic!("not refused") };
    assert_eq!(allowed, [Method::DELETE, Method::GET, Method::HEAD, Method::POST]);
}

#[test]
fn a_wrong_path_is_told_the_routes_that_begin_alike() {
    let many: Vec<String> = (0..20).map(|n| format!("GET /other/{n:02}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let table = table(&[route("calc-svc", &["GET /sum/{a}/{b}", "POST /sum"]), route("z", &many)]);
    let Selection::NoPath { known } = table.select(&Method::GET, &path("/sum/2")) else { panic!("found") };
    assert_eq!(known.len(), 8);
    assert_eq!(known[..3], ["GET /sum/{a}/{b}", "POST /sum", "GET /other/00"]);
}

#[test]
fn an_empty_table_knows_nothing() {
    let table = table(&[]);
    assert_eq!(table.select(&Method::GET, &path("/")), Selection::NoPath { known: vec![] });
}

#[test]
fn the_asterisk_form_is_no_path() {
    let table = table(&[route("a", &["/{x}", "/*"])]);
    assert!(matches!(table.select(&Method::OPTIONS, &path("*")), Selection::NoPath { .. }));
}

#[test]
fn competing_patterns_do_not_blow_up() {
    // Literal and parameter at every one of 12 levels: 4096 patterns, and a path that all but fits each.
    let rules: Vec<String> = (0..4096_u32)
        .map(|n| (0..12).map(|bit| if n >> bit & 1 == 0 { "/a".to_owned() } else { format!("/{{p{bit}}}") }).collect())
        .collect();
    let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
    let table = table(&[route("a", &rules)]);
    let asked = format!("{}/b", "/a".repeat(12));
    assert!(Walk::new(&table, &asked).next().is_none());
    assert_eq!(taken(&table, &Method::GET, &"/a".repeat(12)).unwrap(), format!("* {}", "/a".repeat(12)));
    let deep = "/a".repeat(8_000);
    let table = table_of_one(&deep);
    assert!(taken(&table, &Method::GET, &deep).is_some(), "depth costs no stack");
}

fn table_of_one(pattern: &str) -> RouteTable {
    RouteTable::of(&route("a", &[pattern]))
}

/// The obvious way: look at every rule, keep the one that the documentation prefers.
fn reference<'a>(routes: &'a [Route], method: &Method, path: &CanonicalPath) -> Option<(&'a ServiceName, usize)> {
    let kind = |segment: &Segment| match segment {
        Segment::Literal(_) => 0,
        Segment::Parameter(_) => 1,
        Segment::Rest => 2,
    };
    let own_method = |matches: &Match| match &matches.method {
        Some(own) if own == method => 0,
        Some(_) => 1,
        None => 2,
    };
    let rules =
        routes.iter().flat_map(|route| route.rules.iter().enumerate().map(|(n, rule)| (&route.service, n, rule)));
    let fitting = rules.filter(|(_, _, rule)| rule.matches.takes(method) && rule.matches.path.matches(path.as_str()));
    let best = fitting.min_by_key(|(service, place, rule)| {
        let kinds: Vec<_> = rule.matches.path.segments().iter().map(kind).collect();
        (kinds, own_method(&rule.matches), *service, *place)
    });
    best.map(|(service, place, _)| (service, place))
}

fn pattern() -> impl Strategy<Value = String> {
    let segment = prop_oneof![Just("a"), Just("b"), Just("{x}")];
    let method = prop_oneof![Just(""), Just("GET "), Just("HEAD "), Just("POST ")];
    (method, proptest::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(method, segments, rest)| {
        // A parameter may not stand twice in a pattern, so each gets its place as its name.
        let mut parts: Vec<String> =
            segments.iter().enumerate().map(|(place, text)| text.replace('x', &place.to_string())).collect();
        parts.extend(rest.then(|| "*".to_owned()));
        format!("{method}/{}", parts.join("/"))
    })
}

proptest! {
    #[test]
    fn the_tree_selects_what_looking_at_every_rule_would(
        one in proptest::collection::vec(pattern(), 0..12), two in proptest::collection::vec(pattern(), 0..12),
        asked in "(/(a|b|c)){0,4}/?", which in 0..4_usize
    ) {
        let routes = [
            route("two", &two.iter().map(String::as_str).collect::<Vec<_>>()),
            route("one", &one.iter().map(String::as_str).collect::<Vec<_>>()),
        ];
        let table = table(&routes);
        let method = [Method::GET, Method::HEAD, Method::POST, Method::PUT][which].clone();
        let asked = path(&format!("/{asked}"));
        let expected = reference(&routes, &method, &asked);
        match table.select(&method, &asked) {
            Selection::Found(target) => prop_assert_eq!(Some((&target.service, target.rule)), expected),
            Selection::NoMethod { allowed } => {
                prop_assert_eq!(expected, None);
                for other in [Method::GET, Method::HEAD, Method::POST, Method::PUT] {
                    prop_assert_eq!(allowed.contains(&other), reference(&routes, &other, &asked).is_some());
                }
            }
            Selection::NoPath { .. } => {
                for other in [Method::GET, Method::POST, Method::HEAD] {
                    prop_assert_eq!(reference(&routes, &other, &asked), None);
                }
            }
        }
    }

    #[test]
    fn no_path_and_no_pattern_make_it_panic(patterns in proptest::collection::vec("/[a-z{}*/]{0,12}", 0..8), asked in "/[ -~]{0,20}") {
        let valid: Vec<&str> = patterns.iter().map(String::as_str).filter(|text| Match::parse(text).is_ok()).collect();
        let table = table(&[route("a", &valid)]);
        if let Ok(asked) = CanonicalPath::parse(&asked)
            && let Selection::Found(target) = table.select(&Method::GET, &asked)
        {
            prop_assert_eq!(target.captures(&asked).count(), target.parameters.len());
        }
    }
}
