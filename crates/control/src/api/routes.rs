//! Routes: registering route files, and the table of all routes in S4's shape.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_formats::Source;
use hms_formats::route_yaml::{self, RouteFile};
use hms_formats::routes_json;
use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::resource::{Declaration, Resource};
use hms_model::route::{Match, Segment};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::input::{self, IfMatch};
use super::problem::{FindingView, Kind, Problem, views};
use super::table::Operation;
use super::{ACTOR, Context};
use crate::registry::{Change, Changed, Registry, RegistryError, View};
use crate::store::Revision;

/// Files of one call.
const FILES: usize = 1000;

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::POST,
            "/v1/route-files",
            "registerRouteFiles",
            "Registers what route files say, all of them or, with one error in any, none.",
            register,
        )
        .takes::<RouteFilesRequest>()
        .answers::<Outcome>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(
            Method::GET,
            "/v1/routes",
            "exportRoutes",
            "The table of all routes, by service, in the shape of /var/hms/routes.json.",
            export,
        )
        .answers::<Table>(StatusCode::OK),
        Operation::new(
            Method::PUT,
            "/v1/routes",
            "importRoutes",
            "Registers every service of such a table, all or none. Services it does not name stay as they are.",
            import,
        )
        .takes::<Table>()
        .answers::<Outcome>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// Files to be registered together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RouteFilesRequest {
    /// At most 1000 route files, YAML or JSON.
    files: Vec<File>,
}

/// A file as its author knows it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    /// Its name; findings speak of it by this.
    pub(super) name: String,
    /// Its text.
    pub(super) text: String,
}

impl From<File> for Source {
    fn from(file: File) -> Self {
        Self::new(file.name, file.text)
    }
}

/// What was registered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Registered")]
pub(super) struct Outcome {
    /// The services.
    pub(super) registered: Vec<String>,
    /// The revision of the configuration that has them.
    pub(super) revision: u64,
    /// What is worth knowing about the input.
    pub(super) findings: Vec<FindingView>,
}

/// `{"calc-svc": {"service": "calc-svc", "routes": ["GET /sum/{a}/{b}"], "rate_limit": "20 req/min"}}`
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RouteTable")]
struct Table(BTreeMap<String, TableEntry>);

/// The routes of one service.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "RouteTableEntry")]
struct TableEntry {
    /// The service.
    service: String,
    /// Each `METHOD /path`, or `{match, rate_limit}`.
    routes: Vec<serde_json::Value>,
    /// The limit of every route that states none: `20 req/min`, or `{rate, burst}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rate_limit: Option<serde_json::Value>,
    /// Whether connections to the service are reused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keep_alive: Option<bool>,
}

async fn register(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<RouteFilesRequest>,
) -> Result<Response, Problem> {
    check_count(request.files.len())?;
    let sources: Vec<Source> = request.files.into_iter().map(Source::from).collect();
    let (files, findings) = route_yaml::translate(&sources);
    apply_files(&context, if_match, &files, findings).await
}

async fn export(State(context): State<Context>) -> Response {
    let view = context.parts().registry.view();
    let files: Vec<RouteFile> =
        view.mesh.services.iter().filter_map(|(name, state)| file(&view, name, state)).collect();
    let headers =
        [(header::CONTENT_TYPE, HeaderValue::from_static("application/json")), (header::ETAG, etag(view.config))];
    (headers, routes_json::export(&files)).into_response()
}

/// A service's routes as a file would say them; `None` without routes.
fn file(view: &View, name: &ServiceName, state: &hms_model::mesh::ServiceState) -> Option<RouteFile> {
    let keep_alive = view.declaration(name).and_then(|declaration| declaration.overlay.keep_alive);
    Some(RouteFile { service: name.clone(), route: state.route.clone()?, keep_alive })
}

async fn import(
    State(context): State<Context>,
    if_match: IfMatch,
    request: Request<Body>,
) -> Result<Response, Problem> {
    let bytes = input::text(request).await?;
    let source = Source::from_bytes("routes.json", &bytes).map_err(|finding| Problem::refused(vec![*finding]))?;
    let (files, findings) = routes_json::import(&source);
    apply_files(&context, if_match, &files, findings).await
}

/// Stores what files say, unless there is an error among the findings.
async fn apply_files(
    context: &Context,
    if_match: IfMatch,
    files: &[RouteFile],
    findings: Vec<Finding>,
) -> Result<Response, Problem> {
    refuse_errors(&findings)?;
    let revision = commit(context, if_match, |view| {
        let routes = files.iter().map(|file| (&file.service, &file.route));
        check_claims(view, routes)?;
        route_changes(context, view, files)
    })
    .await?;
    let registered = files.iter().map(|file| file.service.to_string()).collect();
    Ok(registered_answer(registered, revision, &findings))
}

/// What route files change.
pub(super) fn route_changes(context: &Context, view: &View, files: &[RouteFile]) -> Result<Vec<Change>, Problem> {
    let mut changes = Vec::new();
    for file in files {
        let mut declaration = declaration(context, view, &file.service)?;
        declaration.overlay.keep_alive = file.keep_alive;
        changes.push(Change::Put(Resource::Declaration(declaration)));
        changes.push(Change::Put(Resource::Route(file.route.clone())));
    }
    Ok(changes)
}

/// The answer to a change of the configuration.
pub(super) fn registered_answer(registered: Vec<String>, revision: Revision, findings: &[Finding]) -> Response {
    let body = Outcome { registered, revision: revision.0, findings: views(findings) };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(revision));
    (headers, Json(body)).into_response()
}

