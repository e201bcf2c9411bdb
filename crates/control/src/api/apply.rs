//! Files of several kinds that take effect together, as one change.

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hms_formats::objects::{self, Objects};
use hms_formats::{Source, route_yaml};
use hms_model::names::ServiceName;
use hms_model::resource::{Declaration, Resource};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::input::{self, IfMatch};
use super::problem::Problem;
use super::routes::{
    File, Outcome, check_claims, check_count, commit, declaration, refuse_errors, registered_answer, route_changes,
};
use super::table::Operation;
use crate::registry::{Change, View};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::POST,
            "/v1/apply",
            "applyFiles",
            "Applies route files and objects of Kubernetes (routes of the Gateway API, Linkerd's, SMI's), all together or none.",
            apply,
        )
        .takes::<ApplyRequest>()
        .answers::<Outcome>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::UNPROCESSABLE_ENTITY, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// Files to be applied together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApplyRequest {
    /// At most 1000; what each is, it says itself.
    files: Vec<File>,
}

async fn apply(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<ApplyRequest>,
) -> Result<Response, Problem> {
    check_count(request.files.len())?;
    let sources = request.files.into_iter().map(Source::from);
    let (objects, routes): (Vec<Source>, Vec<Source>) = sources.partition(objects::recognises);
    let (routes, mut findings) = route_yaml::translate(&routes);
    let (objects, more) = objects::translate(&objects);
    findings.extend(more);
    refuse_errors(&findings)?;
    let revision = commit(&context, if_match, |view| {
        check_claims(view, routes.iter().map(|file| (&file.service, &file.route)))?;
        let mut changes = route_changes(&context, view, &routes)?;
        for split in &objects.splits {
            // Callers name it, so it has a name even if nothing of its own answers.
            let routed = routes.iter().any(|file| file.service == split.service);
            if !routed && view.declaration(&split.service).is_none() {
                changes.push(Change::Put(Resource::Declaration(declaration(&context, view, &split.service)?)));
            }
        }
        for (name, policies) in &objects.services {
            let mut declared = match take_declaration(&mut changes, name) {
                Some(declared) => declared,
                None => declaration(&context, view, name)?,
            };
            policies.over(&mut declared);
            changes.push(Change::Put(Resource::Declaration(declared)));
        }
        changes.extend(gateway_hosts(view, &objects));
        changes.extend(objects.resources().map(Change::Put));
        Ok(changes)
    })
    .await?;
    let registered = routes.iter().map(|file| &file.service).chain(objects.names());
    let registered = registered.map(ToString::to_string).collect();
    // What is inert is known only now that all of it is together.
    let view = context.parts().registry.view();
    findings.extend(view.findings.iter().filter(|finding| objects.is_about(finding)).cloned());
    Ok(registered_answer(registered, revision, &findings))
}

/// The gateway with the host names that objects give it, if it does not have them.
fn gateway_hosts(view: &View, objects: &Objects) -> Option<Change> {
    let mut gateway = view.mesh.gateway.clone();
    let new = objects.hosts.iter().filter(|host| !gateway.hosts.contains(host));
    let new: Vec<String> = new.cloned().collect();
    if new.is_empty() {
        return None;
    }
    gateway.hosts.extend(new);
    Some(Change::Put(Resource::Gateway(gateway)))
}

/// The declaration of a service among changes, to be changed further.
fn take_declaration(changes: &mut Vec<Change>, name: &ServiceName) -> Option<Declaration> {
    let is_its = |change: &Change| matches!(change, Change::Put(Resource::Declaration(own)) if own.name == *name);
    let place = changes.iter().position(is_its)?;
    match changes.remove(place) {
        Change::Put(Resource::Declaration(declaration)) => Some(declaration),
        _ => None,
    }
}
