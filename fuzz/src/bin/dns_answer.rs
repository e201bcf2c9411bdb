//! Answers of resolvers: what is believed can be read, answers the question, holds no address of the mesh, and goes to the client
//! with its own id and question.
#![no_main]

use domain::base::Message;
use domain::rdata::A;
use hms_dns::forward::Heard;
use hms_dns::{Answer, Query, Terms, Transport, answer};
use libfuzzer_sys::fuzz_target;

mod nobody {
    use std::net::IpAddr;

    use hms_dns::directory::Directory;
    use hms_model::names::ServiceName;
    use hms_model::service::Entry;

    /// A mesh of which nothing is known.
    pub struct Nobody;

    impl Directory for Nobody {
        fn is_known(&self) -> bool {
            false
        }

        fn entry(&self, _name: &ServiceName) -> Option<&Entry> {
            None
        }

        fn aliased(&self, _host: &str) -> Option<&Entry> {
            None
        }

        fn at(&self, _address: IpAddr) -> Option<&Entry> {
            None
        }

        fn has_namespace(&self, _namespace: &str) -> bool {
            false
        }
    }
}

/// `Example.com A`, with EDNS.
const QUERY: &[u8] = b"\x12\x34\x01\x00\0\x01\0\0\0\0\0\x01\x07Example\x03com\0\0\x01\0\x01\0\0\x29\x04\xd0\0\0\0\0\0\0";

fn query() -> Query {
    let terms = Terms { namespace: "default", transport: Transport::Udp, search: &[] };
    match answer(QUERY, &nobody::Nobody, &terms) {
        Answer::Forward(query) => query,
        other => panic!("{other:?}"),
    }
}

fuzz_target!(|bytes: &[u8]| {
    let query = query();
    let Heard::Answer(heard) = query.hear(0x7777, bytes) else { return };
    assert_eq!(bytes[..2], [0x77, 0x77]);
    assert!(heard.seconds().is_none_or(|seconds| (1..=300).contains(&seconds)));
    for age in [0, 299, u32::MAX] {
        let reply = heard.reply_to(&query, age).bytes;
        assert!(reply.len() <= 1232);
        assert_eq!(reply[..2], QUERY[..2]);
        assert_eq!(reply[12..29], QUERY[12..29]);
        let message = Message::from_octets(reply.as_slice()).expect("a header");
        for record in message.answer().expect("a question").limit_to::<A>() {
            let record = record.expect("it was read before");
            assert!(record.data().addr().octets()[0] < 240);
            assert!((1..=300).contains(&record.ttl().as_secs()));
        }
    }
});
