//! What an endpoint must be to get in, whoever brings it (reliability J3, J4).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use hms_model::finding::Finding;
use hms_model::resource::{ResourceKey, valid_id};
use hms_model::workload::{Address, Endpoint, Transport};

use super::Peer;

/// Endpoints of one service.
pub(super) const PER_SERVICE: usize = 5_000;
/// Endpoints of one identity.
pub(super) const PER_IDENTITY: usize = 5_000;
/// Endpoints altogether.
pub(super) const TOTAL: usize = 50_000;
/// Bytes of a version or a zone.
const WORD: usize = 63;

fn refuse(message: impl Into<String>) -> Box<Finding> {
    Box::new(Finding::error(2311, message))
}

/// What can be said of an endpoint without knowing the others.
pub(super) fn shape(endpoint: &Endpoint) -> Result<(), Box<Finding>> {
    if !valid_id(&endpoint.id) {
        return Err(refuse("an endpoint's id is 1 to 128 of letters, digits, `.`, `_`, `:` and `-`"));
    }
    if endpoint.version.is_empty() {
        return Err(refuse("an endpoint has a version; `latest` when none is known"));
    }
    for (what, word) in [("version", &endpoint.version), ("zone", &endpoint.zone)] {
        let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if word.len() > WORD || !word.bytes().all(fits) {
            return Err(refuse(format!("a {what} is at most {WORD} of letters, digits, `.`, `_` and `-`")));
        }
    }
    if endpoint.address.port == 0 {
        return Err(refuse("an endpoint has a port from 1 to 65535"));
    }
    Ok(())
}

/// Whether traffic may be sent to an address at all: one of a single machine, and none of our own.
pub(super) fn address(address: &Address, reserved: &BTreeSet<SocketAddr>) -> Result<(), Box<Finding>> {
    let ip = address.ip.to_canonical();
    let special = match ip {
        IpAddr::V4(v4) => v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local(),
    };
    // Metadata services of clouds beyond the link-local one: AWS over IPv6, Alibaba.
    let metadata = ["fd00:ec2::254", "100.100.100.200"].iter().any(|text| text.parse() == Ok(ip));
    if special || metadata {
        return Err(refuse(format!("no workload serves at {address}")));
    }
    let own = |reserved: &SocketAddr| {
        let same_ip = reserved.ip().to_canonical() == ip || (reserved.ip().is_unspecified() && ip.is_loopback());
        reserved.port() == address.port && (same_ip || (reserved.ip().is_loopback() && ip.is_loopback()))
    };
    if reserved.iter().any(own) {
        return Err(refuse(format!("{address} belongs to the control plane")));
    }
    Ok(())
}

/// A workload registers its own address: on this machine any of this machine's, from elsewhere exactly the one it calls from.
pub(super) fn origin(address: &Address, peer: &Peer) -> Result<(), Box<Finding>> {
    let local = match peer {
        Peer::Local => true,
        Peer::Remote(ip) => ip.to_canonical().is_loopback(),
    };
    let own = matches!(peer, Peer::Remote(ip) if ip.to_canonical() == address.ip.to_canonical());
    if local || own {
        return Ok(());
    }
    Err(refuse(format!("{address} is not the address of the workload that registers it")))
}

/// Nobody's share may crowd out the others.
pub(super) fn quota(endpoint: &Endpoint, others: &BTreeMap<ResourceKey, Arc<Endpoint>>) -> Result<(), Box<Finding>> {
    let full =
        |what: String, limit: usize| Box::new(Finding::error(2312, format!("{what} has {limit} endpoints already")));
    if others.contains_key(&ResourceKey::endpoint(&endpoint.service, &endpoint.id)) {
        return Ok(());
    }
    if others.len() >= TOTAL {
        return Err(full("the mesh".to_owned(), TOTAL));
    }
    // Nobody has more than there are, so usually there is nothing to count.
    if others.len() < PER_SERVICE.min(PER_IDENTITY) {
        return Ok(());
    }
    if others.values().filter(|other| other.service == endpoint.service).count() >= PER_SERVICE {
        return Err(full(format!("`{}`", endpoint.service), PER_SERVICE));
    }
    if let Transport::Mesh(identity) = &endpoint.transport {
        let own = others.values().filter(|other| matches!(&other.transport, Transport::Mesh(id) if id == identity));
        if own.count() >= PER_IDENTITY {
            return Err(full(identity.to_string(), PER_IDENTITY));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ip: &str) -> Address {
        Address { ip: ip.parse().unwrap(), port: 15014 }
    }

    #[test]
    fn addresses_that_are_no_workloads_are_refused() {
        let reserved = BTreeSet::from(["127.0.0.1:15014".parse().unwrap()]);
        for ip in [
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "169.254.169.254",
            "::ffff:169.254.169.254",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "100.100.100.200",
            "127.0.0.1",
            "127.0.0.9",
            "::ffff:127.0.0.1",
        ] {
            assert!(address(&at(ip), &reserved).is_err(), "{ip}");
        }
        for ip in ["10.0.0.7", "192.168.1.1", "2001:db8::1"] {
            assert!(address(&at(ip), &reserved).is_ok(), "{ip}");
        }
    }

    #[test]
    fn a_workload_elsewhere_registers_only_the_address_it_calls_from() {
        let remote = Peer::Remote("10.0.0.7".parse().unwrap());
        assert!(origin(&at("10.0.0.7"), &remote).is_ok());
        for ip in ["10.0.0.8", "127.0.0.1", "169.254.169.254"] {
            assert!(origin(&at(ip), &remote).is_err(), "{ip}");
        }
        assert!(origin(&at("127.0.0.1"), &Peer::Local).is_ok());
    }
}
