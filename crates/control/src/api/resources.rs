//! Resources of any kind as they are stored: looking at them, and removing them.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_model::finding::did_you_mean;
use hms_model::http_route::HttpRule;
use hms_model::names::{DEFAULT_NAMESPACE, ServiceName};
use hms_model::resource::{Kind as ResourceKind, Resource, ResourceKey};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Context;
use super::conditions::{Looking, StatusView};
use super::input::{self, IfMatch, path_part, shown};
use super::problem::{Kind, Problem};
use super::routes::{Mode, change, etag};
use super::table::Operation;
use super::view::Items;
use crate::registry::{Altered, Change, Changed, Difference, View};

/// Things that keep a service from being removed and are named.
const NAMED: usize = 5;

pub(super) fn operations() -> Vec<Operation> {
    let (kind, one) = ("/v1/resources/{kind}", "/v1/resources/{kind}/{name}");
    vec![
        Operation::new(
            Method::GET,
            "/v1/resources",
            "listResources",
            "The names of everything that is configured, in the order of their kinds.",
            list,
        )
        .answers::<Items<ResourceName>>(StatusCode::OK),
        Operation::new(
            Method::GET,
            kind,
            "listResourcesOfKind",
            "Everything configured of one kind, and how it fares.",
            list_kind,
        )
        .answers::<Items<ResourceView>>(StatusCode::OK)
        .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(Method::GET, one, "showResource", "One resource as it is configured, and how it fares.", show)
            .answers::<ResourceView>(StatusCode::OK)
            .fails(&[StatusCode::NOT_FOUND]),
        Operation::new(
            Method::DELETE,
            one,
            "deleteResource",
            "Removes a resource; with a declaration go the routes and the split of its service.",
            delete,
        )
        .answers::<Deleted>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// The name of a resource.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ResourceName {
    /// `declaration`, `route`, `split`, …
    kind: &'static str,
    /// Its namespace; `mesh` for what there is one of.
    namespace: String,
    /// Its name; `mesh` for what there is one of.
    name: String,
}

/// A resource.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Resource")]
struct ResourceView {
    /// Its name.
    #[serde(flatten)]
    name: ResourceName,
    /// Its fields, as `api/proto/hms/v1/resource.proto` names them.
    spec: Value,
    /// How it fares.
    status: StatusView,
}

/// A resource before and after a change.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Change")]
pub(super) struct ChangeView {
    /// Its name.
    #[serde(flatten)]
    name: ResourceName,
    /// `added`, `changed` or `removed`.
    change: &'static str,
    /// What it was, if the answer to a dry run; null if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<Value>,
    /// What it would be, if the answer to a dry run; null if it would be gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<Value>,
}

/// What was removed.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Deleted {
    /// The revision of the configuration without it.
    pub(super) revision: u64,
    /// Whether it is only what would have happened.
    pub(super) dry_run: bool,
    /// Every resource that is another, or gone.
    pub(super) changes: Vec<ChangeView>,
}

/// What may stand in the query of something that changes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct DryRun {
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

impl From<&ResourceKey> for ResourceName {
    fn from(key: &ResourceKey) -> Self {
        Self { kind: key.kind.as_str(), namespace: key.namespace.clone(), name: key.name.clone() }
    }
}

/// What became of a resource, by its name alone.
pub(super) fn change_named(key: &ResourceKey, difference: Difference) -> ChangeView {
    let change = match difference {
        Difference::Added => "added",
        Difference::Changed => "changed",
        Difference::Removed => "removed",
    };
    ChangeView { name: key.into(), change, before: None, after: None }
}

/// What a change came to. What resources say stands only in answers to dry runs: they are asked for it.
pub(super) fn changes(context: &Context, changed: &Changed, mode: Mode) -> Vec<ChangeView> {
    let whole = |resource: Option<&Resource>| match mode {
        Mode::DryRun => Some(resource.map_or(Value::Null, |resource| context.shower().show(resource))),
        Mode::Commit => None,
    };
    let one = |altered: &Altered| ChangeView {
        before: whole(altered.before.as_deref()),
        after: whole(altered.after.as_deref()),
        ..change_named(&altered.key, altered.difference())
    };
    changed.altered.iter().map(one).collect()
}

