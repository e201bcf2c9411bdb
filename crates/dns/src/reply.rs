//! Writing a reply.

use std::net::{Ipv4Addr, Ipv6Addr};

use domain::base::header::{Header, HeaderSection};
use domain::base::iana::{Class, OptRcode, Rtype};
use domain::base::message_builder::{AnswerBuilder, MessageBuilder, PushError, StaticCompressor};
use domain::base::name::Name;
use domain::base::rdata::{ComposeRecordData, RecordData};
use domain::base::wire::Composer;
use domain::base::{Serial, Ttl};
use domain::rdata::{A, Aaaa, Ptr, Soa, Srv};
use hms_model::names::ServiceName;

use crate::query::{Query, Unread};
use crate::{NEGATIVE_TTL, TTL, UDP_BYTES};

/// Octets of an EDNS record without options.
const EDNS_BYTES: usize = 11;

/// What a reply says of its question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// There is such a name.
    NoError,
    /// The query is malformed.
    FormErr,
    /// No answer could be had.
    ServFail,
    /// There is no such name.
    NxDomain,
    /// This kind of query is not known.
    NotImp,
    /// This query is not answered.
    Refused,
    /// This version of EDNS is not known.
    BadVers,
}

impl Code {
    /// As the IANA registry writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVers => "BADVERS",
        }
    }

    pub(crate) fn number(self) -> OptRcode {
        match self {
            Self::NoError => OptRcode::NOERROR,
            Self::FormErr => OptRcode::FORMERR,
            Self::ServFail => OptRcode::SERVFAIL,
            Self::NxDomain => OptRcode::NXDOMAIN,
            Self::NotImp => OptRcode::NOTIMP,
            Self::Refused => OptRcode::REFUSED,
            Self::BadVers => OptRcode::BADVERS,
        }
    }
}

/// A message to a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The message.
    pub bytes: Vec<u8>,
    /// What it says.
    pub code: Code,
    /// The service whose address or ports were asked for: who asks is about to connect.
    pub service: Option<ServiceName>,
}

/// The data of a record of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Data {
    Address4(Ipv4Addr),
    Address6(Ipv6Addr),
    Port { number: u16, target: Name<Vec<u8>> },
    Name(Name<Vec<u8>>),
}

impl RecordData for Data {
    fn rtype(&self) -> Rtype {
        match self {
            Self::Address4(_) => Rtype::A,
            Self::Address6(_) => Rtype::AAAA,
            Self::Port { .. } => Rtype::SRV,
            Self::Name(_) => Rtype::PTR,
        }
    }
}

impl ComposeRecordData for Data {
    fn rdlen(&self, _compress: bool) -> Option<u16> {
        // Counted when it is written.
        None
    }

    fn compose_rdata<Target: Composer + ?Sized>(&self, target: &mut Target) -> Result<(), Target::AppendError> {
        match self {
            Self::Address4(address) => A::new(*address).compose_rdata(target),
            Self::Address6(address) => Aaaa::new(*address).compose_rdata(target),
            Self::Port { number, target: at } => Srv::new(0, 0, *number, at).compose_rdata(target),
            Self::Name(name) => Ptr::new(name).compose_rdata(target),
        }
    }

    fn compose_canonical_rdata<Target: Composer + ?Sized>(
        &self,
        target: &mut Target,
    ) -> Result<(), Target::AppendError> {
        self.compose_rdata(target)
    }
}

/// A record of another name than the one that was asked for.
pub(crate) type Beside = (Name<Vec<u8>>, Data);

/// What a reply holds beside its question.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// What was asked for.
    pub(crate) answers: Vec<Data>,
    /// Where there are no answers: the zone that says so, and for how long.
    pub(crate) zone: Option<Name<Vec<u8>>>,
    /// Whether the zone itself was asked for.
    pub(crate) zone_asked: bool,
    /// What is about to be asked for. Left out where it does not fit.
    pub(crate) beside: Vec<Beside>,
}

/// A reply of the mesh's own.
pub(crate) fn own(query: &Query, code: Code, contents: &Contents) -> Vec<u8> {
    let ttl = Ttl::from_secs(TTL);
    write(
        query,
        code,
        true,
        |reply| {
            for data in &contents.answers {
                reply.push((&query.name, Class::IN, ttl, data))?;
            }
            if let (Some(zone), true) = (&contents.zone, contents.zone_asked) {
                reply.push((zone, Class::IN, ttl, start_of_authority(zone)))?;
            }
            Ok(())
        },
        contents,
    )
}

