//! A question to somebody else's resolver, and how far its answer is believed.
//!
//! A client's query is never passed on as it came: it is written anew with an id that only we know. An answer is passed on in the
//! octets in which it came, once every record of it has been read and all of it belongs to the question; only the id, the letters
//! of the question, a flag and the times to live are ours.

use std::net::IpAddr;

use domain::base::ParsedName;
use domain::base::header::Header;
use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::message::Message;
use domain::base::message_builder::MessageBuilder;
use domain::base::name::ToName as _;
use domain::base::record::ParsedRecord;
use domain::base::wire::ParseError;
use domain::dep::octseq::Parser;
use domain::rdata::{A, Aaaa, Cname, Soa};
use hms_model::address::is_virtual;

use crate::UDP_BYTES;
use crate::query::{Asked, HEADER_BYTES, Query, question};
use crate::reply::{self, Code, Reply};

/// Names that one answer may lead over.
const MOST_ALIASES: usize = 16;
/// What an answer may tell of how long it holds, in seconds: a resolver that says 0 is not asked for every connection, one that says a
/// week is not believed for longer than a network lasts.
const SECONDS: (u32, u32) = (1, 300);

/// What came from a resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// An answer.
    Answer(Forwarded),
    /// Part of an answer; the whole is to be had over TCP.
    Truncated,
    /// The resolver does not know EDNS.
    Plain,
    /// Not the answer to this question: whoever sent it, it is ignored.
    Foreign,
    /// An answer that is none.
    Failed,
}

/// An answer that was believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    bytes: Box<[u8]>,
    code: Code,
    /// Where the times to live stand, and what they may at most say.
    ttls: Box<[(u16, u32)]>,
    seconds: Option<u32>,
}

impl Query {
    /// The question for a resolver.
    pub fn to_resolver(&self, id: u16, with_edns: bool) -> Vec<u8> {
        let mut message = MessageBuilder::new_vec();
        let header = message.header_mut();
        header.set_id(id);
        header.set_rd(self.header.rd());
        header.set_cd(self.header.cd());
        header.set_ad(self.header.ad());
        let mut question = message.question();
        // Both are within what a vector takes.
        let _fits = question.push((&self.name, self.kind, Class::IN)).is_ok();
        let mut additional = question.additional();
        if let Some(edns) = self.edns.filter(|_| with_edns) {
            let written = additional.opt(|opt| {
                opt.set_udp_payload_size(UDP_BYTES);
                opt.set_dnssec_ok(edns.dnssec_ok);
                Ok(())
            });
            let _fits = written.is_ok();
        }
        additional.finish()
    }

    /// Reads what came back for [`Query::to_resolver`] with the same id.
    pub fn hear(&self, id: u16, bytes: &[u8]) -> Heard {
        let Ok(message) = Message::from_slice(bytes) else { return Heard::Foreign };
        let header = message.header();
        if !header.qr() || header.id() != id || header.opcode() != domain::base::iana::Opcode::QUERY {
            return Heard::Foreign;
        }
        let counts = message.header_counts();
        let mut parser = Parser::from_ref(bytes);
        match (counts.qdcount(), question(&mut parser)) {
            (1, Ok(asked)) if self.asked(&asked) => {}
            // Some resolvers leave out a question that they cannot read.
            (0, _) if header.rcode() == Rcode::FORMERR && self.edns.is_some() => return Heard::Plain,
            _ => return Heard::Foreign,
        }
        if header.tc() {
            return Heard::Truncated;
        }
        let code = match header.rcode() {
            Rcode::NOERROR => Code::NoError,
            Rcode::NXDOMAIN => Code::NxDomain,
            Rcode::FORMERR | Rcode::NOTIMP if self.edns.is_some() => return Heard::Plain,
            _ => return Heard::Failed,
        };
        let sections = [counts.ancount(), counts.nscount(), counts.arcount()];
        self.believe(bytes, parser, sections, code).map_or(Heard::Failed, Heard::Answer)
    }

    fn asked(&self, asked: &Asked<'_>) -> bool {
        asked.qname().name_eq(&self.name) && asked.qtype() == self.kind && asked.qclass() == Class::IN
    }

