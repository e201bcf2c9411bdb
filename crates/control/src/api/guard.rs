//! What every request passes before anybody looks at what it wants: is it meant for this machine, does it come from a page
//! elsewhere, does it carry the token (reliability.md I1). And what every change leaves behind: a line in the audit log.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::Context;
use super::problem::{Kind, Problem};

/// Largest body in bytes.
pub(super) const BODY_LIMIT: usize = 1024 * 1024;
/// How long a body may take to arrive.
pub(super) const BODY_TIME: Duration = Duration::from_secs(10);

/// The token, as far as it is kept: its SHA-256. It has 256 random bits, so no slow hash is needed.
#[derive(Clone)]
pub struct TokenDigest([u8; 32]);

impl std::fmt::Debug for TokenDigest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenDigest(..)")
    }
}

impl TokenDigest {
    /// The digest of a token.
    pub fn of(token: &str) -> Self {
        Self(Sha256::digest(token.as_bytes()).into())
    }

    /// Compares in a time that tells nothing: the digests have one length and are compared to their ends.
    fn matches(&self, token: &str) -> bool {
        self.0.ct_eq(&Self::of(token).0).into()
    }
}

/// Outermost: for requests of every path, also of those that do not exist.
pub(super) async fn admit(request: Request, next: Next) -> Response {
    let response = match check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    finish(response)
}

fn check(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let host = host(request)?;
    if !is_loopback(host) {
        return Err(Problem::new(Kind::Host, "the control plane answers on loopback only")
            .because("a page elsewhere can have its name resolve to this machine; its requests still carry that name")
            .fix("hms services"));
    }
    check_origin(headers, host)?;
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > BODY_LIMIT)) {
        return Err(too_large());
    }
    Ok(())
}

/// A body that is larger than taken. The connection ends: what is still to come is not read.
pub(super) fn too_large() -> Problem {
    Problem::new(Kind::TooLarge, format!("a body has at most {BODY_LIMIT} bytes"))
        .fix("register the files in several calls")
        .header(header::CONNECTION, HeaderValue::from_static("close"))
}

/// The one host the request names (RFC 9112 §3.2): the authority of an absolute target, or the field.
fn host(request: &Request) -> Result<&str, Problem> {
    let mut fields = request.headers().get_all(header::HOST).iter();
    let field = fields.next().and_then(|host| host.to_str().ok());
    if fields.next().is_some() {
        return Err(Problem::new(Kind::Host, "the request names two hosts"));
    }
    match (request.uri().authority(), field) {
        (Some(target), Some(field)) if target.as_str() != field => {
            Err(Problem::new(Kind::Host, "the request names two hosts"))
        }
        (_, Some(field)) => Ok(field),
        (_, None) => Err(Problem::new(Kind::Host, "the request names no host")),
    }
}

/// Whether a host, with or without port, is this machine under a name nobody else can give out.
fn is_loopback(host: &str) -> bool {
    if let Some(rest) = host.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return is_port(port) && address.parse::<Ipv6Addr>().is_ok_and(|address| address.is_loopback());
    }
    let (name, port) = host.find(':').map_or((host, ""), |at| host.split_at(at));
    is_port(port)
        && (name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok())
}

/// A browser tells on whose behalf it asks; only our own pages may.
fn check_origin(headers: &HeaderMap, host: &str) -> Result<(), Problem> {
    let foreign = || {
        Problem::new(Kind::Origin, "only pages of the control plane itself may call it")
            .because("a browser sent this request for a page of another origin")
    };
    for origin in headers.get_all(header::ORIGIN) {
        let own = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
        if !own.is_some_and(|own| own.eq_ignore_ascii_case(host)) {
            return Err(foreign());
        }
    }
    // Also without `Origin` (a plain GET, an image) a browser says where a request comes from.
    let site = headers.get(HeaderName::from_static("sec-fetch-site"));
    match site.map(HeaderValue::as_bytes) {
        None | Some(b"same-origin" | b"none") => Ok(()),
        Some(_) => Err(foreign()),
    }
}

/// Every answer: never stored, never guessed at, and a problem where axum would answer with nothing.
fn finish(response: Response) -> Response {
    let bare = response.headers().get(header::CONTENT_TYPE).is_none();
    let mut response = match response.status() {
        StatusCode::METHOD_NOT_ALLOWED if bare => {
            let mut problem = Problem::new(Kind::Method, "this path is served with other methods; see the Allow field");
            if let Some(allow) = response.headers().get(header::ALLOW) {
                problem = problem.header(header::ALLOW, allow.clone());
            }
            problem.into_response()
        }
        _ => response,
    };
    let headers = response.headers_mut();
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// For every operation that wants the token.
pub(super) async fn authenticate(State(context): State<Context>, request: Request, next: Next) -> Response {
    let mut fields = request.headers().get_all(header::AUTHORIZATION).iter();
    let field = fields.next().and_then(|field| field.to_str().ok());
    let token = field.and_then(|field| {
        let (scheme, token) = field.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let once = fields.next().is_none();
    match token {
        Some(token) if once && context.token().matches(token) => next.run(request).await,
        _ => {
            let detail = if field.is_some() { "the token is not the control plane's" } else { "there is no token" };
            Problem::new(Kind::Token, detail)
                .because("`Authorization: Bearer TOKEN` carries the text of control/admin.token")
                .fix("hms env")
                .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"hms\""))
                .into_response()
        }
    }
}

/// For every operation that changes something: one line, whatever became of it.
pub(super) async fn audit(State(name): State<&'static str>, request: Request<Body>, next: Next) -> Response {
    let method: Method = request.method().clone();
    let path = request.uri().path().chars().take(512).collect::<String>();
    let pattern = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned()).unwrap_or_default();
    let response = next.run(request).await;
    let status = response.status().as_u16();
    let revision = response.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).unwrap_or_default();
    tracing::info!(
        target: "audit", operation = name, %method, path, pattern, status, revision, actor = "admin", "changed by the API"
    );
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_has_few_names() {
        for host in ["127.0.0.1", "127.0.0.1:15014", "localhost", "LOCALHOST:1", "[::1]", "[::1]:15014", "127.3.2.1"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in [
            "",
            "evil.com",
            "evil.com:15014",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "localhost:99999",
            "localhost:",
            "[::1",
            "[::2]",
            "[::1]x",
            "0.0.0.0",
            "10.0.0.1",
            "127.1",
            "localhost:1:2",
            "user@localhost",
        ] {
            assert!(!is_loopback(host), "{host}");
        }
    }

    #[test]
    fn a_token_matches_only_itself() {
        let digest = TokenDigest::of("secret");
        assert!(digest.matches("secret"));
        for wrong in ["", "Secret", "secret ", "secre", "secrets"] {
            assert!(!digest.matches(wrong), "{wrong:?}");
        }
        assert_eq!(format!("{digest:?}"), "TokenDigest(..)");
    }
}
