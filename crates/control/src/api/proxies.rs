//! Proxies: who is connected, how far each has come, and where Prometheus finds them.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::certificates::written;
use super::table::Operation;
use super::view::Items;
use crate::live::ProxyView;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/proxies", "listProxies", "Every connected proxy.", list)
            .answers::<Items<ProxyItem>>(StatusCode::OK),
        Operation::new(
            Method::GET,
            "/v1/prometheus/targets",
            "prometheusTargets",
            "Where each proxy serves its metrics, for Prometheus' http_sd.",
            targets,
        )
        .answers::<Vec<Target>>(StatusCode::OK),
    ]
}

/// A connected proxy.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Proxy")]
struct ProxyItem {
    /// Unique per process.
    id: String,
    /// `sidecar` or `gateway`.
    role: &'static str,
    /// The service whose workload it registered; null for a pure client or a gateway.
    service: Option<String>,
    /// Its release.
    release: String,
    /// The level of resources it can apply.
    level: u32,
    /// Where its health and metrics are: `ip:port`; null if it serves none.
    admin_address: Option<String>,
    /// Its process; 0 when it runs elsewhere.
    process_id: u32,
    /// Since when it is connected (RFC 3339).
    connected_since: String,
    /// The newest revision of which it has everything; null before the first.
    revision_acked: Option<u64>,
    /// Whose certificate it speaks with.
    identity: String,
    /// Resources that it refuses.
    nacks: Vec<Nack>,
}

/// A resource that a proxy refuses.
#[derive(Debug, Serialize, JsonSchema)]
struct Nack {
    /// The resource.
    name: String,
    /// Why.
    reason: String,
}

/// A group of targets as Prometheus takes them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PrometheusTarget")]
struct Target {
    /// `ip:port`.
    targets: Vec<String>,
    /// `job`, `role`, `proxy`, `service`.
    labels: BTreeMap<&'static str, String>,
}

async fn list(State(context): State<Context>) -> Json<Items<ProxyItem>> {
    let now = context.parts().clock.now();
    let item = |proxy: ProxyView| ProxyItem {
        id: proxy.hello.id,
        role: proxy.hello.role.as_str(),
        service: proxy.service.map(|service| service.to_string()),
        release: proxy.hello.release,
        level: proxy.hello.level,
        admin_address: proxy.hello.admin.map(|address| address.to_string()),
        process_id: proxy.hello.process,
        connected_since: written(now.checked_sub(proxy.connected_for).unwrap_or(now)),
        revision_acked: proxy.acknowledged,
        identity: proxy.hello.identity.to_string(),
        nacks: proxy.refused.into_iter().map(|nack| Nack { name: nack.name, reason: nack.reason }).collect(),
    };
    Json(Items { items: context.parts().live.proxies().into_iter().map(item).collect() })
}

async fn targets(State(context): State<Context>) -> Json<Vec<Target>> {
    let target = |proxy: ProxyView| {
        let address = proxy.hello.admin?;
        let service =
            proxy.service.map_or_else(|| proxy.hello.identity.name().to_owned(), |service| service.to_string());
        let labels = [
            ("job", "hms-proxy".to_owned()),
            ("role", proxy.hello.role.to_string()),
            ("proxy", proxy.hello.id),
            ("service", service),
        ];
        Some(Target { targets: vec![address.to_string()], labels: labels.into() })
    };
    Json(context.parts().live.proxies().into_iter().filter_map(target).collect())
}
