//! The network of a captured application: `lo` alone, and every address of the world is on it (rtnetlink(7)).

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};

use hms_model::address;
use nix::sys::socket::SockProtocol;

use super::netlink::{CREATE, Message, Netlink, REQUEST};

/// The application's own address: the IPv4 dummy address (RFC 7600). Some programs ask for IPv4 addresses only if there is one that
/// is not a loopback address (`AI_ADDRCONFIG`, getaddrinfo(3)).
pub(super) const OWN_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 0, 8);
/// The same for IPv6: a unique local address (RFC 4193).
pub(super) const OWN_V6: Ipv6Addr = Ipv6Addr::new(0xfd68, 0x6d73, 0, 0, 0, 0, 0, 1);

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_NEWROUTE: u16 = 24;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// The index of `lo` in every network namespace.
const LO: u32 = 1;
const IFF_UP: u32 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// No duplicate address detection: there is nobody else.
const IFA_F_NODAD: u8 = 2;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_PREFSRC: u16 = 7;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;

/// Brings the network up. Answers whether there is IPv6.
pub(super) fn set_up() -> io::Result<bool> {
    let netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    netlink.tell(vec![up()])?;
    netlink.tell(vec![own_address(AF_INET, 32, &OWN_V4.octets())])?;
    netlink.tell(vec![default_route(AF_INET, &OWN_V4.octets())])?;
    let six = netlink
        .tell(vec![own_address(AF_INET6, 128, &OWN_V6.octets())])
        .and_then(|()| netlink.tell(vec![default_route(AF_INET6, &OWN_V6.octets())]));
    Ok(six.is_ok())
}

/// Makes every virtual address one of this machine, whatever other routes there are. Answers whether IPv6 has it too.
pub(super) fn virtual_addresses() -> io::Result<bool> {
    let netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
    let ((four, four_bits), (six, six_bits)) = (address::RANGE_V4, address::RANGE_V6);
    netlink.tell(vec![local_route(AF_INET, (&four.octets(), four_bits), &Ipv4Addr::LOCALHOST.octets())])?;
    let six = local_route(AF_INET6, (&six.octets(), six_bits), &Ipv6Addr::LOCALHOST.octets());
    Ok(netlink.tell(vec![six]).is_ok())
}

fn up() -> Message {
    let flags = IFF_UP.to_ne_bytes();
    // struct ifinfomsg: family, padding, type, index, flags, mask of flags.
    let fixed = [&[0; 4][..], &LO.to_ne_bytes(), &flags, &flags].concat();
    Message::new(RTM_NEWLINK, REQUEST, &fixed)
}

fn own_address(family: u8, prefix: u8, address: &[u8]) -> Message {
    // struct ifaddrmsg: family, length of the prefix, flags, scope (universe), index.
    let flags = if family == AF_INET6 { IFA_F_NODAD } else { 0 };
    let fixed = [&[family, prefix, flags, 0][..], &LO.to_ne_bytes()].concat();
    Message::new(RTM_NEWADDR, REQUEST | CREATE, &fixed).attribute(IFA_LOCAL, address).attribute(IFA_ADDRESS, address)
}

/// `local default dev lo`: whatever is dialled is on this machine, so that it can be redirected.
fn default_route(family: u8, source: &[u8]) -> Message {
    route(family, 0, source)
}

/// `local RANGE dev lo`.
fn local_route(family: u8, (range, bits): (&[u8], u8), source: &[u8]) -> Message {
    route(family, bits, source).attribute(RTA_DST, range)
}

fn route(family: u8, bits: u8, source: &[u8]) -> Message {
    // struct rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags.
    let fixed = [family, bits, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL, 0, 0, 0, 0];
    Message::new(RTM_NEWROUTE, REQUEST | CREATE, &fixed)
        .attribute(RTA_OIF, &LO.to_ne_bytes())
        .attribute(RTA_PREFSRC, source)
}
