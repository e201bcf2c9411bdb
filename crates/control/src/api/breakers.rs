//! Breakers: whether calls pass, why not, and until when.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use hms_model::mesh::ServiceState;
use hms_model::names::ServiceName;
use schemars::JsonSchema;
use serde::Serialize;

use super::Context;
use super::input::PathService;
use super::problem::Problem;
use super::services;
use super::table::Operation;
use super::view::{self, Items};
use crate::live::{BreakerPhase, BreakerReport, EndpointReport, Live};
use crate::registry::View;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/breakers", "listBreakers", "The breaker of every service.", list)
            .answers::<Items<BreakerView>>(StatusCode::OK),
        Operation::new(Method::GET, "/v1/breakers/{service}", "showBreaker", "The breaker of one service.", get)
            .answers::<BreakerView>(StatusCode::OK)
            .fails(&[StatusCode::NOT_FOUND]),
    ]
}

/// The breaker of a service.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Breaker")]
struct BreakerView {
    /// The service.
    service: String,
    /// `CLOSED` (calls pass), `HALF-OPEN` (a probe is under way) or `OPEN` (calls are refused): the worst any caller sees.
    phase: &'static str,
    /// Why; empty when closed.
    reason: String,
    /// Milliseconds until the next probe; null if none is due.
    next_probe_ms: Option<u64>,
    /// What each caller sees.
    seen_by: Vec<BreakerSight>,
}

/// A breaker as one caller sees it.
#[derive(Debug, Serialize, JsonSchema)]
struct BreakerSight {
    /// The caller's proxy.
    proxy: String,
    /// As above.
    phase: &'static str,
    /// As above.
    reason: String,
    /// As above.
    next_probe_ms: Option<u64>,
    /// The endpoints it knows.
    endpoints: Vec<EndpointSight>,
}

/// An endpoint as one caller sees it.
#[derive(Debug, Serialize, JsonSchema)]
struct EndpointSight {
    /// Its id.
    id: String,
    /// Its address.
    address: String,
    /// `OPEN` while it is ejected.
    phase: &'static str,
    /// Why.
    reason: String,
    /// Failures in a row.
    consecutive_failures: u32,
    /// Milliseconds until it is probed; null if it will not be.
    next_probe_ms: Option<u64>,
}

async fn list(State(context): State<Context>) -> Json<Items<BreakerView>> {
    let view = context.parts().registry.view();
    let services = view.mesh.services.iter();
    Json(Items { items: services.map(|(name, state)| breaker(&view, &context.parts().live, name, state)).collect() })
}

async fn get(State(context): State<Context>, PathService(name): PathService) -> Result<Json<BreakerView>, Problem> {
    let view = context.parts().registry.view();
    let state = view.mesh.services.get(&name).ok_or_else(|| services::unknown(&view, &name))?;
    Ok(Json(breaker(&view, &context.parts().live, &name, state)))
}

fn breaker(view: &View, live: &Live, name: &ServiceName, state: &ServiceState) -> BreakerView {
    let reports = live.breakers(Some(name));
    let phase = view::phase(view, name, state, &reports);
    let worst = reports.iter().max_by_key(|report| report.phase).filter(|worst| worst.phase == phase);
    let reason = match worst {
        _ if phase == BreakerPhase::Closed => String::new(),
        Some(worst) if !worst.reason.is_empty() => worst.reason.clone(),
        _ => without_work(view, name, state),
    };
    BreakerView {
        service: name.to_string(),
        phase: phase.as_str(),
        reason,
        // The first probe of any caller may close it again.
        next_probe_ms: reports.iter().filter_map(|report| report.next_probe).min().map(milliseconds),
        seen_by: reports.into_iter().map(sight).collect(),
    }
}

/// Why a service that no caller complains of can be given no work.
fn without_work(view: &View, name: &ServiceName, state: &ServiceState) -> String {
    if view.stopped.contains(name) {
        "stopped".to_owned()
    } else if state.endpoints.is_empty() {
        "no endpoint is registered".to_owned()
    } else {
        "no endpoint is healthy".to_owned()
    }
}

fn sight(report: BreakerReport) -> BreakerSight {
    BreakerSight {
        proxy: report.proxy,
        phase: report.phase.as_str(),
        reason: report.reason,
        next_probe_ms: report.next_probe.map(milliseconds),
        endpoints: report.endpoints.into_iter().map(endpoint).collect(),
    }
}

fn endpoint(report: EndpointReport) -> EndpointSight {
    EndpointSight {
        id: report.id,
        address: report.address,
        phase: report.phase.as_str(),
        reason: report.reason,
        consecutive_failures: report.consecutive_failures,
        next_probe_ms: report.next_probe.map(milliseconds),
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
