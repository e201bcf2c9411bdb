//! Asking our own application whether it is well.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::policy::Probe;
use hms_model::policy::probe::Question;
use hms_traffic::outlier::FailureKind;
use hms_traffic::probe::Answer;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderValue, Method, StatusCode};

use crate::body::Body;
use crate::transport::connect;
use crate::transport::{Edits, Protocol, Response};
use crate::worker::Shared;

/// How long an application may take to answer where its service's policy does not say.
const TIMEOUT: Duration = Duration::from_secs(1);
/// Longest answer of a gRPC health check that is read; a real one has seven bytes.
const CHECK_BYTES: usize = 4096;
/// `grpc.health.v1.HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// What is asked: what the service's policy says, else what this proxy was started with.
pub fn plan(shared: &Shared) -> Probe {
    let local = shared.current.load().local.as_ref().map(Arc::clone);
    if let Some(probe) = local.as_ref().and_then(|local| local.service.policy.probe.as_ref()) {
        return probe.clone();
    }
    let question = match &shared.settings.health_path {
        Some(path) => Question::Http { path: path.clone(), statuses: Vec::new() },
        None => Question::Tcp,
    };
    // Every answer counts, as it always did.
    Probe { question, interval: shared.settings.health_every, timeout: TIMEOUT, healthy: 1, unhealthy: 1 }
}

/// Asks once. It is never redirected, and of an answer over HTTP only the head is read (reliability J4).
pub async fn ask(shared: &Shared, address: SocketAddr, probe: &Probe) -> Answer {
    let asked = async {
        match &probe.question {
            Question::Tcp => match shared.captured.dial(address).await {
                Ok(_connection) => Answer::Good,
                Err(_) => Answer::Absent,
            },
            Question::Http { path, statuses } => {
                let fits = |status: StatusCode| match statuses.as_slice() {
                    [] => status < StatusCode::BAD_REQUEST,
                    some => some.iter().any(|range| range.contains(&status.as_u16())),
                };
                match get(shared, address, path, probe.timeout).await {
                    Ok(Some(response)) if fits(response.head.status) => Answer::Good,
                    Ok(_) => Answer::Bad,
                    Err(answer) => answer,
                }
            }
            Question::Grpc { service } => match check(shared, address, service, probe.timeout).await {
                Ok(Some(SERVING)) => Answer::Good,
                Ok(_) => Answer::Bad,
                Err(answer) => answer,
            },
        }
    };
    tokio::time::timeout(probe.timeout, asked).await.unwrap_or(Answer::Bad)
}

/// The answer to a `GET`, if there was one; the error says why there was no connection.
async fn get(
    shared: &Shared,
    address: SocketAddr,
    path: &CanonicalPath,
    timeout: Duration,
) -> Result<Option<Response>, Answer> {
    let Some(head) = head(address, Method::GET, path.clone(), Fields::new()) else { return Ok(None) };
    send(shared, address, Protocol::Http1, &head, Body::empty(), timeout).await
}

/// The status in the answer of the gRPC health protocol (`grpc/health/v1/health.proto`), if that is one.
async fn check(shared: &Shared, address: SocketAddr, service: &str, timeout: Duration) -> Result<Option<i32>, Answer> {
    let Ok(path) = CanonicalPath::parse("/grpc.health.v1.Health/Check") else { return Ok(None) };
    let mut fields = Fields::new();
    fields.set(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    fields.set(TE, HeaderValue::from_static("trailers"));
    let (Some(head), Some(body)) = (head(address, Method::POST, path, fields), question(service)) else {
        return Ok(None);
    };
    let Some(response) = send(shared, address, Protocol::Http2, &head, Body::full(body), timeout).await? else {
        return Ok(None);
    };
    if response.head.status != StatusCode::OK {
        return Ok(None);
    }
    let body = response.body.collect(CHECK_BYTES).await.ok().and_then(Result::ok);
    Ok(body.and_then(|body| status(&body)))
}

/// `HealthCheckRequest { string service = 1; }`, uncompressed.
fn question(service: &str) -> Option<Bytes> {
    let length = u8::try_from(service.len()).ok().filter(|length| *length < 0x80)?;
    let mut message = BytesMut::new();
    if length > 0 {
        message.put_slice(&[0x0a, length]);
        message.put_slice(service.as_bytes());
    }
    let mut framed = BytesMut::new();
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).ok()?);
    framed.put(message);
    Some(framed.freeze())
}

/// `HealthCheckResponse { ServingStatus status = 1; }`, whose values have one byte each; absent is 0, unknown.
fn status(framed: &[u8]) -> Option<i32> {
    match framed {
        [0, 0, 0, 0, 0, ..] => Some(0),
        [0, 0, 0, 0, 2, 0x08, status, ..] if *status < 0x80 => Some(i32::from(*status)),
        _ => None,
    }
}

fn head(address: SocketAddr, method: Method, path: CanonicalPath, fields: Fields) -> Option<RequestHead> {
    let authority = Authority::parse(&address.to_string()).ok()?;
    Some(RequestHead { method, authority, path, query: None, fields })
}

async fn send(
    shared: &Shared,
    address: SocketAddr,
    protocol: Protocol,
    head: &RequestHead,
    body: Body,
    timeout: Duration,
) -> Result<Option<Response>, Answer> {
    let opened = Box::pin(connect::open_app(&shared.captured, address, protocol, timeout)).await;
    let connection = opened.map_err(|error| match error.kind {
        FailureKind::ConnectRefused => Answer::Absent,
        _ => Answer::Bad,
    })?;
    Ok(Box::pin(connection.send(head, &Edits::default(), body, None)).await.ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_health_check_is_written_as_grpc_writes_it() {
        assert_eq!(question("").unwrap(), &[0, 0, 0, 0, 0][..]);
        assert_eq!(question("a.B").unwrap(), &[0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B'][..]);
        assert_eq!(question(&"a".repeat(128)), None);
    }

    #[test]
    fn an_answer_is_read_as_grpc_writes_it_and_nothing_else_is_one() {
        assert_eq!(status(&[0, 0, 0, 0, 2, 0x08, 1]), Some(SERVING));
        assert_eq!(status(&[0, 0, 0, 0, 2, 0x08, 2]), Some(2));
        assert_eq!(status(&[0, 0, 0, 0, 0]), Some(0));
        for wrong in [&b""[..], b"ok", &[1, 0, 0, 0, 2, 0x08, 1], &[0, 0, 0, 0, 2, 0x10, 1], &[0, 0, 0, 0, 9, 0x08, 1]]
        {
            assert_eq!(status(wrong), None, "{wrong:?}");
        }
    }
}
