//! Reading a query.

use domain::base::header::Header;
use domain::base::iana::{Class, Opcode, Rtype};
use domain::base::message::Message;
use domain::base::name::{Name, ToLabelIter as _, ToName as _};
use domain::base::opt::Opt;
use domain::base::wire::ParseError;
use domain::base::{ParsedName, Question};
use domain::dep::octseq::Parser;

use crate::reply::Code;
use crate::{PLAIN_BYTES, Transport, UDP_BYTES};

/// Octets before the question.
pub(crate) const HEADER_BYTES: usize = 12;
/// Records beside the question that a query may have; more is none that a resolver sends.
const MOST_ADDITIONAL: u16 = 4;

/// A question about a name of the Internet class, as a client asked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    pub(crate) header: Header,
    /// In the letters of the question, which the answer repeats.
    pub(crate) name: Name<Vec<u8>>,
    pub(crate) kind: Rtype,
    /// The Internet's, except in a question that is refused.
    pub(crate) class: Class,
    pub(crate) edns: Option<Edns>,
    pub(crate) transport: Transport,
}

/// What a client says of itself by EDNS (RFC 6891).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Edns {
    pub(crate) payload: u16,
    pub(crate) dnssec_ok: bool,
}

/// What makes two queries the same question to a resolver.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    name: Vec<u8>,
    kind: u16,
    edns: Option<bool>,
    flags: (bool, bool, bool),
}

/// Why a message is not answered from any name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unread {
    /// No query at all; an answer to it might be answered in turn.
    NoQuery,
    /// A header that can be answered, and nothing else.
    Header(Header, Code),
    /// A question that is not answered.
    Question(Box<Query>, Code),
}

impl Query {
    /// Reads a message. What the standard lets a server be lenient about is refused: no resolver sends it.
    pub(crate) fn read(bytes: &[u8], transport: Transport) -> Result<Self, Unread> {
        let message = Message::from_slice(bytes).map_err(|_short| Unread::NoQuery)?;
        let (header, counts) = (message.header(), message.header_counts());
        if header.qr() {
            return Err(Unread::NoQuery);
        }
        let answered = |code: Code| Unread::Header(header, code);
        if header.opcode() != Opcode::QUERY {
            return Err(answered(Code::NotImp));
        }
        if counts.qdcount() != 1 || counts.ancount() != 0 || counts.nscount() != 0 {
            return Err(answered(Code::FormErr));
        }
        let mut parser = Parser::from_ref(bytes);
        let asked = question(&mut parser).map_err(|_malformed| answered(Code::FormErr))?;
        let (name, kind, class) = (asked.qname().to_name(), asked.qtype(), asked.qclass());
        let mut query = Self { header, name, kind, class, edns: None, transport };
        match beside(&mut parser, counts.arcount()) {
            Err(_malformed) => return Err(Unread::Question(Box::new(query), Code::FormErr)),
            Ok((edns, 0)) => query.edns = edns,
            Ok((edns, _later)) => {
                query.edns = edns;
                return Err(Unread::Question(Box::new(query), Code::BadVers));
            }
        }
        if class != Class::IN || is_meta(kind) {
            return Err(Unread::Question(Box::new(query), Code::Refused));
        }
        Ok(query)
    }

    /// The most octets an answer may have.
    pub(crate) fn limit(&self) -> usize {
        let datagram = self.edns.map_or(PLAIN_BYTES, |edns| edns.payload.clamp(PLAIN_BYTES, UDP_BYTES));
        match self.transport {
            Transport::Udp => usize::from(datagram),
            Transport::Tcp => usize::from(u16::MAX),
        }
    }

    /// The name as people write it, for a log.
    pub fn name(&self) -> String {
        self.name.to_string()
    }

    /// What makes another query the same question to a resolver.
    pub fn key(&self) -> Key {
        Key {
            name: self.name.as_slice().to_ascii_lowercase(),
            kind: self.kind.to_int(),
            edns: self.edns.map(|edns| edns.dnssec_ok),
            flags: (self.header.rd(), self.header.cd(), self.header.ad()),
        }
    }

    /// Whether the name is one label, such as a program asks for that leaves the rest to its search list.
    pub fn is_bare(&self) -> bool {
        // The root is a label too.
        self.name.label_count() == 2
    }
}

/// The question of a message, and what it is about.
pub(crate) type Asked<'a> = Question<ParsedName<&'a [u8]>>;

pub(crate) fn question<'a>(parser: &mut Parser<'a, [u8]>) -> Result<Asked<'a>, ParseError> {
    // The header has been counted already.
    parser.seek(HEADER_BYTES)?;
    let asked = Question::parse(parser)?;
    // There is nothing before the first name that a pointer could mean.
    let plain = usize::from(asked.qname().compose_len()) + HEADER_BYTES + 4 == parser.pos();
    if plain { Ok(asked) } else { Err(ParseError::form_error("a pointer in the question")) }
}

/// The EDNS record, and its version; without one it is version 0.
fn beside(parser: &mut Parser<'_, [u8]>, count: u16) -> Result<(Option<Edns>, u8), ParseError> {
    if count > MOST_ADDITIONAL {
        return Err(ParseError::form_error("more records than a query has"));
    }
    let mut found = None;
    for _ in 0..count {
        let record = domain::base::record::ParsedRecord::parse(parser)?;
        let edns = record.to_record::<Opt<_>>()?;
        if edns.is_none() || !record.owner().is_root() || found.is_some() {
            return Err(ParseError::form_error("a record that is not the EDNS one"));
        }
        let flags = record.ttl().as_secs().to_be_bytes();
        let edns = Edns { payload: record.class().to_int(), dnssec_ok: flags[2] & 0x80 != 0 };
        found = Some((edns, flags[1]));
    }
    if parser.remaining() != 0 {
        return Err(ParseError::form_error("octets after the last record"));
    }
    Ok(found.map_or((None, 0), |(edns, version)| (Some(edns), version)))
}

/// Kinds of question that ask for no record: transfers, everything at once, and what only stands beside a question.
fn is_meta(kind: Rtype) -> bool {
    matches!(kind.to_int(), 0 | 41 | 128..=255)
}
