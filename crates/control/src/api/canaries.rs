//! Canaries: beginning one, looking at it, telling it what to do.

use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::names::ServiceName;
use hms_model::split::{MOST_WEIGHT, Share};
use hms_model::workload::Health;
use hms_traffic::canary::{
    ENOUGH, Figures, Gate, Gates, MOST_STEPS, Next, Plan, SLOWEST, Verdict, Wait, next, verdicts,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::certificates::written;
use super::input::{self, IfMatch, PathService, shown};
use super::problem::{Kind, Problem};
use super::routes::{etag, stale};
use super::services::known;
use super::table::Operation;
use crate::canary::{CanaryError, Order, Record, Seen};
use crate::registry::{RegistryError, View};
use crate::tasks;

/// The longest time on one step.
const LONGEST_HOLD: Duration = Duration::from_hours(7 * 24);
/// The shortest: reports come once a second.
const SHORTEST_HOLD: Duration = Duration::from_secs(1);
/// The largest number of requests that may be waited for, and of errors that may be allowed.
const MOST_REQUESTS: u64 = 1_000_000_000;
/// Weights of one percent.
const PERCENT: f64 = 10_000.0;

pub(super) fn operations() -> Vec<Operation> {
    let path = "/v1/services/{service}/canary";
    let conflicts = [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::SERVICE_UNAVAILABLE];
    vec![
        Operation::new(Method::GET, path, "showCanary", "The canary of a service, under way or over.", show)
            .answers::<CanaryView>(StatusCode::OK)
            .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(
            Method::PUT,
            path,
            "startCanary",
            "Begins to give a version more and more of the calls; the first step takes effect at once.",
            start,
        )
        .takes::<CanaryRequest>()
        .answers::<CanaryView>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::NOT_FOUND, StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(Method::POST, path, "orderCanary", "Tells a canary what to do.", order)
            .takes::<OrderRequest>()
            .answers::<CanaryView>(StatusCode::OK)
            .fails(&conflicts),
        Operation::new(
            Method::DELETE,
            path,
            "deleteCanary",
            "Aborts a canary, so that what held before holds again; one that is over is forgotten.",
            delete,
        )
        .answers::<CanaryView>(StatusCode::OK)
        .fails(&conflicts),
    ]
}

/// A canary that is wanted.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CanaryRequest {
    /// The version.
    to: String,
    /// What it gets on each step in percent of all calls, ascending, at most 32. After a last one of 100 it is promoted.
    steps: Vec<f64>,
    /// How long it stays on each step: 1 second to 7 days.
    hold_ms: u64,
    /// The largest share of failed tries, in percent.
    #[serde(default)]
    max_5xx_percent: Option<f64>,
    /// The longest 95th percentile of the time to answer; less than 5000.
    #[serde(default)]
    max_p95_ms: Option<u64>,
    /// The largest number of failed tries on one step.
    #[serde(default)]
    max_errors: Option<u64>,
    /// Requests of a step before a share or a percentile of them counts, and before the step can be over: 20 if nothing is said.
    #[serde(default)]
    min_requests: Option<u64>,
}

/// What a canary is told.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct OrderRequest {
    /// What to do.
    order: OrderWord,
}

/// What a canary can be told.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OrderWord {
    /// Stay on the step; the gates go on to be watched.
    Pause,
    /// Go on; the step begins anew.
    Resume,
    /// Give it everything at once.
    Promote,
    /// What held before, at once.
    Abort,
}

/// A canary.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Canary")]
struct CanaryView {
    /// The service.
    service: String,
    /// The version that is given more and more.
    to: String,
    /// `running`, `paused`, `passed` (the steps are over, and left something to the others), `promoted`, `aborted` or `stopped`
    /// (somebody else divided the calls).
    phase: &'static str,
    /// Why it is over; empty before.
    why: String,
    /// What it waits for; null when it is over.
    waiting: Option<String>,
    /// Its step, from 1.
    step: usize,
    /// What it gets on each step, in percent.
    steps: Vec<f64>,
    /// How long it stays on each step.
    hold_ms: u64,
    /// How long it has been on this one; after a restart of the control plane it begins anew.
    held_ms: u64,
    /// Who gets the calls now, with what callers saw of each since the step began.
    versions: Vec<VersionView>,
    /// What every gate says.
    gates: Vec<GateView>,
    /// When it began (RFC 3339).
    started: String,
    /// When it was over; null before.
    ended: Option<String>,
    /// The revision of the configuration.
    revision: u64,
}

