//! SPIFFE identities (SPIFFE-ID standard, §2) in the one shape the mesh uses.

use std::fmt;

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpiffeIdError(&'static str);

impl fmt::Display for SpiffeIdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for SpiffeIdError {}

/// A trust domain: 1 to 255 of `a-z`, `0-9`, `.`, `-`, `_` (SPIFFE-ID §2.1).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Checks and keeps `text`; upper case is refused, not folded.
    pub fn new(text: &str) -> Result<Self, SpiffeIdError> {
        if text.is_empty() || text.len() > 255 {
            return Err(SpiffeIdError("a trust domain has 1 to 255 characters"));
        }
        if !text.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')) {
            return Err(SpiffeIdError("a trust domain consists of a-z, 0-9, '.', '-' and '_'"));
        }
        Ok(Self(text.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// `spiffe://<trust domain>/ns/<namespace>/sa/<name>`, compared byte by byte. At most 2048 bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    uri: Box<str>,
    domain_end: u16,
}

const SCHEME: &str = "spiffe://";

impl SpiffeId {
    /// Builds the identity of `name` in `namespace`; both must already be labels.
    pub fn new(domain: &TrustDomain, namespace: &str, name: &str) -> Result<Self, SpiffeIdError> {
        Self::parse(&format!("{SCHEME}{domain}/ns/{namespace}/sa/{name}"))
    }

    /// Reads a URI. Anything but the exact shape is refused: no port, query, percent, empty or dotted segment.
    pub fn parse(uri: &str) -> Result<Self, SpiffeIdError> {
        if uri.len() > 2048 {
            return Err(SpiffeIdError("a SPIFFE id has at most 2048 bytes"));
        }
        let rest = uri.strip_prefix(SCHEME).ok_or(SpiffeIdError("a SPIFFE id starts with spiffe://"))?;
        let (domain, path) =
            rest.split_once('/').ok_or(SpiffeIdError("a SPIFFE id names a workload after its domain"))?;
        let domain = TrustDomain::new(domain)?;
        let mut segments = path.split('/');
        let shape = [segments.next(), segments.next(), segments.next(), segments.next(), segments.next()];
        let [Some("ns"), Some(namespace), Some("sa"), Some(name), None] = shape else {
            return Err(SpiffeIdError("an identity of the mesh ends in /ns/NAMESPACE/sa/NAME"));
        };
        for segment in [namespace, name] {
            let fits =
                segment.bytes().all(|b| matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_'));
            if segment.is_empty() || segment == "." || segment == ".." || !fits {
                return Err(SpiffeIdError("a path segment consists of letters, digits, '.', '-' and '_'"));
            }
        }
        let domain_end = SCHEME.len() + domain.as_str().len();
        // A domain has at most 255 bytes, so this never saturates.
        Ok(Self { uri: uri.into(), domain_end: u16::try_from(domain_end).unwrap_or(u16::MAX) })
    }

    /// The whole URI.
    pub fn as_str(&self) -> &str {
        &self.uri
    }

    /// The trust domain part.
    pub fn trust_domain(&self) -> &str {
        self.uri.get(SCHEME.len()..usize::from(self.domain_end)).unwrap_or_default()
    }

    /// The namespace segment.
    pub fn namespace(&self) -> &str {
        self.segment(2)
    }

    /// The name segment (the service account).
    pub fn name(&self) -> &str {
        self.segment(4)
    }

    fn segment(&self, index: usize) -> &str {
        self.uri.get(usize::from(self.domain_end)..).and_then(|path| path.split('/').nth(index)).unwrap_or_default()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_names_its_parts() {
        let id = SpiffeId::parse("spiffe://k3.hms/ns/default/sa/calc-svc").unwrap();
        assert_eq!((id.trust_domain(), id.namespace(), id.name()), ("k3.hms", "default", "calc-svc"));
        let domain = TrustDomain::new("k3.hms").unwrap();
        assert_eq!(SpiffeId::new(&domain, "default", "calc-svc"), Ok(id));
    }

    #[test]
    fn anything_but_the_exact_shape_is_refused() {
        for uri in [
            "",
            "spiffe://",
            "spiffe://a",
            "spiffe://a/",
            "spiffe://a/ns/b",
            "spiffe://a/ns/b/sa/",
            "spiffe://a/ns/b/sa/c/",
            "spiffe://a/ns/b/sa/c/d",
            "spiffe://A/ns/b/sa/c",
            "spiffe://a:1/ns/b/sa/c",
            "spiffe://u@a/ns/b/sa/c",
            "spiffe://a/ns/b/sa/c?x=1",
            "spiffe://a/ns/b/sa/c#f",
            "spiffe://a/ns/b/sa/%2e",
            "spiffe://a/ns/../sa/c",
            "spiffe://a//ns/b/sa/c",
            "SPIFFE://a/ns/b/sa/c",
            "https://a/ns/b/sa/c",
            "spiffe://a/ns/b/sa/c\0",
        ] {
            assert!(SpiffeId::parse(uri).is_err(), "{uri:?}");
        }
        assert!(SpiffeId::parse(&format!("spiffe://a/ns/b/sa/{}", "c".repeat(2048))).is_err());
    }
}