async fn list(State(context): State<Context>) -> Response {
    let view = context.parts().registry.view();
    answer(&view, Items { items: view.resources.keys().map(ResourceName::from).collect() })
}

async fn list_kind(State(context): State<Context>, PathKind(kind): PathKind) -> Response {
    let view = context.parts().registry.view();
    let own = view.resources.iter().filter(|(key, _)| key.kind == kind);
    let looking = Looking::at(&context, &view);
    let items = own.map(|(key, resource)| shown_whole(&context, &looking, key, resource)).collect();
    answer(&view, Items { items })
}

async fn show(State(context): State<Context>, PathResource(key): PathResource) -> Result<Response, Problem> {
    let view = context.parts().registry.view();
    let resource = view.resources.get(&key).ok_or_else(|| unknown(&view, &key))?;
    Ok(answer(&view, shown_whole(&context, &Looking::at(&context, &view), &key, resource)))
}

fn shown_whole(context: &Context, looking: &Looking<'_>, key: &ResourceKey, resource: &Resource) -> ResourceView {
    ResourceView { name: key.into(), spec: context.shower().show(resource), status: looking.status(key, resource) }
}

fn answer(view: &View, body: impl Serialize) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(view.config));
    (headers, Json(body)).into_response()
}

async fn delete(
    State(context): State<Context>,
    PathResource(key): PathResource,
    input::Query(DryRun { dry_run }): input::Query<DryRun>,
    if_match: IfMatch,
) -> Result<Response, Problem> {
    let mode = Mode::of(dry_run);
    let alone = BTreeSet::from([key.clone()]);
    let plan = |view: &View| Ok(removal(view, &key, &alone)?.into_iter().map(Change::Delete).collect());
    let changed = change(&context, if_match, mode, plan).await?;
    Ok(deleted(&context, &changed, mode))
}

/// The answer to a removal.
pub(super) fn deleted(context: &Context, changed: &Changed, mode: Mode) -> Response {
    let changes = changes(context, changed, mode);
    let body = Deleted { revision: changed.revision.0, dry_run: mode == Mode::DryRun, changes };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(changed.revision));
    (headers, Json(body)).into_response()
}

/// What has to go so that a resource is gone, among others that go at the same time.
pub(super) fn removal(
    view: &View,
    key: &ResourceKey,
    gone: &BTreeSet<ResourceKey>,
) -> Result<Vec<ResourceKey>, Problem> {
    if !view.resources.contains_key(key) {
        return Err(unknown(view, key));
    }
    let refused = |what: String, why: String| Problem::new(Kind::Conflict, what).because(why);
    match key.kind {
        ResourceKind::Trust | ResourceKind::Gateway => {
            let why = "no mesh is without it; it can only be changed".to_owned();
            Err(refused(format!("the {} stays", key.kind.as_str()), why))
        }
        ResourceKind::Declaration => {
            let Some(service) = key.service() else { return Err(unknown(view, key)) };
            let living = view.mesh.services.get(&service).map_or(0, |state| state.endpoints.len());
            if living > 0 {
                let why = format!("{living} of its endpoints are registered");
                return Err(refused(format!("`{service}` still runs"), why).fix("stop its programs and their proxies"));
            }
            let users = users(view, &service, gone);
            if !users.is_empty() {
                let (words, fixes): (Vec<String>, Vec<String>) = users.into_iter().unzip();
                let named = words.get(..NAMED.min(words.len())).unwrap_or_default().join("; ");
                let more = words.len().saturating_sub(NAMED);
                let more = if more == 0 { String::new() } else { format!("; and {more} more") };
                let problem = refused(format!("`{service}` is still called"), format!("{named}{more}"));
                return Err(fixes.into_iter().take(NAMED).fold(problem, Problem::fix));
            }
            let parts = [ResourceKind::Route, ResourceKind::Split].map(|kind| ResourceKey::of(kind, &service));
            let there = parts.into_iter().filter(|part| view.resources.contains_key(part));
            Ok(there.chain([key.clone()]).collect())
        }
        _ => Ok(vec![key.clone()]),
    }
}

