//! Names of services and namespaces, and the many ways people write them.

use std::fmt;

/// The namespace of everything that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The namespace of the mesh's own parts.
pub const SYSTEM_NAMESPACE: &str = "hms-system";
/// The name of every gateway within it.
pub const GATEWAY: &str = "gateway";
/// The name of every egress gateway within it.
pub const EGRESS: &str = "egress";

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameError {
    /// No characters at all.
    Empty,
    /// More than 63 characters (RFC 1035 §2.3.4).
    TooLong(usize),
    /// A character outside `a-z`, `0-9` and `-`.
    BadCharacter(char),
    /// A `-` at an end, or a digit where a letter must be.
    BadEdge,
    /// Dots that are none of the accepted suffixes.
    UnknownSuffix(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("a name may not be empty"),
            Self::TooLong(length) => write!(f, "a name has at most 63 characters, this one has {length}"),
            Self::BadCharacter(character) => {
                write!(f, "`{}` may not stand in a name (a-z, 0-9 and - may)", character.escape_default())
            }
            Self::BadEdge => f.write_str("a name starts with a letter or digit and ends with one"),
            Self::UnknownSuffix(suffix) => {
                write!(f, "`.{suffix}` is no suffix of the mesh (NAMESPACE, mesh, NAMESPACE.svc.cluster.local are)")
            }
        }
    }
}

impl std::error::Error for NameError {}

/// One DNS label: 1 to 63 of `a-z`, `0-9`, `-`, with a letter or digit at both ends (RFC 1123 §2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Label(Box<str>);

impl Label {
    /// Checks and keeps `text`; nothing is folded, so `Calc` is an error and not `calc`.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.is_empty() {
            return Err(NameError::Empty);
        }
        if text.len() > 63 {
            return Err(NameError::TooLong(text.len()));
        }
        if let Some(bad) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
            return Err(NameError::BadCharacter(bad));
        }
        if text.starts_with('-') || text.ends_with('-') {
            return Err(NameError::BadEdge);
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// A service: its name within its namespace. Displays as `calc-svc`, or `NAME.NAMESPACE` outside `default`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ServiceName {
    namespace: Label,
    name: Label,
}

impl ServiceName {
    /// A service of the `default` namespace.
    pub fn new(name: &str) -> Result<Self, NameError> {
        Self::in_namespace(DEFAULT_NAMESPACE, name)
    }

    /// A service of a stated namespace.
    pub fn in_namespace(namespace: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self { namespace: Label::new(namespace)?, name: Label::new(name)? })
    }

    /// Reads any accepted spelling of a service's host name, without port (ruling R7): `calc-svc`, `calc-svc.default`,
    /// `calc-svc.mesh`, `calc-svc.default.mesh`, `calc-svc.default.svc`, `calc-svc.default.svc.cluster.local`; letters of
    /// either case and one trailing dot are folded. A bare name is looked up in `namespace`.
    pub fn from_host(host: &str, namespace: &str) -> Result<Self, NameError> {
        let folded = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let Some((name, rest)) = folded.split_once('.') else {
            return Self::in_namespace(namespace, &folded);
        };
        let namespace = match rest {
            "mesh" => namespace,
            _ => match rest.split_once('.') {
                None => rest,
                Some((space, "mesh" | "svc" | "svc.cluster.local")) => space,
                Some(_) => return Err(NameError::UnknownSuffix(rest.to_owned())),
            },
        };
        Self::in_namespace(namespace, name)
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        self.namespace.as_str()
    }

    /// The name within the namespace.
    pub fn name(&self) -> &str {
        self.name.as_str()
    }

    /// Whether this is the gateway, the one service of the mesh's own namespace that is dialled.
    pub fn is_gateway(&self) -> bool {
        self.namespace() == SYSTEM_NAMESPACE && self.name() == GATEWAY
    }

    /// Whether this is the egress gateway.
    pub fn is_egress(&self) -> bool {
        self.namespace() == SYSTEM_NAMESPACE && self.name() == EGRESS
    }

    /// The host name that stands in metrics on a laptop: `calc-svc.mesh`, elsewhere `calc-svc.NAMESPACE.mesh`.
    pub fn mesh_host(&self) -> String {
        if self.namespace() == DEFAULT_NAMESPACE {
            format!("{}.mesh", self.name)
        } else {
            format!("{}.{}.mesh", self.name, self.namespace)
        }
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace() == DEFAULT_NAMESPACE {
            write!(f, "{}", self.name)
        } else {
            write!(f, "{}.{}", self.name, self.namespace)
        }
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_a_host_names_the_same_service() {
        let expected = ServiceName::new("payment-svc").unwrap();
        for host in [
            "payment-svc",
            "Payment-SVC",
            "payment-svc.",
            "payment-svc.default",
            "payment-svc.mesh",
            "payment-svc.default.mesh",
            "payment-svc.default.svc",
            "payment-svc.default.svc.cluster.local",
        ] {
            assert_eq!(ServiceName::from_host(host, "default"), Ok(expected.clone()), "{host}");
        }
    }

    #[test]
    fn a_bare_name_belongs_to_the_callers_namespace() {
        assert_eq!(ServiceName::from_host("a", "prod").unwrap().namespace(), "prod");
        assert_eq!(ServiceName::from_host("a.mesh", "prod").unwrap().namespace(), "prod");
        assert_eq!(ServiceName::from_host("a.b", "prod").unwrap().namespace(), "b");
    }

    #[test]
    fn foreign_hosts_and_bad_names_are_refused() {
        for host in ["", ".", "a..b", "example.com.org", "a_b", "-a", "a-", "a.b.c.d", "127.0.0.1", "päy"] {
            assert!(ServiceName::from_host(host, "default").is_err(), "{host}");
        }
        assert_eq!(Label::new(&"a".repeat(64)), Err(NameError::TooLong(64)));
    }
}
