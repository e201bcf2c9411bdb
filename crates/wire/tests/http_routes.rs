//! Routes for requests survive the wire, and what is out of bounds does not get in.
#![expect(clippy::unwrap_used, reason = "what is valid by construction")]

use std::time::Duration;

use hms_model::http_route::{
    Actions, Backend, Bound, Cors, Fault, FieldCondition, HeaderEdits, HttpMatch, HttpRoute, HttpRule, Mirror, Parent,
    PathCondition, PathRewrite, Pattern, Portion, QueryCondition, Redirect, Rewrite, Scheme, Source, TimeoutOverlay,
    ValueCondition,
};
use hms_model::names::ServiceName;
use hms_model::policy::Retry;
use hms_model::resource::{Gateway, Resource};
use hms_model::route::PathPattern;
use hms_model::split::{MOST_WEIGHT, Share};
use hms_wire::proto::hms::v1::{self, resource::Kind};
use hms_wire::{LEVEL, Wire as _, WireError, decode, encode};
use http::{HeaderName, HeaderValue, Method};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

fn name() -> impl Strategy<Value = ServiceName> {
    ("[a-z][a-z0-9-]{0,9}[a-z0-9]", "[a-z][a-z0-9-]{0,9}[a-z0-9]")
        .prop_map(|(namespace, name)| ServiceName::in_namespace(&namespace, &name).unwrap())
}

fn field() -> impl Strategy<Value = HeaderName> {
    "x-[a-z]{1,9}".prop_map(|text| HeaderName::try_from(text).unwrap())
}

fn value() -> impl Strategy<Value = ValueCondition> {
    prop_oneof![
        "[ -~]{0,20}".prop_map(ValueCondition::Exact),
        "[a-z.*]{1,9}".prop_filter_map("an expression", |text| Pattern::parse(&text).ok().map(ValueCondition::Regex)),
        Just(ValueCondition::Present),
    ]
}

fn condition() -> impl Strategy<Value = HttpMatch> {
    let path = option::of(prop_oneof![
        "/[a-z/]{0,20}".prop_map(PathCondition::Exact),
        "/[a-z/]{0,20}".prop_map(PathCondition::Prefix),
        Just(PathCondition::Template(PathPattern::parse("/a/{b}/*").unwrap())),
        Just(PathCondition::Regex(Pattern::parse("/[a-z]+").unwrap())),
    ]);
    let header = (field(), value(), any::<bool>()).prop_map(|(name, value, is_negated)| FieldCondition {
        name,
        value,
        is_negated,
    });
    let query = ("[ -~]{1,9}", value()).prop_map(|(name, value)| QueryCondition { name, value });
    let source = prop_oneof![name().prop_map(Source::Service), "[a-z][a-z0-9]{0,9}".prop_map(Source::Namespace)];
    let method = option::of(prop_oneof![Just(Method::GET), Just(Method::PATCH)]);
    (path, method, vec(header, 0..3), vec(query, 0..3), vec(source, 0..3))
        .prop_map(|(path, method, headers, query, sources)| HttpMatch { path, method, headers, query, sources })
}

fn edits() -> impl Strategy<Value = HeaderEdits> {
    let line = || (field(), "[ -~]{0,20}").prop_map(|(name, value)| (name, HeaderValue::from_str(&value).unwrap()));
    (vec(line(), 0..3), vec(line(), 0..3), vec(field(), 0..3)).prop_map(|(set, add, remove)| HeaderEdits {
        set,
        add,
        remove,
    })
}

fn path_rewrite() -> impl Strategy<Value = PathRewrite> {
    prop_oneof!["/[a-z/]{0,9}".prop_map(PathRewrite::Full), "(/[a-z]{1,5})?".prop_map(PathRewrite::Prefix)]
}

fn host() -> impl Strategy<Value = Option<String>> {
    option::of("[a-z.]{1,20}")
}

fn share() -> impl Strategy<Value = Share> {
    (name(), "[a-z0-9.]{0,9}", 0..=MOST_WEIGHT).prop_map(|(service, version, weight)| Share {
        service,
        version,
        weight,
    })
}

fn port() -> impl Strategy<Value = Option<u16>> {
    option::of(1..=u16::MAX)
}

fn portion() -> impl Strategy<Value = Portion> {
    (0..=MOST_WEIGHT).prop_map(Portion::millionths)
}

fn time() -> impl Strategy<Value = Duration> {
    (1_u64..600_000_000).prop_map(Duration::from_micros)
}

fn actions() -> impl Strategy<Value = Actions> {
    let scheme = option::of(prop_oneof![Just(Scheme::Http), Just(Scheme::Https)]);
    let redirect = (scheme, host(), port(), option::of(path_rewrite()), 301_u16..=308)
        .prop_map(|(scheme, host, port, path, status)| Redirect { scheme, host, port, path, status });
    let rewrite = (host(), option::of(path_rewrite())).prop_map(|(host, path)| Rewrite { host, path });
    let mirror = (share(), port(), portion()).prop_map(|(share, port, portion)| Mirror { share, port, portion });
    let fault = (option::of((time(), portion())), option::of((200_u16..=599, portion())), option::of(field()))
        .prop_map(|(delay, abort, trigger)| Fault { delay, abort, trigger });
    let methods = option::of(vec(prop_oneof![Just(Method::GET), Just(Method::PUT)], 0..3));
    let cors = (
        vec("https://[a-z*.]{1,9}", 0..3),
        any::<bool>(),
        methods,
        option::of(vec(field(), 0..3)),
        vec(field(), 0..3),
        0_u64..99,
    )
        .prop_map(|(origins, credentials, methods, headers, expose, age)| Cors {
            origins,
            credentials,
            methods,
            headers,
            expose,
            max_age: Duration::from_secs(age),
        });
    (
        edits(),
        edits(),
        option::of(redirect),
        option::of(rewrite),
        vec(mirror, 0..3),
        option::of(fault),
        option::of(cors),
    )
        .prop_map(|(request_headers, response_headers, redirect, rewrite, mirrors, fault, cors)| Actions {
            request_headers,
            response_headers,
            redirect,
            rewrite,
            mirrors,
            fault,
            cors,
        })
}

