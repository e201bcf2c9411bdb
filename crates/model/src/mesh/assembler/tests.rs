use proptest::prelude::*;

use super::*;
use crate::http_route::{Backend, HttpRule, Parent};
use crate::policy::stamps::Stamp;
use crate::policy::{Limits, Telemetry};
use crate::spiffe::SpiffeId;
use crate::workload::{Address, Health, Registrar, Transport};

const NAMES: [&str; 4] = ["a", "b", "c", "gateway"];

fn name(number: usize) -> ServiceName {
    match NAMES[number % NAMES.len()] {
        "gateway" => ServiceName::in_namespace("hms-system", "gateway").unwrap(),
        other => ServiceName::new(other).unwrap(),
    }
}

fn identity(number: usize) -> SpiffeId {
    SpiffeId::parse(&format!("spiffe://k3.hms/ns/default/sa/{}", NAMES[number % NAMES.len()])).unwrap()
}

/// One thing that somebody does to a mesh.
#[derive(Debug, Clone)]
enum Step {
    Put(Box<Resource>),
    Delete(ResourceKey),
    Register(Endpoint),
    Leave(ResourceKey),
    Address(ServiceName, u8),
    Unlisted(Option<Unlisted>),
}

fn share() -> impl Strategy<Value = Share> {
    (0..4_usize, 0..3_usize, 0..3_u32).prop_map(|(service, version, weight)| Share {
        service: name(service),
        version: ["", "v1", "v2"][version].to_owned(),
        weight,
    })
}

fn http_route() -> impl Strategy<Value = Resource> {
    let parent = prop_oneof![
        1 => Just(Parent::Gateway),
        4 => (0..4_usize, prop::option::of(1..3_u16)).prop_map(|(service, port)| Parent::Service { service: name(service), port }),
    ];
    let rule = prop::collection::vec(share().prop_map(Backend::share), 0..3).prop_map(HttpRule::to);
    (0..5_u8, prop::collection::vec(parent, 1..3), prop::collection::vec(rule, 1..3)).prop_map(
        |(route, parents, rules)| {
            let name = ServiceName::new(&format!("r{route}")).unwrap();
            Resource::HttpRoute(HttpRoute { name, parents, hosts: Vec::new(), rules })
        },
    )
}

fn declaration() -> impl Strategy<Value = Resource> {
    (0..4_usize, prop::collection::vec(0..4_usize, 0..2), prop::option::of(1..3_u32)).prop_map(|(own, ids, limit)| {
        let limits = limit.map(|requests| Limits { requests, ..Limits::default() });
        Resource::Declaration(Declaration {
            identities: ids.into_iter().map(identity).collect(),
            overlay: Overlay { limits, ..Overlay::default() },
            ..Declaration::new(name(own))
        })
    })
}

fn resource() -> impl Strategy<Value = Resource> {
    let stamps = prop::collection::btree_set(prop::sample::select(&Stamp::ALL[..]), 0..3);
    let splits = (0..4_usize, prop::collection::vec(share(), 1..3));
    prop_oneof![
        4 => declaration(),
        4 => http_route(),
        2 => splits.prop_map(|(own, shares)| Resource::Split(Split { service: name(own), shares })),
        1 => (0..4_usize).prop_map(|own| Resource::Route(Route { service: name(own), rules: Vec::new() })),
        1 => (1..3_u32).prop_map(|n| {
            let telemetry = Telemetry { sample_per_million: n, ..Telemetry::default() };
            Resource::Defaults(Defaults { telemetry, ..Defaults::default() })
        }),
        1 => stamps.prop_map(|off| Resource::Stamps(Stamps { off })),
        1 => (0..3_u8).prop_map(|n| Resource::Gateway(Gateway { hosts: vec![format!("h{n}")], ..Gateway::default() })),
        1 => Just(Resource::Egress(Egress::default())),
    ]
}

