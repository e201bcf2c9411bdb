//! The file that leads a proxy without a control plane: it comes back as it was, and nothing else is believed.

use std::net::IpAddr;
use std::time::Duration;

use hms_model::names::ServiceName;
use hms_model::policy::{Algorithm, TrafficPolicy};
use hms_model::standalone::{
    Domain, Family, HostName, HostPort, HostRoute, PathMatch, Standalone, StaticListener, StaticProtocol,
    StaticService, StaticTarget, Take, TargetHost, VirtualHost,
};
use hms_model::workload::Health;
use hms_wire::{WireError, decode_standalone, encode_standalone};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

fn target() -> impl Strategy<Value = StaticTarget> {
    let family = select(vec![Family::Both, Family::V4, Family::V6, Family::V4First]);
    let name = ("[a-z]{1,8}(\\.[a-z]{1,8}){0,3}", family, select(vec![Take::All, Take::First]), 1..3600_u64);
    let name = name.prop_map(|(name, family, take, seconds)| {
        TargetHost::Name(HostName { name, family, take, every: Duration::from_secs(seconds) })
    });
    let host = prop_oneof![any::<IpAddr>().prop_map(TargetHost::Address), name];
    let health = select(vec![Health::Healthy, Health::Unhealthy, Health::Draining]);
    (host, 1..=u16::MAX, "[a-z]{0,5}", health).prop_map(|(host, port, zone, health)| StaticTarget {
        host,
        port,
        zone,
        health,
    })
}

fn route() -> impl Strategy<Value = HostRoute> {
    let path = prop_oneof![
        "/[a-z/]{0,8}".prop_map(PathMatch::Prefix),
        "(/[a-z]{1,4}){1,3}".prop_map(PathMatch::Segments),
        "(/[a-z]{1,4}){1,3}".prop_map(PathMatch::Exact),
    ];
    let usable = path.prop_filter("a path that can come", PathMatch::can_match);
    let balance = select(vec![Algorithm::RoundRobin, Algorithm::LeastRequest, Algorithm::Random]);
    (usable, balance, "[a-z]{0,5}:[0-9]{1,3}").prop_map(|(path, balance, origin)| HostRoute {
        path,
        service: ServiceName::new("a").expect("a name"),
        policy: TrafficPolicy { balance: balance.into(), ..TrafficPolicy::default() },
        origin,
    })
}

fn standalone() -> impl Strategy<Value = Standalone> {
    let domains =
        vec![Domain::Any, Domain::Exact("a:80".into()), Domain::Suffix(".b".into()), Domain::Prefix("c.".into())];
    let host = (Just(domains), vec(route(), 0..4)).prop_map(|(domains, routes)| VirtualHost {
        name: "v".into(),
        domains,
        routes,
    });
    let host_port = select(vec![HostPort::Kept, HostPort::Ignored, HostPort::IgnoredIfOwn]);
    let listener = (host_port, host, any::<(IpAddr, u16)>()).prop_map(|(host_port, host, address)| StaticListener {
        name: "l".into(),
        address: address.into(),
        host_port,
        hosts: vec![host],
    });
    let protocol = select(vec![StaticProtocol::Http1, StaticProtocol::Http2]);
    let service = (protocol, vec(target(), 0..4)).prop_map(|(protocol, targets)| StaticService {
        name: ServiceName::new("a").expect("a name"),
        policy: TrafficPolicy::default(),
        protocol,
        targets,
    });
    (proptest::option::of(any::<(IpAddr, u16)>()), listener, service).prop_map(|(admin, listener, service)| {
        Standalone { admin: admin.map(Into::into), listeners: vec![listener], services: vec![service] }
    })
}

proptest! {
    #[test]
    fn it_comes_back_as_it_was(standalone in standalone()) {
        prop_assert_eq!(decode_standalone(&encode_standalone(&standalone)), Ok(standalone));
    }

    #[test]
    fn a_changed_or_cut_file_is_refused_or_whole(standalone in standalone(), at in any::<Index>(), bit in 0..8_u32) {
        let mut bytes = encode_standalone(&standalone);
        let place = at.index(bytes.len());
        prop_assert!(decode_standalone(&bytes[..place]).is_err() || place > 8);
        bytes[place] ^= 1 << bit;
        if let Ok(other) = decode_standalone(&bytes) {
            prop_assert_eq!(other.check(), Ok(()));
        }
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in vec(any::<u8>(), 0..300)) {
        let file = [b"hmssnap1".as_slice(), &bytes].concat();
        let _read = decode_standalone(&file).is_ok();
        prop_assert!(decode_standalone(&bytes).is_err());
    }
}

#[test]
fn what_leads_nowhere_or_stands_twice_is_refused() {
    let listener = |name: &str| StaticListener {
        name: name.into(),
        address: ([127, 0, 0, 1], 80).into(),
        host_port: HostPort::Kept,
        hosts: vec![VirtualHost { name: "v".into(), domains: vec![Domain::Any], routes: Vec::new() }],
    };
    let twice = Standalone { listeners: vec![listener("a"), listener("b")], ..Standalone::default() };
    let error = decode_standalone(&encode_standalone(&twice)).unwrap_err();
    assert!(error.to_string().contains("stands twice"), "{error}");
    let mut nowhere = Standalone { listeners: vec![listener("a")], ..Standalone::default() };
    nowhere.listeners[0].hosts[0].routes.push(HostRoute {
        path: PathMatch::Prefix("/".into()),
        service: ServiceName::new("ghost").unwrap(),
        policy: TrafficPolicy::default(),
        origin: String::new(),
    });
    assert!(decode_standalone(&encode_standalone(&nowhere)).unwrap_err().to_string().contains("ghost"));
    assert_eq!(decode_standalone(b"hmslast1"), Err(WireError::Kind));
}
