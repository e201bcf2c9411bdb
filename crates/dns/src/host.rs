//! How the host resolves names (resolv.conf(5)), and how a captured application does.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use resolv_conf::{Config, ScopedIp};

/// The port of every resolver.
const PORT: u16 = 53;
/// What the C library reads (`MAXNS`, `MAXDNSRCH` of old).
const MOST_SERVERS: usize = 3;
const MOST_DOMAINS: usize = 32;

/// The host's resolver.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostResolver {
    /// Whom to ask, in this order.
    pub servers: Vec<SocketAddr>,
    /// What to append to names.
    pub search: Vec<String>,
}

impl HostResolver {
    /// Reads `resolv.conf` as the C library does: what is wrong or unknown is left out. A link-local server is left out unless its
    /// scope is a number.
    pub fn read(text: &[u8]) -> Self {
        let (config, _wrong) = Config::parse_with_errors(text);
        let servers = config.nameservers.iter().take(MOST_SERVERS).filter_map(server).collect();
        let plain = |domain: &&String| domain.trim_matches('.').split('.').all(is_label);
        let search = config.get_last_search_or_domain().take(MOST_DOMAINS);
        let search = search.map(ToString::to_string).collect::<Vec<_>>();
        let search = search.iter().filter(plain).map(|domain| domain.trim_matches('.').to_ascii_lowercase()).collect();
        Self { servers, search }
    }

    /// The `resolv.conf` of a captured application. The mesh's names come first and the host's own search list after them, so that a
    /// bare name is a service if there is one, and otherwise what it is on the host. A name with a dot is asked for as it stands.
    pub fn captured(&self, server: IpAddr) -> String {
        let mut search = "mesh".to_owned();
        for domain in &self.search {
            search.push(' ');
            search.push_str(domain);
        }
        format!(
            "# Written by HMS Mesh: the sidecar answers, and asks the host's resolver about names that are not the mesh's.\n\
             nameserver {server}\nsearch {search}\noptions ndots:1 timeout:5 attempts:2\n"
        )
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

fn server(told: &ScopedIp) -> Option<SocketAddr> {
    match told {
        ScopedIp::V4(address) => Some(SocketAddr::new(IpAddr::V4(*address), PORT)),
        ScopedIp::V6(address, None) => Some(SocketAddr::new(IpAddr::V6(*address), PORT)),
        ScopedIp::V6(address, Some(scope)) => {
            Some(SocketAddr::V6(SocketAddrV6::new(*address, PORT, 0, scope.parse().ok()?)))
        }
    }
}
