//! Services: looking at them, and saying what is wanted of them.

use axum::Json;
use axum::extract::State;
use axum::http::{Method, StatusCode};
use hms_model::finding::did_you_mean;
use hms_model::names::ServiceName;
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::input::{self, PathService};
use super::problem::{Kind, Problem};
use super::table::Operation;
use super::view::{self, Items, ServiceView};
use crate::registry::{Desired, View};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::GET, "/v1/services", "listServices", "Every service with its state.", list)
            .answers::<Items<ServiceView>>(StatusCode::OK),
        Operation::new(
            Method::GET,
            "/v1/services/{service}",
            "lookupService",
            "One service with its state: where it runs now.",
            get,
        )
        .answers::<ServiceView>(StatusCode::OK)
        .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(
            Method::POST,
            "/v1/services/{service}/state",
            "setServiceState",
            "Says that a service's application was stopped on purpose, or runs again.",
            set_state,
        )
        .takes::<StateRequest>()
        .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// What is wanted of a service.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct StateRequest {
    /// Whether its application is to run.
    desired: DesiredState,
}

/// Whether an application is to run.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DesiredState {
    /// It was ended on purpose: its endpoints get no work.
    Stopped,
    /// It is to run.
    Started,
}

async fn list(State(context): State<Context>) -> Json<Items<ServiceView>> {
    let view = context.parts().registry.view();
    Json(Items { items: view::services(&view, &context.parts().live) })
}

async fn get(State(context): State<Context>, PathService(name): PathService) -> Result<Json<ServiceView>, Problem> {
    let view = context.parts().registry.view();
    let state = view.mesh.services.get(&name).ok_or_else(|| unknown(&view, &name))?;
    Ok(Json(view::service(&view, &context.parts().live, &name, state)))
}

async fn set_state(
    State(context): State<Context>,
    PathService(name): PathService,
    input::Json(request): input::Json<StateRequest>,
) -> Result<StatusCode, Problem> {
    let registry = &context.parts().registry;
    known(&registry.view(), &name)?;
    let desired = match request.desired {
        DesiredState::Stopped => Desired::Stopped,
        DesiredState::Started => Desired::Started,
    };
    registry.set_desired(&name, desired).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a service exists.
pub(super) fn known(view: &View, name: &ServiceName) -> Result<(), Problem> {
    if view.mesh.services.contains_key(name) { Ok(()) } else { Err(unknown(view, name)) }
}

/// A service that does not exist, with the one that was probably meant.
pub(super) fn unknown(view: &View, name: &ServiceName) -> Problem {
    let names: Vec<String> = view.mesh.services.keys().map(ToString::to_string).collect();
    let problem = Problem::new(Kind::NoSuchThing, format!("there is no service `{name}`"));
    match did_you_mean(&name.to_string(), names.iter().map(String::as_str)) {
        Some(near) => problem.fix(format!("did you mean `{near}`?")),
        None => problem.fix("hms services"),
    }
}