/// A version, or another service, that gets a part of the calls.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CanaryVersion")]
struct VersionView {
    /// Its service.
    service: String,
    /// The version; null for every one.
    version: Option<String>,
    /// Its part of all calls, in percent.
    percent: f64,
    /// How many healthy endpoints it has.
    endpoints: usize,
    /// Tries that ended; one that failed and was followed by another counts.
    requests: u64,
    /// Those that failed.
    failures: u64,
    /// The 95th percentile of the time to answer; null without answers.
    p95_ms: Option<f64>,
}

/// What a gate says.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "CanaryGate")]
struct GateView {
    /// `max_5xx`, `max_p95`, `max_errors`, or `instances`: that callers still call them.
    gate: &'static str,
    /// `holds`, `broken` or `too_few` while too few requests were seen.
    verdict: &'static str,
    /// What is allowed, in words.
    allowed: String,
    /// What was seen, in words.
    seen: String,
}

async fn show(State(context): State<Context>, PathService(name): PathService) -> Result<Response, Problem> {
    known(&context.parts().registry.view(), &name)?;
    let seen = context.parts().canaries.show(&name).await.map_err(problem)?;
    Ok(answer(&context, &name, &seen))
}

async fn start(
    State(context): State<Context>,
    PathService(name): PathService,
    IfMatch(wanted): IfMatch,
    input::Json(request): input::Json<CanaryRequest>,
) -> Result<Response, Problem> {
    let plan = plan(&request)?;
    known(&context.parts().registry.view(), &name)?;
    let canaries = context.parts().canaries.clone();
    let (service, to) = (name.clone(), request.to.clone());
    let started = whole("canary", async move { canaries.start(&service, &to, plan, wanted).await }).await?;
    started.map_err(|error| match error {
        CanaryError::Registry(RegistryError::Conflict { current }) if wanted.is_some() => stale(current),
        other => problem(other),
    })?;
    let seen = context.parts().canaries.show(&name).await.map_err(problem)?;
    Ok(answer(&context, &name, &seen))
}

async fn order(
    State(context): State<Context>,
    PathService(name): PathService,
    input::Json(request): input::Json<OrderRequest>,
) -> Result<Response, Problem> {
    let order = match request.order {
        OrderWord::Pause => Order::Pause,
        OrderWord::Resume => Order::Resume,
        OrderWord::Promote => Order::Promote,
        OrderWord::Abort => Order::Abort,
    };
    ordered(&context, &name, order).await?;
    let seen = context.parts().canaries.show(&name).await.map_err(problem)?;
    Ok(answer(&context, &name, &seen))
}

/// Gives an order and waits until it is done, also for a caller that goes away meanwhile.
async fn ordered(context: &Context, name: &ServiceName, order: Order) -> Result<(), Problem> {
    let (canaries, service) = (context.parts().canaries.clone(), name.clone());
    whole("canary", async move { canaries.order(&service, order).await }).await?.map_err(problem)
}

/// Does something to its end, whatever becomes of the connection that asked for it.
async fn whole<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    let done = tasks::spawn(name, work).await.ok().flatten();
    done.ok_or_else(|| Problem::new(Kind::Internal, "it ended before its end; the log says why"))
}

async fn delete(State(context): State<Context>, PathService(name): PathService) -> Result<Response, Problem> {
    let canaries = &context.parts().canaries;
    let seen = canaries.show(&name).await.map_err(problem)?;
    if seen.record.phase.is_over() {
        canaries.forget(&name).await.map_err(problem)?;
        return Ok(answer(&context, &name, &seen));
    }
    ordered(&context, &name, Order::Abort).await?;
    let seen = canaries.show(&name).await.map_err(problem)?;
    Ok(answer(&context, &name, &seen))
}

