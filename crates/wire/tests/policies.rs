//! How endpoints are chosen and applications asked: every way survives the journey, and none beyond its bounds does.

use std::time::Duration;

use hms_model::message::CanonicalPath;
use hms_model::names::ServiceName;
use hms_model::policy::probe::Question;
use hms_model::policy::{Affinity, Algorithm, Balance, HashKey, Probe, TrafficPolicy, Zones};
use hms_model::resource::{Declaration, Defaults, Overlay, Resource};
use hms_wire::proto::hms::v1::{self, hash_key, resource::Kind};
use hms_wire::{WireError, decode, encode};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

/// Any time that a policy may state, in whole microseconds.
fn time() -> impl Strategy<Value = Duration> {
    (1..=7 * 24 * 3_600_000_000_u64).prop_map(Duration::from_micros)
}

fn balance() -> impl Strategy<Value = Balance> {
    let header = || "x-[a-z]{1,8}".prop_map(|name| name.parse::<http::HeaderName>().expect("a name"));
    let key = prop_oneof![
        header().prop_map(HashKey::Header),
        "[a-z]{1,8}".prop_map(HashKey::Cookie),
        "[a-z]{1,8}".prop_map(HashKey::Query),
        Just(HashKey::Source),
    ];
    let key = || key.clone();
    let algorithm = prop_oneof![
        select(vec![Algorithm::LeastRequest, Algorithm::RoundRobin, Algorithm::Random]),
        key().prop_map(Algorithm::RingHash),
        key().prop_map(Algorithm::Maglev),
    ];
    let affinity = prop_oneof![
        ("[a-z]{1,8}", option::of(time())).prop_map(|(name, ttl)| Affinity::Cookie { name, ttl }),
        header().prop_map(Affinity::Header),
    ];
    let zones = select(vec![Zones::Ignore, Zones::Prefer]);
    (algorithm, option::of(affinity), zones, option::of(time())).prop_map(|(algorithm, affinity, zones, slow_start)| {
        Balance { algorithm, affinity, zones, slow_start: slow_start.unwrap_or_default() }
    })
}

/// What both times of a probe may be.
fn probe_time() -> impl Strategy<Value = Duration> {
    (100..=60_000_u64).prop_map(Duration::from_millis)
}

fn probe() -> impl Strategy<Value = Probe> {
    let path = select(vec!["/", "/health", "/a/b"]).prop_map(|path| CanonicalPath::parse(path).expect("a path"));
    let statuses = vec((100..300_u16, 0..300_u16).prop_map(|(first, more)| first..=first + more), 0..4);
    let question = prop_oneof![
        Just(Question::Tcp),
        (path, statuses).prop_map(|(path, statuses)| Question::Http { path, statuses }),
        "([a-z]{1,8}[.][A-Z][a-z]{1,8})?".prop_map(|service| Question::Grpc { service }),
    ];
    (question, probe_time(), probe_time(), 1..=100_u32, 1..=100_u32).prop_map(
        |(question, interval, timeout, healthy, unhealthy)| Probe { question, interval, timeout, healthy, unhealthy },
    )
}

fn defaults(balance: Balance, probe: Option<Probe>) -> Resource {
    let policy = TrafficPolicy { balance, probe, ..TrafficPolicy::default() };
    Resource::Defaults(Defaults { policy, ..Defaults::default() })
}

fn message(resource: &Resource) -> v1::Resource {
    v1::Resource::decode(&*encode(resource)).expect("what was just written")
}

/// Sends defaults whose policy `change` has spoiled.
fn spoiled(change: impl FnOnce(&mut v1::TrafficPolicy)) -> Result<Resource, WireError> {
    let mut message = message(&defaults(Balance::default(), None));
    if let Some(Kind::Defaults(defaults)) = &mut message.kind {
        change(defaults.policy.as_mut().expect("a policy"));
    }
    decode(&message.encode_to_vec())
}

fn balancing(change: impl FnOnce(&mut v1::Balancing)) -> Result<Resource, WireError> {
    spoiled(|policy| change(policy.balancing.get_or_insert_default()))
}