fn rule() -> impl Strategy<Value = HttpRule> {
    let backend = (share(), port(), edits(), edits(), option::of("[ -~]{1,20}")).prop_map(
        |(share, port, request_headers, response_headers, refused)| Backend {
            share,
            port,
            request_headers,
            response_headers,
            refused,
        },
    );
    let bound = || option::of(prop_oneof![Just(Bound::Lifted), time().prop_map(Bound::After)]);
    let timeouts = (bound(), bound(), option::of(time())).prop_map(|(request, attempt, idle)| TimeoutOverlay {
        request,
        attempt,
        idle,
    });
    let retry = option::of((0_u8..=10).prop_map(|retries| Retry { retries, ..Retry::default() }));
    ("[ -~]{0,20}", vec(condition(), 0..4), actions(), vec(backend, 0..4), timeouts, retry, "[ -~]{0,20}").prop_map(
        |(name, matches, actions, backends, timeouts, retry, origin)| HttpRule {
            name,
            matches,
            actions,
            backends,
            timeouts,
            retry,
            origin,
        },
    )
}

fn route() -> impl Strategy<Value = HttpRoute> {
    let parent = prop_oneof![
        Just(Parent::Gateway),
        (name(), port()).prop_map(|(service, port)| Parent::Service { service, port }),
    ];
    (name(), vec(parent, 0..3), vec("[a-z*.]{1,20}", 0..3), vec(rule(), 0..3))
        .prop_map(|(name, parents, hosts, rules)| HttpRoute { name, parents, hosts, rules })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn a_route_reads_as_it_was_written(route in route()) {
        for resource in [
            Resource::HttpRoute(route.clone()),
            Resource::Gateway(Gateway { routes: vec![route], ..Gateway::default() }),
        ] {
            prop_assert_eq!(decode(&encode(&resource)).unwrap(), resource);
        }
    }
}

/// Sends a rule that `change` has spoiled.
fn spoiled(change: impl FnOnce(&mut v1::HttpRule)) -> Result<Resource, WireError> {
    let mut rule = HttpRule::to(Vec::new()).to_wire();
    change(&mut rule);
    let name = ServiceName::new("r").unwrap();
    let route = HttpRoute { name, parents: Vec::new(), hosts: Vec::new(), rules: Vec::new() };
    let message = v1::HttpRoute { rules: vec![rule], ..route.to_wire() };
    decode(&v1::Resource { requires: LEVEL, kind: Some(Kind::HttpRoute(message)) }.encode_to_vec())
}

#[test]
fn what_is_out_of_bounds_does_not_get_in() {
    assert!(spoiled(|_rule| ()).is_ok());
    let path =
        |text: &str| v1::HttpMatch { path: Some(v1::http_match::Path::Regex(text.to_owned())), ..Default::default() };
    assert!(spoiled(|rule| rule.matches = vec![path("(")]).is_err(), "no expression");
    assert!(spoiled(|rule| rule.matches = vec![path("a"); 65]).is_err(), "too many matches");
    let method = v1::HttpMatch { method: "G E T".to_owned(), ..Default::default() };
    assert!(spoiled(|rule| rule.matches = vec![method]).is_err(), "no method");
    let field = v1::header_edits::Field { name: "x".to_owned(), value: b"a\r\nb"[..].to_vec().into() };
    let edits = v1::HeaderEdits { set: vec![field], ..Default::default() };
    assert!(spoiled(|rule| rule.request_headers = Some(edits)).is_err(), "a second line in a value");
    let redirect = v1::Redirect { status: 200, ..Default::default() };
    assert!(spoiled(|rule| rule.redirect = Some(redirect)).is_err(), "no redirect");
    let fault = v1::Fault { abort_status: 700, ..Default::default() };
    assert!(spoiled(|rule| rule.fault = Some(fault)).is_err(), "no status");
    let fault = v1::Fault { delay_us: u64::MAX, ..Default::default() };
    assert!(spoiled(|rule| rule.fault = Some(fault)).is_err(), "a delay of ages");
    assert!(spoiled(|rule| rule.mirrors = vec![v1::Mirror::default()]).is_err(), "a mirror without a service");
}

#[test]
fn who_does_not_know_routes_does_not_overlook_them() {
    let route = HttpRoute { name: ServiceName::new("r").unwrap(), parents: vec![], hosts: vec![], rules: vec![] };
    let level =
        |gateway: Gateway| v1::Resource::decode(encode(&Resource::Gateway(gateway)).as_slice()).unwrap().requires;
    assert_eq!(level(Gateway::default()), 1);
    assert_eq!(level(Gateway { routes: vec![route], ..Gateway::default() }), 3);
}