fn problem(error: CanaryError) -> Problem {
    let text = error.to_string();
    match error {
        CanaryError::UnderWay(service) => {
            let problem = Problem::new(Kind::Conflict, text);
            problem.fix(format!("hms canary status {service}")).fix(format!("hms canary abort {service}"))
        }
        CanaryError::None(service) => {
            Problem::new(Kind::NoSuchThing, text).fix(format!("hms canary start {service} --to v2 --weight 10"))
        }
        CanaryError::Over(..) | CanaryError::Already(..) | CanaryError::NoRise { .. } => {
            Problem::new(Kind::Conflict, text)
        }
        CanaryError::NoVersion { known, .. } => {
            let why = format!("there are instances of {known}");
            Problem::new(Kind::NoSuchThing, text).because(why).fix("start it: hms run SVC --version v2 -- …")
        }
        CanaryError::NoDivision(_) => {
            Problem::new(Kind::Conflict, text).because("beside it there must be other versions, and each has a name")
        }
        CanaryError::TooMany => Problem::new(Kind::TooMany, text).fix("forget some that are over: DELETE"),
        CanaryError::Registry(error) => error.into(),
    }
}

/// Everything that is wrong is said at its place.
fn plan(request: &CanaryRequest) -> Result<Plan, Problem> {
    let refused = |place: &str, why: String| Err(Problem::new(Kind::Shape, format!("`/{place}`: {why}")));
    let to = &request.to;
    if to.is_empty()
        || to.len() > 63
        || !to.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    {
        return refused("to", format!("`{}` is no version", shown(to)));
    }
    let mut steps = Vec::new();
    for (number, percent) in request.steps.iter().enumerate() {
        let weight = millionths(*percent).filter(|weight| *weight > 0);
        match weight {
            Some(weight) if steps.last().is_none_or(|last| *last < weight) => steps.push(weight),
            _ => {
                let why = "steps ascend, and each is more than 0 and at most 100 with at most four decimals";
                return refused(&format!("steps/{number}"), why.to_owned());
            }
        }
    }
    if steps.is_empty() || steps.len() > MOST_STEPS {
        return refused("steps", format!("1 to {MOST_STEPS} are taken"));
    }
    let hold = Duration::from_millis(request.hold_ms);
    if !(SHORTEST_HOLD..=LONGEST_HOLD).contains(&hold) {
        return refused("hold_ms", "1 second to 7 days are taken".to_owned());
    }
    let failures = match request.max_5xx_percent.map(millionths) {
        Some(None) => return refused("max_5xx_percent", "0 to 100 with at most four decimals are taken".to_owned()),
        other => other.flatten(),
    };
    let p95 = request.max_p95_ms.map(Duration::from_millis);
    if p95.is_some_and(|p95| p95.is_zero() || p95 >= SLOWEST) {
        let why = format!("1 to {} are taken: reports do not tell slower ones apart", SLOWEST.as_millis() - 1);
        return refused("max_p95_ms", why);
    }
    let enough = request.min_requests.unwrap_or(ENOUGH);
    if !(1..=MOST_REQUESTS).contains(&enough) {
        return refused("min_requests", format!("1 to {MOST_REQUESTS} are taken"));
    }
    Ok(Plan { steps, hold, gates: Gates { failures, p95, errors: request.max_errors }, enough })
}

