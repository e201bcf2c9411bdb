//! Files of several kinds that take effect together, as one change.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_formats::Source as TextSource;
use hms_formats::objects::{self, Objects, Policies};
use hms_formats::route_yaml::{self, RouteFile};
use hms_formats::stored;
use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::authorization::Source;
use hms_model::resource::{Declaration, Gateway, Kind, Resource, ResourceKey};
use hms_model::route::Route;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input::{self, IfMatch};
use super::outside;
use super::problem::{self, FindingView, Problem, views};
use super::replaced::replaced;
use super::resources::{ChangeView, Deleted, changes, deleted, removal};
use super::revisions::with_own_keys;
use super::routes::{File, Mode, change, check_claims, check_count, declaration, etag, refuse_errors, route_changes};
use super::table::Operation;
use crate::registry::{Change, View};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::POST,
            "/v1/apply",
            "applyFiles",
            "Applies route files, objects of other meshes (the Gateway API's, Linkerd's, SMI's, Istio's, Consul's, App Mesh's) and resources as they are shown, all together or none.",
            apply,
        )
        .takes::<ApplyRequest>()
        .answers::<Applied>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::UNPROCESSABLE_ENTITY, StatusCode::SERVICE_UNAVAILABLE]),
        Operation::new(
            Method::POST,
            "/v1/delete",
            "deleteFiles",
            "Removes what such files would make, all of it or nothing; the services stay declared.",
            delete,
        )
        .takes::<ApplyRequest>()
        .answers::<Deleted>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::NOT_FOUND, StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// Files to be applied together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ApplyRequest {
    /// At most 1000; what each is, it says itself.
    files: Vec<File>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// What was applied.
#[derive(Debug, Serialize, JsonSchema)]
struct Applied {
    /// The services that the files speak of.
    registered: Vec<String>,
    /// The revision of the configuration that has them.
    revision: u64,
    /// Whether it is only what would have happened.
    dry_run: bool,
    /// Every resource that is another now.
    changes: Vec<ChangeView>,
    /// What is worth knowing about the input.
    findings: Vec<FindingView>,
}

/// What files of several kinds say.
struct Meaning {
    routes: Vec<RouteFile>,
    objects: Objects,
    /// As they are stored.
    resources: Vec<Resource>,
    findings: Vec<Finding>,
}

/// Reads files; one error in any refuses them all.
fn read(context: &Context, files: Vec<File>) -> Result<Meaning, Problem> {
    check_count(files.len())?;
    let sources = files.into_iter().map(TextSource::from);
    let (resources, sources): (Vec<TextSource>, Vec<TextSource>) = sources.partition(stored::recognises);
    let (objects, routes): (Vec<TextSource>, Vec<TextSource>) = sources.into_iter().partition(objects::recognises);
    let (routes, mut findings) = route_yaml::translate(&routes);
    let (objects, more) = objects::translate(&objects);
    findings.extend(more);
    let (resources, more) = stored::translate(&resources, |written| context.shower().read(written));
    findings.extend(more);
    refuse_errors(&findings)?;
    Ok(Meaning { routes, objects, resources, findings })
}

/// Resources as they were shown, and perhaps changed. The roots are the authority's to change.
fn resource_changes(context: &Context, view: &View, resources: &[Resource]) -> Result<Vec<Change>, Problem> {
    let is_new = |resource: &&Resource| match resource {
        Resource::Trust(_) => view.resources.get(&resource.key()).map(AsRef::as_ref) != Some(resource),
        _ => false,
    };
    if resources.iter().any(|resource| is_new(&resource)) {
        return Err(Problem::new(problem::Kind::Refused, "the trust of a mesh is not applied")
            .because("its roots are those of its authority")
            .fix("leave it out"));
    }
    let own = context.parts().jwt.as_issuer();
    let current = |resource: &Resource| match resource {
        // The key is of today, whenever the file was written.
        Resource::Gateway(gateway) => Resource::Gateway(with_own_keys(gateway, &own)),
        other => other.clone(),
    };
    Ok(resources.iter().map(current).map(Change::Put).collect())
}

/// The routes that services say that they serve.
fn claims<'a>(
    routes: &'a [RouteFile],
    resources: &'a [Resource],
) -> impl Iterator<Item = (&'a ServiceName, &'a Route)> + Clone {
    let stored = resources.iter().filter_map(|resource| match resource {
        Resource::Route(route) => Some((&route.service, route)),
        _ => None,
    });
    routes.iter().map(|file| (&file.service, &file.route)).chain(stored)
}

/// What files change.
fn planned(context: &Context, view: &View, meaning: &Meaning) -> Result<Vec<Change>, Problem> {
    let Meaning { routes, objects, resources, .. } = meaning;
    check_claims(view, claims(routes, resources))?;
    let mut changes = route_changes(context, view, routes)?;
    for split in &objects.splits {
        // Callers name it, so it has a name even if nothing of its own answers.
        let routed = routes.iter().any(|file| file.service == split.service);
        if !routed && view.declaration(&split.service).is_none() {
            changes.push(Change::Put(Resource::Declaration(declaration(context, view, &split.service)?)));
        }
    }
    for (name, policies) in &objects.services {
        let mut declared = match take_declaration(&mut changes, name) {
            Some(declared) => declared,
            None => declaration(context, view, name)?,
        };
        check_denied(&declared, policies)?;
        policies.over(&mut declared);
        changes.push(Change::Put(Resource::Declaration(declared)));
    }
    changes.extend(gateway_hosts(view, objects));
    changes.extend(outside::with(view, objects)?);
    changes.extend(objects.resources().map(Change::Put));
    check_once(&changes, resources)?;
    changes.extend(resource_changes(context, view, resources)?);
    Ok(changes)
}

