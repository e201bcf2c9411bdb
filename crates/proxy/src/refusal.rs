//! Every answer that the proxy makes itself: a closed table, so that each has a code to search for.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use hms_model::finding::Code;
use hms_model::message::{Fields, ResponseHead};
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, StatusCode};

use crate::body::Body;
use crate::transport::Response;

/// The header that carries a refusal's code.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("x-hms-error");

/// Why the proxy answers instead of an upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The service's breaker is open.
    BreakerOpen,
    /// The service is known and has no endpoint at all.
    NoEndpoint,
    /// No try could reach an endpoint.
    ConnectFailed,
    /// A rate limit is used up.
    RateLimited,
    /// The connection broke before a response head.
    UpstreamReset,
    /// The time for the request, or for one try, ran out.
    Timeout,
    /// More requests at once than the limits allow.
    Overloaded,
    /// The application behind this proxy does not accept connections.
    AppDown,
    /// Nothing is known yet of the service asked for: the control plane has not answered.
    NoConfiguration,
    /// This proxy has no memory left for requests.
    Shedding,
    /// A rule of a route makes it go wrong on purpose.
    Fault,
    /// The rule of a route that takes it leads to nobody, or to whom it may not.
    BadBackend,
    /// Whoever waited for it does so no longer.
    Deadline,
    /// No token.
    JwtMissing,
    /// Not a token, or one with parts that are never taken.
    JwtMalformed,
    /// Its life is over.
    JwtExpired,
    /// Its life has not begun.
    JwtNotYetValid,
    /// Signed with a key that is none of the issuer's.
    JwtUnknownKey,
    /// The signature is wrong.
    JwtSignature,
    /// From somebody else.
    JwtIssuer,
    /// For somebody else.
    JwtAudience,
    /// An algorithm that is not taken.
    JwtAlgorithm,
    /// No rule allows it.
    Denied,
    /// It leads out of the mesh, and may not.
    EgressRefused,
    /// The request's head is ambiguous or broken.
    Malformed,
    /// `CONNECT` is not offered.
    ConnectMethod,
    /// Too many or too large header fields.
    HeadTooLarge,
    /// The request's body broke off or stopped coming.
    Incomplete,
    /// The request's head was not here in time.
    HeadTooLate,
    /// The request's target is too long.
    TargetTooLong,
    /// An expectation that nobody here can meet.
    Expectation,
    /// A version of HTTP that is not spoken here.
    Version,
    /// Something else than the port takes.
    WrongProtocol,
    /// A `grpc-timeout` that is none.
    GrpcTimeout,
    /// A method or transfer coding that nobody here knows.
    NotImplemented,
    /// No route has this path.
    NoRoute,
    /// A route has this path, but not this method.
    MethodNotAllowed,
    /// No service has this name.
    NoService,
    /// The gateway does not answer for this host.
    UnknownHost,
    /// The service has no such port.
    NoPort,
    /// No service has this virtual address.
    NoAddress,
}

/// Whose doing a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The caller's.
    Downstream,
    /// The callee's.
    Upstream,
    /// The mesh's own.
    Mesh,
}

struct Entry {
    code: u16,
    status: StatusCode,
    fault: Fault,
    flag: &'static str,
    title: &'static str,
}

const fn entry(code: u16, status: StatusCode, fault: Fault, flag: &'static str, title: &'static str) -> Entry {
    Entry { code, status, fault, flag, title }
}

