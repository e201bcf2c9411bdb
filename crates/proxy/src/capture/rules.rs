//! The rules of a captured application's network, as one `nf_tables` transaction:
//!
//! ```text
//! table inet hms {
//!   chain redirect { type nat hook output priority -100; policy accept;
//!     udp dport 53 redirect to :15053          before the loopback exemption, because of resolvers at 127.0.0.53
//!     tcp dport 53 redirect to :15053
//!     ip daddr 127.0.0.0/8 return              ip6 daddr ::1 return
//!     ip daddr 192.0.0.8 return                ip6 daddr fd68:6d73::1 return
//!     meta l4proto tcp redirect to :15001
//!   }
//!   chain refuse { type filter hook output priority 0; policy drop;
//!     ct state established,related accept
//!     meta l4proto tcp accept                  all of it is redirected or stays on loopback
//!     ip daddr 127.0.0.0/8 accept              ip6 daddr ::1 accept
//!     ip daddr 192.0.0.8 accept                ip6 daddr fd68:6d73::1 accept
//!   }
//! }
//! ```
//!
//! A packet that is dropped on its way out is not silently gone: the sender gets `EPERM` from the call that sent it.

use std::io;
use std::net::Ipv6Addr;

use nix::sys::socket::SockProtocol;

use super::netlink::{APPEND, CREATE, Message, Netlink, REQUEST};
use super::routes::{OWN_V4, OWN_V6};
use super::{DNS_PORT, OUTBOUND_PORT};