/// Who may not call a service, as files say, does not stay among those who may.
fn check_denied(declared: &Declaration, policies: &Policies) -> Result<(), Problem> {
    let rules = policies.contradicted(declared);
    let Some(first) = rules.first() else { return Ok(()) };
    let name = &declared.name;
    let who = match &first.source {
        Source::Any => "everybody".to_owned(),
        Source::Gateway => "the gateway".to_owned(),
        Source::Service(service) => format!("`{service}`"),
    };
    let origin = if first.origin.is_empty() { String::new() } else { format!(" ({})", first.origin) };
    let more = if rules.len() > 1 { format!(", and {} more rules", rules.len() - 1) } else { String::new() };
    Err(Problem::new(problem::Kind::Conflict, format!("{who} may call `{name}`, and these files do not let it"))
        .because(format!("a rule allows it already{origin}{more}, and intentions add rules without taking any away"))
        .fix(format!(
            "hms get declaration {name} -o yaml > {name}.yaml, take the rule out there, hms apply -f {name}.yaml"
        ))
        .fix("or allow it in these files as well"))
}

/// A resource comes from one of the files, or it would not be known which of two is meant.
fn check_once(changes: &[Change], resources: &[Resource]) -> Result<(), Problem> {
    let key = |change: &Change| match change {
        Change::Put(resource) => resource.key(),
        Change::Delete(key) => key.clone(),
    };
    let made: BTreeSet<ResourceKey> = changes.iter().map(key).collect();
    match resources.iter().map(Resource::key).find(|key| made.contains(key)) {
        None => Ok(()),
        Some(key) => Err(Problem::new(problem::Kind::Refused, format!("two of these files say what `{key}` is"))
            .because("one holds it as it is stored, and others come to it as well")
            .fix("apply them one after the other")),
    }
}

async fn apply(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<ApplyRequest>,
) -> Result<Response, Problem> {
    let meaning = read(&context, request.files)?;
    let mode = Mode::of(request.dry_run);
    let changed = change(&context, if_match, mode, |view| planned(&context, view, &meaning)).await?;
    let Meaning { routes, objects, resources, mut findings } = meaning;
    if !resources.iter().any(|resource| matches!(resource, Resource::Egress(_))) {
        findings.extend(outside::unlisted(&changed));
    }
    findings.extend(replaced(&context.parts().registry.view(), &changed, &objects));
    let named = resources.iter().map(Resource::key);
    let registered = routes.iter().map(|file| &file.service).chain(objects.names());
    let registered = registered.map(ToString::to_string).chain(named.map(|key| named_resource(&key))).collect();
    if mode == Mode::Commit {
        // What is inert is known only now that all of it is together.
        let view = context.parts().registry.view();
        let spoken_of = spoken_of(objects, resources);
        let about = |finding: &&Finding| spoken_of.is_about(finding) && !objects::repeats(&findings, finding);
        let inert: Vec<Finding> = view.findings.iter().filter(about).cloned().collect();
        findings.extend(inert);
    }
    let body = Applied {
        registered,
        revision: changed.revision.0,
        dry_run: request.dry_run,
        changes: changes(&context, &changed, mode),
        findings: views(&findings),
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::ETAG, etag(changed.revision));
    Ok((headers, Json(body)).into_response())
}

async fn delete(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<ApplyRequest>,
) -> Result<Response, Problem> {
    let Meaning { routes, objects, resources, .. } = read(&context, request.files)?;
    if let Some(name) = objects.services.keys().next() {
        let why = format!(
            "policies and allow rules were laid over what `{name}` had, and which were theirs is not known any more"
        );
        return Err(Problem::new(
            problem::Kind::Refused,
            "these files hold policies of services, which are not taken away by file",
        )
        .because(why)
        .fix("hms rollback, or hms up with a mesh.yaml that says what shall hold"));
    }
    let mode = Mode::of(request.dry_run);
    let routes = routes.iter().map(|file| ResourceKey::of(Kind::Route, &file.service));
    let others = objects.resources().chain(resources.iter().cloned()).map(|resource| resource.key());
    let keys: BTreeSet<ResourceKey> = routes.chain(others).collect();
    let changed = change(&context, if_match, mode, |view| {
        let removals = keys.iter().map(|key| removal(view, key, &keys)).collect::<Result<Vec<_>, _>>()?;
        let gone: BTreeSet<ResourceKey> = removals.into_iter().flatten().collect();
        Ok(gone.into_iter().map(Change::Delete).chain(outside::without(view, &objects)?).collect())
    })
    .await?;
    Ok(deleted(&context, &changed, mode))
}

/// Objects together with what resources say of the same.
fn spoken_of(mut objects: Objects, resources: Vec<Resource>) -> Objects {
    for resource in resources {
        match resource {
            Resource::HttpRoute(route) => objects.routes.push(route),
            Resource::Split(split) => objects.splits.push(split),
            _ => {}
        }
    }
    objects
}

/// What people call a resource.
fn named_resource(key: &ResourceKey) -> String {
    match (key.namespace.as_str(), ServiceName::in_namespace(&key.namespace, &key.name)) {
        ("mesh", _) | (_, Err(_)) => key.kind.as_str().to_owned(),
        (_, Ok(name)) => name.to_string(),
    }
}

/// The gateway with the host names that objects give it, if it does not have them.
fn gateway_hosts(view: &View, objects: &Objects) -> Option<Change> {
    let mut gateway = Gateway::clone(&view.mesh.gateway);
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
