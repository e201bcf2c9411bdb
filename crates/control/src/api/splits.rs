//! Splits: how the calls to a service are divided among its versions, or other services.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::names::ServiceName;
use hms_model::resource::{Kind as ResourceKind, Resource, ResourceKey};
use hms_model::split::{MOST_SHARES, MOST_WEIGHT, Share, Split};
use hms_model::workload::Health;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input::{self, IfMatch, PathService, shown};
use super::problem::{Kind, Problem};
use super::routes::{commit, etag};
use super::services::known;
use super::table::Operation;
use crate::registry::{Change, View};

pub(super) fn operations() -> Vec<Operation> {
    let path = "/v1/services/{service}/split";
    vec![
        Operation::new(Method::GET, path, "showSplit", "How the calls to a service are divided.", show)
            .answers::<SplitView>(StatusCode::OK)
            .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(Method::PUT, path, "setSplit", "Divides the calls to a service anew, all shares at once.", set)
            .takes::<SplitRequest>()
            .answers::<SplitView>(StatusCode::OK)
            .revised()
            .fails(&[StatusCode::NOT_FOUND, StatusCode::UNPROCESSABLE_ENTITY, StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(Method::DELETE, path, "clearSplit", "Lets every version be called again.", clear)
            .answers::<SplitView>(StatusCode::OK)
            .revised()
            .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// A new division.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SplitRequest {
    /// Who gets the calls, 1 to 32; a version that stands in none gets none.
    shares: Vec<ShareRequest>,
}

/// A part of the calls.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ShareRequest {
    /// The service that gets it; the one that is called if nothing is said.
    service: Option<String>,
    /// The version of it that does; every one if nothing is said.
    version: Option<String>,
    /// As much of all as this is of the sum of all weights.
    #[schemars(range(max = 1_000_000))]
    weight: u32,
}

/// How the calls to a service are divided.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Split")]
struct SplitView {
    /// The service.
    service: String,
    /// The revision of the configuration that says so.
    revision: u64,
    /// Who gets the calls; empty where every version does, each endpoint as much as the others.
    shares: Vec<ShareView>,
}

/// A part of the calls.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Share")]
struct ShareView {
    /// The service that gets it.
    service: String,
    /// The version of it that does; null for every one.
    version: Option<String>,
    /// Its weight.
    weight: u32,
    /// What that is in percent of all.
    percent: f64,
    /// How many healthy endpoints it has; with none its part goes to the others.
    endpoints: usize,
}

async fn show(State(context): State<Context>, PathService(name): PathService) -> Result<Response, Problem> {
    answer(&context.parts().registry.view(), &name)
}

async fn set(
    State(context): State<Context>,
    PathService(name): PathService,
    if_match: IfMatch,
    input::Json(request): input::Json<SplitRequest>,
) -> Result<Response, Problem> {
    let split = Split { service: name.clone(), shares: shares(&name, &request)? };
    commit(&context, if_match, |view| {
        for service in std::iter::once(&name).chain(split.shares.iter().map(|share| &share.service)) {
            known(view, service)?;
        }
        Ok(vec![Change::Put(Resource::Split(split.clone()))])
    })
    .await?;
    answer(&context.parts().registry.view(), &name)
}

async fn clear(
    State(context): State<Context>,
    PathService(name): PathService,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    commit(&context, if_match, |view| {
        known(view, &name)?;
        let there = view.mesh.services.get(&name).is_some_and(|state| !state.service.split.is_empty());
        let key = ResourceKey::of(ResourceKind::Split, &name);
        Ok(there.then_some(Change::Delete(key)).into_iter().collect())
    })
    .await?;
    answer(&context.parts().registry.view(), &name)
}

/// Everything that is wrong with them is said at the place where it stands.
fn shares(name: &ServiceName, request: &SplitRequest) -> Result<Vec<Share>, Problem> {
    let refused = |place: String, why: &str| Problem::new(Kind::Shape, format!("`{place}`: {why}"));
    if request.shares.is_empty() || request.shares.len() > MOST_SHARES {
        return Err(refused("/shares".to_owned(), &format!("1 to {MOST_SHARES} are taken"))
            .fix("DELETE lets every version be called"));
    }
    let mut shares: Vec<Share> = Vec::new();
    for (number, asked) in request.shares.iter().enumerate() {
        let place = |field: &str| format!("/shares/{number}/{field}");
        let service = match &asked.service {
            Some(text) => input::service(text, &format!("`{}`", place("service")))?,
            None => name.clone(),
        };
        let version = asked.version.clone().unwrap_or_default();
        if version.len() > 63 || !version.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        {
            return Err(refused(place("version"), &format!("`{}` is no version", shown(&version))));
        }
        if asked.weight > MOST_WEIGHT {
            return Err(refused(place("weight"), &format!("0 to {MOST_WEIGHT} are taken")));
        }
        let overlaps = |other: &Share| {
            other.service == service && (other.version == version || other.version.is_empty() || version.is_empty())
        };
        if shares.iter().any(overlaps) {
            return Err(refused(place("version"), "another share is of the same endpoints"));
        }
        shares.push(Share { service, version, weight: asked.weight });
    }
    if shares.iter().all(|share| share.weight == 0) {
        return Err(refused("/shares".to_owned(), "one of them must have a weight"));
    }
    Ok(shares)
}

fn answer(view: &View, name: &ServiceName) -> Result<Response, Problem> {
    known(view, name)?;
    let shares = view.mesh.services.get(name).map(|state| state.service.split.as_slice()).unwrap_or_default();
    let total: u32 = shares.iter().map(|share| share.weight).sum();
    let share = |share: &Share| {
        let endpoints = view.mesh.services.get(&share.service).into_iter().flat_map(|state| state.endpoints.values());
        let meant = |version: &str| share.version.is_empty() || share.version == version;
        ShareView {
            service: share.service.to_string(),
            version: Some(share.version.clone()).filter(|version| !version.is_empty()),
            weight: share.weight,
            percent: f64::from(share.weight) * 100.0 / f64::from(total.max(1)),
            endpoints: endpoints.filter(|own| own.health == Health::Healthy && meant(&own.version)).count(),
        }
    };
    let body =
        SplitView { service: name.to_string(), revision: view.config.0, shares: shares.iter().map(share).collect() };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(view.config));
    Ok((headers, Json(body)).into_response())
}
