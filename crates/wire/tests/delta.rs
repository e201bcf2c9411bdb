//! The two machines back to back, over a connection that may break at any moment.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr};

use bytes::Bytes;
use hms_model::names::ServiceName;
use hms_model::resource::{Resource, ResourceKey};
use hms_model::service::Entry;
use hms_model::snapshot::Scope;
use hms_model::workload::{Address, Endpoint, Health, Registrar, Transport};
use hms_wire::delta::client::{Client, Update};
use hms_wire::delta::server::{Desired, Encoded, Server};
use hms_wire::encode;
use hms_wire::proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Node};
use hms_wire::proto::hms::v1::RefusedResource;
use proptest::prelude::*;

const SERVICES: u8 = 4;
const ENDPOINTS: u8 = 3;

fn service(index: u8) -> ServiceName {
    ServiceName::new(&format!("s{index}")).expect("a name")
}

/// Generations that no proxy can read.
fn is_unreadable(generation: u8) -> bool {
    generation % 7 == 3
}

/// Generations that this proxy will not apply.
fn is_unwanted(version: &str) -> bool {
    version.strip_prefix('g').and_then(|text| text.parse::<u8>().ok()).is_some_and(|generation| generation % 7 == 5)
}

fn endpoint(owner: u8, id: u8, generation: u8) -> (ResourceKey, Encoded) {
    let endpoint = Endpoint {
        service: service(owner),
        id: id.to_string(),
        address: Address { ip: IpAddr::V4(Ipv4Addr::LOCALHOST), port: 1 },
        app_port: 0,
        version: format!("g{generation}"),
        zone: String::new(),
        health: Health::Healthy,
        source: Registrar::Api,
        transport: Transport::Plain,
    };
    let resource = Resource::Endpoint(endpoint);
    let bytes = if is_unreadable(generation) { Bytes::from_static(b"\xff") } else { encode(&resource).into() };
    (resource.key(), Encoded { version: format!("g{generation}").into(), bytes })
}

fn entry(index: u8) -> (ResourceKey, Encoded) {
    let resource =
        Resource::Entry(Entry { name: service(index), aliases: Vec::new(), addresses: Vec::new(), ports: Vec::new() });
    (resource.key(), Encoded { version: "entry".into(), bytes: encode(&resource).into() })
}

#[derive(Debug, Clone)]
enum Step {
    Register { owner: u8, id: u8, generation: u8 },
    Deregister { owner: u8, id: u8 },
    List(u8),
    Unlist(u8),
    Subscribe(u8),
    Unsubscribe(u8),
    TellSubscriptions,
    ControlHears,
    ControlSpeaks,
    ProxyHears,
    ProxyApplies,
    Break { applied_all_the_same: bool },
    Connect,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..SERVICES, 0..ENDPOINTS, 0..21_u8)
            .prop_map(|(owner, id, generation)| Step::Register { owner, id, generation }),
        2 => (0..SERVICES, 0..ENDPOINTS).prop_map(|(owner, id)| Step::Deregister { owner, id }),
        1 => (0..SERVICES).prop_map(Step::List),
        1 => (0..SERVICES).prop_map(Step::Unlist),
        2 => (0..SERVICES).prop_map(Step::Subscribe),
        1 => (0..SERVICES).prop_map(Step::Unsubscribe),
        2 => Just(Step::TellSubscriptions),
        4 => Just(Step::ControlHears),
        4 => Just(Step::ControlSpeaks),
        4 => Just(Step::ProxyHears),
        4 => Just(Step::ProxyApplies),
        1 => any::<bool>().prop_map(|applied_all_the_same| Step::Break { applied_all_the_same }),
        2 => Just(Step::Connect),
    ]
}

struct World {
    listed: BTreeSet<u8>,
    registered: BTreeMap<(u8, u8), u8>,
    revision: u64,
    server: Option<Server>,
    to_server: VecDeque<DeltaDiscoveryRequest>,
    to_client: VecDeque<DeltaDiscoveryResponse>,
    client: Client,
    /// Received, not yet applied.
    inbox: Option<Update>,
    /// What the proxy truly runs with.
    applied: BTreeMap<String, String>,
}

impl World {
    fn new() -> Self {
        let mut client = Client::new(Node { id: "p1".to_owned(), ..Node::default() }, BTreeMap::new());
        client.subscribe([Scope::Mesh]);
        Self {
            listed: BTreeSet::new(),
            registered: BTreeMap::new(),
            revision: 0,
            server: None,
            to_server: VecDeque::new(),
            to_client: VecDeque::new(),
            client,
            inbox: None,
            applied: BTreeMap::new(),
        }
    }

    fn desired(&self, scopes: &BTreeSet<Scope>) -> Desired {
        let mut desired = Desired::default();
        for scope in scopes {
            match scope {
                Scope::Mesh => desired.resources.extend(self.listed.iter().map(|index| entry(*index))),
                Scope::Gateway => {}
                Scope::Service(name) => {
                    let own = self.registered.iter().filter(|((owner, _), _)| service(*owner) == *name);
                    let before = desired.resources.len();
                    desired.resources.extend(own.map(|((owner, id), generation)| endpoint(*owner, *id, *generation)));
                    if desired.resources.len() == before {
                        desired.missing.insert(scope.clone());
                    }
                }
            }
        }
        desired
    }