fn endpoint() -> impl Strategy<Value = Endpoint> {
    (0..4_usize, 0..3_u8, 0..2_usize, any::<bool>(), 0..4_usize).prop_map(|(own, id, version, healthy, speaks_as)| {
        Endpoint {
            service: name(own),
            id: id.to_string(),
            address: Address { ip: [10, 0, 0, id].into(), port: 1 },
            app_port: 5000 + u16::from(id),
            version: ["v1", "v2"][version].to_owned(),
            zone: String::new(),
            health: if healthy { Health::Healthy } else { Health::Unhealthy },
            source: Registrar::Api,
            transport: if speaks_as == 3 { Transport::Plain } else { Transport::Mesh(identity(speaks_as)) },
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => resource().prop_map(|own| Step::Put(Box::new(own))),
        3 => resource().prop_map(|gone| Step::Delete(gone.key())),
        4 => endpoint().prop_map(Step::Register),
        2 => endpoint().prop_map(|gone| Step::Leave(ResourceKey::endpoint(&gone.service, &gone.id))),
        1 => (0..4_usize, any::<u8>()).prop_map(|(own, last)| Step::Address(name(own), last)),
        1 => prop_oneof![Just(None), Just(Some(Unlisted::Refused))].prop_map(Step::Unlisted),
    ]
}

fn take(inputs: &mut Inputs, step: Step) {
    match step {
        Step::Put(resource) => {
            drop(Arc::make_mut(&mut inputs.resources).insert(resource.key(), Arc::new(*resource)));
        }
        Step::Delete(key) => drop(Arc::make_mut(&mut inputs.resources).remove(&key)),
        Step::Register(endpoint) => {
            let key = ResourceKey::endpoint(&endpoint.service, &endpoint.id);
            inputs.endpoints.insert(key, Arc::new(endpoint));
        }
        Step::Leave(key) => drop(inputs.endpoints.remove(&key)),
        Step::Address(service, last) => {
            Arc::make_mut(&mut inputs.addresses).insert(service, vec![[240, 0, 0, last].into()]);
        }
        Step::Unlisted(unlisted) => inputs.unlisted = unlisted,
    }
}

fn sni(service: &ServiceName) -> String {
    format!("{service}.hms")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn change_by_change_it_comes_to_the_same_as_from_scratch(steps in prop::collection::vec(prop::collection::vec(step(), 1..4), 1..24)) {
        let mut inputs = Inputs::default();
        let mut assembler = Assembler::default();
        for together in steps {
            for step in together {
                take(&mut inputs, step);
            }
            let (mesh, findings) = assembler.update(inputs.clone(), sni);
            let (expected, said) = Assembler::default().update(inputs.clone(), sni);
            prop_assert_eq!(mesh, expected);
            prop_assert_eq!(findings, said);
        }
    }
}

#[test]
fn whoever_is_not_concerned_is_not_touched() {
    let mut inputs = Inputs::default();
    let put = |inputs: &mut Inputs, resource: Resource| take(inputs, Step::Put(Box::new(resource)));
    for own in 0..3 {
        put(&mut inputs, Resource::Declaration(Declaration::new(name(own))));
    }
    let route = |to: usize| {
        Resource::HttpRoute(HttpRoute {
            name: ServiceName::new("r").unwrap(),
            parents: vec![Parent::Service { service: name(0), port: None }],
            hosts: Vec::new(),
            rules: vec![HttpRule::to(vec![Backend::all(name(to))])],
        })
    };
    put(&mut inputs, route(3));
    let mut assembler = Assembler::default();
    let (before, findings) = assembler.update(inputs.clone(), sni);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(before.services[&name(0)].service.http[0].rules[0].backends[0].refused.is_some());
    let untouched = |before: &Mesh, after: &Mesh| {
        (0..3).map(|own| Arc::ptr_eq(&before.services[&name(own)], &after.services[&name(own)])).collect::<Vec<_>>()
    };
    // The service to which the route leads comes to be: the route is another one, for those whom it is about.
    put(&mut inputs, Resource::Declaration(Declaration::new(name(3))));
    let (after, _) = assembler.update(inputs.clone(), sni);
    assert_eq!(untouched(&before, &after), [false, true, true]);
    assert!(after.services[&name(0)].service.http[0].rules[0].backends[0].refused.is_none());
    // An endpoint of it concerns itself only.
    take(
        &mut inputs,
        Step::Register(Endpoint {
            service: name(3),
            id: "1".to_owned(),
            address: Address { ip: [10, 0, 0, 1].into(), port: 1 },
            app_port: 0,
            version: "v1".to_owned(),
            zone: String::new(),
            health: Health::Healthy,
            source: Registrar::Api,
            transport: Transport::Plain,
        }),
    );
    let (last, findings) = assembler.update(inputs, sni);
    assert_eq!(untouched(&after, &last), [true, true, true]);
    assert!(findings.is_empty(), "{findings:?}");
}