/// A percentage as millionths; `None` if it is none, or too fine.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it was checked to be 0 to a million")]
fn millionths(percent: f64) -> Option<u32> {
    let (exact, rounded) = (percent * PERCENT, (percent * PERCENT).round());
    ((0.0..=f64::from(MOST_WEIGHT)).contains(&rounded) && (exact - rounded).abs() < 1e-6).then_some(rounded as u32)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn answer(context: &Context, service: &ServiceName, seen: &Seen) -> Response {
    let view = context.parts().registry.view();
    let Seen { record, figures, lasted, .. } = seen;
    let time = |seconds: u64| written(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let over = record.phase.is_over();
    let body = CanaryView {
        service: service.to_string(),
        to: record.to.clone(),
        phase: record.phase.as_str(),
        why: record.why.clone(),
        waiting: (!over).then(|| waiting(record, figures, *lasted)),
        step: record.step + 1,
        steps: record.plan.steps.iter().map(|weight| f64::from(*weight) / PERCENT).collect(),
        hold_ms: millis(record.plan.hold),
        held_ms: if over { 0 } else { millis(*lasted) },
        versions: versions(&view, service, seen),
        gates: if over { Vec::new() } else { gates(record, figures) },
        started: time(record.started),
        ended: record.ended.map(time),
        revision: view.config.0,
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(view.config));
    (headers, Json(body)).into_response()
}

fn waiting(record: &Record, figures: &Figures, lasted: Duration) -> String {
    match next(&record.plan, record.phase, record.step, figures, lasted) {
        Next::Stay(Wait::Time(left)) => format!("{} s of the step are left", left.as_secs().max(1)),
        Next::Stay(Wait::Requests(more)) => format!("the time is over, {more} requests are wanted to judge it"),
        Next::Stay(Wait::Somebody) => "somebody to decide".to_owned(),
        _ => "the next look".to_owned(),
    }
}

fn versions(view: &View, service: &ServiceName, seen: &Seen) -> Vec<VersionView> {
    let shares = view.mesh.services.get(service).map(|state| state.service.split.as_slice()).unwrap_or_default();
    let total: u32 = shares.iter().map(|share| share.weight).sum();
    let one = |share: &Share| {
        let endpoints = view.mesh.services.get(&share.service).into_iter().flat_map(|state| state.endpoints.values());
        let meant = |version: &str| share.version.is_empty() || share.version == version;
        let counted = seen.versions.get(&share.version).filter(|_| share.service == *service);
        let counted = counted.copied().unwrap_or_default();
        VersionView {
            service: share.service.to_string(),
            version: Some(share.version.clone()).filter(|version| !version.is_empty()),
            percent: f64::from(share.weight) * 100.0 / f64::from(total.max(1)),
            endpoints: endpoints.filter(|own| own.health == Health::Healthy && meant(&own.version)).count(),
            requests: counted.requests,
            failures: counted.failures,
            p95_ms: counted.p95.map(|p95| p95.as_secs_f64() * 1000.0),
        }
    };
    shares.iter().map(one).collect()
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn gates(record: &Record, figures: &Figures) -> Vec<GateView> {
    let Gates { failures, p95, errors } = record.plan.gates;
    let share = figures.failures as f64 * 100.0 / figures.requests.max(1) as f64;
    let one = |(gate, verdict): (Gate, Verdict)| {
        let (gate, allowed, seen) = match gate {
            Gate::Failures => (
                "max_5xx",
                format!("{} %", f64::from(failures.unwrap_or_default()) / PERCENT),
                format!("{share:.2} % of {}", figures.requests),
            ),
            Gate::P95 => (
                "max_p95",
                format!("{} ms", p95.unwrap_or_default().as_millis()),
                figures.p95.map_or_else(|| "nothing".to_owned(), |p95| format!("{:.1} ms", p95.as_secs_f64() * 1000.0)),
            ),
            Gate::Errors => ("max_errors", errors.unwrap_or_default().to_string(), figures.failures.to_string()),
            Gate::Instances => {
                let seen = if figures.is_ejected { "a caller calls none any more" } else { "called" };
                ("instances", "called".to_owned(), seen.to_owned())
            }
        };
        let verdict = match verdict {
            Verdict::Holds => "holds",
            Verdict::Broken => "broken",
            Verdict::TooFew => "too_few",
        };
        GateView { gate, verdict, allowed, seen }
    };
    verdicts(&record.plan, figures).into_iter().map(one).collect()
}