    /// Every record is read; whatever does not belong to the question makes the whole answer worthless.
    fn believe(
        &self,
        bytes: &[u8],
        mut parser: Parser<'_, [u8]>,
        counts: [u16; 3],
        code: Code,
    ) -> Result<Forwarded, ParseError> {
        let [answers, authority, additional] = counts;
        let mut ttls = Vec::new();
        let mut section = |count: u16| {
            let mut records = Vec::new();
            for _ in 0..count {
                let record = ParsedRecord::parse(&mut parser)?;
                // The class, the time to live, the length and the data end a record (RFC 1035 §3.2.1).
                let place = parser.pos().saturating_sub(usize::from(record.rdlen()) + 6);
                if record.rtype() != Rtype::OPT {
                    let place = u16::try_from(place).map_err(|_long| broken("longer than a message is"))?;
                    ttls.push((place, seconds(record.ttl().as_secs())));
                }
                records.push(record);
            }
            Ok::<_, ParseError>(records)
        };
        let (answers, authority, _additional) = (section(answers)?, section(authority)?, section(additional)?);
        if parser.remaining() != 0 {
            return Err(broken("octets after the last record"));
        }
        let found = self.belongs(&answers)?;
        let life = answers.iter().map(|record| seconds(record.ttl().as_secs())).min();
        let negative = if found { life } else { nothing(&authority)?.map(|own| life.unwrap_or(own).min(own)) };
        Ok(Forwarded { bytes: bytes.into(), code, ttls: ttls.into(), seconds: negative })
    }

    /// Whether the answers answer the question: each belongs to its name or to one that it is an alias of. An error is an answer that
    /// belongs to neither, or that leads in a circle; `false` is none of the kind asked for.
    fn belongs(&self, answers: &[ParsedRecord<'_, [u8]>]) -> Result<bool, ParseError> {
        let mut aliases = Vec::new();
        for record in answers {
            if record.class() != Class::IN {
                return Err(broken("another class"));
            }
            if let Some(alias) = record.to_record::<Cname<_>>()? {
                aliases.push((*alias.owner(), *alias.data().cname()));
            }
            let address = match record.rtype() {
                Rtype::A => record.to_record::<A>()?.map(|own| IpAddr::V4(own.data().addr())),
                Rtype::AAAA => record.to_record::<Aaaa>()?.map(|own| IpAddr::V6(own.data().addr())),
                _ => None,
            };
            if address.is_some_and(is_virtual) {
                return Err(broken("an address of the mesh for a name that is not the mesh's"));
            }
        }
        let mut names = vec![ParsedName::parse_ref(&mut Parser::from_ref(self.name.as_slice()))?];
        while let Some((_, target)) =
            names.last().and_then(|last| aliases.iter().find(|(owner, _)| owner.name_eq(last)))
            && self.kind != Rtype::CNAME
        {
            if names.len() > MOST_ALIASES || names.iter().any(|name| name.name_eq(target)) {
                return Err(broken("too many aliases, or a circle of them"));
            }
            names.push(*target);
        }
        for record in answers {
            let owner = record.owner();
            let above = record.rtype() == Rtype::DNAME && names.iter().any(|name| name.ends_with(&owner));
            if !above && !names.iter().any(|name| name.name_eq(&owner)) {
                return Err(broken("a record that was not asked for"));
            }
        }
        let last = names.last();
        Ok(answers
            .iter()
            .any(|record| record.rtype() == self.kind && last.is_some_and(|name| record.owner().name_eq(name))))
    }
}

impl Forwarded {
    /// How long it holds, in seconds; `None` is for this once.
    pub fn seconds(&self) -> Option<u32> {
        self.seconds
    }

    /// What it says.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Octets.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether there is nothing; there never is nothing.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The reply to a client that asked the same, `age` seconds after it came.
    pub fn reply_to(&self, query: &Query, age: u32) -> Reply {
        let (code, service) = (self.code, None);
        if self.bytes.len() > query.limit() {
            return Reply { bytes: reply::truncated(query), code, service };
        }
        let mut bytes = self.bytes.to_vec();
        if bytes.len() >= HEADER_BYTES {
            let header = Header::for_message_slice_mut(&mut bytes);
            header.set_id(query.header.id());
            header.set_rd(query.header.rd());
            header.set_ra(true);
        }
        let name = query.name.as_slice();
        if let Some(letters) = bytes.get_mut(HEADER_BYTES..HEADER_BYTES + name.len()) {
            letters.copy_from_slice(name);
        }
        for (place, most) in &self.ttls {
            let place = usize::from(*place);
            if let Some(octets) = bytes.get_mut(place..place + 4) {
                octets.copy_from_slice(&most.saturating_sub(age).max(SECONDS.0).to_be_bytes());
            }
        }
        Reply { bytes, code, service }
    }
}

/// How long the authority says that there is nothing (RFC 2308 §5).
fn nothing(authority: &[ParsedRecord<'_, [u8]>]) -> Result<Option<u32>, ParseError> {
    for record in authority {
        if let Some(own) = record.to_record::<Soa<ParsedName<_>>>()? {
            return Ok(Some(seconds(own.ttl().as_secs()).min(seconds(own.data().minimum().as_secs()))));
        }
    }
    Ok(None)
}

/// A time to live within what is believed; one with its highest bit set is none (RFC 2181 §8).
fn seconds(told: u32) -> u32 {
    let (least, most) = SECONDS;
    if told > i32::MAX.unsigned_abs() { least } else { told.clamp(least, most) }
}

fn broken(why: &'static str) -> ParseError {
    ParseError::form_error(why)
}
