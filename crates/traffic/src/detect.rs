//! What is spoken on a connection: what was declared, what was learned, or what the first bytes say.
//!
//! No decision waits for time to pass. Where nobody knows, the destination is dialled while the caller's first bytes are awaited:
//! whoever speaks first decides.

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use hms_model::port::AppProtocol;
use hms_model::service::Service;

/// What every HTTP/2 connection begins with (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Longest method that is taken for one.
const MAX_METHOD: usize = 32;

/// What to do with a new connection to a port of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    /// Requests are read on it, and nothing else is taken.
    Http,
    /// Pass its bytes on unread, at once.
    Opaque,
    /// Pass its bytes on unread once its beginning was read: it says which server is meant.
    Tls,
    /// See who speaks first, and what.
    Watch {
        /// Whether to dial the destination at once. Where HTTP was spoken before, that only costs.
        dial: bool,
    },
}

/// What was seen on a port before.
#[derive(Debug, Default)]
pub struct Learned(AtomicU8);

/// How a connection turned out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// The caller spoke HTTP.
    Http,
    /// The caller spoke first, and no HTTP.
    ClientFirst,
    /// The server spoke first.
    ServerFirst,
}

impl Learned {
    /// Remembers how the last connection turned out; answers whether that is news.
    pub fn note(&self, seen: Seen) -> bool {
        let number = match seen {
            Seen::Http => 1,
            Seen::ClientFirst => 2,
            Seen::ServerFirst => 3,
        };
        // Looking first keeps connections that are all alike from writing.
        self.0.load(Relaxed) != number && self.0.swap(number, Relaxed) != number
    }

    /// How the last connection turned out.
    pub fn seen(&self) -> Option<Seen> {
        match self.0.load(Relaxed) {
            1 => Some(Seen::Http),
            2 => Some(Seen::ClientFirst),
            3 => Some(Seen::ServerFirst),
            _ => None,
        }
    }
}

/// Whether something is decided for each request of a service: then nothing may pass its proxies unread, however it looks.
/// `routed` says whether it has routes.
pub fn has_http_policy(service: &Service, routed: bool) -> bool {
    routed || service.authorization.allow.iter().any(|rule| !rule.matches.is_empty())
}

/// Decides about a connection to a port of which this was declared and learned. Where nobody declared anything, a service with HTTP
/// policy never becomes opaque, however a connection looks. A port that is declared so belongs to a service that has others with
/// requests; rules about requests still let nobody in there ([`crate::authorize::authorize_connection`]).
pub fn plan(declared: AppProtocol, http_policy: bool, learned: Option<Seen>) -> Plan {
    match declared {
        AppProtocol::Http | AppProtocol::Http2 | AppProtocol::Grpc => Plan::Http,
        AppProtocol::Tcp => Plan::Opaque,
        AppProtocol::Tls => Plan::Tls,
        AppProtocol::Detect if http_policy => Plan::Http,
        AppProtocol::Detect => match learned {
            Some(Seen::ServerFirst) => Plan::Opaque,
            Some(Seen::Http) => Plan::Watch { dial: false },
            None | Some(Seen::ClientFirst) => Plan::Watch { dial: true },
        },
    }
}

/// What the first bytes of a caller are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beginning {
    /// Too few to tell.
    More,
    /// The request line of HTTP/1.
    Http1,
    /// The preface of HTTP/2.
    Http2,
    /// A TLS record with a handshake.
    Tls,
    /// None of these.
    Other,
}

/// Reads the first bytes of a caller. A request line is a method in capital letters, a space, and a target that is a path, a URL or
/// the asterisk: other protocols in text (SMTP, inline Redis, RTSP, SIP) begin with words too, but none of theirs goes on so.
pub fn beginning(bytes: &[u8]) -> Beginning {
    if bytes.is_empty() {
        return Beginning::More;
    }
    if bytes.starts_with(PREFACE) {
        return Beginning::Http2;
    }
    if PREFACE.starts_with(bytes) {
        return Beginning::More;
    }
    if let [0x16, rest @ ..] = bytes {
        return match rest.first() {
            None => Beginning::More,
            Some(3) => Beginning::Tls,
            Some(_) => Beginning::Other,
        };
    }
    let method = bytes.iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'-').count();
    if method == 0 || method > MAX_METHOD {
        return Beginning::Other;
    }
    match bytes.get(method..).unwrap_or_default() {
        [] | [b' '] => Beginning::More,
        [b' ', target @ ..] => of_target(target),
        _ => Beginning::Other,
    }
}