/// What names a service beside what is its own, and how each is taken away.
fn users(view: &View, service: &ServiceName, gone: &BTreeSet<ResourceKey>) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (_, resource) in view.resources.iter().filter(|(key, _)| !gone.contains(key)) {
        match resource.as_ref() {
            Resource::Split(split)
                if split.service != *service && split.shares.iter().any(|share| share.service == *service) =>
            {
                let words = format!("the split of `{}` gives it a share", split.service);
                found.push((words, format!("hms delete split {}", split.service)));
            }
            Resource::HttpRoute(route) => {
                let name = &route.name;
                let leads = |rule: &&HttpRule| {
                    let backends = rule.backends.iter().map(|backend| &backend.share);
                    let mirrors = rule.actions.mirrors.iter().map(|mirror| &mirror.share);
                    backends.chain(mirrors).any(|share| share.service == *service)
                };
                let led = route.rules.iter().find(leads);
                let (what, rule) = match led {
                    Some(rule) => ("leads to it", Some(rule)),
                    None if route.parents.iter().any(|parent| parent.service() == Some(service)) => {
                        ("is about it", route.rules.first())
                    }
                    None => continue,
                };
                let origin = rule.map(|rule| rule.origin.as_str()).filter(|origin| !origin.is_empty());
                let origin = origin.map(|origin| format!(" ({origin})")).unwrap_or_default();
                found.push((format!("the route `{name}` {what}{origin}"), format!("hms delete httproute {name}")));
            }
            _ => {}
        }
    }
    found
}

/// A resource that does not exist, with the one that was probably meant.
fn unknown(view: &View, key: &ResourceKey) -> Problem {
    let kind = key.kind.as_str();
    let of_kind = view.resources.keys().filter(|other| other.kind == key.kind);
    let names: Vec<String> = of_kind.map(named).collect();
    let name = named(key);
    let problem = Problem::new(Kind::NoSuchThing, format!("there is no {kind} `{name}`"));
    match did_you_mean(&name, names.iter().map(String::as_str)) {
        Some(near) => problem.fix(format!("did you mean `{near}`?")),
        None => problem.fix(format!("hms get {kind}")),
    }
}

fn named(key: &ResourceKey) -> String {
    key.service().map_or_else(|| key.name.clone(), |service| service.to_string())
}

/// The kind named in the path, in the singular.
struct PathKind(ResourceKind);

/// What can be configured; the other kinds follow from it, or are workloads.
fn is_configured(kind: ResourceKind) -> bool {
    !matches!(kind, ResourceKind::Entry | ResourceKind::Service | ResourceKind::Endpoint)
}

/// What there is one of in a mesh.
fn is_single(kind: ResourceKind) -> bool {
    matches!(
        kind,
        ResourceKind::Trust
            | ResourceKind::Defaults
            | ResourceKind::Gateway
            | ResourceKind::Egress
            | ResourceKind::Stamps
    )
}

impl<S: Send + Sync> FromRequestParts<S> for PathKind {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let text = path_part(parts, state, "kind").await?;
        let mut kinds = ResourceKind::ALL.into_iter().filter(|kind| is_configured(*kind));
        let known: Vec<&str> = kinds.clone().map(ResourceKind::as_str).collect();
        kinds.find(|kind| kind.as_str() == text).map(Self).ok_or_else(|| {
            let problem = Problem::new(Kind::NoSuchThing, format!("there is no kind `{}`", shown(&text)));
            let problem = problem.because(format!("known are {}", known.join(", ")));
            match did_you_mean(&text, known.iter().copied()) {
                Some(near) => problem.fix(format!("did you mean `{near}`?")),
                None => problem,
            }
        })
    }
}

/// The resource named in the path.
struct PathResource(ResourceKey);

impl<S: Send + Sync> FromRequestParts<S> for PathResource {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let PathKind(kind) = PathKind::from_request_parts(parts, state).await?;
        let text = path_part(parts, state, "name").await?;
        if is_single(kind) {
            return if text == "mesh" {
                Ok(Self(ResourceKey::mesh(kind)))
            } else {
                let problem =
                    Problem::new(Kind::NoSuchThing, format!("there is no {} `{}`", kind.as_str(), shown(&text)));
                Err(problem.because("a mesh has one, and it is named `mesh`"))
            };
        }
        let name = ServiceName::from_host(&text, DEFAULT_NAMESPACE).map_err(|error| {
            let problem = Problem::new(Kind::Malformed, format!("the path: `{}` is no name", shown(&text)));
            problem.because(error.to_string())
        })?;
        Ok(Self(ResourceKey::of(kind, &name)))
    }
}
