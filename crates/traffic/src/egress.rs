//! Whether a connection or request may leave the mesh, and where it then goes.
//!
//! The best name that is known decides: the one of the request, of the TLS client, or the one whose address an application was
//! told. What is let through by a name goes to where the *name* leads, never to the address that happened to be dialled, so that
//! nobody reaches an address by naming somebody else's host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hms_model::address::is_virtual;
use hms_model::names::Label;
use hms_model::policy::Egress;
use hms_model::policy::egress::{EgressHost, Unlisted};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The best name known, in any letters.
    pub name: Option<&'a str>,
    /// The address that was dialled, if one was.
    pub address: Option<IpAddr>,
    /// The port.
    pub port: u16,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'a> {
    /// A listed host.
    Listed(&'a Label, &'a EgressHost),
    /// Not listed, and allowed nonetheless.
    Unmanaged,
    /// Refused.
    Refused(Why<'a>),
}

/// Why nothing leaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why<'a> {
    /// `default: deny`.
    Everything,
    /// The host is not listed.
    NotListed,
    /// The host is listed under this label, the port is not among its own.
    Port(&'a Label),
}

/// Decides.
pub fn decide<'a>(egress: &'a Egress, asked: Asked<'_>) -> Verdict<'a> {
    let unlisted = egress.unlisted.unwrap_or(Unlisted::Refused);
    if unlisted == Unlisted::AllRefused {
        return Verdict::Refused(Why::Everything);
    }
    let mut wrong_port = None;
    for (label, host) in &egress.hosts {
        if !is_meant(host, asked) {
            continue;
        }
        if host.takes(asked.port) {
            return Verdict::Listed(label, host);
        }
        wrong_port.get_or_insert(label);
    }
    match (unlisted, wrong_port) {
        (Unlisted::Allowed, _) => Verdict::Unmanaged,
        (_, Some(label)) => Verdict::Refused(Why::Port(label)),
        (_, None) => Verdict::Refused(Why::NotListed),
    }
}

/// Whether the host is the one asked for: by its name, or, where an address is listed, by the address itself.
fn is_meant(host: &EgressHost, asked: Asked<'_>) -> bool {
    match host.host.parse::<IpAddr>() {
        Ok(own) => {
            let named = || asked.name.and_then(literal);
            asked.address.or_else(named).is_some_and(|address| address.to_canonical() == own.to_canonical())
        }
        Err(_name) => asked.name.is_some_and(|name| plain(name).eq_ignore_ascii_case(&host.host)),
    }
}

