//! Health and metrics on loopback, read only. What changes a proxy comes over its control stream.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};

use crate::report::breaker_value;
use crate::tasks;
use crate::worker::Shared;

/// Connections served at the same time.
const MOST_CONNECTIONS: usize = 32;

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>, configured: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let (shared, configured) = (Arc::clone(&shared), configured.clone());
        tasks::spawn("admin", async move {
            let _place = place;
            let service = service_fn(move |request: Request<hyper::body::Incoming>| {
                let answer = answer(&request, &shared, *configured.borrow());
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(Duration::from_secs(10))
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "admin connection ended");
            }
        });
    }
}

fn answer<B>(request: &Request<B>, shared: &Shared, configured: bool) -> Response<Full<Bytes>> {
    if !is_loopback_host(request) {
        return text(StatusCode::FORBIDDEN, "this address is for loopback names only\n");
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n");
    }
    match request.uri().path() {
        "/live" => text(StatusCode::OK, "live\n"),
        "/ready" if shared.drain.is_leaving() => text(StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        "/ready" if shared.holder.current().is_none() => text(StatusCode::SERVICE_UNAVAILABLE, "no certificate yet\n"),
        "/ready" if !configured => text(StatusCode::SERVICE_UNAVAILABLE, "no configuration yet\n"),
        "/ready" => text(StatusCode::OK, "ready\n"),
        "/metrics" => {
            refresh_gauges(shared);
            let mut response = text(StatusCode::OK, shared.registry.expose(env!("CARGO_PKG_VERSION")));
            let kind = http::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            response.headers_mut().insert(http::header::CONTENT_TYPE, kind);
            response
        }
        _ => text(StatusCode::NOT_FOUND, "there is /live, /ready and /metrics\n"),
    }
}

/// A page in a browser that resolves its own name to loopback may not read this (DNS rebinding).
fn is_loopback_host<B>(request: &Request<B>) -> bool {
    let host = request.headers().get(http::header::HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if let Ok(address) = host.parse::<SocketAddr>() {
        return address.ip().is_loopback();
    }
    let name = host.split(':').next().unwrap_or_default();
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}
