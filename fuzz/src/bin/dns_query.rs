//! Queries about names: whatever comes, a reply can be read, has the id and the question that were sent, and fits; what is somebody
//! else's is asked for in a message that reads as the same question.
#![no_main]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use domain::base::Message;
use hms_dns::directory::Directory;
use hms_dns::{Answer, Terms, Transport, answer};
use hms_model::names::ServiceName;
use hms_model::port::{AppProtocol, Port};
use hms_model::service::Entry;
use libfuzzer_sys::fuzz_target;

struct Services(BTreeMap<ServiceName, Entry>);

impl Directory for Services {
    fn is_known(&self) -> bool {
        true
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
        namespace == "default"
    }
}

static SERVICES: LazyLock<Services> = LazyLock::new(|| {
    let name = ServiceName::new("a").expect("a name");
    let port = |number| Port { number, name: "p".to_owned(), protocol: AppProtocol::Http, target: None };
    let entry = Entry {
        name: name.clone(),
        aliases: vec!["gateway.local".to_owned()],
        addresses: vec![[240, 0, 0, 1].into(), "fd48:4d53:6d65:7368::1".parse().expect("an address")],
        // More than fit into a datagram.
        ports: (1..=64).map(port).collect(),
    };
    Services(BTreeMap::from([(name, entry)]))
});

fuzz_target!(|bytes: &[u8]| {
    let search = ["corp.example".to_owned()];
    for transport in [Transport::Udp, Transport::Tcp] {
        let terms = Terms { namespace: "default", transport, search: &search };
        match answer(bytes, &*SERVICES, &terms) {
            Answer::Drop => assert!(bytes.len() < 12 || bytes[2] & 0x80 != 0),
            Answer::Reply(reply) => {
                assert_eq!(reply.bytes[..2], bytes[..2]);
                assert!(transport == Transport::Tcp || reply.bytes.len() <= 1232);
                let message = Message::from_octets(reply.bytes.as_slice()).expect("a header");
                assert!(message.header().qr());
                let (question, answers, authority, additional) = message.sections().expect("every section");
                for asked in question {
                    let asked = asked.expect("our own question");
                    let sent = Message::from_octets(bytes).expect("it was answered");
                    assert_eq!(sent.first_question().expect("it was repeated").qname().to_string(), asked.qname().to_string());
                }
                for section in [answers, authority, additional] {
                    assert!(section.into_iter().all(|record| record.is_ok()));
                }
            }
            Answer::Forward(query) => {
                let ours = query.to_resolver(7, true);
                assert!(ours.len() <= bytes.len());
                let Answer::Forward(again) = answer(&ours, &*SERVICES, &terms) else { panic!("another question") };
                assert_eq!(again.key(), query.key());
            }
            Answer::NotYet(query) => panic!("everything is known: {query:?}"),
        }
    }
});
