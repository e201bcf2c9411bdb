//! Every noun survives the journey, and nothing that arrives can do harm.

use std::net::IpAddr;
use std::time::Duration;

use hms_model::names::{Label, ServiceName};
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::policy::egress::{EgressHost, Origination, Through, Unlisted};
use hms_model::policy::jwt::JwtAlgorithm;
use hms_model::policy::retry::{RetryOn, Toggle};
use hms_model::policy::{
    Algorithm, AuthorizationPolicy, Balance, Egress, JwtIssuer, JwtKey, KeepAlive, LimitKey, Limits, Outlier, Probe,
    RateLimit, Retry, Telemetry, Timeouts, TrafficPolicy,
};
use hms_model::port::{AppProtocol, Port};
use hms_model::resource::{Declaration, Defaults, Gateway, Overlay, Resource};
use hms_model::route::{Match, Route, Rule};
use hms_model::service::{Entry, Service};
use hms_model::spiffe::{SpiffeId, TrustDomain};
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};
use hms_model::trust::TrustBundle;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_wire::hello::{HELLO_BYTES, Outside, PeerHello};
use hms_wire::proto::hms::v1::{self, resource::Kind};
use hms_wire::{LEVEL, WireError, decode, encode};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use prost::Message as _;

fn name() -> impl Strategy<Value = ServiceName> {
    ("[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", "[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
        .prop_map(|(space, name)| ServiceName::in_namespace(&space, &name).expect("a name"))
}

fn identity() -> impl Strategy<Value = SpiffeId> {
    ("[a-z0-9.]{1,20}", name())
        .prop_map(|(domain, name)| format!("spiffe://{domain}/ns/{}/sa/{}", name.namespace(), name.name()))
        .prop_map(|uri| SpiffeId::parse(&uri).expect("an identity"))
}

fn time() -> impl Strategy<Value = Duration> {
    (1..=7 * 86_400_000_000_u64).prop_map(Duration::from_micros)
}

fn pause() -> impl Strategy<Value = Duration> {
    prop_oneof![Just(Duration::ZERO), time()]
}

fn matches() -> impl Strategy<Value = Match> {
    ("(\\* |GET |POST |DELETE |)", "(/[a-z0-9.~-]*(%[2-7][0-9])?[a-z0-9]|/\\{[a-z]{1,9}\\})?(/[a-z]{1,9})?(/\\*|/)")
        .prop_map(|(method, path)| Match::parse(&format!("{method}{path}")).expect("a pattern"))
}

fn retry() -> impl Strategy<Value = Retry> {
    let on = (any::<bool>(), any::<bool>(), select(vec![Toggle::On, Toggle::Off]));
    let methods = vec(select(vec![http::Method::POST, http::Method::PATCH]), 0..3);
    let statuses = vec(500..600_u16, 0..4);
    (0..=10_u8, pause(), pause(), methods, on, statuses, 0..=100_u8, 0..=1_000_000_u32).prop_map(
        |(retries, backoff_other, backoff_same, methods, on, statuses, budget_percent, budget_floor_per_second)| {
            Retry {
                retries,
                backoff_other,
                backoff_same,
                methods,
                on: RetryOn { status_5xx: on.0, reset: on.1, timeout: on.2 },
                statuses,
                budget_percent,
                budget_floor_per_second,
            }
        },
    )
}

fn timeouts() -> impl Strategy<Value = Timeouts> {
    (time(), option::of(time()), option::of(time()), time()).prop_map(|(connect, request, attempt, idle)| Timeouts {
        connect,
        request,
        attempt,
        idle,
    })
}

fn outlier() -> impl Strategy<Value = Outlier> {
    (1..=1_000_000_u32, time(), 0..=100_u8, option::of(1..=100_u8), 1..=1_000_000_u32, time()).prop_map(
        |(consecutive, open_for, jitter_percent, rate_percent, rate_minimum, rate_window)| Outlier {
            consecutive,
            open_for,
            jitter_percent,
            rate_percent,
            rate_minimum,
            rate_window,
        },
    )
}

fn balance() -> impl Strategy<Value = Balance> {
    select(vec![Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random]).prop_map(Balance::from)
}

fn limits() -> impl Strategy<Value = Limits> {
    (1..=1_000_000_u32, 1..=1_000_000_u32, 0..=1_000_000_u32).prop_map(|(requests, connections, pending)| Limits {
        requests,
        connections,
        pending,
    })
}

fn keep_alive() -> impl Strategy<Value = KeepAlive> {
    select(vec![KeepAlive::On, KeepAlive::Off])
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    (retry(), timeouts(), outlier(), balance(), limits(), keep_alive(), option::of(Just(Probe::default()))).prop_map(
        |(retry, timeouts, outlier, balance, limits, keep_alive, probe)| TrafficPolicy {
            retry,
            timeouts,
            outlier,
            balance,
            limits,
            keep_alive,
            probe,
        },
    )
}

fn overlay() -> impl Strategy<Value = Overlay> {
    (policy(), any::<[bool; 7]>()).prop_map(|(policy, has)| Overlay {
        retry: has[0].then_some(policy.retry),
        timeouts: has[1].then_some(policy.timeouts),
        outlier: has[2].then_some(policy.outlier),
        balance: has[3].then_some(policy.balance),
        limits: has[4].then_some(policy.limits),
        keep_alive: has[5].then_some(policy.keep_alive),
        probe: policy.probe.filter(|_| has[6]),
    })
}

fn authorization() -> impl Strategy<Value = AuthorizationPolicy> {
    let source = prop_oneof![Just(Source::Any), Just(Source::Gateway), name().prop_map(Source::Service)];
    let rule = (source, vec(matches(), 0..3), "[a-z./:0-9]{0,20}").prop_map(|(source, matches, origin)| AllowRule {
        source,
        matches,
        origin,
    });
    vec(rule, 0..4).prop_map(|allow| AuthorizationPolicy { allow })
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    let health = select(vec![Health::Healthy, Health::Unhealthy, Health::Draining]);
    let reached = prop_oneof![
        identity().prop_map(|identity| (Registrar::Sidecar, Transport::Mesh(identity))),
        identity().prop_map(|identity| (Registrar::Api, Transport::Mesh(identity))),
        Just((Registrar::Api, Transport::Plain)),
    ];
    let place = (any::<IpAddr>(), 1..=u16::MAX, any::<u16>());
    (name(), "[a-zA-Z0-9._:-]{1,128}", place, "[ -~]{1,20}", "[ -~äöü]{0,20}", health, reached).prop_map(
        |(service, id, (ip, port, app_port), version, zone, health, (source, transport))| Endpoint {
            service,
            id,
            address: Address { ip, port },
            app_port,
            version,
            zone,
            health,
            source,
            transport,
        },
    )
}

fn route() -> impl Strategy<Value = Route> {
    let rate = (1..=1_000_000_u32, 1..=86_400_000_000_u64, 1..=1_000_000_u32)
        .prop_map(|(count, us, burst)| RateLimit::new(count, Duration::from_micros(us), Some(burst)).expect("a rate"));
    let key = prop_oneof![
        Just(LimitKey::Route),
        Just(LimitKey::Identity),
        "x-[a-z]{1,9}".prop_map(|name| LimitKey::Header(name.parse().expect("a field"))),
    ];
    let rate = (rate, key, 1..=99_u32).prop_map(|(rate, key, cost)| {
        let cost = cost.min(rate.burst());
        rate.costing(cost).expect("a cost").each(key)
    });
    let rule = (matches(), option::of(rate), "[a-z./:0-9]{0,20}").prop_map(|(matches, rate_limit, origin)| Rule {
        matches,
        rate_limit,
        origin,
    });
    (name(), vec(rule, 0..5)).prop_map(|(service, rules)| Route { service, rules })
}

fn gateway() -> impl Strategy<Value = Gateway> {
    let algorithm = select(vec![JwtAlgorithm::Rs256, JwtAlgorithm::Es256, JwtAlgorithm::EdDsa]);
    let key =
        ("[ -~]{0,20}", algorithm, "[ -~\n]{1,50}").prop_map(|(id, algorithm, jwk)| JwtKey { id, algorithm, jwk });
    let issuer = ("[ -~]{1,20}", vec("[ -~]{1,20}", 1..3), vec(key, 0..3))
        .prop_map(|(issuer, audiences, keys)| JwtIssuer { issuer, audiences, keys });
    (vec("[a-z0-9.-]{1,30}", 0..3), vec(issuer, 0..3)).prop_map(|(hosts, issuers)| Gateway {
        hosts,
        issuers,
        ..Gateway::default()
    })
}

fn app_protocol() -> impl Strategy<Value = AppProtocol> {
    prop_oneof![Just(AppProtocol::Detect), select(&AppProtocol::DECLARED[..])]
}

fn ports() -> impl Strategy<Value = Vec<Port>> {
    let port = ("([a-z][a-z0-9]{0,9})?", app_protocol(), option::of(1..=u16::MAX));
    btree_map(1..=u16::MAX, port, 0..5).prop_map(|ports| {
        let port = |(number, (name, protocol, target))| Port { number, name, protocol, target };
        ports.into_iter().map(port).collect()
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let trust = ("[a-z0-9._-]{1,30}", vec(vec(any::<u8>(), 1..99), 1..4))
        .prop_map(|(domain, roots)| TrustBundle { trust_domain: TrustDomain::new(&domain).expect("a domain"), roots });
    let defaults =
        (policy(), 0..=1_000_000_u32, any::<bool>()).prop_map(|(policy, sample_per_million, in_json_body)| Defaults {
            policy,
            telemetry: Telemetry { sample_per_million, in_json_body },
        });
    let declaration =
        (name(), vec(identity(), 0..3), overlay(), option::of(authorization()), (app_protocol(), ports())).prop_map(
            |(name, identities, overlay, authorization, (protocol, ports))| Declaration {
                name,
                identities,
                overlay,
                authorization,
                protocol,
                ports,
            },
        );
    let service = (name(), vec(identity(), 0..3), "[a-z0-9.-]{1,30}", policy(), authorization(), ports(), shares(0))
        .prop_map(|(name, identities, sni, policy, authorization, ports, split)| Service {
            name,
            identities: identities.into_iter().collect(),
            sni,
            policy,
            authorization,
            ports,
            split,
            http: Vec::new(),
        });
    let addresses =
        vec(prop_oneof![any::<[u8; 4]>().prop_map(IpAddr::from), any::<[u8; 16]>().prop_map(IpAddr::from)], 0..4);
    let entry = (name(), vec("[a-z0-9.-]{1,30}", 0..3), addresses, ports())
        .prop_map(|(name, aliases, addresses, ports)| Entry { name, aliases, addresses, ports });
    prop_oneof![
        trust.prop_map(Resource::Trust),
        defaults.prop_map(Resource::Defaults),
        declaration.prop_map(Resource::Declaration),
        entry.prop_map(Resource::Entry),
        service.prop_map(Resource::Service),
        endpoint().prop_map(Resource::Endpoint),
        route().prop_map(Resource::Route),
        gateway().prop_map(Resource::Gateway),
        egress().prop_map(Resource::Egress),
        (name(), shares(1)).prop_map(|(service, shares)| Resource::Split(Split { service, shares })),
    ]
}

/// At least so many; one of them has a weight.
fn shares(least: usize) -> impl Strategy<Value = Vec<Share>> {
    let share = (name(), "[ -~]{0,63}", 1..=MOST_WEIGHT);
    let share = share.prop_map(|(service, version, weight)| Share { service, version, weight });
    vec(share, least..MOST_SHARES)
}

fn egress() -> impl Strategy<Value = Egress> {
    let host = prop_oneof![
        "[a-z0-9.-]{1,30}",
        any::<[u8; 4]>().prop_map(|octets| IpAddr::from(octets).to_string()),
        any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_string()),
    ];
    let tls = option::of(("(/[a-z]{1,9}){0,3}", any::<bool>()));
    let tls = tls.prop_map(|tls| tls.map(|(ca, client_certificate)| Origination { ca, client_certificate }));
    let host = (host, vec(1..=u16::MAX, 1..4), any::<bool>(), tls, overlay())
        .prop_map(|(host, ports, local, tls, overlay)| EgressHost { host, ports, local, tls, overlay });
    let label = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?".prop_map(|label| Label::new(&label).expect("a label"));
    let unlisted = option::of(select(Unlisted::ALL.map(|(_, unlisted)| unlisted).to_vec()));
    let through = select(Through::ALL.map(|(_, through)| through).to_vec());
    (unlisted, through, btree_map(label, host, 0..4)).prop_map(|(unlisted, through, hosts)| Egress {
        unlisted,
        through,
        hosts,
    })
}

fn hello() -> impl Strategy<Value = PeerHello> {
    let words = ("[ -~]{0,128}", "[ -~]{0,128}", "[ -~]{0,128}");
    let outside =
        prop_oneof!["[a-z0-9.-]{1,253}", any::<[u8; 16]>().prop_map(|octets| IpAddr::from(octets).to_string())];
    let outside = option::of((outside, any::<bool>()).prop_map(|(host, has_tls)| Outside { host, has_tls }));
    (name(), any::<u16>(), name(), words, any::<u32>(), outside).prop_map(
        |(destination, destination_port, source, (workload, version, zone), level, outside)| PeerHello {
            destination,
            destination_port,
            source,
            workload,
            version,
            zone,
            level,
            outside,
        },
    )
}

/// What may happen to bytes on the way.
#[derive(Debug, Clone)]
enum Damage {
    Flip(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Repeat(Index),
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        (any::<Index>(), 1..=255_u8).prop_map(|(at, with)| Damage::Flip(at, with)),
        any::<Index>().prop_map(Damage::Cut),
        (any::<Index>(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        any::<Index>().prop_map(Damage::Repeat),
    ]
}

fn damaged(mut bytes: Vec<u8>, all: &[Damage]) -> Vec<u8> {
    for one in all {
        let length = bytes.len();
        match one {
            _ if length == 0 => {}
            Damage::Flip(at, with) => bytes[at.index(length)] ^= with,
            Damage::Cut(at) => bytes.truncate(at.index(length)),
            Damage::Insert(at, new) => drop(bytes.splice(at.index(length)..at.index(length), new.iter().copied())),
            Damage::Repeat(at) => bytes.extend_from_within(at.index(length)..),
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn every_resource_arrives_as_it_was_sent(resource in resource()) {
        let bytes = encode(&resource);
        let arrived = decode(&bytes);
        prop_assert_eq!(arrived.as_ref(), Ok(&resource));
        prop_assert_eq!(encode(&resource), bytes, "equal resources have equal bytes");
    }

    #[test]
    fn damaged_bytes_are_refused_or_read_as_something_within_all_bounds(
        resource in resource(),
        damage in vec(damage(), 1..4),
    ) {
        if let Ok(other) = decode(&damaged(encode(&resource), &damage)) {
            // What was taken can be sent on, so it broke no bound.
            prop_assert_eq!(decode(&encode(&other)), Ok(other));
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _whatever = decode(&bytes);
        let _whatever = PeerHello::decode(&bytes);
    }

    #[test]
    fn a_greeting_is_read_once_it_is_complete_and_not_before(hello in hello(), rest in vec(any::<u8>(), 0..9)) {
        let mut bytes = hello.encode().unwrap();
        let length = bytes.len();
        prop_assert!(length <= 2 + HELLO_BYTES);
        for part in 0..length {
            prop_assert_eq!(PeerHello::decode(&bytes[..part]), Ok(None));
        }
        bytes.extend(rest);
        let received = PeerHello::decode(&bytes).unwrap().unwrap();
        prop_assert_eq!((received.hello, received.length), (hello, length));
    }

    #[test]
    fn a_damaged_greeting_never_panics(hello in hello(), damage in vec(damage(), 1..4)) {
        let _whatever = PeerHello::decode(&damaged(hello.encode().unwrap(), &damage));
    }
}

fn calc() -> ServiceName {
    ServiceName::new("calc-svc").expect("a name")
}

fn service() -> v1::Service {
    let service = Service {
        name: calc(),
        identities: [].into(),
        sni: "x".to_owned(),
        policy: TrafficPolicy::default(),
        authorization: AuthorizationPolicy {
            allow: vec![AllowRule { source: Source::Any, matches: Vec::new(), origin: String::new() }],
        },
        ports: Vec::new(),
        split: Vec::new(),
        http: Vec::new(),
    };
    hms_wire::Wire::to_wire(&service)
}

/// Sends a service that `change` has spoiled.
fn spoiled(change: impl FnOnce(&mut v1::Service)) -> Result<Resource, WireError> {
    let mut message = service();
    change(&mut message);
    decode(&v1::Resource { requires: LEVEL, kind: Some(Kind::Service(message)) }.encode_to_vec())
}

#[test]
fn a_security_field_has_no_silent_default() {
    assert!(spoiled(|_service| ()).is_ok());
    assert_eq!(spoiled(|service| service.authorization = None), Err(WireError::Missing("service.authorization")));
    let no_source = spoiled(|service| service.authorization.as_mut().unwrap().allow[0].source = None);
    assert_eq!(no_source, Err(WireError::Missing("allow.source")));
    let not_meant = v1::allow_rule::Source::Any(false);
    assert!(spoiled(|service| service.authorization.as_mut().unwrap().allow[0].source = Some(not_meant)).is_err());
    assert_eq!(spoiled(|service| service.policy = None), Err(WireError::Missing("service.policy")));
    let no_limits = spoiled(|service| service.policy.as_mut().unwrap().limits = None);
    assert_eq!(no_limits, Err(WireError::Missing("policy.limits")));
    assert!(spoiled(|service| service.identities.push("spiffe://a/b".to_owned())).is_err());
    assert!(spoiled(|service| service.sni.clear()).is_err());
    let port = v1::Port { number: 80, ..v1::Port::default() };
    assert!(spoiled(|service| service.ports = vec![port.clone()]).is_ok());
    assert!(spoiled(|service| service.ports = vec![port.clone(), port.clone()]).is_err(), "twice");
    assert!(spoiled(|service| service.ports = vec![v1::Port { number: 0, ..port.clone() }]).is_err());
    assert!(spoiled(|service| service.ports = vec![v1::Port { protocol: 9, ..port.clone() }]).is_err());
    assert!(spoiled(|service| service.ports = vec![v1::Port { name: "a.b".to_owned(), ..port }]).is_err());
}

#[test]
fn an_endpoint_without_identity_is_plain_only_where_an_operator_said_so() {
    let endpoint = Endpoint {
        service: calc(),
        id: "1".to_owned(),
        address: Address { ip: IpAddr::from([127, 0, 0, 1]), port: 1 },
        app_port: 0,
        version: "v1".to_owned(),
        zone: String::new(),
        health: Health::Healthy,
        source: Registrar::Sidecar,
        transport: Transport::Plain,
    };
    let lost = decode(&encode(&Resource::Endpoint(endpoint.clone())));
    assert_eq!(lost, Err(WireError::Missing("endpoint.identity")));
    assert!(decode(&encode(&Resource::Endpoint(Endpoint { source: Registrar::Api, ..endpoint }))).is_ok());
}

#[test]
fn a_higher_level_and_an_unknown_kind_are_refused_by_name() {
    let at = |requires| v1::Resource { requires, kind: Some(Kind::Entry(v1::Entry::default())) }.encode_to_vec();
    // The level counts before anything else, even before what is wrong with the rest.
    assert_eq!(decode(&at(LEVEL + 1)), Err(WireError::Level { requires: LEVEL + 1 }));
    assert_eq!(decode(&at(0)), Err(WireError::Missing("requires")));
    let mut future = v1::Resource { requires: LEVEL, kind: None }.encode_to_vec();
    future.extend([0xfa, 0x01, 0x00]); // field 31, an empty message
    assert_eq!(decode(&future), Err(WireError::Kind));
}

#[test]
fn calls_that_shall_leave_by_a_gateway_are_refused_by_a_proxy_that_would_overlook_it() {
    let level = |through| {
        let egress = Egress { through, ..Egress::default() };
        v1::Resource::decode(&*encode(&Resource::Egress(egress))).unwrap().requires
    };
    assert_eq!((level(Through::Sidecar), level(Through::Gateway)), (1, 2));
}

#[test]
fn an_unknown_field_of_the_same_level_is_skipped() {
    let resource =
        Resource::Entry(Entry { name: calc(), aliases: Vec::new(), addresses: Vec::new(), ports: Vec::new() });
    let mut bytes = encode(&resource);
    bytes.extend([0xfa, 0x01, 0x02, b'h', b'i']);
    assert_eq!(decode(&bytes), Ok(resource));
}

#[test]
fn numbers_times_lists_and_sizes_beyond_their_bounds_are_refused() {
    let policy = |change: fn(&mut v1::TrafficPolicy)| spoiled(|service| change(service.policy.as_mut().unwrap()));
    assert!(policy(|policy| policy.balance = 9).is_err());
    assert!(policy(|policy| policy.retry.as_mut().unwrap().retries = 11).is_err());
    assert!(policy(|policy| policy.retry.as_mut().unwrap().budget_percent = 101).is_err());
    assert!(policy(|policy| policy.retry.as_mut().unwrap().methods = vec!["G T".to_owned()]).is_err());
    assert!(policy(|policy| policy.timeouts.as_mut().unwrap().connect_us = 0).is_err());
    assert!(policy(|policy| policy.timeouts.as_mut().unwrap().idle_us = u64::MAX).is_err());
    assert!(policy(|policy| policy.timeouts.as_mut().unwrap().request_us = Some(0)).is_err());
    assert!(policy(|policy| policy.outlier.as_mut().unwrap().consecutive = 0).is_err());
    assert!(policy(|policy| policy.outlier.as_mut().unwrap().rate_percent = Some(356)).is_err());
    assert!(policy(|policy| policy.limits.as_mut().unwrap().requests = 0).is_err());
    assert!(spoiled(|service| service.name = Some(v1::ServiceName::default())).is_err());
    let identities = vec!["spiffe://a/ns/b/sa/c".to_owned(); 257];
    assert!(matches!(spoiled(|service| service.identities = identities), Err(WireError::TooMany { .. })));
    assert!(matches!(decode(&vec![0; 4 * 1024 * 1024 + 1]), Err(WireError::TooLarge { .. })));
}

#[test]
fn bytes_that_only_pretend_to_be_protobuf_are_refused() {
    let nested = (0..10_000).fold(Vec::new(), |bytes, _level| [vec![0x3b], bytes, vec![0x3c]].concat());
    for bytes in [
        &b"GET / HTTP/1.1"[..],
        &[0x08],                                                             // a field without its value
        &[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], // eleven bytes of varint
        &[0x0a, 0x01, 0x00],                                                 // wrong wire type
        &[0x00, 0x00],                                                       // field 0
        &[0x12, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00],                         // two gigabytes of trust
        &[0x08, 0x01, 0x2a, 0x03, 0x0a, 0x01, 0xff],                         // no UTF-8
        &nested,
    ] {
        assert!(matches!(decode(bytes), Err(WireError::Protobuf(_))), "{:?}", &bytes[..bytes.len().min(20)]);
    }
}

#[test]
fn a_greeting_beyond_its_bound_is_refused_from_its_length_alone() {
    let limit = HELLO_BYTES;
    assert_eq!(PeerHello::decode(&[4, 1]), Err(WireError::TooLarge { length: 1025, limit }));
    assert_eq!(PeerHello::decode(&[4, 0]), Ok(None));
    assert_eq!(PeerHello::decode(&[0, 0]), Err(WireError::Missing("hello.destination")));
    let hello = PeerHello {
        destination: calc(),
        destination_port: 80,
        source: calc(),
        workload: "x".repeat(1024),
        version: String::new(),
        zone: String::new(),
        level: LEVEL,
        outside: None,
    };
    assert!(matches!(hello.encode(), Err(WireError::TooLarge { .. })));
}
