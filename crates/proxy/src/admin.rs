//! Health and metrics on loopback, read only. What changes a proxy comes over its control stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hms_http1::Limits;
use hms_model::message::{Fields, RequestHead, ResponseHead};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::body::Body;
use crate::report::breaker_value;
use crate::tasks;
use crate::transport::http1::{self, Terms};
use crate::transport::{BadHead, Handler, Reply, Request, Response};
use crate::worker::Shared;

/// Connections served at the same time.
const MOST_CONNECTIONS: usize = 32;
/// What is asked of those who connect: they are few, and ask little.
static TERMS: Terms =
    Terms { limits: Limits::EDGE, first: Duration::from_secs(10), idle: Duration::from_secs(30), hurried: true };

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, configured: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let answers = Answers { shared: Arc::clone(&shared), configured: configured.clone() };
        tasks::spawn_local("admin", async move {
            let _place = place;
            let drain = answers.shared.drain.clone();
            http1::serve(stream, answers, &drain, &TERMS).await;
        });
    }
}

/// Answers what is asked of this proxy itself.
#[derive(Debug, Clone)]
struct Answers {
    shared: Arc<Shared>,
    configured: watch::Receiver<bool>,
}

impl Handler for Answers {
    async fn handle(&self, request: Result<Request, BadHead>, reply: impl Reply) {
        let response = match request {
            Err(bad) => text(StatusCode::BAD_REQUEST, format!("{bad}\n")),
            Ok(request) => answer(&request.head, &self.shared, *self.configured.borrow()),
        };
        reply.send(response).await;
    }
}

fn answer(head: &RequestHead, shared: &Shared, configured: bool) -> Response {
    if !is_loopback(head.authority.host()) {
        return text(StatusCode::FORBIDDEN, "this address is for loopback names only\n");
    }
    if head.method != Method::GET && head.method != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    match head.path.as_str() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if shared.drain.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/ready" if shared.settings.snapshot.is_none() && shared.holder.current().is_none() => {
            text(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n")
        }
        "/ready" if !configured => text(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
        "/ready" => text(StatusCode::OK, "ready\n"),
        "/metrics" => {
            refresh_gauges(shared);
            let mut response = text(StatusCode::OK, shared.registry.expose(env!("CARGO_PKG_VERSION")));
            let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.head.fields.set(CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there is /live, /ready and /metrics\n"),
    }
}

/// A page in a browser that resolves its own name to loopback may not read this (DNS rebinding).
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn refresh_gauges(shared: &Shared) {
    let (registry, now) = (&shared.registry, shared.clock.now());
    registry.forget_gauges("hms_breaker_state");
    let runtime = shared.current.load();
    for upstream in runtime.upstreams.values() {
        let name = format!("hms_breaker_state{{destination_service=\"{}\"}}", upstream.host);
        registry.gauge(name, breaker_value(upstream.breaker(now)));
    }
    shared.overload.gauges(registry);
    if shared.access_log.is_on() {
        let dropped = u32::try_from(shared.access_log.dropped()).unwrap_or(u32::MAX);
        registry.gauge("hms_access_log_dropped", f64::from(dropped));
    }
    if let Some(own) = shared.holder.current() {
        let left = own.svid.not_after().duration_since(shared.now()).unwrap_or_default();
        registry.forget_gauges("hms_cert_expiry_seconds");
        let name = format!("hms_cert_expiry_seconds{{identity=\"{}\"}}", own.svid.identity());
        registry.gauge(name, left.as_secs_f64());
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response {
    Response { head: ResponseHead { status, fields: Fields::new() }, body: Body::full(body.into()) }
}
