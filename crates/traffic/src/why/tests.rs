use hms_model::http_route::{HttpMatch, HttpRoute, Parent, PathCondition, Redirect};
use hms_model::mesh::{Assigned, assemble};
use hms_model::message::{Authority, CanonicalPath, Fields};
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::policy::{Affinity, Algorithm, AuthorizationPolicy, Balance, HashKey, JwtIssuer, RateLimit, Zones};
use hms_model::resource::{Declaration, Resource};
use hms_model::route::{Match, Route, Rule};
use hms_model::spiffe::SpiffeId;
use hms_model::split::Split;
use hms_model::workload::{Address, Endpoint, Registrar};
use http::Method;

use super::*;

fn service(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap()
}

fn identity(text: &str) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://t.hms/ns/default/sa/{text}")).unwrap()
}

fn declaration(name: &str, allow: Vec<AllowRule>) -> Resource {
    Resource::Declaration(Declaration {
        identities: vec![identity(name)],
        authorization: Some(AuthorizationPolicy { allow }),
        ..Declaration::new(service(name))
    })
}

fn endpoint(name: &str, version: &str, health: Health) -> Resource {
    Resource::Endpoint(Endpoint {
        service: service(name),
        id: version.to_owned(),
        address: Address { ip: [127, 0, 0, 1].into(), port: 1 },
        app_port: 2,
        version: version.to_owned(),
        zone: String::new(),
        health,
        source: Registrar::Sidecar,
        transport: Transport::Mesh(identity(name)),
    })
}

/// Hello may GET calc, and nobody else; calc has v1 and v2, v2 is down.
fn resources() -> Vec<Resource> {
    let allow = AllowRule {
        source: Source::Service(service("hello-svc")),
        matches: vec![Match::parse("GET /sum/*").unwrap()],
        origin: "mesh.yaml:19".to_owned(),
    };
    let rule = Rule {
        matches: Match::parse("/sum/{a}/{b}").unwrap(),
        rate_limit: Some(RateLimit::parse("20 req/min").unwrap()),
        origin: "calc/route.yaml:4".to_owned(),
    };
    vec![
        declaration("hello-svc", Vec::new()),
        declaration("other-svc", Vec::new()),
        declaration("calc-svc", vec![allow]),
        endpoint("calc-svc", "v1", Health::Healthy),
        endpoint("calc-svc", "v2", Health::Unhealthy),
        Resource::Route(Route { service: service("calc-svc"), rules: vec![rule] }),
    ]
}

fn asked(resources: Vec<Resource>, from: &str, method: Method, path: &str) -> Vec<Step> {
    let (mesh, _) = assemble(resources, |_| Assigned::default());
    let head = RequestHead {
        method,
        authority: Authority::parse("calc-svc").unwrap(),
        path: CanonicalPath::parse(path).unwrap(),
        query: None,
        fields: Fields::new(),
    };
    let (from, to) = (service(from), service("calc-svc"));
    why(&mesh, &Question { from: &from, to: Some(&to), port: 0, head: &head, open: &BTreeMap::new() })
}

fn names(steps: &[Step]) -> Vec<&str> {
    steps.iter().map(|step| step.name).collect()
}

#[test]
fn a_call_that_passes_names_every_rule_on_its_way() {
    let steps = asked(resources(), "hello-svc", Method::GET, "/sum/2/3");
    assert_eq!(names(&steps), ["route", "endpoint", "identity", "authz", "rate", "terms"]);
    assert!(steps.iter().all(|step| step.says != Says::Stop));
    assert_eq!(steps[3].origin, "mesh.yaml:19");
    assert_eq!((steps[4].origin.as_str(), steps[4].says), ("calc/route.yaml:4", Says::Note));
    assert!(steps[1].text.starts_with("1 of 2 endpoints"), "{}", steps[1].text);
}

#[test]
fn a_call_that_is_denied_ends_with_the_rule_that_came_nearest_and_the_smallest_that_would_allow_it() {
    let steps = asked(resources(), "hello-svc", Method::DELETE, "/sum/2/3");
    let last = steps.last().unwrap();
    assert_eq!((last.name, last.says, last.code), ("authz", Says::Stop, 3201));
    assert_eq!(last.origin, "mesh.yaml:19");
    assert_eq!(last.fix, "allow: [{from: hello-svc, to: calc-svc, routes: [DELETE /sum/2/3]}]");
}