impl Reason {
    /// The table. Flags are Envoy's response flags, which dashboards know.
    fn entry(self) -> Entry {
        use Fault::{Downstream, Mesh, Upstream};
        match self {
            Self::BreakerOpen => entry(3001, StatusCode::SERVICE_UNAVAILABLE, Upstream, "UO", "breaker open"),
            Self::NoEndpoint => entry(3002, StatusCode::SERVICE_UNAVAILABLE, Upstream, "UH", "no endpoint"),
            Self::ConnectFailed => entry(3003, StatusCode::SERVICE_UNAVAILABLE, Upstream, "UF", "connect failed"),
            Self::RateLimited => entry(3004, StatusCode::TOO_MANY_REQUESTS, Downstream, "RL", "rate limit reached"),
            Self::UpstreamReset => entry(3005, StatusCode::BAD_GATEWAY, Upstream, "UC", "upstream reset"),
            Self::Timeout => entry(3006, StatusCode::GATEWAY_TIMEOUT, Upstream, "UT", "timeout"),
            Self::Overloaded => entry(3007, StatusCode::SERVICE_UNAVAILABLE, Mesh, "UO", "too many requests at once"),
            Self::AppDown => entry(3008, StatusCode::SERVICE_UNAVAILABLE, Upstream, "UF", "upstream down"),
            Self::NoConfiguration => entry(3009, StatusCode::SERVICE_UNAVAILABLE, Mesh, "NC", "no configuration"),
            Self::Shedding => entry(3010, StatusCode::SERVICE_UNAVAILABLE, Mesh, "OM", "out of memory"),
            Self::Fault => entry(3011, StatusCode::SERVICE_UNAVAILABLE, Mesh, "FI", "fault injected"),
            Self::BadBackend => entry(3012, StatusCode::INTERNAL_SERVER_ERROR, Mesh, "NC", "route leads nowhere"),
            Self::Deadline => entry(3013, StatusCode::GATEWAY_TIMEOUT, Upstream, "UT", "deadline passed"),
            Self::JwtMissing => entry(3101, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token missing"),
            Self::JwtMalformed => entry(3102, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token malformed"),
            Self::JwtExpired => entry(3103, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token expired"),
            Self::JwtNotYetValid => entry(3104, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token not yet valid"),
            Self::JwtUnknownKey => entry(3105, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token key unknown"),
            Self::JwtSignature => entry(3106, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token signature wrong"),
            Self::JwtIssuer => entry(3107, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token issuer unknown"),
            Self::JwtAudience => entry(3108, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token audience wrong"),
            Self::JwtAlgorithm => entry(3109, StatusCode::UNAUTHORIZED, Downstream, "UAEX", "token algorithm refused"),
            Self::Denied => entry(3201, StatusCode::FORBIDDEN, Downstream, "RBAC", "denied"),
            Self::EgressRefused => entry(3202, StatusCode::FORBIDDEN, Downstream, "RBAC", "egress refused"),
            Self::Malformed => entry(3301, StatusCode::BAD_REQUEST, Downstream, "DPE", "malformed request"),
            Self::ConnectMethod => entry(3302, StatusCode::METHOD_NOT_ALLOWED, Downstream, "DPE", "CONNECT refused"),
            Self::HeadTooLarge => {
                entry(3303, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, Downstream, "DPE", "head too large")
            }
            Self::Incomplete => entry(3304, StatusCode::REQUEST_TIMEOUT, Downstream, "DR", "request incomplete"),
            Self::HeadTooLate => entry(3305, StatusCode::REQUEST_TIMEOUT, Downstream, "DPE", "head too late"),
            Self::TargetTooLong => entry(3306, StatusCode::URI_TOO_LONG, Downstream, "DPE", "target too long"),
            Self::Expectation => entry(3307, StatusCode::EXPECTATION_FAILED, Downstream, "DPE", "expectation unknown"),
            Self::Version => {
                entry(3308, StatusCode::HTTP_VERSION_NOT_SUPPORTED, Downstream, "DPE", "version not supported")
            }
            Self::WrongProtocol => entry(3309, StatusCode::BAD_REQUEST, Downstream, "DPE", "wrong protocol"),
            Self::GrpcTimeout => entry(3310, StatusCode::BAD_REQUEST, Downstream, "DPE", "grpc-timeout malformed"),
            Self::NotImplemented => entry(3311, StatusCode::NOT_IMPLEMENTED, Downstream, "DPE", "not implemented"),
            Self::NoRoute => entry(3401, StatusCode::NOT_FOUND, Downstream, "NR", "no route"),
            Self::MethodNotAllowed => {
                entry(3402, StatusCode::METHOD_NOT_ALLOWED, Downstream, "NR", "method not allowed")
            }
            Self::NoService => entry(3403, StatusCode::NOT_FOUND, Downstream, "NR", "no such service"),
            Self::UnknownHost => entry(3404, StatusCode::MISDIRECTED_REQUEST, Downstream, "NR", "unknown host"),
            Self::NoPort => entry(3405, StatusCode::NOT_FOUND, Downstream, "NR", "no such port"),
            Self::NoAddress => entry(3406, StatusCode::NOT_FOUND, Downstream, "NR", "no service at this address"),
        }
    }

    /// What to search for.
    pub fn code(self) -> Code {
        Code(self.entry().code)
    }

    /// The status answered.
    pub fn status(self) -> StatusCode {
        self.entry().status
    }

    /// Whose doing it is.
    pub fn fault(self) -> Fault {
        self.entry().fault
    }

    /// The flag in `response_flags`.
    pub fn flag(self) -> &'static str {
        self.entry().flag
    }

    /// A few words.
    pub fn title(self) -> &'static str {
        self.entry().title
    }

    /// The reason behind a code that another proxy sent.
    pub fn from_code(code: &[u8]) -> Option<Self> {
        let digits = std::str::from_utf8(code.strip_prefix(b"HMS-")?).ok()?;
        digits.parse().ok().filter(|_| digits.len() == 4).and_then(Self::from_number)
    }

    /// The reason behind the number of a code.
    pub fn from_number(number: u16) -> Option<Self> {
        ALL.into_iter().find(|reason| reason.code().0 == number)
    }
}

/// Every reason, in the order of the codes.
pub const ALL: [Reason; 41] = [
    Reason::BreakerOpen,
    Reason::NoEndpoint,
    Reason::ConnectFailed,
    Reason::RateLimited,
    Reason::UpstreamReset,
    Reason::Timeout,
    Reason::Overloaded,
    Reason::AppDown,
    Reason::NoConfiguration,
    Reason::Shedding,
    Reason::Fault,
    Reason::BadBackend,
    Reason::Deadline,
    Reason::JwtMissing,
    Reason::JwtMalformed,
    Reason::JwtExpired,
    Reason::JwtNotYetValid,
    Reason::JwtUnknownKey,
    Reason::JwtSignature,
    Reason::JwtIssuer,
    Reason::JwtAudience,
    Reason::JwtAlgorithm,
    Reason::Denied,
    Reason::EgressRefused,
    Reason::Malformed,
    Reason::ConnectMethod,
    Reason::HeadTooLarge,
    Reason::Incomplete,
    Reason::HeadTooLate,
    Reason::TargetTooLong,
    Reason::Expectation,
    Reason::Version,
    Reason::WrongProtocol,
    Reason::GrpcTimeout,
    Reason::NotImplemented,
    Reason::NoRoute,
    Reason::MethodNotAllowed,
    Reason::NoService,
    Reason::UnknownHost,
    Reason::NoPort,
    Reason::NoAddress,
];

/// An answer of our own.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Why.
    pub(crate) reason: Reason,
    details: Box<Details>,
}

/// What is said beside the reason.
#[derive(Debug, Clone)]
struct Details {
    sentence: Cow<'static, str>,
    /// Instead of the reason's own.
    status: Option<StatusCode>,
    retry_after: Option<Duration>,
    allow: Vec<http::Method>,
    rate_limit: Option<RateLimitFields>,
}

/// The fields of draft-ietf-httpapi-ratelimit-headers-10.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RateLimitFields {
    /// `RateLimit-Policy`: what holds.
    pub policy: String,
    /// `RateLimit`: what is left.
    pub state: String,
}

impl Refusal {
    /// A refusal with one sentence for the caller; nothing in it that a stranger may not know.
    pub fn new(reason: Reason, sentence: impl Into<Cow<'static, str>>) -> Self {
        let details =
            Details { sentence: sentence.into(), status: None, retry_after: None, allow: Vec::new(), rate_limit: None };
        Self { reason, details: Box::new(details) }
    }

    /// The same refusal with another status.
    #[must_use]
    pub fn status(mut self, status: StatusCode) -> Self {
        self.details.status = Some(status);
        self
    }

    /// The same refusal with the methods that would have been taken.
    #[must_use]
    pub fn allow(mut self, methods: Vec<http::Method>) -> Self {
        self.details.allow = methods;
        self
    }

    /// The same refusal with the state of the bucket that refused.
    #[must_use]
    pub fn rate_limit(mut self, fields: RateLimitFields) -> Self {
        self.details.rate_limit = Some(fields);
        self
    }

    /// The same refusal with a time to come back.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.details.retry_after = Some(delay);
        self
    }

    /// The response: RFC 9457 problem details, or a trailers-only response for gRPC.
    pub fn into_response(self, trace_id: &str, grpc: bool) -> Response {
        let mut fields = Fields::new();
        let code = self.reason.code().to_string();
        set(&mut fields, ERROR_HEADER, &code);
        if let Some(delay) = self.details.retry_after {
            set(&mut fields, RETRY_AFTER, &delay.as_millis().div_ceil(1000).max(1).to_string());
        }
        if self.reason.status() == StatusCode::UNAUTHORIZED {
            let challenge = match self.reason {
                Reason::JwtMissing => "Bearer".to_owned(),
                _ => format!("Bearer error=\"invalid_token\", error_description=\"{}\"", self.reason.title()),
            };
            set(&mut fields, WWW_AUTHENTICATE, &challenge);
        }
        if !self.details.allow.is_empty() {
            let allow: Vec<&str> = self.details.allow.iter().map(http::Method::as_str).collect();
            set(&mut fields, ALLOW, &allow.join(", "));
        }
        if let Some(limits) = &self.details.rate_limit {
            set(&mut fields, HeaderName::from_static("ratelimit-policy"), &limits.policy);
            set(&mut fields, HeaderName::from_static("ratelimit"), &limits.state);
        }
        if grpc {
            return self.grpc(fields);
        }
        let body = serde_json::json!({
            "type": format!("urn:hms:error:{code}"),
            "title": self.reason.title(),
            "status": self.answered().as_u16(),
            "detail": self.details.sentence,
            "code": code,
            "trace_id": trace_id,
            "error": self.reason.title(),
        });
        set(&mut fields, CONTENT_TYPE, "application/problem+json");
        let head = ResponseHead { status: self.answered(), fields };
        Response { head, body: Body::full(Bytes::from(body.to_string())) }
    }

    fn answered(&self) -> StatusCode {
        self.details.status.unwrap_or_else(|| self.reason.status())
    }

    /// gRPC over HTTP/2, "Responses": status 200, the outcome in what would be the trailers.
    fn grpc(self, mut fields: Fields) -> Response {
        let status = match self.answered() {
            _ if self.reason == Reason::GrpcTimeout => "3",
            StatusCode::BAD_REQUEST => "13",
            StatusCode::UNAUTHORIZED => "16",
            StatusCode::FORBIDDEN => "7",
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::MISDIRECTED_REQUEST => "12",
            StatusCode::GATEWAY_TIMEOUT => "4",
            StatusCode::TOO_MANY_REQUESTS => "8",
            _ => "14",
        };
        set(&mut fields, CONTENT_TYPE, "application/grpc");
        set(&mut fields, HeaderName::from_static("grpc-status"), status);
        set(&mut fields, HeaderName::from_static("grpc-message"), &percent_encode(&self.details.sentence));
        Response { head: ResponseHead { status: StatusCode::OK, fields }, body: Body::empty() }
    }
}

/// `grpc-message` takes printable ASCII without `%`; all else is percent-encoded.
fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if (0x20..=0x7e).contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}").is_ok();
        }
        out
    })
}

