//! Files of several kinds that take effect together, as one change.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use hms_formats::Source;
use hms_formats::objects::{self, Objects};
use hms_formats::route_yaml::{self, RouteFile};
use hms_formats::stored;
use hms_model::finding::Finding;
use hms_model::names::{Label, ServiceName};
use hms_model::policy::Egress;
use hms_model::policy::egress::{EgressHost, MOST_HOSTS};
use hms_model::resource::{Declaration, Gateway, Kind, Resource, ResourceKey};
use hms_model::route::Route;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Context;
use super::input::{self, IfMatch};
use super::problem::{self, FindingView, Problem, views};
use super::resources::{ChangeView, Deleted, changes, deleted, removal};
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
    let sources = files.into_iter().map(Source::from);
    let (resources, sources): (Vec<Source>, Vec<Source>) = sources.partition(stored::recognises);
    let (objects, routes): (Vec<Source>, Vec<Source>) = sources.into_iter().partition(objects::recognises);
    let (routes, mut findings) = route_yaml::translate(&routes);
    let (objects, more) = objects::translate(&objects);
    findings.extend(more);
    let (resources, more) = stored::translate(&resources, |written| context.shower().read(written));
    findings.extend(more);
    refuse_errors(&findings)?;
    Ok(Meaning { routes, objects, resources, findings })
}

/// Resources as they were shown, and perhaps changed. The roots are the authority's to change.
fn resource_changes<'r>(view: &View, resources: &'r [Resource]) -> Result<impl Iterator<Item = Change> + 'r, Problem> {
    let is_new = |resource: &&Resource| match resource {
        Resource::Trust(_) => view.resources.get(&resource.key()).map(AsRef::as_ref) != Some(resource),
        _ => false,
    };
    if resources.iter().any(|resource| is_new(&resource)) {
        return Err(Problem::new(problem::Kind::Refused, "the trust of a mesh is not applied")
            .because("its roots are those of its authority")
            .fix("leave it out"));
    }
    Ok(resources.iter().cloned().map(Change::Put))
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

async fn apply(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<ApplyRequest>,
) -> Result<Response, Problem> {
    let Meaning { routes, objects, resources, mut findings } = read(&context, request.files)?;
    let mode = Mode::of(request.dry_run);
    let changed = change(&context, if_match, mode, |view| {
        check_claims(view, claims(&routes, &resources))?;
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
        changes.extend(outside(view, &objects)?);
        changes.extend(objects.resources().map(Change::Put));
        changes.extend(resource_changes(view, &resources)?);
        Ok(changes)
    })
    .await?;
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
    let keys: Vec<ResourceKey> = routes.chain(others).collect();
    let changed = change(&context, if_match, mode, |view| {
        let removals = keys.iter().map(|key| removal(view, key)).collect::<Result<Vec<_>, _>>()?;
        Ok(removals.into_iter().flatten().chain(without(view, &objects)?).collect())
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

/// What may leave the mesh, as it is stored.
fn stored(view: &View) -> Egress {
    match view.resources.get(&ResourceKey::mesh(Kind::Egress)).map(AsRef::as_ref) {
        Some(Resource::Egress(egress)) => egress.clone(),
        _ => Egress::default(),
    }
}

/// What may leave the mesh with the hosts that objects name, if it is another. A port of a host is listed once.
fn outside(view: &View, objects: &Objects) -> Result<Option<Change>, Problem> {
    let before = stored(view);
    let mut egress = before.clone();
    for (label, host) in &objects.egress {
        let twice = |(other, own): &(&Label, &EgressHost)| {
            *other != label && own.host == host.host && own.ports.iter().any(|port| host.ports.contains(port))
        };
        if let Some(other) = before.hosts.iter().find(twice) {
            let what = format!("a port of {} is listed already", host.host);
            return Err(Problem::new(problem::Kind::Conflict, what)
                .because(format!("`{}` lists it, from mesh.yaml or another file", other.0))
                .fix("leave it out of one of the two"));
        }
        egress.hosts.insert(label.clone(), host.clone());
    }
    if egress.hosts.len() > MOST_HOSTS {
        let what = format!("{} hosts outside of the mesh would be listed", egress.hosts.len());
        return Err(Problem::new(problem::Kind::Refused, what).because(format!("there are at most {MOST_HOSTS}")));
    }
    Ok((egress != before).then_some(Change::Put(Resource::Egress(egress))))
}

/// What may leave the mesh without the hosts that objects name. One that is not there, or is another now, is not taken away.
fn without(view: &View, objects: &Objects) -> Result<Option<Change>, Problem> {
    if objects.egress.is_empty() {
        return Ok(None);
    }
    let mut egress = stored(view);
    for (label, host) in &objects.egress {
        match egress.hosts.remove(label) {
            Some(own) if own == *host => {}
            Some(_) => {
                let what = format!("`{label}` is another host outside of the mesh now, or listed with other words");
                let fix = "apply the file again first, or take it out of mesh.yaml";
                return Err(Problem::new(problem::Kind::Conflict, what).fix(fix));
            }
            None => {
                let what = format!("no host outside of the mesh is listed as `{label}`");
                return Err(Problem::new(problem::Kind::NoSuchThing, what).fix("hms egress"));
            }
        }
    }
    Ok(Some(Change::Put(Resource::Egress(egress))))
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
