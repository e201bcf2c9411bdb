//! The request as everybody in the mesh sees it: one value for routing, authorization, explanation and forwarding.

mod fields;

use std::fmt;

use http::{Method, StatusCode};

pub use fields::Fields;

/// A request's head in canonical form. What is decided on is what is sent on.
#[derive(Debug, Clone)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Host and port the caller named.
    pub authority: Authority,
    /// The canonical path.
    pub path: CanonicalPath,
    /// What follows `?`, as sent; `None` without a `?`.
    pub query: Option<Box<str>>,
    /// The fields, without `Host`, hop-by-hop fields and framing.
    pub fields: Fields,
}

impl RequestHead {
    /// Whether this is a gRPC call (gRPC over HTTP/2, "Requests").
    pub fn is_grpc(&self) -> bool {
        self.fields.first(&http::header::CONTENT_TYPE).is_some_and(|value| value.starts_with(b"application/grpc"))
    }
}

/// A response's head.
#[derive(Debug, Clone)]
pub struct ResponseHead {
    /// The status.
    pub status: StatusCode,
    /// The fields, without hop-by-hop fields and framing.
    pub fields: Fields,
}

/// Why a request's head is refused before anything is done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// The path is not absolute.
    NotAbsolute,
    /// A `#` in the target (RFC 9112 §3.2).
    Fragment,
    /// A backslash, which some servers read as `/`.
    Backslash,
    /// A byte outside visible ASCII.
    RawByte,
    /// A `%` not followed by two hex digits, or `%00`.
    BadPercent,
    /// `%2F` or `%5C`: a separator in disguise.
    EncodedSeparator,
    /// `..` above the root.
    AboveRoot,
    /// The authority is none (RFC 3986 §3.2).
    BadAuthority,
    /// `user@` in the authority (RFC 9110 §4.2.4).
    UserInfo,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotAbsolute => "the path does not start with /",
            Self::Fragment => "the target contains a fragment",
            Self::Backslash => "the path contains a backslash",
            Self::RawByte => "the path contains a byte that must be percent-encoded",
            Self::BadPercent => "the path contains a bad percent-encoding",
            Self::EncodedSeparator => "the path contains an encoded separator",
            Self::AboveRoot => "the path climbs above the root",
            Self::BadAuthority => "the authority is malformed",
            Self::UserInfo => "the authority contains user information",
        })
    }
}

/// A path in the one form that is routed, authorized and sent: unreserved characters decoded, hex in upper case, slashes
/// merged, dot segments removed (RFC 3986 §6.2.2). Ambiguous paths never become one.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct CanonicalPath(Box<str>);

impl CanonicalPath {
    /// Canonicalises the path of a request target, without its query.
    pub fn parse(raw: &str) -> Result<Self, Malformed> {
        if raw == "*" {
            return Ok(Self(raw.into()));
        }
        if !raw.starts_with('/') {
            return Err(Malformed::NotAbsolute);
        }
        // Most paths are canonical as they come.
        if is_canonical(raw) {
            return Ok(Self(raw.into()));
        }
        let decoded = decode(raw.as_bytes())?;
        let mut out = String::with_capacity(decoded.len());
        let mut rest = decoded.split('/').skip(1).peekable();
        while let Some(segment) = rest.next() {
            let last = rest.peek().is_none();
            match segment {
                "" | "." => {
                    if last {
                        out.push('/');
                    }
                }
                ".." => {
                    let parent = out.rfind('/').ok_or(Malformed::AboveRoot)?;
                    out.truncate(parent);
                    if last {
                        out.push('/');
                    }
                }
                _ => {
                    out.push('/');
                    out.push_str(segment);
                }
            }
        }
        if out.is_empty() {
            out.push('/');
        }
        Ok(Self(out.into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether an absolute path has nothing to decode, merge or remove. `false` may also mean that it is ambiguous.
fn is_canonical(raw: &str) -> bool {
    // How many bytes the current segment has if they are all dots; 3 stands for every other segment.
    let mut dots = 3;
    for byte in raw.bytes() {
        dots = match byte {
            b'/' if dots == 3 => 0,
            b'/' | b'%' | b'#' | b'\\' => return false,
            b'.' if dots < 3 => dots + 1,
            0x21..=0x7e => 3,
            _ => return false,
        };
    }
    matches!(dots, 0 | 3)
}

/// Decodes unreserved octets, upper-cases the hex of all others, refuses what is ambiguous.
fn decode(raw: &[u8]) -> Result<String, Malformed> {
    let mut out = String::with_capacity(raw.len());
    let mut bytes = raw.iter().copied();
    while let Some(byte) = bytes.next() {
        match byte {
            b'#' => return Err(Malformed::Fragment),
            b'\\' => return Err(Malformed::Backslash),
            b'%' => {
                let hex = |digit: Option<u8>| digit.and_then(|d| char::from(d).to_digit(16));
                let (Some(high), Some(low)) = (hex(bytes.next()), hex(bytes.next())) else {
                    return Err(Malformed::BadPercent);
                };
                // Two hex digits make at most 255.
                let octet = u8::try_from(high * 16 + low).unwrap_or_default();
                match octet {
                    0 => return Err(Malformed::BadPercent),
                    b'/' | b'\\' => return Err(Malformed::EncodedSeparator),
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(octet)),
                    _ => {
                        const HEX: [char; 16] =
                            ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
                        out.push('%');
                        for digit in [octet >> 4, octet & 15] {
                            out.push(HEX.get(usize::from(digit)).copied().unwrap_or('0'));
                        }
                    }
                }
            }
            0x21..=0x7e => out.push(char::from(byte)),
            _ => return Err(Malformed::RawByte),
        }
    }
    Ok(out)
}

impl fmt::Display for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for CanonicalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Host and port of a request: lower case, one trailing dot removed, user information refused.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Authority {
    host: Box<str>,
    port: Option<u16>,
}

impl Authority {
    /// Reads `host`, `host:port` or `[v6]:port`.
    pub fn parse(raw: &str) -> Result<Self, Malformed> {
        if let Some(plain) = Self::plain(raw) {
            return Ok(plain);
        }
        if raw.contains('@') {
            return Err(Malformed::UserInfo);
        }
        let (host, port) = match raw.rsplit_once(':') {
            Some((host, _)) if host.starts_with('[') && !host.ends_with(']') => (raw, None),
            Some((host, port)) => (host, Some(port)),
            None => (raw, None),
        };
        let port = match port {
            None | Some("") => None,
            Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
                Some(digits.parse().map_err(|_over_65535| Malformed::BadAuthority)?)
            }
            Some(_) => return Err(Malformed::BadAuthority),
        };
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        let literal = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        let fits = match literal {
            Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
            None => host.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_')),
        };
        // A second trailing dot would be removed by the next one to read it.
        if host.is_empty() || host.ends_with('.') || host.len() > 255 || !fits {
            return Err(Malformed::BadAuthority);
        }
        Ok(Self { host: host.into(), port })
    }

    /// What most authorities are: a lower-case name, perhaps with a port. Found in one pass.
    fn plain(raw: &str) -> Option<Self> {
        let in_name = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_');
        let length = raw.bytes().position(|byte| !in_name(&byte)).unwrap_or(raw.len());
        let (host, rest) = raw.split_at_checked(length)?;
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => Some(digits.parse().ok()?),
            _ => return None,
        };
        let fits = (1..=255).contains(&host.len()) && !host.ends_with('.');
        fits.then(|| Self { host: host.into(), port })
    }

    /// The host; an IPv6 literal keeps its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, if one was named.
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            None => f.write_str(&self.host),
            Some(port) => write!(f, "{}:{port}", self.host),
        }
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(raw: &str) -> Result<String, Malformed> {
        CanonicalPath::parse(raw).map(|path| path.as_str().to_owned())
    }