#[test]
fn a_share_that_nobody_can_take_is_said_to_go_to_the_others() {
    let share = |version: &str, weight| Share { service: service("calc-svc"), version: version.to_owned(), weight };
    let mut resources = resources();
    resources
        .push(Resource::Split(Split { service: service("calc-svc"), shares: vec![share("v1", 9), share("v2", 1)] }));
    let steps = asked(resources.clone(), "hello-svc", Method::GET, "/sum/2/3");
    let texts: Vec<&str> = steps.iter().map(|step| step.text.as_str()).collect();
    assert!(texts.contains(&"90 % go to calc-svc v1") && texts.contains(&"10 % go to calc-svc v2"), "{texts:?}");
    assert!(texts.iter().any(|text| text.ends_with("its part goes to the others")), "{texts:?}");
    resources.pop();
    resources.push(Resource::Split(Split { service: service("calc-svc"), shares: vec![share("v2", 1)] }));
    let last = asked(resources, "hello-svc", Method::GET, "/sum/2/3").pop().unwrap();
    assert_eq!((last.name, last.code), ("endpoint", 3002));
}

#[test]
fn what_a_route_does_is_said_with_its_place() {
    let redirect = Redirect { scheme: None, host: Some("new.example".into()), port: None, path: None, status: 308 };
    let moved = HttpRule {
        matches: vec![HttpMatch { path: Some(PathCondition::Prefix("/old".into())), ..HttpMatch::default() }],
        origin: "routes.yaml:9".to_owned(),
        actions: hms_model::http_route::Actions { redirect: Some(redirect), ..Default::default() },
        ..HttpRule::to(Vec::new())
    };
    let parents = vec![Parent::Service { service: service("calc-svc"), port: None }];
    let route = HttpRoute { name: service("r"), parents, hosts: Vec::new(), rules: vec![moved] };
    let mut resources = resources();
    resources.push(Resource::HttpRoute(route));
    let last = asked(resources.clone(), "hello-svc", Method::GET, "/old/x").pop().unwrap();
    assert_eq!((last.says, last.origin.as_str()), (Says::Stop, "routes.yaml:9"));
    assert!(last.text.contains("http://new.example/old/x"), "{}", last.text);
    let last = asked(resources, "hello-svc", Method::GET, "/sum/2/3").pop().unwrap();
    assert_eq!((last.code, last.says), (3401, Says::Stop), "{}", last.text);
}

#[test]
fn an_open_breaker_and_an_unknown_name_stop_it() {
    let (mesh, _) = assemble(resources(), |_| Assigned::default());
    let path = CanonicalPath::parse("/sum/1/2").unwrap();
    let authority = Authority::parse("x").unwrap();
    let head = RequestHead { method: Method::GET, authority, path, query: None, fields: Fields::new() };
    let (from, to, ghost) = (service("hello-svc"), service("calc-svc"), service("ghost"));
    let open = BTreeMap::from([(to.clone(), "3 x connect refused".to_owned())]);
    let last =
        |to, open| why(&mesh, &Question { from: &from, to: Some(to), port: 0, head: &head, open }).pop().unwrap();
    assert_eq!(last(&to, &open).code, 3001);
    let gone = last(&ghost, &BTreeMap::new());
    assert_eq!(gone.code, 3403);
    assert!(gone.text.contains("calc-svc"), "{}", gone.text);
}

