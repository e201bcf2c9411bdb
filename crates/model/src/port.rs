//! The ports of a service, and what is spoken on them.

use std::fmt;

/// What is spoken on a port, as somebody declared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum AppProtocol {
    /// Nobody said; the first bytes decide.
    #[default]
    Detect,
    /// HTTP of any version in clear text.
    Http,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC, which is HTTP/2 with its own status.
    Grpc,
    /// Bytes that nobody parses.
    Tcp,
    /// TLS of the application's own, led by its server name.
    Tls,
}

impl AppProtocol {
    /// Every protocol that can be declared.
    pub const DECLARED: [Self; 5] = [Self::Http, Self::Http2, Self::Grpc, Self::Tcp, Self::Tls];

    /// The word for it; empty when nobody said.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Detect => "",
            Self::Http => "http",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
        }
    }

    /// Reads the word of a declaration; `h2c` and `https` are what others call two of them.
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            "h2c" => Some(Self::Http2),
            "https" => Some(Self::Tls),
            _ => Self::DECLARED.into_iter().find(|protocol| protocol.as_str() == word),
        }
    }

    /// What a port's name says of its protocol, by the convention of Kubernetes meshes: the name is the protocol, or begins with
    /// it and a `-`. Databases are named after themselves.
    pub fn of_port_name(name: &str) -> Self {
        let word = name.split_once('-').map_or(name, |(word, _)| word);
        match word {
            "mysql" | "postgres" | "postgresql" | "redis" | "mongo" | "mongodb" | "smtp" | "amqp" | "kafka" => {
                Self::Tcp
            }
            _ => Self::parse(word).unwrap_or_default(),
        }
    }

    /// Whether requests are read on such a port, so that nothing on it may be passed on unread.
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http | Self::Http2 | Self::Grpc)
    }
}

impl fmt::Display for AppProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A port of a service, as its callers dial it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// What callers dial: 1 to 65535, once per service.
    pub number: u16,
    /// Its name within the service, one label; empty when it has none.
    pub name: String,
    /// What is spoken on it.
    pub protocol: AppProtocol,
    /// The application's port behind it; `None` is the one port the application has.
    pub target: Option<u16>,
}

impl Port {
    /// Where a gateway is dialled: it ends TLS itself.
    pub fn https() -> Self {
        Self { number: 443, name: "https".to_owned(), protocol: AppProtocol::Tls, target: None }
    }
}

/// The port of a service when none is declared: what `http://NAME/` dials.
pub const DEFAULT_PORT: u16 = 80;

/// Ports one service may have.
pub const MOST_PORTS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_read_what_they_write() {
        for protocol in AppProtocol::DECLARED {
            assert_eq!(AppProtocol::parse(protocol.as_str()), Some(protocol));
        }
        assert_eq!(AppProtocol::parse(""), None);
        assert_eq!(AppProtocol::parse("udp"), None);
    }

    #[test]
    fn a_ports_name_tells_its_protocol() {
        for (name, protocol) in [
            ("grpc", AppProtocol::Grpc),
            ("http-metrics", AppProtocol::Http),
            ("https", AppProtocol::Tls),
            ("redis-main", AppProtocol::Tcp),
            ("web", AppProtocol::Detect),
            ("", AppProtocol::Detect),
        ] {
            assert_eq!(AppProtocol::of_port_name(name), protocol, "{name}");
        }
    }
}