    #[test]
    fn equal_paths_have_one_form() {
        for (raw, expected) in [
            ("/", "/"),
            ("//", "/"),
            ("/a//b", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/%61", "/a"),
            ("/%2e%2e/", "/"),
            ("/a/%2e%2E/b", "/b"),
            ("/%c3%a4", "/%C3%A4"),
            ("/a/", "/a/"),
            ("/a;x=1", "/a;x=1"),
            ("/.well-known/x", "/.well-known/x"),
            ("/...", "/..."),
            ("/.../a", "/.../a"),
            ("/a..", "/a.."),
        ] {
            if raw.starts_with("/%2e%2e") {
                assert_eq!(canonical(raw), Err(Malformed::AboveRoot));
            } else {
                assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw}");
            }
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (raw, why) in [
            ("a", Malformed::NotAbsolute),
            ("", Malformed::NotAbsolute),
            ("/a#b", Malformed::Fragment),
            ("/a\\b", Malformed::Backslash),
            ("/%2fadmin", Malformed::EncodedSeparator),
            ("/%5Cadmin", Malformed::EncodedSeparator),
            ("/%00", Malformed::BadPercent),
            ("/%zz", Malformed::BadPercent),
            ("/%1", Malformed::BadPercent),
            ("/..", Malformed::AboveRoot),
            ("/a/../../b", Malformed::AboveRoot),
            ("/ä", Malformed::RawByte),
            ("/a b", Malformed::RawByte),
        ] {
            assert_eq!(canonical(raw), Err(why), "{raw}");
        }
    }

    #[test]
    fn authorities_are_folded_and_checked() {
        for (raw, host, port) in [
            ("Calc-SVC", "calc-svc", None),
            ("calc-svc.:80", "calc-svc", Some(80)),
            ("[::1]:8080", "[::1]", Some(8080)),
            ("[::1]", "[::1]", None),
            ("a:", "a", None),
        ] {
            let authority = Authority::parse(raw).unwrap();
            assert_eq!((authority.host(), authority.port()), (host, port), "{raw}");
        }
        for raw in ["", ":80", "a:b", "a:99999", "u@a", "a b", "a/b", "[::1", "[x]", "a\0", "a..", "."] {
            assert!(Authority::parse(raw).is_err(), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn canonicalising_twice_changes_nothing(raw in "/[a-zA-Z0-9./%;=~_-]{0,40}") {
            if let Ok(once) = CanonicalPath::parse(&raw) {
                prop_assert_eq!(CanonicalPath::parse(once.as_str()), Ok(once.clone()));
                prop_assert!(!once.as_str().contains("//"));
                prop_assert!(once.as_str().split('/').all(|s| s != "." && s != ".."));
            }
        }

        #[test]
        fn what_is_canonical_already_is_left_alone(raw in "/[a./%]{0,12}") {
            if is_canonical(&raw) {
                prop_assert_eq!(canonical(&raw), Ok(raw.clone()));
                prop_assert!(!raw.contains("//") && !raw.contains('%'));
                prop_assert!(raw.split('/').all(|segment| segment != "." && segment != ".."));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(raw in ".{0,60}") {
            let _checked = CanonicalPath::parse(&raw).is_ok() || Authority::parse(&raw).is_ok();
        }
    }
}
