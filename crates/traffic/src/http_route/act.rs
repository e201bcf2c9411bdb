//! What becomes of a request that a rule took, and of its answer.

use std::time::Duration;

use hms_model::http_route::{Cors, Fault, PathRewrite, Portion, Redirect, Scheme};
use hms_model::message::{CanonicalPath, RequestHead};
use hms_model::split::MOST_WEIGHT;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderName, Method};

use crate::dice::Dice;

/// Header fields with their values, for an answer.
pub type Told = Vec<(HeaderName, String)>;

/// Whether a part of all is meant this time.
pub fn rolls(portion: Portion, dice: &mut Dice) -> bool {
    match portion.get() {
        0 => false,
        MOST_WEIGHT => true,
        part => {
            dice.below(usize::try_from(MOST_WEIGHT).unwrap_or(usize::MAX)) < usize::try_from(part).unwrap_or_default()
        }
    }
}

/// What is made to go wrong with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Wrong {
    /// It waits so long first.
    pub delay: Option<Duration>,
    /// It is answered with this status.
    pub abort: Option<u16>,
}

/// Rolls for a request. Delay and abort are independent: a request may get both.
pub fn fault(fault: &Fault, head: &RequestHead, dice: &mut Dice) -> Wrong {
    if fault.trigger.as_ref().is_some_and(|name| head.fields.first(name).is_none()) {
        return Wrong::default();
    }
    Wrong {
        delay: fault.delay.filter(|(_, part)| rolls(*part, dice)).map(|(time, _)| time),
        abort: fault.abort.filter(|(_, part)| rolls(*part, dice)).map(|(status, _)| status),
    }
}

/// The path that is sent instead; `prefix` is what the rule's match names, without a slash at its end. `None` where nothing is to be
/// replaced, or what would come of it is no path.
pub fn rewrite(rewrite: &PathRewrite, prefix: Option<&str>, path: &CanonicalPath) -> Option<CanonicalPath> {
    let text = match rewrite {
        PathRewrite::Full(full) => full.clone(),
        PathRewrite::Prefix(other) => {
            let rest = path.as_str().strip_prefix(prefix?)?;
            let joined = format!("{}{rest}", other.trim_end_matches('/'));
            if joined.starts_with('/') { joined } else { format!("/{joined}") }
        }
    };
    CanonicalPath::parse(&text).ok()
}

/// Where a caller is sent (RFC 9110 §10.2.2). `scheme` and `port` are what it called.
pub fn location(
    redirect: &Redirect,
    prefix: Option<&str>,
    head: &RequestHead,
    (scheme, port): (Scheme, Option<u16>),
) -> String {
    let new = redirect.scheme.unwrap_or(scheme);
    let host = redirect.host.as_deref().unwrap_or_else(|| head.authority.host());
    // Another scheme means its own port unless one is named.
    let called = port.filter(|_| redirect.scheme.is_none());
    let port = redirect.port.or(called);
    let port = port.filter(|port| *port != new.default_port()).map(|port| format!(":{port}")).unwrap_or_default();
    let path = redirect.path.as_ref().and_then(|path| rewrite(path, prefix, &head.path));
    let path = path.as_ref().unwrap_or(&head.path);
    let query = head.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{}://{host}{port}{path}{query}", new.as_str())
}

/// Whether a browser asks whether it may ask (Fetch standard, CORS-preflight request).
pub fn is_preflight(head: &RequestHead) -> bool {
    head.method == Method::OPTIONS
        && head.fields.first(&ORIGIN).is_some()
        && head.fields.first(&ACCESS_CONTROL_REQUEST_METHOD).is_some()
}

/// The fields of the answer to a preflight request; none if the origin is not one of those that are taken.
pub fn preflight(cors: &Cors, head: &RequestHead) -> Told {
    let mut told = shared(cors, head);
    if told.is_empty() {
        return told;
    }
    let asked = |name| head.fields.text(name).map(str::to_owned);
    let methods = match &cors.methods {
        Some(methods) => Some(listed(methods.iter().map(Method::as_str))),
        None => asked(&ACCESS_CONTROL_REQUEST_METHOD),
    };
    let headers = match &cors.headers {
        Some(headers) => Some(listed(headers.iter().map(HeaderName::as_str))),
        None => asked(&ACCESS_CONTROL_REQUEST_HEADERS),
    };
    told.extend(methods.map(|methods| (ACCESS_CONTROL_ALLOW_METHODS, methods)));
    told.extend(headers.filter(|headers| !headers.is_empty()).map(|headers| (ACCESS_CONTROL_ALLOW_HEADERS, headers)));
    if !cors.max_age.is_zero() {
        told.push((ACCESS_CONTROL_MAX_AGE, cors.max_age.as_secs().to_string()));
    }
    told
}

/// The fields of any other answer to a page of another origin.
pub fn exposed(cors: &Cors, head: &RequestHead) -> Told {
    let mut told = shared(cors, head);
    if !told.is_empty() && !cors.expose.is_empty() {
        told.push((ACCESS_CONTROL_EXPOSE_HEADERS, listed(cors.expose.iter().map(HeaderName::as_str))));
    }
    told
}

fn shared(cors: &Cors, head: &RequestHead) -> Told {
    let Some(origin) = head.fields.text(&ORIGIN).filter(|origin| takes_origin(cors, origin)) else {
        return Told::new();
    };
    // The star may not stand beside credentials, and what depends on the origin must say so to caches.
    let is_any = cors.origins.iter().any(|own| own == "*") && !cors.credentials;
    let mut told = vec![(ACCESS_CONTROL_ALLOW_ORIGIN, if is_any { "*".to_owned() } else { origin.to_owned() })];
    if !is_any {
        told.push((VARY, "Origin".to_owned()));
    }
    if cors.credentials {
        told.push((ACCESS_CONTROL_ALLOW_CREDENTIALS, "true".to_owned()));
    }
    told
}

fn takes_origin(cors: &Cors, origin: &str) -> bool {
    cors.origins.iter().any(|own| match own.split_once('*') {
        None => own.eq_ignore_ascii_case(origin),
        Some(("", "")) => true,
        // `https://*.example`: one star, for one or more labels.
        Some((before, after)) => {
            let inner = origin.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
            inner.is_some_and(|inner| {
                !inner.is_empty() && inner.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'))
            })
        }
    })
}

fn listed<'a, I: Iterator<Item = &'a str>>(words: I) -> String {
    words.collect::<Vec<_>>().join(", ")
}