proptest! {
    #[test]
    fn every_way_of_choosing_and_asking_arrives_as_it_was(balance in balance(), probe in option::of(probe())) {
        let whole = defaults(balance.clone(), probe.clone());
        prop_assert_eq!(decode(&encode(&whole)), Ok(whole));
        let name = ServiceName::new("calc-svc").expect("a name");
        let overlay = Overlay { balance: Some(balance), probe, ..Overlay::default() };
        let own = Resource::Declaration(Declaration { overlay, ..Declaration::new(name) });
        prop_assert_eq!(decode(&encode(&own)), Ok(own));
    }
}

#[test]
fn what_is_not_said_of_balancing_is_not_sent() {
    let Some(Kind::Defaults(defaults)) = message(&defaults(Algorithm::Random.into(), None)).kind else { panic!() };
    assert_eq!(defaults.policy.unwrap().balancing, None);
}

#[test]
fn a_key_or_a_table_beyond_its_bounds_is_refused() {
    assert!(spoiled(|_policy| ()).is_ok());
    assert!(balancing(|beyond| beyond.table = 9).is_err());
    assert!(balancing(|beyond| beyond.table = v1::HashTable::RingHash.into()).is_err(), "a table without a key");
    assert!(balancing(|beyond| beyond.slow_start_us = u64::MAX).is_err());
    assert!(balancing(|beyond| beyond.key = Some(v1::HashKey { of: None })).is_err());
    let key = |of| move |beyond: &mut v1::Balancing| beyond.key = Some(v1::HashKey { of: Some(of) });
    for of in [hash_key::Of::Header("a b".to_owned()), hash_key::Of::Header("a".repeat(129))] {
        assert!(balancing(key(of)).is_err());
    }
    for of in
        [hash_key::Of::Cookie("a;b".to_owned()), hash_key::Of::Query("a=b".to_owned()), hash_key::Of::Source(false)]
    {
        assert!(balancing(key(of)).is_err());
    }
    assert!(balancing(key(hash_key::Of::Source(true))).is_ok());
}

#[test]
fn a_probe_beyond_its_bounds_is_refused() {
    let probed = |change: fn(&mut v1::Probe)| {
        let good = v1::probe::Question::Grpc(String::new());
        let (interval_us, timeout_us) = (1_000_000, 1_000_000);
        let mut probe = v1::Probe { question: Some(good), interval_us, timeout_us, healthy: 1, unhealthy: 1 };
        change(&mut probe);
        spoiled(|policy| policy.probe = Some(probe))
    };
    assert!(probed(|_probe| ()).is_ok());
    assert!(probed(|probe| probe.question = None).is_err());
    assert!(probed(|probe| probe.question = Some(v1::probe::Question::Tcp(false))).is_err());
    assert!(probed(|probe| probe.question = Some(v1::probe::Question::Grpc("a/b".to_owned()))).is_err());
    assert!(probed(|probe| probe.interval_us = 99_999).is_err());
    assert!(probed(|probe| probe.timeout_us = 60_000_001).is_err());
    assert!(probed(|probe| probe.healthy = 0).is_err());
    assert!(probed(|probe| probe.unhealthy = 101).is_err());
    let http = |path: &'static str, first, last| {
        let statuses = vec![v1::Statuses { first, last }];
        let http = v1::HttpProbe { path: path.to_owned(), statuses };
        let question = Some(v1::probe::Question::Http(http));
        spoiled(|policy| {
            let (interval_us, timeout_us, healthy, unhealthy) = (1_000_000, 1_000_000, 1, 1);
            let probe = v1::Probe { question, interval_us, timeout_us, healthy, unhealthy };
            policy.probe = Some(probe);
        })
    };
    assert!(http("/a", 200, 299).is_ok());
    assert!(http("a", 200, 299).is_err());
    assert!(http("/a", 299, 200).is_err());
    assert!(http("/a", 99, 200).is_err());
    assert!(http("/a", 200, 600).is_err());
}
