//! What a request's head may not be on HTTP/2 (RFC 9113 §8.2 and §8.3; reliability B7). `h2` itself resets streams whose
//! pseudo-header fields are missing, repeated, unknown or late, whose names have upper case, whose fields belong to one
//! connection, or whose length is not that of their body; the rest is here.

use hms_model::message::Malformed;
use http::header::{COOKIE, Entry};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::limits::Limits;
use crate::transport::{BadHead, MAX_FIELDS};

/// Checks a head and joins its cookies, which HTTP/2 sends as crumbs and nothing else understands (RFC 9113 §8.2.3).
pub fn check(method: &Method, uri: &Uri, mut fields: HeaderMap, limits: &Limits) -> Result<HeaderMap, BadHead> {
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len());
    // Crumbs count one by one, before they are joined.
    if target > limits.target || fields.len() > MAX_FIELDS {
        return Err(BadHead::TooLarge);
    }
    for (name, value) in &fields {
        if name.as_str().len() + value.len() > limits.field {
            return Err(BadHead::TooLarge);
        }
        if value.as_bytes().trim_ascii().len() != value.len() {
            return Err(BadHead::Padded);
        }
    }
    if uri.scheme_str().is_some_and(|scheme| scheme != "http" && scheme != "https") {
        return Err(BadHead::Scheme);
    }
    let is_asterisk = uri.path() == "*";
    if is_asterisk && method != Method::OPTIONS
        || !is_asterisk && !uri.path().starts_with('/') && method != Method::CONNECT
    {
        return Err(BadHead::Malformed(Malformed::NotAbsolute));
    }
    join_cookies(&mut fields)?;
    Ok(fields)
}

fn join_cookies(fields: &mut HeaderMap) -> Result<(), BadHead> {
    let Entry::Occupied(mut cookies) = fields.entry(COOKIE) else { return Ok(()) };
    if cookies.iter().nth(1).is_none() {
        return Ok(());
    }
    let crumbs: Vec<&[u8]> = cookies.iter().map(HeaderValue::as_bytes).collect();
    let joined = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])).map_err(|_impossible| BadHead::TooLarge)?;
    cookies.insert(joined);
    Ok(())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn checked(method: &str, uri: &str, fields: &[(&'static str, &str)]) -> Result<HeaderMap, BadHead> {
        let mut map = HeaderMap::new();
        for (name, value) in fields {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        check(&method.parse().unwrap(), &uri.parse().unwrap(), map, &Limits::EDGE)
    }

    #[test]
    fn an_asterisk_is_for_options_alone() {
        assert!(checked("OPTIONS", "*", &[]).is_ok());
        assert_eq!(checked("GET", "*", &[]), Err(BadHead::Malformed(Malformed::NotAbsolute)));
        assert!(checked("GET", "http://a/", &[]).is_ok());
        assert_eq!(checked("GET", "ftp://a/", &[]), Err(BadHead::Scheme));
    }

    #[test]
    fn sizes_are_bounded() {
        assert!(checked("GET", &format!("/{}", "a".repeat(8 * 1024 - 1)), &[]).is_ok());
        assert_eq!(checked("GET", &format!("/{}", "a".repeat(8 * 1024)), &[]), Err(BadHead::TooLarge));
        assert_eq!(checked("GET", "/", &[("a", &"x".repeat(16 * 1024))]), Err(BadHead::TooLarge));
        assert_eq!(checked("GET", "/", &[("cookie", "a=b"); 101]), Err(BadHead::TooLarge), "crumbs count");
    }

    #[test]
    fn padded_values_are_refused() {
        for value in [" a", "a ", "\ta"] {
            assert_eq!(checked("GET", "/", &[("a", value)]), Err(BadHead::Padded));
        }
        assert!(checked("GET", "/", &[("a", ""), ("b", "a b")]).is_ok());
    }

    #[test]
    fn crumbs_become_one_cookie() {
        let fields = checked("GET", "/", &[("cookie", "a=1"), ("x", "y"), ("cookie", "b=2")]).unwrap();
        let cookies: Vec<&HeaderValue> = fields.get_all(COOKIE).iter().collect();
        assert_eq!(cookies, ["a=1; b=2"]);
        assert_eq!(fields.len(), 2);
    }
}
