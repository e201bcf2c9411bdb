//! Requests as they end, one JSON object per line, until the reader hangs up.

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Method, header};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
use std::convert::Infallible;
use std::sync::Arc;

use super::input::PathServiceOrAll;
use super::problem::{Kind, Problem};
use super::table::Operation;
use super::{Context, STREAMS};
use crate::live::TapItem;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/v1/tap/{service}",
            "tap",
            "Requests from and to one service, or with `-` all, as they end; lost ones are counted.",
            tap,
        )
        .streams::<TapView>()
        .fails(&[StatusCode::TOO_MANY_REQUESTS]),
    ]
}

/// A request that ended, or a connection that nobody reads.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TapEvent")]
struct TapView {
    /// Unix microseconds at the request's head.
    time_us: i64,
    /// `inbound` or `outbound`, relative to the proxy that reports it.
    direction: String,
    /// The calling service.
    source: String,
    /// The called service.
    destination: String,
    /// The caller's identity; may be empty.
    source_identity: String,
    /// The called one's identity; may be empty.
    destination_identity: String,
    /// The method.
    method: String,
    /// The authority asked for.
    authority: String,
    /// The path.
    path: String,
    /// The status answered.
    status: u32,
    /// Time to the end of the answer.
    duration_us: u64,
    /// Whether the hop through the mesh was mutually authenticated.
    mtls: bool,
    /// Which try it was, from 1.
    attempt: u32,
    /// The trace it belongs to.
    trace_id: String,
    /// `HMS-` code of a refusal by the mesh; empty otherwise.
    code: String,
    /// The route that fitted; may be empty.
    route: String,
    /// The other end of the connection.
    peer: String,
    /// Of a connection that nobody reads (method `TCP`): bytes towards the caller.
    bytes_sent: u64,
    /// Of a connection that nobody reads: bytes of the caller.
    bytes_received: u64,
    /// The proxy that reports it.
    proxy: String,
    /// Requests that were lost so far because there were too many to show.
    dropped: u64,
}

impl From<TapItem> for TapView {
    fn from(item: TapItem) -> Self {
        let event = item.event;
        Self {
            time_us: event.time_us,
            direction: event.direction,
            source: event.source,
            destination: event.destination,
            source_identity: event.source_identity,
            destination_identity: event.destination_identity,
            method: event.method,
            authority: event.authority,
            path: event.path,
            status: event.status,
            duration_us: event.duration_us,
            mtls: event.mtls,
            attempt: event.attempt,
            trace_id: event.trace_id,
            code: event.code,
            route: event.route,
            peer: event.peer,
            bytes_sent: event.bytes_sent,
            bytes_received: event.bytes_received,
            proxy: item.proxy,
            dropped: item.dropped,
        }
    }
}

async fn tap(State(context): State<Context>, PathServiceOrAll(service): PathServiceOrAll) -> Result<Response, Problem> {
    // A service that does not exist yet may be tapped: its first request is what people wait for.
    let permit = Arc::clone(&context.0.streams).try_acquire_owned().map_err(|_full| {
        Problem::new(Kind::TooMany, format!("{STREAMS} streams are open already"))
            .fix("end one of them")
            .header(header::RETRY_AFTER, HeaderValue::from_static("5"))
    })?;
    let tap = context.parts().live.tap(service.as_ref());
    // The permit and the tap end with the stream, and the stream with the connection.
    let lines = futures_util::stream::unfold((tap, permit), |(mut tap, permit)| async move {
        let item = tap.next().await?;
        let mut line = serde_json::to_vec(&TapView::from(item)).unwrap_or_default();
        line.push(b'\n');
        Some((Ok::<_, Infallible>(Bytes::from(line)), (tap, permit)))
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/x-ndjson"))];
    Ok((headers, Body::from_stream(lines)).into_response())
}