fn set(fields: &mut Fields, name: HeaderName, value: &str) {
    // Every text above is visible ASCII; a value that is not would be left out rather than sent broken.
    if let Ok(value) = HeaderValue::from_str(value) {
        fields.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_used_once_and_read_back() {
        let mut codes: Vec<String> = ALL.iter().map(|r| r.code().to_string()).collect();
        for (reason, code) in ALL.iter().zip(&codes) {
            assert_eq!(Reason::from_code(code.as_bytes()), Some(*reason));
        }
        codes.dedup();
        assert_eq!(codes.len(), ALL.len());
        assert!(codes.is_sorted());
    }

    #[test]
    fn a_dead_application_is_reported_in_the_seeds_words() {
        let response = Refusal::new(Reason::AppDown, "calc-svc does not accept connections").into_response("00", false);
        assert_eq!(response.head.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.head.fields.first(&ERROR_HEADER), Some(b"HMS-3008".as_slice()));
        let body = response.body.into_full().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["error"], "upstream down");
        assert_eq!(json["status"], 503);
    }

    #[test]
    fn grpc_callers_get_trailers_only() {
        let response = Refusal::new(Reason::Denied, "no rule ä%").into_response("00", true);
        assert_eq!(response.head.status, StatusCode::OK);
        assert_eq!(response.head.fields.text(&HeaderName::from_static("grpc-status")), Some("7"));
        assert_eq!(response.head.fields.text(&HeaderName::from_static("grpc-message")), Some("no rule %C3%A4%25"));
    }
}
