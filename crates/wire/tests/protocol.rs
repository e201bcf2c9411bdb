//! The rules of the two machines, one by one.

use std::collections::BTreeMap;

use bytes::Bytes;
use hms_model::names::ServiceName;
use hms_model::resource::{Gateway, Resource};
use hms_model::service::Entry;
use hms_model::snapshot::Scope;
use hms_wire::delta::client::Client;
use hms_wire::delta::server::{Desired, Encoded, Server};
use hms_wire::delta::{HELD, ProtocolError, RESPONSE_BYTES, SUBSCRIPTIONS};
use hms_wire::proto::envoy::service::discovery::v3 as discovery;
use hms_wire::proto::google::rpc::Status;
use hms_wire::{RESOURCE_BYTES, TYPE_URL, encode};

fn node(id: &str) -> discovery::Node {
    discovery::Node { id: id.to_owned(), ..Default::default() }
}

fn request() -> discovery::DeltaDiscoveryRequest {
    discovery::DeltaDiscoveryRequest { type_url: TYPE_URL.to_owned(), ..Default::default() }
}

fn first() -> discovery::DeltaDiscoveryRequest {
    discovery::DeltaDiscoveryRequest { node: Some(node("p1")), ..request() }
}

fn connected() -> Server {
    let mut server = Server::new();
    let subscribe = vec!["mesh".to_owned()];
    server
        .on_request(discovery::DeltaDiscoveryRequest { resource_names_subscribe: subscribe, ..first() })
        .expect("a first request");
    server
}

fn resource(resource: &Resource, version: &str) -> Desired {
    let encoded = Encoded { version: version.into(), bytes: encode(resource).into() };
    Desired { resources: [(resource.key(), encoded)].into(), ..Desired::default() }
}

fn entry(name: &str) -> Resource {
    Resource::Entry(Entry {
        name: ServiceName::new(name).expect("a name"),
        aliases: Vec::new(),
        addresses: Vec::new(),
        ports: Vec::new(),
    })
}

fn acknowledgement(nonce: &str) -> discovery::DeltaDiscoveryRequest {
    discovery::DeltaDiscoveryRequest { response_nonce: nonce.to_owned(), ..request() }
}

#[test]
fn nothing_is_sent_before_the_proxy_has_introduced_itself() {
    assert!(Server::new().respond(&resource(&entry("a"), "1"), 1).is_none());
}

#[test]
fn a_stream_has_one_node_and_one_type() {
    assert_eq!(Server::new().on_request(request()).unwrap_err(), ProtocolError::NoNode);
    let nameless = discovery::DeltaDiscoveryRequest { node: Some(node("")), ..request() };
    assert_eq!(Server::new().on_request(nameless).unwrap_err(), ProtocolError::NoNode);
    let foreign = discovery::DeltaDiscoveryRequest { type_url: "other".to_owned(), ..first() };
    assert_eq!(Server::new().on_request(foreign).unwrap_err(), ProtocolError::TypeUrl);
    let changed = discovery::DeltaDiscoveryRequest { node: Some(node("p2")), ..request() };
    assert_eq!(connected().on_request(changed).unwrap_err(), ProtocolError::NodeChanged);
    assert!(connected().on_request(first()).unwrap().node.is_none(), "the same node again is no news");
}

#[test]
fn what_was_never_sent_cannot_be_acknowledged_or_refused() {
    for nonce in ["1", "0", "x", "-1", "99999999999999999999999"] {
        assert_eq!(connected().on_request(acknowledgement(nonce)).unwrap_err(), ProtocolError::NeverSent, "{nonce}");
    }
    let refusal = discovery::DeltaDiscoveryRequest { error_detail: Some(Status::default()), ..request() };
    assert_eq!(connected().on_request(refusal).unwrap_err(), ProtocolError::RefusalOfNothing);
    let late = [("entry/default/a".to_owned(), "1".to_owned())].into();
    let late = discovery::DeltaDiscoveryRequest { initial_resource_versions: late, ..request() };
    assert_eq!(connected().on_request(late).unwrap_err(), ProtocolError::LateVersions);
}

#[test]
fn an_acknowledgement_said_twice_counts_once() {
    let mut server = connected();
    let response = server.respond(&resource(&entry("a"), "1"), 7).unwrap();
    assert_eq!(response.system_version_info, "7");
    let events = server.on_request(acknowledgement(&response.nonce)).unwrap();
    assert_eq!(events.acknowledged.unwrap().revision, Some(7));
    assert!(server.on_request(acknowledgement(&response.nonce)).unwrap().acknowledged.is_none());
}

