//! The rules of a captured application's network, as one `nf_tables` transaction. Those of a network of its own (`netns`):
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
//! A packet that is dropped on its way out is not silently gone: the sender gets `EPERM` from the call that sent it. Those of a network
//! that the proxy shares with its application are in [`super::joined`].

use std::io;
use std::net::{IpAddr, Ipv6Addr};

use hms_model::address;
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
const NFT_MSG_DELTABLE: u16 = 2;
pub(super) const LOCAL_IN: u32 = 1;
pub(super) const LOCAL_OUT: u32 = 3;
/// `NF_IP_PRI_NAT_DST`, as nft's `dstnat`.
pub(super) const NAT: i32 = -100;
pub(super) const FILTER: i32 = 0;
pub(super) const ACCEPT: i32 = 1;
pub(super) const DROP: i32 = 0;
pub(super) const RETURN: i32 = -5;
const REGISTER: u32 = 1;
const VERDICT: u32 = 0;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
/// Where the destination stands in an IPv4 and an IPv6 header.
const DESTINATION: (u32, u32) = (16, 24);
/// The index of `lo` in every network namespace.
const LO: u32 = 1;

/// One step of a rule.
pub(super) enum Step {
    /// `meta nfproto`.
    Family(u8),
    /// `meta l4proto`.
    Transport(u8),
    /// Bytes of the network header.
    Network(u32, Vec<u8>),
    /// A byte of the network header that is at least this.
    AtLeast(u32, u8),
    /// `meta skgid`: the group of the process whose socket it is.
    Group(u32),
    /// `meta iif lo`.
    FromLoopback,
    /// `meta oif lo`.
    ToLoopback,
    /// The destination port.
    Port(u16),
    /// `ct state established,related`.
    Established,
    /// `redirect to :PORT`.
    Redirect(u16),
    /// `reject with tcp reset`.
    Reset,
    /// A verdict.
    Verdict(i32),
}

/// What a packet must be, and what becomes of it.
pub(super) type Rule = Vec<Step>;

/// A base chain with its rules.
pub(super) struct Chain {
    /// Its name.
    pub(super) name: &'static str,
    /// `nat` or `filter`.
    pub(super) kind: &'static str,
    /// Where packets pass it.
    pub(super) hook: u32,
    /// When, among those that stand there.
    pub(super) priority: i32,
    /// What becomes of a packet that no rule decides about.
    pub(super) policy: i32,
    /// The rules.
    pub(super) rules: Vec<Rule>,
}

/// Installs the rules of a network of the application's own.
pub(super) fn set_up() -> io::Result<()> {
    let (hook, redirect) = (LOCAL_OUT, redirections());
    install(vec![
        Chain { name: "redirect", kind: "nat", hook, priority: NAT, policy: ACCEPT, rules: redirect },
        Chain { name: "refuse", kind: "filter", hook, priority: FILTER, policy: DROP, rules: exceptions() },
    ])
}

/// Makes these chains the whole of our table, in one transaction.
pub(super) fn install(chains: Vec<Chain>) -> io::Result<()> {
    // struct nfgenmsg with the subsystem as resource id.
    let batch = [0, 0, 0, 10];
    let table = |kind: u16, flags: u16| Message::new(NFTABLES | kind, REQUEST | flags, &INET).text(1, TABLE);
    let mut messages = vec![Message::new(NFNL_MSG_BATCH_BEGIN, 1, &batch)];
    // Only what exists can be deleted.
    messages.extend([table(NFT_MSG_NEWTABLE, CREATE), table(NFT_MSG_DELTABLE, 0), table(NFT_MSG_NEWTABLE, CREATE)]);
    for Chain { name, kind, hook, priority, policy, rules } in chains {
        messages.push(chain(name, kind, (hook, priority), policy));
        messages.extend(rules.into_iter().map(|steps| rule(name, steps)));
    }
    messages.push(Message::new(NFNL_MSG_BATCH_END, 1, &batch));
    Netlink::open(SockProtocol::NetlinkNetFilter)?.tell(messages)
}

/// Packets to this address.
pub(super) fn to(address: IpAddr) -> Rule {
    match address {
        IpAddr::V4(four) => vec![Step::Family(NFPROTO_IPV4), Step::Network(DESTINATION.0, four.octets().to_vec())],
        IpAddr::V6(six) => vec![Step::Family(NFPROTO_IPV6), Step::Network(DESTINATION.1, six.octets().to_vec())],
    }
}

/// Packets to the virtual addresses of a family ([`hms_model::address`]).
pub(super) fn to_virtual() -> [Rule; 2] {
    let ((four, _), (six, bits)) = (address::RANGE_V4, address::RANGE_V6);
    let six = six.octets().into_iter().take(usize::from(bits / 8)).collect();
    [
        // The range reaches to the last address there is.
        vec![Step::Family(NFPROTO_IPV4), Step::AtLeast(DESTINATION.0, four.octets()[0])],
        vec![Step::Family(NFPROTO_IPV6), Step::Network(DESTINATION.1, six)],
    ]
}

fn redirections() -> Vec<Rule> {
    let mut rules = vec![
        vec![Step::Transport(UDP), Step::Port(53), Step::Redirect(DNS_PORT)],
        vec![Step::Transport(TCP), Step::Port(53), Step::Redirect(DNS_PORT)],
    ];
    rules.extend(own(RETURN));
    rules.push(vec![Step::Transport(TCP), Step::Redirect(OUTBOUND_PORT)]);
    rules
}

fn exceptions() -> Vec<Rule> {
    let mut rules =
        vec![vec![Step::Established, Step::Verdict(ACCEPT)], vec![Step::Transport(TCP), Step::Verdict(ACCEPT)]];
    rules.extend(own(ACCEPT));
    rules
}

/// What becomes of packets to the application itself.
fn own(verdict: i32) -> Vec<Rule> {
    let four =
        |bytes: Vec<u8>| vec![Step::Family(NFPROTO_IPV4), Step::Network(DESTINATION.0, bytes), Step::Verdict(verdict)];
    let six = |address: Ipv6Addr| {
        let bytes = address.octets().to_vec();
        vec![Step::Family(NFPROTO_IPV6), Step::Network(DESTINATION.1, bytes), Step::Verdict(verdict)]
    };
    vec![four(vec![127]), four(OWN_V4.octets().to_vec()), six(Ipv6Addr::LOCALHOST), six(OWN_V6)]
}

fn chain(name: &str, kind: &str, (hook, priority): (u32, i32), policy: i32) -> Message {
    Message::new(NFTABLES | NFT_MSG_NEWCHAIN, REQUEST | CREATE, &INET)
        .text(1, TABLE)
        .text(3, name)
        .nested(4, |place| place.number(1, hook).number(2, priority.cast_unsigned()))
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
        Step::AtLeast(offset, byte) => compare(payload(rule, 1, offset, 1), 5, &[byte]),
        Step::Group(group) => equals(meta(rule, 11), &group.to_ne_bytes()),
        Step::FromLoopback => equals(meta(rule, 4), &LO.to_ne_bytes()),
        Step::ToLoopback => equals(meta(rule, 5), &LO.to_ne_bytes()),
        Step::Port(port) => equals(payload(rule, 2, 2, 2), &port.to_be_bytes()),
        Step::Established => established(rule),
        Step::Redirect(port) => {
            let rule = expression(rule, "immediate", |data| {
                data.number(1, REGISTER).nested(2, |value| value.attribute(1, &port.to_be_bytes()))
            });
            expression(rule, "redir", |data| data.number(1, REGISTER))
        }
        Step::Reset => expression(rule, "reject", |data| data.number(1, 1)),
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
