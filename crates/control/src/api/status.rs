//! How the control plane and the mesh are, on one page.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::problem::{FindingView, views};
use super::table::Operation;
use super::view::{self, ServiceView};

/// RFC 2046 §4.1.
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/healthz/ready", "ready", "`SERVING` once proxies and callers are served.", ready)
            .open()
            .text(TEXT)
            .fails(&[StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(Method::GET, "/healthz/live", "live", "`LIVE` while the process answers.", live)
            .open()
            .text(TEXT),
        Operation::new(Method::GET, "/v1/version", "version", "The release of the control plane.", version)
            .open()
            .answers::<ReleaseView>(StatusCode::OK),
        Operation::new(Method::GET, "/v1/openapi.json", "openapi", "This document.", document)
            .open()
            .answers::<Value>(StatusCode::OK),
        Operation::new(Method::GET, "/v1/summary", "summary", "The whole mesh in a few figures.", summary)
            .answers::<Summary>(StatusCode::OK),
    ]
}

/// The release of the control plane.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Version")]
struct ReleaseView {
    /// The release.
    version: &'static str,
    /// The version of this API.
    api: &'static str,
    /// The trust domain.
    trust_domain: String,
}

/// The whole mesh in a few figures.
#[derive(Debug, Serialize, JsonSchema)]
struct Summary {
    /// The trust domain.
    trust_domain: String,
    /// The newest revision.
    revision: u64,
    /// How many services there are.
    services: usize,
    /// How many of them can be given work.
    healthy: usize,
    /// How many proxies are connected.
    proxies: usize,
    /// `ON`, `OFF`, or `PARTIAL` when it holds for some services only.
    mtls: &'static str,
    /// Tries after the first, in the last minute.
    retries: u64,
    /// The worst breaker of any service: `CLOSED`, `HALF-OPEN` or `OPEN`.
    breaker: &'static str,
    /// Since the start of the control plane.
    uptime_seconds: u64,
    /// The gateway.
    gateway: GatewayView,
    /// Whose tokens the gateway takes.
    jwt: IssuerView,
    /// What people should know.
    findings: Vec<FindingView>,
}

/// The gateway.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Gateway")]
struct GatewayView {
    /// The names it answers for, beside the loopback ones.
    hosts: Vec<String>,
}

/// Whose tokens the gateway takes.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TokenIssuer")]
struct IssuerView {
    /// The `iss` claim; null while it takes nobody's.
    issuer: Option<String>,
}

async fn ready(State(context): State<Context>) -> Response {
    let (status, text) =
        if context.is_ready() { (StatusCode::OK, "SERVING") } else { (StatusCode::SERVICE_UNAVAILABLE, "NOT_SERVING") };
    (status, [(header::CONTENT_TYPE, HeaderValue::from_static(TEXT))], text).into_response()
}

async fn live() -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(TEXT))], "LIVE").into_response()
}

async fn version(State(context): State<Context>) -> Json<ReleaseView> {
    let trust_domain = context.parts().registry.trust_domain().to_string();
    Json(ReleaseView { version: env!("CARGO_PKG_VERSION"), api: "v1", trust_domain })
}

async fn document(State(context): State<Context>) -> Response {
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], context.0.document.to_string()).into_response()
}

async fn summary(State(context): State<Context>) -> Json<Summary> {
    let parts = context.parts();
    let view = parts.registry.view();
    let services = view::services(&view, &parts.live);
    let gateway = &view.mesh.gateway;
    Json(Summary {
        trust_domain: parts.registry.trust_domain().to_string(),
        revision: view.revision.0,
        services: services.len(),
        healthy: services.iter().filter(|service| service.state == "healthy").count(),
        proxies: parts.live.proxies().len(),
        mtls: mtls(&services),
        retries: services.iter().map(|service| service.retries).sum(),
        breaker: worst(&services),
        uptime_seconds: context.0.started.elapsed().as_secs(),
        gateway: GatewayView { hosts: gateway.hosts.clone() },
        jwt: IssuerView { issuer: gateway.issuers.first().map(|issuer| issuer.issuer.clone()) },
        findings: views(&view.findings),
    })
}

/// Mutual TLS of all services together; it is on for a mesh that has none yet.
fn mtls(services: &[ServiceView]) -> &'static str {
    let on = services.iter().filter(|service| service.mtls == "ON").count();
    match on {
        _ if on == services.len() => "ON",
        0 => "OFF",
        _ => "PARTIAL",
    }
}

fn worst(services: &[ServiceView]) -> &'static str {
    let any = |word: &str| services.iter().any(|service| service.breaker == word);
    if any("OPEN") {
        "OPEN"
    } else if any("HALF-OPEN") {
        "HALF-OPEN"
    } else {
        "CLOSED"
    }
}
