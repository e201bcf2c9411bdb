//! Revisions: what the configuration was, who changed what, and going back.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::mesh::Resources;
use hms_model::policy::JwtIssuer;
use hms_model::resource::{Declaration, Gateway, Kind as ResourceKind, Resource, ResourceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::certificates::written;
use super::input::{self, IfMatch};
use super::problem::{Kind, Problem};
use super::resources::{ChangeView, change_named, changes};
use super::routes::{Mode, change, etag};
use super::table::Operation;
use super::view::Items;
use crate::registry::{Change, CommitRecord, View};
use crate::store::Revision;

/// More revisions than are kept.
const ALL: usize = 1000;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::GET,
            "/v1/revisions",
            "listRevisions",
            "The latest revisions of the configuration, newest first, with what each changed.",
            list,
        )
        .answers::<Items<RevisionView>>(StatusCode::OK),
        Operation::new(
            Method::POST,
            "/v1/rollback",
            "rollBack",
            "Makes the configuration what it was at an earlier revision, as a new one.",
            roll_back,
        )
        .takes::<RollbackRequest>()
        .answers::<RolledBack>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// A revision of the configuration.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Revision")]
struct RevisionView {
    /// Its number. Workloads that come and go count as well, so numbers are left out.
    revision: u64,
    /// When it began to hold (RFC 3339).
    time: String,
    /// Who made it.
    actor: String,
    /// What it changed; null where the one before it is not kept any more.
    changes: Option<Vec<ChangeView>>,
}

/// Where to go back to.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RollbackRequest {
    /// The revision; the newest one that said something else if nothing is said.
    #[serde(default)]
    to: Option<u64>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// What going back came to.
#[derive(Debug, Serialize, JsonSchema)]
struct RolledBack {
    /// The revision whose content holds again.
    to: u64,
    /// The revision that says so.
    revision: u64,
    /// Whether it is only what would have happened.
    dry_run: bool,
    /// Every resource that is another now.
    changes: Vec<ChangeView>,
}

async fn list(State(context): State<Context>) -> Result<Json<Items<RevisionView>>, Problem> {
    let record = |record: CommitRecord| RevisionView {
        revision: record.revision.0,
        time: written(SystemTime::UNIX_EPOCH + Duration::from_secs(record.time)),
        actor: record.actor,
        changes: record
            .changes
            .map(|changes| changes.iter().map(|(key, difference)| change_named(key, *difference)).collect()),
    };
    let history = context.parts().registry.history(ALL).await?;
    Ok(Json(Items { items: history.into_iter().map(record).collect() }))
}

async fn roll_back(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<RollbackRequest>,
) -> Result<Response, Problem> {
    let own = context.parts().jwt.as_issuer();
    let (to, old) = match request.to {
        Some(to) => named(&context, Revision(to)).await?,
        None => latest_other(&context, &own).await?,
    };
    let mode = Mode::of(request.dry_run);
    let changed = change(&context, if_match, mode, |view| Ok(towards(view, &old, &own))).await?;
    if changed.altered.is_empty() {
        return Err(Problem::new(Kind::Conflict, format!("revision {to} says what holds already")).fix("hms history"));
    }
    let body = RolledBack {
        to: to.0,
        revision: changed.revision.0,
        dry_run: request.dry_run,
        changes: changes(&context, &changed, mode),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(changed.revision));
    Ok((headers, Json(body)).into_response())
}

/// The resources of a revision that somebody named.
async fn named(context: &Context, to: Revision) -> Result<(Revision, Arc<Resources>), Problem> {
    let registry = &context.parts().registry;
    if let Some(old) = registry.at(to).await? {
        return Ok((to, old));
    }
    let kept: Vec<Revision> = registry.history(ALL).await?.iter().map(|record| record.revision).collect();
    let numbers: Vec<String> = kept.iter().take(5).map(ToString::to_string).collect();
    let why = format!("of {} revisions the newest are {}", kept.len(), numbers.join(", "));
    Err(Problem::new(Kind::NoSuchThing, format!("there is no revision {to}")).because(why).fix("hms history"))
}

/// The newest revision that would change something.
async fn latest_other(context: &Context, own: &JwtIssuer) -> Result<(Revision, Arc<Resources>), Problem> {
    let registry = &context.parts().registry;
    for record in registry.history(ALL).await?.into_iter().skip(1) {
        let Some(old) = registry.at(record.revision).await? else { break };
        if !registry.preview(towards(&registry.view(), &old, own), None)?.altered.is_empty() {
            return Ok((record.revision, old));
        }
    }
    Err(Problem::new(Kind::Conflict, "there is nothing to go back to")
        .because("no revision that is kept says anything else")
        .fix("hms history"))
}

/// What makes the configuration what it was. What the mesh sees to itself stays as it is: its roots, the built-in issuer's key, and
/// that services whose workloads live are declared and belong to them.
fn towards(view: &View, old: &Resources, own: &JwtIssuer) -> Vec<Change> {
    let mut changes = Vec::new();
    for resource in old.values() {
        match resource.as_ref() {
            // Switches are thrown by hand, and some of them ask first.
            Resource::Trust(_) | Resource::Stamps(_) => {}
            Resource::Gateway(gateway) => {
                changes.push(Change::Put(Resource::Gateway(with_own_keys(gateway, own))));
            }
            other => changes.push(Change::Put(other.clone())),
        }
    }
    for (key, present) in view.resources.iter().filter(|(key, _)| !old.contains_key(*key)) {
        match (key.kind, present.as_ref()) {
            (ResourceKind::Trust | ResourceKind::Gateway | ResourceKind::Stamps, _) => {}
            (_, Resource::Declaration(declaration)) if lives(view, key) => {
                let bare = Declaration::new(declaration.name.clone());
                // Who may call it stays as it is: a service without a word on it is open to everybody.
                let authorization = declaration.authorization.clone();
                let bare = Declaration { identities: declaration.identities.clone(), authorization, ..bare };
                changes.push(Change::Put(Resource::Declaration(bare)));
            }
            _ => changes.push(Change::Delete(key.clone())),
        }
    }
    changes
}

/// A gateway as it was, with the keys that the built-in issuer has today: those of another day may be known to others.
pub(super) fn with_own_keys(gateway: &Gateway, own: &JwtIssuer) -> Gateway {
    let key = |issuer: &JwtIssuer| {
        let keys = if issuer.issuer == own.issuer { &own.keys } else { &issuer.keys };
        JwtIssuer { keys: keys.clone(), ..issuer.clone() }
    };
    Gateway { issuers: gateway.issuers.iter().map(key).collect(), ..gateway.clone() }
}

/// Whether any workload of a service is registered.
fn lives(view: &View, key: &ResourceKey) -> bool {
    let state = key.service().and_then(|service| view.mesh.services.get(&service));
    state.is_some_and(|state| !state.endpoints.is_empty())
}
