//! What becomes of a query.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::iana::Rtype;
use domain::base::name::Name;
use domain::base::rdata::RecordData as _;
use hms_model::service::Entry;

use crate::Transport;
use crate::directory::Directory;
use crate::place::{Parts, Place, place};
use crate::query::Query;
use crate::reply::{self, Code, Contents, Data, Reply};

/// How long an answer of the mesh holds, in seconds. Virtual addresses are not given to another service for a day; this is only how
/// long a program goes on with the name of a service that is gone.
pub const TTL: u32 = 10;
/// How long it holds that there is no such service, in seconds: the next moment it may have been started.
pub const NEGATIVE_TTL: u32 = 1;

/// Who asks, and how.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The namespace in which a bare name is looked up.
    pub namespace: &'a str,
    /// What the query came by.
    pub transport: Transport,
    /// The search list of the one who asks, if it is not ours: what it makes of a service's bare name does not exist.
    pub search: &'a [String],
}

/// What becomes of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is answered.
    Reply(Reply),
    /// It asks about somebody else's name.
    Forward(Query),
    /// It may ask about a name of the mesh, of which nothing is known yet.
    NotYet(Query),
    /// It is no query.
    Drop,
}

/// Says what becomes of a message.
pub fn answer(message: &[u8], directory: &impl Directory, terms: &Terms<'_>) -> Answer {
    let query = match Query::read(message, terms.transport) {
        Ok(query) => query,
        Err(unread) => return reply::to_unread(&unread).map_or(Answer::Drop, Answer::Reply),
    };
    let parts = Parts::of(&query.name);
    let (code, contents, service) = match place(&parts, directory, terms) {
        Place::Foreign => return Answer::Forward(query),
        Place::Unknown => return Answer::NotYet(query),
        Place::Service(entry) => (Code::NoError, addresses(query.kind, Some(entry)), Some(&entry.name)),
        Place::Ports(entry, numbers) => (Code::NoError, ports(query.kind, entry, &numbers), Some(&entry.name)),
        Place::Loopback => (Code::NoError, addresses(query.kind, None), None),
        Place::Reverse(name) if query.kind == Rtype::PTR => (Code::NoError, named(&name), None),
        Place::Bare { apex: true } if query.kind == Rtype::SOA => {
            let zone = Some(query.name.clone());
            (Code::NoError, Contents { zone, zone_asked: true, ..Contents::default() }, None)
        }
        Place::Reverse(_) | Place::Bare { .. } => (Code::NoError, Contents::default(), None),
        Place::Missing => (Code::NxDomain, Contents::default(), None),
    };
    Answer::Reply(Reply { bytes: own(&query, &parts, code, contents), code, service: service.cloned() })
}

/// A reply that says that there is no such name, for one that nobody but the mesh could have known.
pub fn no_name(query: &Query) -> Reply {
    let bytes = own(query, &Parts::of(&query.name), Code::NxDomain, Contents::default());
    Reply { bytes, code: Code::NxDomain, service: None }
}

fn own(query: &Query, parts: &Parts, code: Code, mut contents: Contents) -> Vec<u8> {
    if contents.answers.is_empty() && contents.zone.is_none() {
        contents.zone = parts.zone().and_then(host_name).or_else(|| Some(query.name.clone()));
    }
    reply::own(query, code, &contents)
}

/// The addresses of a service, or of this host.
fn addresses(kind: Rtype, entry: Option<&Entry>) -> Contents {
    let answers = match (kind, entry) {
        (Rtype::A, None) => vec![Data::Address4(Ipv4Addr::LOCALHOST)],
        (Rtype::AAAA, None) => vec![Data::Address6(Ipv6Addr::LOCALHOST)],
        (Rtype::A | Rtype::AAAA, Some(entry)) => data(entry).filter(|data| data.rtype() == kind).collect(),
        _ => Vec::new(),
    };
    Contents { answers, ..Contents::default() }
}

fn data(entry: &Entry) -> impl Iterator<Item = Data> {
    entry.addresses.iter().map(|address| match address {
        IpAddr::V4(address) => Data::Address4(*address),
        IpAddr::V6(address) => Data::Address6(*address),
    })
}

/// Ports of a service, and beside them where it is.
fn ports(kind: Rtype, entry: &Entry, numbers: &[u16]) -> Contents {
    let Some(target) = host_name(&entry.name.mesh_host()).filter(|_| kind == Rtype::SRV) else {
        return Contents::default();
    };
    let answers = numbers.iter().map(|number| Data::Port { number: *number, target: target.clone() }).collect();
    let beside = data(entry).map(|data| (target.clone(), data)).collect();
    Contents { answers, beside, ..Contents::default() }
}

fn named(name: &str) -> Contents {
    Contents { answers: host_name(name).map(Data::Name).into_iter().collect(), ..Contents::default() }
}

/// A host's name in the form of the wire. Names of the mesh always have one.
fn host_name(text: &str) -> Option<Name<Vec<u8>>> {
    text.parse().ok()
}