#[test]
fn changes_made_while_a_response_is_under_way_merge_into_the_next() {
    let mut server = connected();
    let response = server.respond(&resource(&entry("a"), "1"), 1).unwrap();
    assert!(server.is_waiting());
    for revision in 2..50 {
        assert!(server.respond(&resource(&entry("b"), &revision.to_string()), revision).is_none());
    }
    server.on_request(acknowledgement(&response.nonce)).unwrap();
    let next = server.respond(&resource(&entry("b"), "49"), 49).unwrap();
    assert_eq!(next.resources.len(), 1);
    assert_eq!(next.removed_resources, ["entry/default/a"]);
    server.on_request(acknowledgement(&next.nonce)).unwrap();
    assert!(server.respond(&resource(&entry("b"), "49"), 50).is_none());
    assert_eq!(server.revision(), Some(50), "a change that does not concern the proxy needs no response");
}

#[test]
fn a_response_is_ordered_by_kind_and_then_by_name() {
    let mut server = connected();
    let mut desired = Desired::default();
    for resource in [Resource::Gateway(Gateway::default()), entry("b"), entry("a")] {
        let encoded = Encoded { version: "1".into(), bytes: encode(&resource).into() };
        desired.resources.insert(resource.key(), encoded);
    }
    let response = server.respond(&desired, 1).unwrap();
    let names: Vec<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
    assert_eq!(names, ["entry/default/a", "entry/default/b", "gateway/mesh/mesh"]);
}

#[test]
fn a_subscription_that_leads_nowhere_is_answered_once() {
    let mut server = connected();
    let name = Scope::Service(ServiceName::new("ghost").unwrap());
    let subscribe = vec![name.subscription(), "future/x".to_owned()];
    let ask = discovery::DeltaDiscoveryRequest { resource_names_subscribe: subscribe, ..request() };
    assert_eq!(server.on_request(ask.clone()).unwrap().subscribed, std::slice::from_ref(&name));
    let desired = Desired { missing: [name].into(), ..Desired::default() };
    let response = server.respond(&desired, 1).unwrap();
    assert_eq!(response.removed_resources, ["future/x", "service/default/ghost"]);
    server.on_request(acknowledgement(&response.nonce)).unwrap();
    assert!(server.respond(&desired, 2).is_none());
    assert!(server.on_request(ask).unwrap().subscribed.is_empty());
    let again = server.respond(&desired, 3).expect("asked again, it is answered again");
    server.on_request(acknowledgement(&again.nonce)).unwrap();
    assert!(server.respond(&Desired::default(), 4).is_none(), "now it leads somewhere");
    assert!(server.respond(&desired, 5).is_some(), "and now nowhere again");
}

#[test]
fn names_that_are_no_scopes_and_floods_of_names_end_the_stream() {
    let subscribe = |names: Vec<String>| {
        let ask = discovery::DeltaDiscoveryRequest { resource_names_subscribe: names, ..request() };
        connected().on_request(ask).unwrap_err()
    };
    assert_eq!(subscribe(vec!["route/default/a".to_owned()]), ProtocolError::NotAScope);
    assert_eq!(subscribe(vec!["x".repeat(513)]), ProtocolError::LongName);
    let flood = (0..1_000_000).map(|number| format!("service/default/s{number}")).collect();
    assert_eq!(subscribe(flood), ProtocolError::TooMany(SUBSCRIPTIONS, "subscriptions"));
    let unknown = vec!["service/default/never".to_owned(), "nonsense".to_owned()];
    let ask = discovery::DeltaDiscoveryRequest { resource_names_unsubscribe: unknown, ..request() };
    assert!(connected().on_request(ask).unwrap().unsubscribed.is_empty());
}

#[test]
fn a_refused_resource_is_sent_again_only_when_it_changes() {
    let mut server = connected();
    let refuse = |nonce: &str| {
        let status = Status { code: 3, message: "no".to_owned(), details: Vec::new() };
        discovery::DeltaDiscoveryRequest { error_detail: Some(status), ..acknowledgement(nonce) }
    };
    let good = server.respond(&resource(&entry("a"), "1"), 1).unwrap();
    server.on_request(acknowledgement(&good.nonce)).unwrap();
    let bad = server.respond(&resource(&entry("a"), "2"), 2).unwrap();
    let events = server.on_request(refuse(&bad.nonce)).unwrap();
    assert_eq!(events.acknowledged.unwrap().refused[0].reason, "no");
    assert!(server.respond(&resource(&entry("a"), "2"), 3).is_none());
    assert_eq!(server.refused().count(), 1);
    let back = server.respond(&resource(&entry("a"), "1"), 4).expect("the earlier version is not taken for granted");
    server.on_request(acknowledgement(&back.nonce)).unwrap();
    assert_eq!(server.refused().count(), 0);
}

