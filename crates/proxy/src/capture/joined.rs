//! The application and its proxy in one network namespace that somebody else made: two containers of which one has the network of
//! the other. The proxy sets up the rules itself, then lets go of every right that it needed for it.
//!
//! ```text
//! table inet hms {
//!   chain redirect { type nat hook output priority -110; policy accept;     before an engine's own rules for its resolver
//!     meta skgid GROUP return                                              the proxy itself
//!     ip daddr NAMESERVER udp dport 53 redirect to :15053                  each of resolv.conf; tcp as well
//!     tcp dport 53 return
//!     ip daddr 240.0.0.0/4 tcp redirect to :15001                          ip6 daddr fd48:…::/64 as well
//!     meta oif lo return
//!     meta l4proto tcp redirect to :15001
//!   }
//!   chain refuse { type filter hook output priority 0; policy drop;
//!     meta skgid GROUP accept            ct state established,related accept
//!     meta oif lo accept                 meta l4proto tcp accept
//!     udp dport 53 accept                meta l4proto icmp accept, ipv6-icmp accept
//!   }
//!   chain inbound { type filter hook input priority 0; policy accept;
//!     meta iif lo accept                 ct state established,related accept
//!     tcp dport INBOUND accept           tcp dport OPEN accept
//!     meta l4proto tcp reject with tcp reset
//!   }
//! }
//! ```
//!
//! Only questions to the name servers of `resolv.conf` are redirected, and others are let out: an engine's resolver (127.0.0.11)
//! sends what it does not know from inside the same namespace, and would otherwise ask us in a circle.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::path::Path;

use hms_dns::host::HostResolver;
use nix::unistd::{Gid, Uid, setgroups, setresgid, setresuid};
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

use super::rules::{self, ACCEPT, Chain, DROP, FILTER, LOCAL_IN, LOCAL_OUT, NAT, RETURN, Rule, Step, TCP, UDP};
use super::{DNS_PORT, OUTBOUND_PORT, routes};

/// The group by which the rules know the proxy. No image has an account in it.
pub const GROUP: u32 = 2102;
/// Before whatever stands at the usual priority.
const EARLY: i32 = NAT - 10;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// What the namespace is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Who the proxy is afterwards; `None` is who it was.
    pub user: Option<u32>,
    /// Ports at which others reach the application around the mesh.
    pub open: Vec<u16>,
}

/// Where captured connections arrive, with names for the listeners.
pub fn doors() -> [(&'static str, SocketAddr); 2] {
    [
        ("captured", (Ipv4Addr::LOCALHOST, OUTBOUND_PORT).into()),
        ("captured-6", (Ipv6Addr::LOCALHOST, OUTBOUND_PORT).into()),
    ]
}

/// Where captured questions for names arrive.
pub fn resolvers() -> [SocketAddr; 2] {
    [(Ipv4Addr::LOCALHOST, DNS_PORT).into(), (Ipv6Addr::LOCALHOST, DNS_PORT).into()]
}

/// Sets up the network namespace that this process lives in, and lets go of the rights. It must have a single thread: rights belong to
/// threads.
pub fn set_up(joined: &Joined, inbound: u16, resolv_conf: &Path) -> Result<(), String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    // Without the file, programs ask 127.0.0.1 (resolv.conf(5)).
    let resolver = HostResolver::read(&std::fs::read(resolv_conf).unwrap_or_default());
    let servers = match resolver.servers {
        none if none.is_empty() => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
        servers => servers,
    };
    routes::virtual_addresses().map_err(failed("routes"))?;
    rules::install(chains(joined, inbound, &servers)).map_err(failed("nf_tables"))?;
    let group = Gid::from_raw(GROUP);
    setgroups(&[]).and_then(|()| setresgid(group, group, group)).map_err(|error| format!("the group: {error}"))?;
    if let Some(user) = joined.user.map(Uid::from_raw) {
        setresuid(user, user, user).map_err(|error| format!("the user: {error}"))?;
    }
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    set_capabilities(None, none).map_err(|error| format!("the capabilities: {error}"))
}

/// Our own address on the way to `peer`. Nothing is sent.
pub fn address_towards(peer: SocketAddr) -> io::Result<SocketAddr> {
    let any: SocketAddr =
        if peer.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (Ipv6Addr::UNSPECIFIED, 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(peer)?;
    socket.local_addr()
}

fn chains(joined: &Joined, inbound: u16, servers: &[SocketAddr]) -> Vec<Chain> {
    let chain = |name, kind, (hook, priority), policy, rules| Chain { name, kind, hook, priority, policy, rules };
    vec![
        chain("redirect", "nat", (LOCAL_OUT, EARLY), ACCEPT, redirections(servers)),
        chain("refuse", "filter", (LOCAL_OUT, FILTER), DROP, outbound()),
        chain("inbound", "filter", (LOCAL_IN, FILTER), ACCEPT, inbound_rules(joined, inbound)),
    ]
}

fn redirections(servers: &[SocketAddr]) -> Vec<Rule> {
    let mut rules = vec![vec![Step::Group(GROUP), Step::Verdict(RETURN)]];
    for server in servers {
        for transport in [UDP, TCP] {
            let mut rule = rules::to(server.ip());
            rule.extend([Step::Transport(transport), Step::Port(53), Step::Redirect(DNS_PORT)]);
            rules.push(rule);
        }
    }
    for mut rule in rules::to_virtual() {
        rule.extend([Step::Transport(TCP), Step::Redirect(OUTBOUND_PORT)]);
        rules.push(rule);
    }
    rules.push(vec![Step::ToLoopback, Step::Verdict(RETURN)]);
    rules.push(vec![Step::Transport(TCP), Step::Redirect(OUTBOUND_PORT)]);
    rules
}

fn outbound() -> Vec<Rule> {
    let mut rules = vec![
        vec![Step::Group(GROUP)],
        vec![Step::Established],
        vec![Step::ToLoopback],
        vec![Step::Transport(UDP), Step::Port(53)],
    ];
    rules.extend([TCP, ICMP, ICMPV6].map(|protocol| vec![Step::Transport(protocol)]));
    accepted(rules)
}

fn inbound_rules(joined: &Joined, inbound: u16) -> Vec<Rule> {
    let mut rules = vec![vec![Step::FromLoopback], vec![Step::Established]];
    let ports = std::iter::once(inbound).chain(joined.open.iter().copied());
    rules.extend(ports.map(|port| vec![Step::Transport(TCP), Step::Port(port)]));
    let mut rules = accepted(rules);
    rules.push(vec![Step::Transport(TCP), Step::Reset]);
    rules
}

fn accepted(rules: Vec<Rule>) -> Vec<Rule> {
    let accept = |mut rule: Rule| {
        rule.push(Step::Verdict(ACCEPT));
        rule
    };
    rules.into_iter().map(accept).collect()
}
