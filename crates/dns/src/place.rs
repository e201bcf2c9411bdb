//! Where a name belongs: to a service of the mesh, to the mesh without being anybody's, or to somebody else.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use domain::base::name::Name;
use hms_model::address::is_virtual;
use hms_model::names::ServiceName;
use hms_model::port::Port;
use hms_model::service::Entry;

use crate::Terms;
use crate::directory::Directory;

/// The gateway's name for people (ruling R7): one of its aliases, and nobody else's name when there is no gateway.
const GATEWAY: &str = "gateway.local";

/// What stands at a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// A service.
    Service(&'a Entry),
    /// The ports of a service that have this name (RFC 2782): their numbers.
    Ports(&'a Entry, Vec<u16>),
    /// This host (RFC 6761 §6.3).
    Loopback,
    /// The name of an address.
    Reverse(String),
    /// Something of the mesh that has no records of its own.
    Bare {
        /// Whether it is the top of a zone.
        apex: bool,
    },
    /// Nothing, and the mesh would know.
    Missing,
    /// Nothing is known of the mesh yet, and it may be a name of the mesh.
    Unknown,
    /// Somebody else's.
    Foreign,
}

/// A name taken apart, its letters folded.
pub(crate) struct Parts {
    labels: Vec<String>,
}

impl Parts {
    pub(crate) fn of(name: &Name<Vec<u8>>) -> Self {
        let labels = name.iter().filter(|label| !label.is_root()).map(|label| {
            // What stands in no host name stands in no service's name, so it need not be told apart.
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
            let fold = |byte: u8| if plain(byte) { char::from(byte.to_ascii_lowercase()) } else { '*' };
            label.as_slice().iter().copied().map(fold).collect()
        });
        Self { labels: labels.collect() }
    }

    fn labels(&self) -> Vec<&str> {
        self.labels.iter().map(String::as_str).collect()
    }

    /// The zone that answers for this name when there is nothing; of a name without one, the name itself.
    pub(crate) fn zone(&self) -> Option<&'static str> {
        match *self.labels() {
            [.., "cluster", "local"] => Some("cluster.local"),
            [.., "mesh"] => Some("mesh"),
            [.., "svc"] => Some("svc"),
            [.., "default"] => Some("default"),
            [.., "localhost"] => Some("localhost"),
            [.., "in-addr", "arpa"] => Some("in-addr.arpa"),
            [.., "ip6", "arpa"] => Some("ip6.arpa"),
            _ => None,
        }
    }
}

/// Says what stands at a name.
pub(crate) fn place<'a>(parts: &Parts, directory: &'a impl Directory, terms: &Terms<'_>) -> Place<'a> {
    let labels = parts.labels();
    let missing = if directory.is_known() { Place::Missing } else { Place::Unknown };
    match *labels {
        [] => return Place::Foreign,
        [.., "localhost"] => return Place::Loopback,
        [.., "arpa"] => return reverse(&labels, directory).unwrap_or(Place::Foreign),
        _ => {}
    }
    let host = labels.join(".");
    if let Some(entry) = service(&host, directory, terms).or_else(|| directory.aliased(&host)) {
        return Place::Service(entry);
    }
    if host == GATEWAY {
        return missing;
    }
    if let Some(place) = ports(&labels, directory, terms) {
        return place;
    }
    let has = |namespace: &str| directory.has_namespace(namespace);
    match *labels {
        ["mesh" | "svc"] | ["cluster", "local"] => Place::Bare { apex: true },
        ["svc", "cluster", "local"] => Place::Bare { apex: false },
        [space, "mesh" | "svc"] | [space, "svc", "cluster", "local"] if has(space) => Place::Bare { apex: false },
        [.., "mesh" | "svc" | "default"] if labels.len() > 1 => missing,
        [.., "cluster", "local"] => missing,
        // A bare label may be any service of our own namespace, and two may be one of it.
        [_] if !directory.is_known() => Place::Unknown,
        [_, space] if !directory.is_known() && space == terms.namespace => Place::Unknown,
        _ if is_expanded(&host, directory, terms) => Place::Missing,
        _ => Place::Foreign,
    }
}

fn service<'a>(host: &str, directory: &'a impl Directory, terms: &Terms<'_>) -> Option<&'a Entry> {
    directory.entry(&ServiceName::from_host(host, terms.namespace).ok()?)
}

/// `_NAME._tcp.SERVICE`: the ports that are called so; one without a name is called by its protocol.
fn ports<'a>(labels: &[&str], directory: &'a impl Directory, terms: &Terms<'_>) -> Option<Place<'a>> {
    match *labels {
        ["_tcp", ref rest @ ..] => service(&rest.join("."), directory, terms).map(|_| Place::Bare { apex: false }),
        [port, protocol, ref rest @ ..] if port.starts_with('_') && protocol.starts_with('_') => {
            let entry = service(&rest.join("."), directory, terms)?;
            let word = port.strip_prefix('_').filter(|_| protocol == "_tcp").unwrap_or_default();
            let called =
                |own: &Port| if own.name.is_empty() { own.protocol.as_str() == word } else { own.name == word };
            let ports = entry.ports.iter().filter(|own| !word.is_empty() && called(own));
            let numbers: Vec<u16> = ports.map(|own| own.number).collect();
            Some(if numbers.is_empty() { Place::Missing } else { Place::Ports(entry, numbers) })
        }
        _ => None,
    }
}

/// Whether a resolver has made this of a service's bare name and the host's search list, before it asks for the name alone.
fn is_expanded(host: &str, directory: &impl Directory, terms: &Terms<'_>) -> bool {
    let Some((bare, domain)) = host.split_once('.') else { return false };
    terms.search.iter().any(|own| own.trim_matches('.').eq_ignore_ascii_case(domain))
        && service(bare, directory, terms).is_some()
}

/// The name of a virtual or loopback address (RFC 1035 §3.5, RFC 3596 §2.5); `None` for every other one.
fn reverse<'a>(labels: &[&str], directory: &'a impl Directory) -> Option<Place<'a>> {
    let address = match *labels {
        [ref parts @ .., "in-addr", "arpa"] => IpAddr::V4(ipv4(parts)?),
        [ref parts @ .., "ip6", "arpa"] => IpAddr::V6(ipv6(parts)?),
        _ => return None,
    };
    if address.is_loopback() {
        return Some(Place::Reverse("localhost".to_owned()));
    }
    match directory.at(address) {
        Some(entry) => Some(Place::Reverse(entry.name.mesh_host())),
        None if !is_virtual(address) => None,
        None if directory.is_known() => Some(Place::Missing),
        None => Some(Place::Unknown),
    }
}

fn ipv4(parts: &[&str]) -> Option<Ipv4Addr> {
    let mut octets = [0; 4];
    if parts.len() != octets.len() {
        return None;
    }
    for (octet, part) in octets.iter_mut().rev().zip(parts) {
        *octet = part.parse().ok()?;
    }
    Some(octets.into())
}

fn ipv6(parts: &[&str]) -> Option<Ipv6Addr> {
    if parts.len() != 32 {
        return None;
    }
    let mut bits = 0_u128;
    for part in parts.iter().rev().filter(|part| part.len() == 1) {
        bits = (bits << 4) | u128::from(part.chars().next()?.to_digit(16)?);
    }
    parts.iter().all(|part| part.len() == 1).then(|| bits.into())
}