    fn take(&mut self, step: &Step) {
        self.revision += 1;
        match *step {
            Step::Register { owner, id, generation } => drop(self.registered.insert((owner, id), generation)),
            Step::Deregister { owner, id } => drop(self.registered.remove(&(owner, id))),
            Step::List(index) => drop(self.listed.insert(index)),
            Step::Unlist(index) => drop(self.listed.remove(&index)),
            Step::Subscribe(index) => {
                let surplus = self.client.subscribe([Scope::Service(service(index))]);
                assert!(surplus.is_empty());
            }
            Step::Unsubscribe(index) => self.client.unsubscribe([Scope::Service(service(index))]),
            Step::TellSubscriptions => self.to_server.extend(self.client.next_request()),
            Step::ControlHears => self.control_hears(),
            Step::ControlSpeaks => self.control_speaks(),
            Step::ProxyHears => self.proxy_hears(),
            Step::ProxyApplies => self.proxy_applies(),
            Step::Break { applied_all_the_same } => self.break_off(applied_all_the_same),
            Step::Connect => self.connect(),
        }
        self.holds();
    }

    fn control_hears(&mut self) {
        let (Some(server), Some(request)) = (&mut self.server, self.to_server.pop_front()) else { return };
        server.on_request(request).expect("a legal request");
    }

    fn control_speaks(&mut self) {
        let Some(mut server) = self.server.take() else { return };
        let desired = self.desired(server.subscribed());
        self.to_client.extend(server.respond(&desired, self.revision));
        self.server = Some(server);
    }

    fn proxy_hears(&mut self) {
        if self.inbox.is_none()
            && let Some(response) = self.to_client.pop_front()
        {
            self.inbox = Some(self.client.on_response(response).expect("a legal response"));
        }
    }

    fn proxy_applies(&mut self) {
        let Some(update) = self.inbox.take() else { return };
        let nonce = update.nonce.clone();
        let refused = self.apply(update);
        self.to_server.extend(self.client.acknowledge(&nonce, refused));
    }

    fn apply(&mut self, update: Update) -> Vec<RefusedResource> {
        let mut refused = Vec::new();
        for upsert in update.upserts {
            if upsert.resource.is_err() {
                continue;
            }
            if is_unwanted(&upsert.version) {
                refused.push(RefusedResource { name: upsert.name, reason: "no".to_owned(), ..Default::default() });
            } else {
                self.applied.insert(upsert.name, upsert.version);
            }
        }
        for name in update.removed {
            self.applied.remove(&name);
        }
        refused
    }

    fn break_off(&mut self, applied_all_the_same: bool) {
        self.server = None;
        self.to_server.clear();
        self.to_client.clear();
        self.client.disconnected();
        if let Some(update) = self.inbox.take()
            && applied_all_the_same
        {
            let nonce = update.nonce.clone();
            let refused = self.apply(update);
            assert!(self.client.acknowledge(&nonce, refused).is_none(), "there is no stream to acknowledge on");
        }
    }

    fn connect(&mut self) {
        if self.server.is_none() {
            self.server = Some(Server::new());
            self.to_server.push_back(self.client.connected());
        }
    }

    /// No version is recorded that is not applied, and nothing is applied that is not recorded.
    fn holds(&self) {
        for (name, version) in self.client.held() {
            assert!(version.is_empty() || self.applied.get(name) == Some(version), "{name} is said to be {version}");
        }
        for name in self.applied.keys() {
            assert!(self.client.held().contains_key(name), "{name} is applied, but nobody knows");
        }
        assert!(self.to_client.len() <= 1, "responses queue up");
    }

    /// Lets everything come to rest and checks that the proxy has what it should.
    fn settle(&mut self) {
        self.connect();
        for _round in 0..64 {
            for step in
                [Step::TellSubscriptions, Step::ControlHears, Step::ControlSpeaks, Step::ProxyHears, Step::ProxyApplies]
            {
                self.take(&step);
            }
        }
        let server = self.server.as_ref().expect("a stream is open");
        assert!(self.to_server.is_empty() && self.to_client.is_empty() && !server.is_waiting());
        let desired = self.desired(server.subscribed());
        let mut refused = BTreeSet::new();
        for (key, encoded) in &desired.resources {
            let name = key.to_string();
            let generation = encoded.version.strip_prefix('g').and_then(|text| text.parse().ok());
            if generation.is_some_and(is_unreadable) || is_unwanted(&encoded.version) {
                assert_eq!(self.client.held()[&name], "", "refused, so the version is not held");
                assert_eq!(server.held(key), None);
                refused.insert(name);
            } else {
                assert_eq!(self.client.held()[&name], *encoded.version);
                assert_eq!(self.applied[&name], *encoded.version);
                assert_eq!(server.held(key), Some(&encoded.version));
            }
        }
        assert_eq!(self.client.held().len(), desired.resources.len(), "nothing else is left");
        let reported: BTreeSet<String> = server.refused().map(|refused| refused.name.clone()).collect();
        assert_eq!(reported, refused);
        for index in 0..SERVICES {
            let scope = Scope::Service(service(index));
            assert_eq!(self.client.is_subscribed(&scope), server.subscribed().contains(&scope));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_the_proxy_ends_with_what_is_desired(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in &steps {
            world.take(step);
        }
        world.settle();
    }

    #[test]
    fn a_proxy_that_restarts_with_what_it_holds_converges_as_well(
        before in prop::collection::vec(step(), 0..60),
        after in prop::collection::vec(step(), 0..30),
    ) {
        let mut world = World::new();
        for step in &before {
            world.take(step);
        }
        world.break_off(false);
        let known = world.client.held().clone();
        world.client = Client::new(Node { id: "p2".to_owned(), ..Node::default() }, known);
        world.client.subscribe([Scope::Mesh]);
        for step in &after {
            world.take(step);
        }
        world.settle();
    }
}
