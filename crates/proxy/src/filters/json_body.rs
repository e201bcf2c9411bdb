//! The trace id within a JSON body, for laboratories whose lessons print bodies (ruling R13). Off unless asked for.

use bytes::Bytes;
use hms_model::message::ResponseHead;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, ETAG};
use http::{HeaderName, HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::transport::Response;

/// Largest body that is held to be changed.
const MOST: usize = 1024 * 1024;
/// How much of the trace id stands in a body: what names a trace on the command line.
const SHOWN: usize = 6;

/// Adds `"x-trace-id"` to a JSON object. Everything else passes as it is.
pub async fn add_trace_id(method: &Method, response: Response, trace_id: &str) -> Response {
    if *method == Method::HEAD || !is_plain_json(&response.head) {
        return response;
    }
    let Response { mut head, body } = response;
    match body.collect(MOST).await {
        Ok(Ok(bytes)) => {
            let Some(changed) = insert(&bytes, trace_id.get(..SHOWN).unwrap_or(trace_id)) else {
                return Response { head, body: Body::full(bytes) };
            };
            head.fields.remove(&ETAG);
            head.fields.remove(&HeaderName::from_static("digest"));
            head.fields.remove(&HeaderName::from_static("content-digest"));
            head.fields.set(CONTENT_LENGTH, HeaderValue::from(changed.len()));
            Response { head, body: Body::full(changed) }
        }
        Ok(Err(longer)) => Response { head, body: longer },
        Err(error) => {
            tracing::debug!(%error, "response body broke while it was read");
            let refusal = crate::refusal::Refusal::new(crate::refusal::Reason::UpstreamReset, "the response broke off");
            refusal.into_response(trace_id, false)
        }
    }
}

fn is_plain_json(head: &ResponseHead) -> bool {
    let json = head.fields.text(&CONTENT_TYPE).is_some_and(|value| {
        value.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
    });
    let empty = matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    json && !empty && head.fields.first(&CONTENT_ENCODING).is_none()
}

/// Puts the field before the last brace; `None` if the body is no JSON object.
fn insert(body: &[u8], trace_id: &str) -> Option<Bytes> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(body).ok()?;
    if object.contains_key("x-trace-id") {
        return None;
    }
    let end = body.iter().rposition(|byte| *byte == b'}')?;
    let comma = if object.is_empty() { "" } else { "," };
    let mut changed = body.get(..end)?.to_vec();
    changed.extend_from_slice(format!("{comma}\"x-trace-id\":\"{trace_id}\"}}").as_bytes());
    Some(changed.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_gains_a_field_and_anything_else_stays() {
        let inserted = |body: &str| insert(body.as_bytes(), "7f23ab").map(|b| String::from_utf8(b.to_vec()).unwrap());
        assert_eq!(inserted(r#"{"sum":5}"#).as_deref(), Some(r#"{"sum":5,"x-trace-id":"7f23ab"}"#));
        assert_eq!(inserted("{}").as_deref(), Some(r#"{"x-trace-id":"7f23ab"}"#));
        for other in ["[1]", "5", "", "{", r#"{"x-trace-id":1}"#] {
            assert_eq!(inserted(other), None, "{other}");
        }
    }
}