fn of_target(target: &[u8]) -> Beginning {
    if target.starts_with(b"/") {
        return Beginning::Http1;
    }
    for form in [b"http://".as_slice(), b"https://", b"* "] {
        let common = target.len().min(form.len());
        let begins = target.get(..common).unwrap_or_default();
        if begins.eq_ignore_ascii_case(form.get(..common).unwrap_or_default()) {
            return if common == form.len() { Beginning::Http1 } else { Beginning::More };
        }
    }
    Beginning::Other
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeSet;

    use hms_model::names::ServiceName;
    use hms_model::policy::authorization::{AllowRule, Source};
    use hms_model::policy::{AuthorizationPolicy, TrafficPolicy};
    use hms_model::route::Match;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn http_is_known_by_its_first_line() {
        for line in [
            "GET / HTTP/1.1\r\n",
            "POST /a b",
            "OPTIONS * HTTP/1.1",
            "GET http://a/ HTTP/1.1",
            "M-SEARCH * H",
            "PROPFIND /x",
        ] {
            assert_eq!(beginning(line.as_bytes()), Beginning::Http1, "{line}");
        }
        assert_eq!(beginning(PREFACE), Beginning::Http2);
        assert_eq!(beginning(b"PRI /x HTTP/1.1\r\n"), Beginning::Http1);
    }

    #[test]
    fn other_protocols_are_not_taken_for_http() {
        for first in [
            b"*1\r\n$4\r\nPING\r\n".as_slice(),
            b"PING\r\n",
            b"GET key\r\n",
            b"EHLO example.org\r\n",
            b"USER anonymous\r\n",
            b"OPTIONS rtsp://a/b RTSP/1.0\r\n",
            b"INVITE sip:a@b SIP/2.0\r\n",
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"get /x HTTP/1.1\r\n",
            &[0, 0, 0, 8, 4, 210, 22, 47],
            &[0],
            &[0x16, 0x01],
        ] {
            assert_eq!(beginning(first), Beginning::Other, "{}", first.escape_ascii());
        }
        assert_eq!(beginning(&[0x16, 3, 1, 2]), Beginning::Tls);
    }

    fn service(allow: Vec<AllowRule>) -> Service {
        Service {
            split: Vec::new(),
            http: Vec::new(),
            name: ServiceName::new("db").unwrap(),
            identities: BTreeSet::new(),
            sni: String::new(),
            policy: TrafficPolicy::default(),
            authorization: AuthorizationPolicy { allow },
            ports: Vec::new(),
        }
    }

    #[test]
    fn a_rule_about_requests_keeps_a_port_from_being_opaque() {
        let rule = |matches: &[&str]| AllowRule {
            source: Source::Any,
            matches: matches.iter().map(|text| Match::parse(text).unwrap()).collect(),
            origin: String::new(),
        };
        assert!(!has_http_policy(&service(vec![]), false));
        assert!(!has_http_policy(&service(vec![rule(&[])]), false));
        assert!(has_http_policy(&service(vec![rule(&[]), rule(&["GET /x"])]), false));
        for learned in [None, Some(Seen::ServerFirst), Some(Seen::ClientFirst), Some(Seen::Http)] {
            assert_eq!(plan(AppProtocol::Detect, true, learned), Plan::Http);
            assert_eq!(plan(AppProtocol::Grpc, false, learned), Plan::Http);
            assert_eq!(plan(AppProtocol::Tcp, true, learned), Plan::Opaque);
        }
    }

    #[test]
    fn what_was_learned_saves_a_dial_or_a_look() {
        let learned = Learned::default();
        let next = || plan(AppProtocol::Detect, false, learned.seen());
        assert_eq!(next(), Plan::Watch { dial: true });
        assert!(learned.note(Seen::Http) && !learned.note(Seen::Http));
        assert_eq!(next(), Plan::Watch { dial: false });
        assert!(learned.note(Seen::ServerFirst));
        assert_eq!(next(), Plan::Opaque);
        assert_eq!(plan(AppProtocol::Tcp, false, Some(Seen::Http)), Plan::Opaque);
    }

    proptest! {
        /// What was decided once stays decided, whatever comes; a caller that splits its first line changes nothing.
        #[test]
        fn more_bytes_never_change_a_decision(bytes in prop::collection::vec(any::<u8>(), 0..64), text in "[A-Z]{1,9} [/*h].{0,20}") {
            for whole in [bytes.as_slice(), text.as_bytes(), PREFACE] {
                let mut decided = Beginning::More;
                for end in 0..=whole.len() {
                    let now = beginning(&whole[..end]);
                    prop_assert!(decided == Beginning::More || now == decided, "{decided:?} became {now:?}");
                    decided = now;
                }
            }
        }
    }
}
