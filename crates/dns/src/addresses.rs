//! The addresses of a name, for a program that wants to go there itself.

use std::net::IpAddr;
use std::str::FromStr as _;

use domain::base::header::Header;
use domain::base::iana::{Class, Rtype};
use domain::base::message::Message;
use domain::base::name::Name;
use domain::rdata::{A, Aaaa};

use crate::query::Query;
use crate::{Code, Transport};

/// Addresses that are taken from one answer.
const MOST: usize = 32;

/// What an answer says of addresses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Addresses {
    /// The addresses, as they came.
    pub found: Vec<IpAddr>,
    /// How long they hold, in seconds.
    pub seconds: u32,
}

impl Query {
    /// The questions for the addresses of a host: IPv4, then IPv6. `None` when it is no name.
    pub fn addresses_of(host: &str) -> Option<[Self; 2]> {
        let name = Name::<Vec<u8>>::from_str(host).ok()?;
        let mut header = Header::new();
        header.set_rd(true);
        let ask =
            |kind| Self { header, name: name.clone(), kind, class: Class::IN, edns: None, transport: Transport::Tcp };
        Some([ask(Rtype::A), ask(Rtype::AAAA)])
    }
}

/// The addresses in an answer that was believed, whichever aliases lead to them; nothing where it says that there are none.
pub fn read(answer: &[u8], code: Code) -> Addresses {
    let mut addresses = Addresses { found: Vec::new(), seconds: u32::MAX };
    let records = Message::from_slice(answer).ok().filter(|_| code == Code::NoError);
    let records = records.as_ref().and_then(|message| message.answer().ok());
    for record in records.into_iter().flatten().flatten() {
        let four = || record.to_record::<A>().ok().flatten().map(|own| IpAddr::V4(own.data().addr()));
        let six = || record.to_record::<Aaaa>().ok().flatten().map(|own| IpAddr::V6(own.data().addr()));
        let address = match record.rtype() {
            Rtype::A => four(),
            Rtype::AAAA => six(),
            _ => None,
        };
        addresses.seconds = addresses.seconds.min(record.ttl().as_secs());
        addresses.found.extend(address.filter(|_| addresses.found.len() < MOST));
    }
    addresses
}

#[cfg(test)]
mod tests {
    use domain::base::iana::Rcode;
    use domain::base::message_builder::MessageBuilder;
    use domain::rdata::Cname;

    use super::*;

    #[test]
    fn addresses_are_read_through_aliases_and_none_from_a_denial() {
        let [four, six] = Query::addresses_of("api.example.com").unwrap();
        assert_ne!(four.key(), six.key());
        let asked = four.to_resolver(7, false);
        let message = Message::from_slice(&asked).unwrap();
        let mut answer = MessageBuilder::new_vec().start_answer(message, Rcode::NOERROR).unwrap();
        let (name, alias) = (four.name, Name::<Vec<u8>>::from_str("cdn.example.net").unwrap());
        answer.push((&name, Class::IN, 300, Cname::new(alias.clone()))).unwrap();
        answer.push((&alias, Class::IN, 60, A::new("192.0.2.1".parse().unwrap()))).unwrap();
        answer.push((&alias, Class::IN, 90, A::new("192.0.2.2".parse().unwrap()))).unwrap();
        let bytes = answer.finish();
        let found = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse().unwrap()).to_vec();
        assert_eq!(read(&bytes, Code::NoError), Addresses { found, seconds: 60 });
        assert!(read(&bytes, Code::NxDomain).found.is_empty());
        assert!(read(b"nothing", Code::NoError).found.is_empty());
        assert!(Query::addresses_of("a..b").is_none());
    }
}
