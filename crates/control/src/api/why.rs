//! What would become of a request, and why.

use std::collections::{BTreeMap, HashMap};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderName, Method, StatusCode};
use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::names::{GATEWAY, SYSTEM_NAMESPACE, ServiceName};
use hms_traffic::why::{Question, Says, Step, why};
use hms_wire::proto::hms::v1;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input::{self, PathTrace, shown};
use super::problem::{Kind, Problem};
use super::services;
use super::table::Operation;
use super::view::Items;
use crate::live::BreakerPhase;

/// Tries of one request that are shown.
const TRIES: usize = 4;
/// Header fields that a question may have.
const FIELDS: usize = 64;

pub(super) fn operations() -> Vec<Operation> {
    let summary = "What would become of a request, step by step, with the rule that decides.";
    vec![
        Operation::new(Method::POST, "/v1/why", "explainRequest", summary, ask)
            .takes::<WhyRequest>()
            .answers::<WhyView>(StatusCode::OK)
            .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(
            Method::GET,
            "/v1/requests/{trace}",
            "recallRequests",
            "What proxies remember of the requests of a trace: who decided what, every try, where the time went.",
            recall,
        )
        .answers::<Items<DecisionView>>(StatusCode::OK),
    ]
}

/// A request that somebody might make.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct WhyRequest {
    /// The service that calls; `gateway` for a request from outside.
    from: String,
    /// The service that is called; the gateway's routes decide if nothing is said.
    to: Option<String>,
    /// Its method.
    method: String,
    /// Its path, with a query if it has one.
    path: String,
    /// Its header fields.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The port of the service; the first if nothing is said.
    port: Option<u16>,
}

/// What would become of it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Why")]
struct WhyView {
    /// The service that calls.
    from: String,
    /// The service that is called; null where the gateway's routes decide.
    to: Option<String>,
    /// Whether it would be forwarded to a service.
    passes: bool,
    /// Every decision in its order. Of one that stops the request nothing follows.
    steps: Vec<StepView>,
}

/// One decision.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "WhyStep")]
struct StepView {
    /// What decides: `route`, `backend`, `breaker`, `endpoint`, `identity`, `authz`, `rate`, `terms`.
    name: &'static str,
    /// `pass`, `note` or `stop`.
    says: &'static str,
    /// A sentence.
    text: String,
    /// `file:line` of the deciding rule; null where there is none.
    origin: Option<String>,
    /// The code that the caller would get; null for none.
    code: Option<String>,
    /// What would let it pass; null where nothing would.
    fix: Option<String>,
}

/// How a proxy dealt with a request. Its path is not remembered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Decision")]
struct DecisionView {
    /// The proxy that dealt with it.
    proxy: String,
    /// Unix microseconds at the request's head.
    time_us: i64,
    /// The trace it belongs to.
    trace_id: String,
    /// `inbound` or `outbound`, relative to the proxy.
    direction: String,
    /// The calling service.
    source: String,
    /// The called service.
    destination: String,
    /// The caller's identity; may be empty.
    source_identity: String,
    /// The called one's identity; may be empty.
    destination_identity: String,
    /// Whether the hop through the mesh was mutually authenticated.
    mtls: bool,
    /// The rule that took it; may be empty.
    route: String,
    /// The status answered; 0 if there was no answer.
    status: u32,
    /// `HMS-` code of a refusal by the mesh; empty otherwise.
    code: String,
    /// How long it took, to the end of the answer.
    duration_us: u64,
    /// Tries made.
    attempts: u32,
    /// The tries, at most four.
    tries: Vec<TryView>,
}

/// One try at one endpoint.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Try")]
struct TryView {
    /// Its address; empty if it is gone meanwhile.
    endpoint: String,
    /// The status answered, or how it failed.
    outcome: String,
    /// Since the request's head.
    after_us: u32,
    /// How long it took.
    took_us: u32,
    /// Endpoints that could be chosen from.
    candidates: u32,
    /// Of so many; the others were ejected, unhealthy, of another version or tried before.
    endpoints: u32,
}

async fn recall(State(context): State<Context>, PathTrace(trace): PathTrace) -> Json<Items<DecisionView>> {
    let mut found = context.parts().live.recall(&trace).await;
    // The caller's side first, as the request went.
    found.sort_by_key(|(_, decision)| decision.request.as_ref().map_or(0, |request| request.time_us));
    Json(Items { items: found.into_iter().map(|((_, proxy), decision)| decision_view(proxy, decision)).collect() })
}

