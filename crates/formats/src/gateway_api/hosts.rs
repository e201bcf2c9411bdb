//! Host names of routes and listeners.

use hms_model::finding::Finding;

use crate::document::short;
use crate::read::{Field, Reader};

/// A host name, or `*.` before one (`Hostname`).
pub(crate) fn pattern(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field, "a host name such as shop.example.com or *.example.com")?;
    if is_name(text.strip_prefix("*.").unwrap_or(text)) {
        return Some(text.to_owned());
    }
    refuse(reader, field, text);
    None
}

/// A host name without a star (`PreciseHostname`).
pub(super) fn precise(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<String> {
    let text = reader.text(field, "a host name such as shop.example.com")?;
    if is_name(text) {
        return Some(text.to_owned());
    }
    refuse(reader, field, text);
    None
}

fn refuse(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) {
    let finding = Finding::error(2105, format!("`{}` is no host name", short(text)));
    let why = "it is letters a-z, digits, - and dots, without a port, and no address";
    reader.report(field.node.span, finding.because(why).fix("write for example shop.example.com"));
}

fn is_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
    };
    text.len() <= 253 && text.split('.').all(label) && text.parse::<std::net::IpAddr>().is_err()
}

/// The names that both take: of a listener (`None` for all) and of a route (none for all). `None` if there is none.
pub(super) fn common(listener: Option<&str>, route: &[String]) -> Option<Vec<String>> {
    let Some(listener) = listener else { return Some(route.to_vec()) };
    if route.is_empty() {
        return Some(vec![listener.to_owned()]);
    }
    let both: Vec<String> = route.iter().filter_map(|own| narrower(listener, own)).collect();
    if both.is_empty() { None } else { Some(both) }
}

/// The narrower of two names that share some.
fn narrower(one: &str, other: &str) -> Option<String> {
    let within = |name: &str, pattern: &str| {
        // `*.example.com` takes any number of labels, and not `example.com`.
        name == pattern || pattern.strip_prefix('*').is_some_and(|rest| name.len() > rest.len() && name.ends_with(rest))
    };
    if within(other, one) {
        Some(other.to_owned())
    } else if within(one, other) {
        Some(one.to_owned())
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_has_the_names_that_it_shares_with_its_listener() {
        let common = |listener, route: &[&str]| {
            common(listener, &route.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())
        };
        let some = |hosts: &[&str]| Some(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>());
        assert_eq!(common(None, &[]), some(&[]));
        assert_eq!(common(Some("a.b"), &[]), some(&["a.b"]));
        assert_eq!(common(Some("*.b"), &["a.b", "x.a.b", "b", "a.c"]), some(&["a.b", "x.a.b"]));
        assert_eq!(common(Some("x.a.b"), &["*.b", "*.a.b"]), some(&["x.a.b", "x.a.b"]));
        assert_eq!(common(Some("*.a.b"), &["*.b"]), some(&["*.a.b"]));
        assert_eq!(common(Some("a.b"), &["c.b"]), None);
        assert_eq!(common(Some("*.b"), &["b"]), None);
    }

    #[test]
    fn an_address_or_a_port_is_no_host_name() {
        for text in ["a.b", "localhost", "x-1.example.com"] {
            assert!(is_name(text), "{text}");
        }
        for text in ["", "A.b", "10.0.0.1", "a.b:80", "-a.b", "a..b", "*.a", "a_b"] {
            assert!(!is_name(text), "{text}");
        }
    }
}
