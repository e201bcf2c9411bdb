//! Messages octet by octet, as hosts write them, and a directory to ask about.

use std::collections::BTreeMap;
use std::net::IpAddr;

use domain::base::iana::Rtype;
use domain::base::message::Message;
use domain::rdata::AllRecordData;
use hms_dns::directory::Directory;
use hms_dns::{Answer, Query, Reply, Terms, Transport, answer};
use hms_model::names::ServiceName;
use hms_model::port::{AppProtocol, Port};
use hms_model::service::Entry;

pub(crate) const A: u16 = 1;
pub(crate) const CNAME: u16 = 5;
pub(crate) const SOA: u16 = 6;
pub(crate) const PTR: u16 = 12;
pub(crate) const TXT: u16 = 16;
pub(crate) const AAAA: u16 = 28;
pub(crate) const SRV: u16 = 33;
pub(crate) const HTTPS: u16 = 65;

/// The id of every query that does not choose another.
pub(crate) const ID: u16 = 0x1234;

pub(crate) const UDP: Terms<'static> = Terms { namespace: "default", transport: Transport::Udp, search: &[] };

/// A directory of a few services.
#[derive(Default)]
pub(crate) struct Services(pub(crate) BTreeMap<ServiceName, Entry>);

impl Directory for Services {
    fn is_known(&self) -> bool {
        !self.0.is_empty()
    }

    fn entry(&self, name: &ServiceName) -> Option<&Entry> {
        self.0.get(name)
    }

    fn aliased(&self, host: &str) -> Option<&Entry> {
        self.0.values().find(|entry| entry.aliases.iter().any(|alias| alias == host))
    }

    fn at(&self, address: IpAddr) -> Option<&Entry> {
        self.0.values().find(|entry| entry.addresses.contains(&address))
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.0.keys().any(|name| name.namespace() == namespace)
    }
}

pub(crate) fn directory() -> Services {
    let entry = |namespace: &str, name: &str, last: u8, ports: &[(u16, &str, AppProtocol)]| {
        let name = ServiceName::in_namespace(namespace, name).unwrap();
        let port = |(number, name, protocol): &(u16, &str, AppProtocol)| Port {
            number: *number,
            name: (*name).to_owned(),
            protocol: *protocol,
            target: None,
        };
        let addresses = vec![
            IpAddr::from([240, 0, 0, last]),
            IpAddr::from([0xfd48, 0x4d53, 0x6d65, 0x7368, 0, 0, 0, u16::from(last)]),
        ];
        let aliases = if last == 4 { vec!["gateway.local".to_owned()] } else { Vec::new() };
        (name.clone(), Entry { name, aliases, addresses, ports: ports.iter().map(port).collect() })
    };
    let (detect, grpc) = (AppProtocol::Detect, AppProtocol::Grpc);
    Services(BTreeMap::from([
        entry("default", "payment-svc", 1, &[(80, "http", detect), (9000, "", grpc)]),
        entry("default", "alerts-svc", 2, &[(50051, "grpc", grpc), (50052, "grpc", detect), (80, "http", detect)]),
        entry("prod", "calc", 3, &[]),
        entry("hms-system", "gateway", 4, &[]),
    ]))
}

/// A name as it stands in a message.
pub(crate) fn name(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in text.split('.').filter(|label| !label.is_empty()) {
        bytes.push(u8::try_from(label.len()).unwrap());
        bytes.extend_from_slice(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

pub(crate) fn header(id: u16, flags: u16, counts: [u16; 4]) -> Vec<u8> {
    [id, flags].iter().chain(&counts).flat_map(|number| number.to_be_bytes()).collect()
}

pub(crate) fn question(host: &str, kind: u16) -> Vec<u8> {
    [name(host), kind.to_be_bytes().to_vec(), vec![0, 1]].concat()
}

pub(crate) fn query(host: &str, kind: u16) -> Vec<u8> {
    [header(ID, 0x0100, [1, 0, 0, 0]), question(host, kind)].concat()
}

/// A query with an EDNS record.
pub(crate) fn query_edns(host: &str, kind: u16, payload: u16, version: u8, flags: u16) -> Vec<u8> {
    let head = [vec![0, 0, 41], payload.to_be_bytes().to_vec(), vec![0, version], flags.to_be_bytes().to_vec()];
    [header(ID, 0x0100, [1, 0, 0, 1]), question(host, kind), head.concat(), vec![0, 0]].concat()
}

/// A record as it stands in a message.
pub(crate) fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let length = u16::try_from(data.len()).unwrap();
    [owner, &kind.to_be_bytes(), &[0, 1], &ttl.to_be_bytes(), &length.to_be_bytes(), data].concat()
}

pub(crate) fn asked(message: &[u8]) -> Answer {
    answer(message, &directory(), &UDP)
}

pub(crate) fn replied(message: &[u8]) -> Reply {
    match asked(message) {
        Answer::Reply(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// The query that is somebody else's.
pub(crate) fn forwarded(message: &[u8]) -> Query {
    match asked(message) {
        Answer::Forward(query) => query,
        other => panic!("{other:?}"),
    }
}

/// The answers of a reply as text: owner, kind, data.
pub(crate) fn answers(reply: &[u8]) -> Vec<String> {
    let message = Message::from_slice(reply).unwrap();
    let read = message.answer().unwrap().into_records::<AllRecordData<_, _>>();
    read.map(|record| record.unwrap()).map(|r| format!("{} {} {}", r.owner(), r.rtype(), r.data())).collect()
}

/// How many records each section has, after all of them were read.
pub(crate) fn counts(reply: &[u8]) -> [usize; 3] {
    let message = Message::from_slice(reply).unwrap();
    let (_, answer, authority, additional) = message.sections().unwrap();
    let count = |section: domain::base::message::RecordSection<'_, _>| section.map(Result::unwrap).count();
    [count(answer), count(authority), count(additional)]
}

/// The time for which the authority of a reply says that there is nothing, and the zone.
pub(crate) fn nothing_for(reply: &[u8]) -> Option<(String, u32)> {
    let message = Message::from_slice(reply).unwrap();
    let record = message.authority().unwrap().next()?.unwrap();
    assert_eq!(record.rtype(), Rtype::SOA);
    Some((record.owner().to_string(), record.ttl().as_secs()))
}
