//! The request target (RFC 9112 §3.2).

use hms_model::message::{Authority, CanonicalPath, Malformed};
use http::Method;

use crate::Reject;

/// What a target says.
pub(crate) struct Target<'h> {
    /// The host, in absolute-form.
    pub(crate) authority: Option<Authority>,
    pub(crate) path: CanonicalPath,
    pub(crate) query: Option<&'h str>,
}

impl<'h> Target<'h> {
    /// Reads the form that `method` has.
    pub(crate) fn parse(raw: &'h str, method: &Method) -> Result<Self, Reject> {
        if raw.starts_with('/') {
            return Self::of(None, raw);
        }
        if raw == "*" && method == Method::OPTIONS {
            return Self::of(None, raw);
        }
        let (scheme, rest) = raw.split_once("://").ok_or(Reject::TargetForm)?;
        if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
            return Err(Reject::TargetForm);
        }
        let end = rest.bytes().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, rest) = rest.split_at(end);
        let authority = Authority::parse(authority).map_err(Reject::Target)?;
        match rest.as_bytes().first() {
            // The last proxy makes asterisk-form of it (RFC 9112 §3.2.4).
            None if method == Method::OPTIONS => Self::of(Some(authority), "*"),
            None => Self::of(Some(authority), "/"),
            Some(b'?') => Ok(Self { query: Some(query(rest)?), ..Self::of(Some(authority), "/")? }),
            Some(_) => Self::of(Some(authority), rest),
        }
    }

    fn of(authority: Option<Authority>, origin: &'h str) -> Result<Self, Reject> {
        let end = memchr::memchr(b'?', origin.as_bytes()).unwrap_or(origin.len());
        let (path, rest) = origin.split_at(end);
        if path.bytes().any(|byte| matches!(byte, b'<' | b'>' | b'`')) {
            return Err(Reject::Target(Malformed::RawByte));
        }
        let path = CanonicalPath::parse(path).map_err(Reject::Target)?;
        let query = if rest.is_empty() { None } else { Some(query(rest)?) };
        Ok(Self { authority, path, query })
    }
}

/// The query after `?`: as it came, unless it has bytes that may not stand in one. `<` and `>` are among them because not every
/// recipient takes them.
fn query(rest: &str) -> Result<&str, Reject> {
    let query = rest.strip_prefix('?').unwrap_or(rest);
    for byte in query.bytes() {
        match byte {
            b'#' => return Err(Reject::Target(Malformed::Fragment)),
            b'<' | b'>' => return Err(Reject::Target(Malformed::RawByte)),
            0x21..=0x7e => {}
            _ => return Err(Reject::Target(Malformed::RawByte)),
        }
    }
    Ok(query)
}