const TABLE: &str = "hms";
/// `NFNL_SUBSYS_NFTABLES << 8`.
const NFTABLES: u16 = 10 << 8;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_NEWRULE: u16 = 6;
/// `struct nfgenmsg` of the family `inet`.
const INET: [u8; 4] = [1, 0, 0, 0];
const LOCAL_OUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`, as nft's `dstnat`.
const NAT: i32 = -100;
const FILTER: i32 = 0;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const RETURN: i32 = -5;
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;

/// One step of a rule.
enum Step {
    /// `meta nfproto`.
    Family(u8),
    /// `meta l4proto`.
    Transport(u8),
    /// Bytes of the network header.
    Network(u32, Vec<u8>),
    /// The destination port.
    Port(u16),
    /// `ct state established,related`.
    Established,
    /// `redirect to :PORT`.
    Redirect(u16),
    /// A verdict.
    Verdict(i32),
}

/// Installs the rules.
pub(super) fn set_up() -> io::Result<()> {
    // struct nfgenmsg with the subsystem as resource id.
    let batch = [0, 0, 0, 10];
    let mut messages = vec![Message::new(NFNL_MSG_BATCH_BEGIN, 1, &batch)];
    messages.push(Message::new(NFTABLES | NFT_MSG_NEWTABLE, REQUEST | CREATE, &INET).text(1, TABLE));
    messages.push(chain("redirect", "nat", NAT, ACCEPT));
    messages.push(chain("refuse", "filter", FILTER, DROP));
    messages.extend(redirections().into_iter().map(|steps| rule("redirect", steps)));
    messages.extend(exceptions().into_iter().map(|steps| rule("refuse", steps)));
    messages.push(Message::new(NFNL_MSG_BATCH_END, 1, &batch));
    Netlink::open(SockProtocol::NetlinkNetFilter)?.tell(messages)
}

fn redirections() -> Vec<Vec<Step>> {
    let mut rules = vec![
        vec![Step::Transport(UDP), Step::Port(53), Step::Redirect(DNS_PORT)],
        vec![Step::Transport(TCP), Step::Port(53), Step::Redirect(DNS_PORT)],
    ];
    rules.extend(own(RETURN));
    rules.push(vec![Step::Transport(TCP), Step::Redirect(OUTBOUND_PORT)]);
    rules
}

fn exceptions() -> Vec<Vec<Step>> {
    let mut rules =
        vec![vec![Step::Established, Step::Verdict(ACCEPT)], vec![Step::Transport(TCP), Step::Verdict(ACCEPT)]];
    rules.extend(own(ACCEPT));
    rules
}

/// What becomes of packets to the application itself.
fn own(verdict: i32) -> Vec<Vec<Step>> {
    /// Where the destination stands in an IPv4 and an IPv6 header.
    const DESTINATION: (u32, u32) = (16, 24);
    let four =
        |bytes: Vec<u8>| vec![Step::Family(NFPROTO_IPV4), Step::Network(DESTINATION.0, bytes), Step::Verdict(verdict)];
    let six = |address: Ipv6Addr| {
        let bytes = address.octets().to_vec();
        vec![Step::Family(NFPROTO_IPV6), Step::Network(DESTINATION.1, bytes), Step::Verdict(verdict)]
    };
    vec![four(vec![127]), four(OWN_V4.octets().to_vec()), six(Ipv6Addr::LOCALHOST), six(OWN_V6)]
}

fn chain(name: &str, kind: &str, priority: i32, policy: i32) -> Message {
    Message::new(NFTABLES | NFT_MSG_NEWCHAIN, REQUEST | CREATE, &INET)
        .text(1, TABLE)
        .text(3, name)
        .nested(4, |hook| hook.number(1, LOCAL_OUT).number(2, priority.cast_unsigned()))
        .number(5, policy.cast_unsigned())
        .text(7, kind)
}

fn rule(chain: &str, steps: Vec<Step>) -> Message {
    Message::new(NFTABLES | NFT_MSG_NEWRULE, REQUEST | CREATE | APPEND, &INET)
        .text(1, TABLE)
        .text(2, chain)
        .nested(4, |expressions| steps.into_iter().fold(expressions, step))
}

fn step(rule: Message, step: Step) -> Message {
    match step {
        Step::Family(family) => equals(meta(rule, 15), &[family]),
        Step::Transport(protocol) => equals(meta(rule, 16), &[protocol]),
        Step::Network(offset, bytes) => equals(payload(rule, 1, offset, bytes.len()), &bytes),
        Step::Port(port) => equals(payload(rule, 2, 2, 2), &port.to_be_bytes()),
        Step::Established => established(rule),
        Step::Redirect(port) => {
            let rule = expression(rule, "immediate", |data| {
                data.number(1, REGISTER).nested(2, |value| value.attribute(1, &port.to_be_bytes()))
            });
            expression(rule, "redir", |data| data.number(1, REGISTER))
        }
        Step::Verdict(verdict) => expression(rule, "immediate", |data| {
            data.number(1, VERDICT).nested(2, |value| value.nested(2, |code| code.number(1, verdict.cast_unsigned())))
        }),
    }
}

fn expression(rule: Message, name: &str, data: impl FnOnce(Message) -> Message) -> Message {
    rule.nested(1, |element| element.text(1, name).nested(2, data))
}

fn meta(rule: Message, key: u32) -> Message {
    expression(rule, "meta", |data| data.number(1, REGISTER).number(2, key))
}

fn payload(rule: Message, base: u32, offset: u32, length: usize) -> Message {
    let length = u32::try_from(length).unwrap_or_default();
    expression(rule, "payload", |data| data.number(1, REGISTER).number(2, base).number(3, offset).number(4, length))
}

fn equals(rule: Message, bytes: &[u8]) -> Message {
    compare(rule, 0, bytes)
}

fn compare(rule: Message, operation: u32, bytes: &[u8]) -> Message {
    expression(rule, "cmp", |data| {
        data.number(1, REGISTER).number(2, operation).nested(3, |value| value.attribute(1, bytes))
    })
}

fn established(rule: Message) -> Message {
    /// The bits of `established` and `related`.
    const STATES: u32 = 2 | 4;
    let rule = expression(rule, "ct", |data| data.number(1, REGISTER).number(2, 0));
    let rule = expression(rule, "bitwise", |data| {
        data.number(1, REGISTER)
            .number(2, REGISTER)
            .number(3, 4)
            .nested(4, |mask| mask.attribute(1, &STATES.to_ne_bytes()))
            .nested(5, |xor| xor.attribute(1, &[0; 4]))
    });
    compare(rule, 1, &[0; 4])
}