/// A revision as an entity tag (RFC 9110 §8.8.3).
pub(super) fn etag(revision: Revision) -> HeaderValue {
    HeaderValue::try_from(format!("\"{revision}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// More files than anybody has.
pub(super) fn check_count(files: usize) -> Result<(), Problem> {
    if files > FILES {
        return Err(Problem::new(Kind::Shape, format!("`/files`: {files} files; at most {FILES} are taken at once")));
    }
    Ok(())
}

/// One error among the findings refuses the whole.
pub(super) fn refuse_errors(findings: &[Finding]) -> Result<(), Problem> {
    if findings.iter().any(Finding::is_error) { Err(Problem::refused(findings.to_vec())) } else { Ok(()) }
}

/// A service's declaration as it is, or a new one: it belongs to its namesake (architecture.md, identity).
pub(super) fn declaration(context: &Context, view: &View, service: &ServiceName) -> Result<Declaration, Problem> {
    Ok(match view.declaration(service) {
        Some(declaration) => declaration.clone(),
        None => Declaration { identities: vec![context.identity(service)?], ..Declaration::new(service.clone()) },
    })
}

/// How often a change is worked out anew because somebody else (a workload that binds its identity) was faster.
const TRIES: usize = 10;
/// How long to wait until the change of that other one can be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(1);

async fn seen(registry: &Registry, revision: Revision) {
    let mut views = registry.watch();
    // Whatever comes of it, the next try looks again.
    drop(tokio::time::timeout(SEEN_WITHIN, views.wait_for(|view| view.config >= revision)).await.map(drop));
}

/// Commits what `plan` makes of the present configuration. With `If-Match` the configuration must still be at that revision;
/// without, a change in between only means to plan again.
pub(super) async fn commit(
    context: &Context,
    if_match: IfMatch,
    plan: impl Fn(&View) -> Result<Vec<Change>, Problem>,
) -> Result<Revision, Problem> {
    Ok(change(context, if_match, Mode::Commit, plan).await?.revision)
}

/// Whether a change takes place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// It does.
    Commit,
    /// It is only said what it would come to.
    DryRun,
}

impl Mode {
    /// By the word of a request.
    pub(super) fn of(dry_run: bool) -> Self {
        if dry_run { Self::DryRun } else { Self::Commit }
    }
}

/// The same as [`commit`], or only as if, and says which resources are others now.
pub(super) async fn change(
    context: &Context,
    IfMatch(wanted): IfMatch,
    mode: Mode,
    plan: impl Fn(&View) -> Result<Vec<Change>, Problem>,
) -> Result<Changed, Problem> {
    let registry = &context.parts().registry;
    let _one_at_a_time = context.0.changing.lock().await;
    for _ in 0..TRIES {
        let view = registry.view();
        if let Some(wanted) = wanted
            && wanted != view.config
        {
            return Err(stale(view.config));
        }
        let changes = plan(&view)?;
        let done = match mode {
            Mode::Commit => registry.change(ACTOR, changes, Some(view.config)).await,
            Mode::DryRun => registry.preview(changes, Some(view.config)),
        };
        match done {
            Err(RegistryError::Conflict { current }) if wanted.is_some() => return Err(stale(current)),
            Err(RegistryError::Conflict { current }) => seen(registry, current).await,
            done => return Ok(done?),
        }
    }
    Err(Problem::new(Kind::Conflict, "the configuration changes too often to be changed at this moment"))
}

/// The answer to an `If-Match` of another revision.
pub(super) fn stale(current: Revision) -> Problem {
    Problem::new(Kind::Stale, format!("the configuration is at revision {current}"))
        .because("If-Match asked for another revision")
        .fix("read it again and repeat")
        .header(header::ETAG, etag(current))
}

/// The same requests cannot belong to two services: the gateway would not know where to send them.
pub(super) fn check_claims<'a>(
    view: &View,
    routes: impl Iterator<Item = (&'a ServiceName, &'a hms_model::route::Route)> + Clone,
) -> Result<(), Problem> {
    let replaced: BTreeSet<&ServiceName> = routes.clone().map(|(service, _)| service).collect();
    let mut taken: BTreeMap<String, (&ServiceName, &str)> = BTreeMap::new();
    let others = view.mesh.services.iter().filter(|(name, _)| !replaced.contains(name));
    for (name, state) in others {
        for rule in state.route.iter().flat_map(|route| &route.rules) {
            taken.insert(shape(&rule.matches), (name, &rule.origin));
        }
    }
    let mut findings = Vec::new();
    for (service, rule) in routes.flat_map(|(service, route)| route.rules.iter().map(move |rule| (service, rule))) {
        let shape = shape(&rule.matches);
        if let Some((owner, origin)) = taken.get(&shape).filter(|(owner, _)| *owner != service) {
            let finding = Finding::error(2110, format!("the route `{}` already belongs to `{owner}`", rule.matches));
            let first =
                if origin.is_empty() { "it was registered before".to_owned() } else { format!("first at {origin}") };
            findings.push(finding.because(first).fix("give one of the two another path"));
        } else {
            taken.insert(shape, (service, &rule.origin));
        }
    }
    if findings.is_empty() { Ok(()) } else { Err(Problem::refused(findings)) }
}

/// What makes two routes the same: method and path, without the names of parameters.
fn shape(matches: &Match) -> String {
    let mut text = matches.method.as_ref().map_or("*", Method::as_str).to_owned();
    for segment in matches.path.segments() {
        text.push('/');
        text.push_str(match segment {
            Segment::Literal(literal) => literal,
            Segment::Parameter(_) => "{}",
            Segment::Rest => "*",
        });
    }
    text
}