/// A reply that says that no answer could be had.
pub fn server_failure(query: &Query) -> Reply {
    without_records(query, Code::ServFail)
}

/// A reply that says that this query is not answered, such as one too many.
pub fn refused(query: &Query) -> Reply {
    without_records(query, Code::Refused)
}

/// A reply that sends the client to TCP.
pub(crate) fn truncated(query: &Query) -> Vec<u8> {
    let mut bytes = without_records(query, Code::NoError).bytes;
    if bytes.len() >= 12 {
        Header::for_message_slice_mut(&mut bytes).set_tc(true);
    }
    bytes
}

pub(crate) fn without_records(query: &Query, code: Code) -> Reply {
    let bytes = write(query, code, false, |_reply| Ok(()), &Contents::default());
    Reply { bytes, code, service: None }
}

type Target = StaticCompressor<Vec<u8>>;

fn write(
    query: &Query,
    code: Code,
    authoritative: bool,
    answers: impl FnOnce(&mut AnswerBuilder<Target>) -> Result<(), PushError>,
    contents: &Contents,
) -> Vec<u8> {
    let Ok(mut message) = MessageBuilder::from_target(StaticCompressor::new(Vec::with_capacity(256)));
    let (rcode, _extended) = code.number().to_parts();
    let header = message.header_mut();
    header.set_id(query.header.id());
    header.set_qr(true);
    header.set_rd(query.header.rd());
    header.set_cd(query.header.cd());
    header.set_ra(true);
    header.set_aa(authoritative);
    header.set_rcode(rcode);
    let room = query.limit().saturating_sub(if query.edns.is_some() { EDNS_BYTES } else { 0 });
    message.set_push_limit(room);
    let mut question = message.question();
    // A question of 255 octets fits into the 512 that everybody takes.
    let _fits = question.push((&query.name, query.kind, query.class)).is_ok();
    let mut reply = question.answer();
    if answers(&mut reply).is_err() {
        reply = reply.tc_rewind_into();
    }
    let mut authority = reply.authority();
    if let Some(zone) = &contents.zone
        && !contents.zone_asked
    {
        let _fits = authority.push((zone, Class::IN, Ttl::from_secs(NEGATIVE_TTL), start_of_authority(zone))).is_ok();
    }
    let mut additional = authority.additional();
    for (name, data) in &contents.beside {
        if additional.push((name, Class::IN, Ttl::from_secs(TTL), data)).is_err() {
            break;
        }
    }
    additional.set_push_limit(room.saturating_add(EDNS_BYTES));
    if let Some(edns) = query.edns {
        let written = additional.opt(|opt| {
            opt.set_udp_payload_size(UDP_BYTES);
            opt.set_rcode(code.number());
            opt.set_dnssec_ok(edns.dnssec_ok);
            Ok(())
        });
        let _fits = written.is_ok();
    }
    additional.finish().into_target()
}

/// Who says that there is nothing, and for how long: RFC 2308 §5 takes the time from here.
fn start_of_authority(zone: &Name<Vec<u8>>) -> Soa<Name<Vec<u8>>> {
    let (hour, negative) = (Ttl::from_secs(3600), Ttl::from_secs(NEGATIVE_TTL));
    Soa::new(zone.clone(), zone.clone(), Serial(1), hour, hour, hour, negative)
}

/// A reply to what could not be read as a question about a name; `None` to what nobody may answer.
pub(crate) fn to_unread(unread: &Unread) -> Option<Reply> {
    match unread {
        Unread::NoQuery => None,
        Unread::Question(query, code) => Some(without_records(query, *code)),
        Unread::Header(asked, code) => {
            let mut section = HeaderSection::new();
            let header = section.header_mut();
            header.set_id(asked.id());
            header.set_qr(true);
            header.set_opcode(asked.opcode());
            header.set_rd(asked.rd());
            header.set_ra(true);
            header.set_rcode(code.number().to_parts().0);
            Some(Reply { bytes: section.as_slice().to_vec(), code: *code, service: None })
        }
    }
}