fn decision_view(proxy: String, decision: v1::Decision) -> DecisionView {
    let request = decision.request.unwrap_or_default();
    DecisionView {
        proxy,
        time_us: request.time_us,
        trace_id: request.trace_id,
        direction: request.direction,
        source: request.source,
        destination: request.destination,
        source_identity: request.source_identity,
        destination_identity: request.destination_identity,
        mtls: request.mtls,
        route: request.route,
        status: request.status,
        code: request.code,
        duration_us: request.duration_us,
        attempts: request.attempt,
        tries: decision.tries.into_iter().take(TRIES).map(try_view).collect(),
    }
}

fn try_view(own: v1::Try) -> TryView {
    let v1::Try { endpoint, outcome, after_us, took_us, candidates, endpoints } = own;
    TryView { endpoint, outcome, after_us, took_us, candidates, endpoints }
}

async fn ask(
    State(context): State<Context>,
    input::Json(request): input::Json<WhyRequest>,
) -> Result<Json<WhyView>, Problem> {
    let view = context.parts().registry.view();
    let from = caller(&request.from)?;
    if !from.is_gateway() && !view.mesh.services.contains_key(&from) {
        return Err(services::unknown(&view, &from));
    }
    let to = request.to.as_deref().map(|to| input::service(to, "`/to`")).transpose()?;
    let head = head(&request, to.as_ref())?;
    let open = open_at(&context, &from);
    let question =
        Question { from: &from, to: to.as_ref(), port: request.port.unwrap_or_default(), head: &head, open: &open };
    let steps = why(&view.mesh, &question);
    Ok(Json(WhyView {
        from: from.to_string(),
        to: to.map(|to| to.to_string()),
        passes: steps.iter().all(|step| step.says != Says::Stop),
        steps: steps.into_iter().map(step_view).collect(),
    }))
}

fn caller(text: &str) -> Result<ServiceName, Problem> {
    match ServiceName::in_namespace(SYSTEM_NAMESPACE, GATEWAY) {
        Ok(gateway) if text == GATEWAY => Ok(gateway),
        _ => input::service(text, "`/from`"),
    }
}

fn head(request: &WhyRequest, to: Option<&ServiceName>) -> Result<RequestHead, Problem> {
    let refused = |place: &str, why: &dyn std::fmt::Display| Problem::new(Kind::Shape, format!("`{place}`: {why}"));
    let method = Method::from_bytes(request.method.as_bytes()).map_err(|error| refused("/method", &error))?;
    let (path, query) = request.path.split_once('?').map_or((request.path.as_str(), None), |(p, q)| (p, Some(q)));
    let path = CanonicalPath::parse(path).map_err(|error| refused("/path", &error))?;
    if request.headers.len() > FIELDS {
        return Err(refused("/headers", &format!("at most {FIELDS} are taken")));
    }
    let lines: HashMap<String, &str> =
        request.headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.as_str())).collect();
    let mut fields = Fields::new();
    for (name, value) in &request.headers {
        let name = HeaderName::try_from(name).map_err(|error| refused(&format!("/headers/{}", shown(name)), &error))?;
        let value =
            value.parse().map_err(|_bad| refused(&format!("/headers/{name}"), &"it cannot stand in a header"))?;
        fields.append(name, value);
    }
    let host = lines.get("host").map(|host| (*host).to_owned());
    let host = host.or_else(|| to.map(ServiceName::mesh_host)).unwrap_or_else(|| "gateway.local".to_owned());
    let authority = Authority::parse(&host).map_err(|error| refused("/headers/host", &error))?;
    Ok(RequestHead { method, authority, path, query: query.map(Into::into), fields })
}

/// What the caller's own proxies say of breakers.
fn open_at(context: &Context, from: &ServiceName) -> BTreeMap<ServiceName, String> {
    let reports = context.parts().live.breakers(None).into_iter();
    let own = reports.filter(|report| {
        report.phase == BreakerPhase::Open && report.proxy.split('/').next() == Some(from.to_string().as_str())
    });
    own.map(|report| (report.service, report.reason)).collect()
}

fn step_view(step: Step) -> StepView {
    let Step { name, says, text, origin, code, fix } = step;
    let says = match says {
        Says::Pass => "pass",
        Says::Note => "note",
        Says::Stop => "stop",
    };
    let filled = |text: String| Some(text).filter(|text| !text.is_empty());
    let code = (code != 0).then(|| hms_model::finding::Code(code).to_string());
    StepView { name, says, text, origin: filled(origin), code, fix: filled(fix) }
}
