//! Stamps: what the mesh does to every request, each to be switched off and on again.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::policy::Stamps;
use hms_model::policy::stamps::Stamp;
use hms_model::resource::{Kind as ResourceKind, Resource, ResourceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input::{self, IfMatch, shown};
use super::problem::{Kind, Problem};
use super::routes::{commit, etag};
use super::table::Operation;
use crate::registry::{Change, View};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/stamps", "listStamps", "Which stamps are on.", list)
            .answers::<StampsView>(StatusCode::OK),
        Operation::new(Method::PUT, "/v1/stamps", "setStamps", "Switches stamps on and off, the others stay.", set)
            .takes::<StampsRequest>()
            .answers::<StampsView>(StatusCode::OK)
            .revised()
            .fails(&[StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// What is to be switched.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StampsRequest {
    /// Stamps by name: `jwt`, `rate-limit`, `retry`, `tracing`. `mtls` is always on.
    stamps: Vec<StampRequest>,
}

/// One of them.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StampRequest {
    /// Its name.
    name: String,
    /// Whether it is to be on.
    on: bool,
}

/// Which stamps are on.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Stamps")]
struct StampsView {
    /// The revision of the configuration that says so.
    revision: u64,
    /// Every one.
    stamps: Vec<StampView>,
}

/// One of them.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Stamp")]
struct StampView {
    /// Its name.
    name: &'static str,
    /// Whether it is on.
    on: bool,
    /// What it does.
    does: &'static str,
}

async fn list(State(context): State<Context>) -> Response {
    answer(&context.parts().registry.view())
}

async fn set(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<StampsRequest>,
) -> Result<Response, Problem> {
    let mut wanted = Vec::new();
    for (number, own) in request.stamps.iter().enumerate() {
        let place = format!("`/stamps/{number}/name`");
        match Stamp::parse(&own.name) {
            Some(stamp) => wanted.push((stamp, own.on)),
            None if own.name == "mtls" && own.on => {}
            None if own.name == "mtls" => {
                return Err(Problem::new(Kind::Shape, format!("{place}: mtls cannot be switched off"))
                    .because("a proxy has no listener that takes plaintext from the mesh"));
            }
            None => {
                let known: Vec<&str> = Stamp::ALL.iter().map(|stamp| stamp.as_str()).collect();
                return Err(Problem::new(Kind::Shape, format!("{place}: `{}` is no stamp", shown(&own.name)))
                    .because(format!("there are mtls, {}", known.join(", "))));
            }
        }
    }
    commit(&context, if_match, |view| {
        let before = stamps(view);
        let mut now = before.clone();
        for (stamp, on) in &wanted {
            if *on {
                now.off.remove(stamp)
            } else {
                now.off.insert(*stamp)
            };
        }
        Ok(if now == before { Vec::new() } else { vec![Change::Put(Resource::Stamps(now))] })
    })
    .await?;
    Ok(answer(&context.parts().registry.view()))
}

/// What is switched off now.
fn stamps(view: &View) -> Stamps {
    match view.resources.get(&ResourceKey::mesh(ResourceKind::Stamps)).map(AsRef::as_ref) {
        Some(Resource::Stamps(stamps)) => stamps.clone(),
        _ => Stamps::default(),
    }
}

fn answer(view: &View) -> Response {
    let now = stamps(view);
    let mtls = StampView { name: "mtls", on: true, does: "every hop is encrypted and both ends proven; always on" };
    let others = Stamp::ALL.into_iter().map(|stamp| StampView {
        name: stamp.as_str(),
        on: !now.is_off(stamp),
        does: match stamp {
            Stamp::Jwt => "the gateway asks for a token",
            Stamp::RateLimit => "rate limits of routes hold",
            Stamp::Retry => "failed requests are tried again where that is safe",
            Stamp::Tracing => "traces are kept, and written into bodies where asked for",
        },
    });
    let body = StampsView { revision: view.config.0, stamps: std::iter::once(mtls).chain(others).collect() };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(view.config));
    (headers, Json(body)).into_response()
}