/// A name without the dot at its end.
pub fn plain(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

/// The address that a host name is, if it is one: `10.0.0.1`, `[::1]`.
pub fn literal(name: &str) -> Option<IpAddr> {
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse().ok()
}

/// Whether an address means something particular to the machine that dials it, or nothing at all: nobody outside may lead a proxy
/// there by a name (reliability H1). Private networks are not among these, they are where many outside services live.
pub fn is_special(address: IpAddr) -> bool {
    if is_virtual(address) {
        return true;
    }
    match address.to_canonical() {
        IpAddr::V4(own) => special_v4(own),
        IpAddr::V6(own) => {
            let link_local = own.segments().first().is_some_and(|first| first & 0xffc0 == 0xfe80);
            own.is_loopback()
                || own.is_unspecified()
                || own.is_multicast()
                || link_local
                || translated(own).is_some_and(special_v4)
        }
    }
}

fn special_v4(own: Ipv4Addr) -> bool {
    let first = own.octets().first().copied().unwrap_or_default();
    own.is_loopback() || own.is_link_local() || own.is_multicast() || own.is_broadcast() || first == 0 || first >= 240
}

/// The IPv4 address within one of NAT64 (RFC 6052), 6to4's, or an IPv4-compatible one.
fn translated(own: Ipv6Addr) -> Option<Ipv4Addr> {
    let pair = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match own.segments() {
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] | [0x2002, high, low, ..] => {
            Some(pair(high, low))
        }
        _ => None,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use hms_model::policy::egress::Origination;
    use hms_model::resource::Overlay;
    use proptest::prelude::*;

    use super::*;

    fn egress(unlisted: Option<Unlisted>) -> Egress {
        let host = |host: &str, ports: &[u16]| EgressHost {
            host: host.to_owned(),
            ports: ports.to_vec(),
            local: false,
            tls: None,
            overlay: Overlay::default(),
        };
        let fema = EgressHost { tls: Some(Origination::default()), ..host("api.fema.gov", &[443]) };
        let hosts = [("fema", fema), ("db", host("db.example.com", &[5432])), ("box", host("10.1.2.3", &[22]))];
        let hosts = hosts.into_iter().map(|(label, host)| (Label::new(label).unwrap(), host)).collect();
        Egress { unlisted, hosts, ..Egress::default() }
    }

    fn asked<'a>(name: Option<&'a str>, address: &str, port: u16) -> Asked<'a> {
        Asked { name, address: address.parse().ok(), port }
    }

    fn told(verdict: Verdict<'_>) -> String {
        match verdict {
            Verdict::Listed(label, _) => label.to_string(),
            Verdict::Unmanaged => "unmanaged".to_owned(),
            Verdict::Refused(Why::Port(label)) => format!("not this port of {label}"),
            Verdict::Refused(why) => format!("{why:?}"),
        }
    }

    #[test]
    fn the_name_decides_before_the_address_and_the_port_with_either() {
        let listed = egress(Some(Unlisted::Refused));
        let of = |name, address, port| told(decide(&listed, asked(name, address, port)));
        assert_eq!(of(Some("API.fema.gov."), "192.0.2.66", 443), "fema");
        assert_eq!(of(Some("api.fema.gov"), "", 80), "fema", "TLS is originated from the clear port");
        assert_eq!(of(Some("db.example.com"), "", 80), "not this port of db");
        assert_eq!(of(None, "10.1.2.3", 22), "box");
        assert_eq!(of(Some("10.1.2.3"), "", 22), "box");
        assert_eq!(of(Some("10.1.2.3"), "192.0.2.66", 22), "NotListed", "a name cannot stand for the address dialled");
        assert_eq!(of(Some("example.com"), "192.0.2.1", 443), "NotListed");
        assert_eq!(of(None, "192.0.2.1", 443), "NotListed");
    }

    #[test]
    fn without_a_word_only_listed_hosts_are_called_and_deny_refuses_those_too() {
        let nothing = Egress::default();
        assert_eq!(told(decide(&nothing, asked(Some("a.example"), "", 443))), "NotListed");
        let all = egress(Some(Unlisted::AllRefused));
        assert_eq!(told(decide(&all, asked(Some("api.fema.gov"), "", 443))), "Everything");
        let allow = egress(Some(Unlisted::Allowed));
        assert_eq!(told(decide(&allow, asked(Some("a.example"), "", 443))), "unmanaged");
        assert_eq!(told(decide(&allow, asked(Some("api.fema.gov"), "", 443))), "fema");
    }

    #[test]
    fn addresses_of_the_machine_itself_are_special_in_every_spelling() {
        let special = [
            "127.0.0.1",
            "127.1.2.3",
            "0.0.0.0",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.7",
            "::",
            "::1",
            "fe80::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "fd48:4d53:6d65:7368::7",
        ];
        for address in special {
            assert!(is_special(address.parse().unwrap()), "{address}");
        }
        for address in ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800:220:1::1", "fd00::1", "64:ff9b::808:808"]
        {
            assert!(!is_special(address.parse().unwrap()), "{address}");
        }
    }

    proptest! {
        #[test]
        fn what_is_refused_for_listed_hosts_only_is_never_listed(name in "[a-z.]{0,20}", port: u16, address: u32) {
            let listed = egress(Some(Unlisted::Refused));
            let asked = Asked { name: Some(&name), address: Some(IpAddr::V4(address.into())), port };
            let known = ["api.fema.gov", "db.example.com"].contains(&plain(&name)) || address == 0x0a01_0203;
            match decide(&listed, asked) {
                Verdict::Listed(_, host) => prop_assert!(known && host.takes(port)),
                Verdict::Unmanaged => prop_assert!(false, "nothing is unmanaged here"),
                Verdict::Refused(_) => {}
            }
        }

        #[test]
        fn an_address_is_as_special_as_its_mapped_form(address: u32) {
            let four = Ipv4Addr::from(address);
            prop_assert_eq!(is_special(IpAddr::V4(four)), is_special(IpAddr::V6(four.to_ipv6_mapped())));
        }
    }
}