/// What is said of the choice among endpoints, of a request with these fields.
fn choices(balance: &Balance, fields: &[(&'static str, &str)]) -> Vec<String> {
    let mut resources = resources();
    for resource in &mut resources {
        match resource {
            Resource::Declaration(own) if own.name == service("calc-svc") => {
                own.overlay.balance = Some(balance.clone());
            }
            Resource::Endpoint(own) => {
                (own.health, own.zone) = (Health::Healthy, format!("zone-{}", own.version));
            }
            _ => {}
        }
    }
    let caller = endpoint("hello-svc", "v1", Health::Healthy);
    if let Resource::Endpoint(own) = caller {
        resources.push(Resource::Endpoint(Endpoint { zone: "zone-v1".to_owned(), ..own }));
    }
    let (mesh, _) = assemble(resources, |_| Assigned::default());
    let mut all = Fields::new();
    for (name, value) in fields {
        all.append(http::HeaderName::from_static(name), value.parse().unwrap());
    }
    let path = CanonicalPath::parse("/sum/2/3").unwrap();
    let authority = Authority::parse("calc-svc").unwrap();
    let head = RequestHead { method: Method::GET, authority, path, query: None, fields: all };
    let (from, to) = (service("hello-svc"), service("calc-svc"));
    let steps = why(&mesh, &Question { from: &from, to: Some(&to), port: 0, head: &head, open: &BTreeMap::new() });
    steps.into_iter().filter(|step| step.name == "balance").map(|step| step.text).collect()
}

#[test]
fn where_a_key_a_cookie_or_a_zone_leads_is_said() {
    assert!(choices(&Balance::default(), &[]).is_empty());
    let by_user = HashKey::Header(http::HeaderName::from_static("x-user"));
    let ring = Balance::from(Algorithm::RingHash(by_user));
    assert_eq!(choices(&ring, &[]), ["the request has no header x-user, so the less loaded of two endpoints gets it"]);
    let whose: std::collections::BTreeSet<String> =
        (0..40).flat_map(|user| choices(&ring, &[("x-user", &format!("user{user}"))])).collect();
    assert_eq!(whose.len(), 2, "both endpoints have keys: {whose:?}");
    assert!(whose.iter().all(|text| text.starts_with("its header x-user leads to ")), "{whose:?}");

    let affinity = Some(Affinity::Cookie { name: "stay".to_owned(), ttl: None });
    let stays = Balance { affinity, ..Balance::default() };
    assert!(choices(&stays, &[])[0].contains("its answer brings one"));
    let token = crate::balance::key::write_token(crate::balance::key::token("calc-svc", "v2"));
    let text = choices(&stays, &[("cookie", &format!("stay={token}"))]);
    assert!(text[0].starts_with("its cookie stay leads to v2 at "), "{text:?}");

    let zones = Balance { zones: Zones::Prefer, ..Balance::default() };
    assert_eq!(choices(&zones, &[]), ["from zone-v1 the 1 usable of 1 endpoints there come first"]);
}

#[test]
fn at_the_gateway_the_token_comes_first() {
    let (mut mesh, _) = assemble(resources(), |_| Assigned::default());
    let path = CanonicalPath::parse("/sum/2/3").unwrap();
    let authority = Authority::parse("gateway.local").unwrap();
    let head = RequestHead { method: Method::GET, authority, path, query: None, fields: Fields::new() };
    let from = ServiceName::in_namespace("hms-system", "gateway").unwrap();
    let asked = |mesh: &Mesh, head: &RequestHead| {
        why(mesh, &Question { from: &from, to: None, port: 0, head, open: &BTreeMap::new() }).remove(0)
    };
    let first = asked(&mesh, &head);
    assert_eq!((first.name, first.says, first.code), ("token", Says::Note, 3101));
    let mut shown = head.clone();
    shown.fields.append(http::header::AUTHORIZATION, "Bearer x.y.z".parse().unwrap());
    assert_eq!((asked(&mesh, &shown).says, asked(&mesh, &shown).code), (Says::Stop, 3105), "nobody's tokens are taken");
    let gateway = std::sync::Arc::make_mut(&mut mesh.gateway);
    gateway.issuers = vec![JwtIssuer { issuer: "me".to_owned(), audiences: vec!["hms".to_owned()], keys: Vec::new() }];
    assert_eq!(asked(&mesh, &shown).text, "a token is there; the gateway takes those of me for hms, if they hold");
    shown.fields.append(http::header::AUTHORIZATION, "Bearer x.y.z".parse().unwrap());
    assert_eq!(asked(&mesh, &shown).code, 3102);
    std::sync::Arc::make_mut(&mut mesh.gateway).is_open = true;
    assert_eq!(asked(&mesh, &head).code, 0);
}