#[test]
fn a_refusal_must_name_what_was_sent() {
    let mut server = connected();
    let mut client = Client::new(node("p1"), BTreeMap::new());
    client.connected();
    let mut response = server.respond(&resource(&entry("a"), "1"), 1).unwrap();
    response.resources[0].name = "entry/default/b".to_owned();
    let update = client.on_response(response).unwrap();
    assert!(update.upserts[0].resource.is_err(), "a resource under a name that is not its own");
    let refusal = client.acknowledge(&update.nonce, Vec::new()).unwrap();
    assert_eq!(server.on_request(refusal).unwrap_err(), ProtocolError::NeverSent);
}

#[test]
fn a_change_beyond_one_response_follows_in_parts() {
    let mut server = connected();
    let count = 2 * RESPONSE_BYTES / RESOURCE_BYTES;
    let bytes = Bytes::from(vec![0; RESOURCE_BYTES]);
    let mut desired = Desired::default();
    for number in 0..count {
        let encoded = Encoded { version: "1".into(), bytes: bytes.clone() };
        desired.resources.insert(entry(&format!("s{number}")).key(), encoded);
    }
    let (mut parts, mut received) = (0, 0);
    while let Some(response) = server.respond(&desired, 5) {
        parts += 1;
        received += response.resources.len();
        assert!(response.resources.len() * RESOURCE_BYTES <= RESPONSE_BYTES);
        assert_eq!(server.revision(), None, "a part does not reach the revision");
        server.on_request(acknowledgement(&response.nonce)).unwrap();
        if received == count {
            break;
        }
    }
    assert_eq!(received, count);
    assert!(parts > 2);
    assert_eq!(server.revision(), Some(5));
}

#[test]
fn a_proxy_refuses_responses_that_break_the_rules() {
    let response = |change: fn(&mut discovery::DeltaDiscoveryResponse)| {
        let mut client = Client::new(node("p1"), BTreeMap::new());
        client.connected();
        let mut response = connected().respond(&resource(&entry("a"), "1"), 1).unwrap();
        change(&mut response);
        client.on_response(response).map(|_update| ()).unwrap_err()
    };
    assert_eq!(response(|response| response.type_url.clear()), ProtocolError::TypeUrl);
    assert_eq!(response(|response| response.nonce.clear()), ProtocolError::NoNonce);
    assert_eq!(response(|response| response.resources[0].version.clear()), ProtocolError::NoVersion);
    assert_eq!(
        response(|response| response.removed_resources.push("entry/default/a".to_owned())),
        ProtocolError::Twice
    );
    assert_eq!(response(|response| response.removed_resources.push("x".repeat(513))), ProtocolError::LongName);
    assert_eq!(
        response(|response| response.resources = vec![discovery::Resource::default(); HELD + 1]),
        ProtocolError::TooMany(HELD, "resources")
    );
    let mut client = Client::new(node("p1"), BTreeMap::new());
    let sent = connected().respond(&resource(&entry("a"), "1"), 1).unwrap();
    assert_eq!(client.on_response(sent.clone()).map(|_update| ()), Err(ProtocolError::NotConnected));
    client.connected();
    client.on_response(sent.clone()).unwrap();
    assert_eq!(client.on_response(sent).map(|_update| ()), Err(ProtocolError::TooEager));
}

#[test]
fn a_full_proxy_refuses_what_is_new_and_takes_what_is_not() {
    let known = (0..HELD).map(|number| (format!("entry/default/s{number}"), "1".to_owned())).collect();
    let mut client = Client::new(node("p1"), known);
    client.connected();
    let mut desired = resource(&entry("new"), "1");
    desired.resources.extend(resource(&entry("s7"), "2").resources);
    let response = connected().respond(&desired, 1).unwrap();
    let update = client.on_response(response).unwrap();
    let taken: Vec<bool> = update.upserts.iter().map(|upsert| upsert.resource.is_ok()).collect();
    assert_eq!(taken, [false, true]);
    client.acknowledge(&update.nonce, Vec::new()).unwrap();
    assert_eq!(client.held().len(), HELD);
    assert_eq!(client.held()["entry/default/s7"], "2");
}
