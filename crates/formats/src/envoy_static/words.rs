//! Scalars as Envoy's configuration writes them: protobuf in JSON.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use hms_model::finding::Finding;

use super::shape::{LEAVE_OUT, Not, Shape, not_here};
use crate::document::short;
use crate::read::scalar::words;
use crate::read::{Field, Reader};

/// The longest time that is taken.
pub(super) const LONGEST: Duration = Duration::from_hours(24 * 7);

/// `0.25s`: seconds with at most nine decimals.
pub(super) fn duration(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    bounds: RangeInclusive<Duration>,
) -> Option<Duration> {
    const WANTS: &str = "a time such as 0.25s or 15s";
    let text = reader.text(field, WANTS)?;
    let Some(duration) = seconds(text) else {
        let why = "Envoy's times are seconds with at most nine decimals, then s";
        reader.bad(field, WANTS, why, "write for example 0.25s for 250 ms, 900s for 15 min");
        return None;
    };
    // What is finer than a microsecond does not travel.
    let duration = Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    let is_least = duration.is_zero() || duration >= Duration::from_millis(1);
    if !bounds.contains(&duration) || !is_least {
        let least = (*bounds.start()).max(Duration::from_millis(1));
        let why = format!("it lies between {} and {}", words(least), words(*bounds.end()));
        reader.bad(field, WANTS, &why, "write a time within these bounds");
        return None;
    }
    Some(duration)
}

fn seconds(text: &str) -> Option<Duration> {
    let number = text.strip_suffix('s')?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > 9 || whole.len() > 12 {
        return None;
    }
    Some(Duration::new(whole.parse().ok()?, format!("{fraction:0<9}").parse().ok()?))
}

/// A value of an enumeration, by its name; lower case is taken as well.
pub(super) fn word<T: Clone>(reader: &mut Reader<'_>, field: &Field<'_>, words: &[(&'static str, T)]) -> Option<T> {
    let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
    let text = reader.text(field, &known.join(" or "))?;
    if let Some((_, value)) = words.iter().find(|(word, _)| *word == text || word.to_ascii_lowercase() == text) {
        return Some(value.clone());
    }
    reader.word(field, words)
}

/// Which ports an address may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ports {
    /// Any that can be listened on; 0 is one that the system chooses.
    Listened,
    /// Any that can be connected to.
    Called,
}

/// A host and a port, as `address: {socket_address: …}` names them.
#[derive(Debug)]
pub(super) struct Socket<'n> {
    pub(super) host: &'n str,
    pub(super) port: u16,
    pub(super) at: Field<'n>,
}

const ADDRESS: Shape = Shape::new(
    &["socket_address"],
    &[
        ("pipe", Not::Here("use a TCP port; unix sockets are not listened on or called")),
        ("envoy_internal_address", Not::Here(LEAVE_OUT)),
    ],
);
const SOCKET: Shape = Shape::new(
    &["address", "port_value", "protocol"],
    &[
        ("named_port", Not::Here("write the number: port_value: 8080")),
        ("resolver_name", Not::Here(LEAVE_OUT)),
        ("ipv4_compat", Not::Here("listen on the IPv4 address as well, in a listener of its own")),
        ("network_namespace_filepath", Not::Here("start the proxy inside that namespace")),
    ],
);

/// `socket_address: { address: 0.0.0.0, port_value: 15001 }` of an `address`.
pub(super) fn socket<'n>(reader: &mut Reader<'_>, field: &Field<'n>, ports: Ports) -> Option<Socket<'n>> {
    let table = ADDRESS.read(reader, field.node, &field.path)?;
    let example = "socket_address: { address: 127.0.0.1, port_value: 8080 }";
    let socket = reader.need(&table, "socket_address", example).cloned()?;
    let table = SOCKET.read(reader, socket.node, &socket.path)?;
    if let Some(protocol) = table.field("protocol")
        && word(reader, protocol, &[("TCP", true), ("UDP", false)]) == Some(false)
    {
        reader.report(protocol.key, not_here("UDP").fix(LEAVE_OUT));
    }
    let host = reader.need(&table, "address", "address: 127.0.0.1").cloned();
    let port = reader.need(&table, "port_value", "port_value: 8080").cloned();
    let host = host.and_then(|field| Some((reader.line(&field, "an address or a host name", 253)?, field)));
    let least = u32::from(ports == Ports::Called);
    let port = port.and_then(|port| reader.whole(&port, "a port", least..=65535));
    let (host, at) = host?;
    Some(Socket { host, port: port.and_then(|port| u16::try_from(port).ok())?, at })
}

/// The same where only an IP address will do, and where it stands.
pub(super) fn listened<'n>(reader: &mut Reader<'_>, field: &Field<'n>) -> Option<(SocketAddr, Field<'n>)> {
    let Socket { host, port, at } = socket(reader, field, Ports::Listened)?;
    let ip = if host == "localhost" { Some(IpAddr::V4(Ipv4Addr::LOCALHOST)) } else { host.parse().ok() };
    if ip.is_none() {
        let fix = "write 127.0.0.1, or 0.0.0.0 for every address of this machine";
        reader.bad(&at, "an IP address to listen on", "a name may mean several", fix);
    }
    Some((SocketAddr::new(ip?, port), at))
}

/// The finding that a name is none of those that are known.
pub(super) fn unknown_name(what: &str, name: &str, known: &str) -> Finding {
    not_here(&format!("{what} `{}`", short(name))).because(format!("known here: {known}"))
}
