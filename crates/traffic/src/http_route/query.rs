//! Conditions on query parameters.

use hms_model::http_route::QueryCondition;

use super::value_fits;

/// Whether the first parameter of that name fits, both read as forms are (WHATWG URL, `application/x-www-form-urlencoded`).
pub(super) fn fits(condition: &QueryCondition, query: &str) -> bool {
    let first = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| *name == condition.name.as_str());
    first.is_some_and(|(_, value)| value_fits(&condition.value, &value))
}
