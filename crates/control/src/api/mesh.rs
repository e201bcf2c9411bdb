//! `mesh.yaml` and what belongs to it, as one transaction.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::http::{Method, StatusCode};
use axum::response::Response;
use hms_formats::mesh_yaml::{self, MeshFile, Tokens};
use hms_formats::{Source, jwks};
use hms_model::finding::Finding;
use hms_model::policy::JwtIssuer;
use hms_model::resource::{Gateway, Resource};
use schemars::JsonSchema;
use serde::Deserialize;

use super::Context;
use super::input::{self, IfMatch};
use super::problem::Problem;
use super::routes::{self, File, Outcome};
use super::table::Operation;
use crate::registry::{Change, View};

pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(
            Method::PUT,
            "/v1/mesh",
            "applyMesh",
            "Applies mesh.yaml with the files beside it, all or nothing. Services it does not name stay as they are.",
            apply,
        )
        .takes::<MeshRequest>()
        .answers::<Outcome>(StatusCode::OK)
        .revised()
        .fails(&[StatusCode::SERVICE_UNAVAILABLE]),
    ]
}

/// The files of a project.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct MeshRequest {
    /// The name of `mesh.yaml` as its author knows it; the others are found relative to its folder.
    file: String,
    /// Its text; null or absent for a project without one.
    #[serde(default)]
    text: Option<String>,
    /// At most 1000 files: `gateway.yaml` and `mesh-config.yaml` beside it, a token issuer's keys, and route files.
    #[serde(default)]
    files: Vec<File>,
    /// What `${NAME}` in the files stands for. The control plane's own environment is never read.
    #[serde(default)]
    variables: BTreeMap<String, String>,
}

/// The files of a request by what they are.
#[derive(Default)]
struct Sorted {
    mesh: Option<Source>,
    gateway: Option<Source>,
    config: Option<Source>,
    /// Everything else, by its tidy path.
    others: BTreeMap<String, Source>,
}

async fn apply(
    State(context): State<Context>,
    if_match: IfMatch,
    input::Json(request): input::Json<MeshRequest>,
) -> Result<Response, Problem> {
    routes::check_count(request.files.len())?;
    let variables = request.variables;
    let mut sorted = sort(request.file, request.text, request.files)?;
    let lookup = |name: &str| variables.get(name).cloned();
    // Which file holds keys only the mesh file says: it is read once for that, then with the route files.
    let (first, _findings) = translate(&sorted, &[], &lookup);
    let keys = keys_file(&first).and_then(|name| sorted.others.remove(&tidy(name)));
    let files: Vec<Source> = std::mem::take(&mut sorted.others).into_values().collect();
    let (mesh, mut findings) = translate(&sorted, &files, &lookup);
    let issuers = issuers(&context, &mesh, keys.as_ref(), &mut findings);
    routes::refuse_errors(&findings)?;
    let revision = routes::commit(&context, if_match, |view| plan(&context, view, &mesh, &issuers)).await?;
    let registered = mesh.services.keys().map(ToString::to_string).collect();
    Ok(routes::registered_answer(registered, revision, &findings))
}

fn translate(sorted: &Sorted, files: &[Source], lookup: mesh_yaml::Lookup<'_>) -> (MeshFile, Vec<Finding>) {
    mesh_yaml::translate(sorted.mesh.as_ref(), sorted.gateway.as_ref(), sorted.config.as_ref(), files, lookup)
}

/// Tells the files apart by their names.
fn sort(file: String, text: Option<String>, files: Vec<File>) -> Result<Sorted, Problem> {
    let folder = tidy(&file).rsplit_once('/').map(|(folder, _)| format!("{folder}/")).unwrap_or_default();
    let mut sorted = Sorted { mesh: text.map(|text| Source::new(file, text)), ..Sorted::default() };
    for file in files {
        let path = tidy(&file.name);
        let own = path.strip_prefix(folder.as_str()).unwrap_or_default();
        let place = match own {
            "gateway.yaml" | "gateway.yml" => &mut sorted.gateway,
            "mesh-config.yaml" | "mesh-config.yml" => &mut sorted.config,
            _ => {
                if let Some(twice) = sorted.others.insert(path, file.into()) {
                    return Err(sent_twice(&twice.name));
                }
                continue;
            }
        };
        if let Some(twice) = place.replace(file.into()) {
            return Err(sent_twice(&twice.name));
        }
    }
    Ok(sorted)
}

fn sent_twice(name: &str) -> Problem {
    let finding = Finding::error(2110, format!("the file `{}` was sent twice", input::shown(name)));
    Problem::refused(vec![finding.fix("send each file once")])
}

/// A path without `.` and empty segments, as the translator writes the paths it finds in files.
fn tidy(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." if kept.last().is_some_and(|last| *last != "..") => drop(kept.pop()),
            other => kept.push(other),
        }
    }
    let tidy = kept.join("/");
    if path.starts_with('/') { format!("/{tidy}") } else { tidy }
}

/// The file of an external issuer's keys.
fn keys_file(mesh: &MeshFile) -> Option<&str> {
    match &mesh.gateway.jwt {
        Some(Tokens::External { keys_file, .. }) => Some(keys_file),
        Some(Tokens::BuiltIn { .. }) | None => None,
    }
}

/// Whose tokens the gateway is to take.
fn issuers(context: &Context, mesh: &MeshFile, keys: Option<&Source>, findings: &mut Vec<Finding>) -> Vec<JwtIssuer> {
    match &mesh.gateway.jwt {
        None => vec![context.parts().jwt.as_issuer()],
        Some(Tokens::BuiltIn { audiences, .. }) => {
            let mut issuer = context.parts().jwt.as_issuer();
            if !audiences.is_empty() {
                issuer.audiences.clone_from(audiences);
            }
            vec![issuer]
        }
        Some(Tokens::External { issuer, keys_file, audiences, .. }) => {
            let Some(source) = keys else {
                let finding = Finding::error(2105, format!("the keys of `{}` were not sent", input::shown(issuer)));
                let finding = finding.because(format!("`{}` is not among the files", input::shown(keys_file)));
                findings.push(finding.fix("save the issuer's key set in that file"));
                return Vec::new();
            };
            let (keys, more) = jwks::parse(source);
            findings.extend(more);
            vec![JwtIssuer { issuer: issuer.clone(), audiences: audiences.clone(), keys }]
        }
    }
}

/// What the files change of the configuration as it is.
fn plan(context: &Context, view: &View, mesh: &MeshFile, issuers: &[JwtIssuer]) -> Result<Vec<Change>, Problem> {
    let routes = mesh.services.iter().filter_map(|(name, service)| Some((name, service.route.as_ref()?)));
    routes::check_claims(view, routes)?;
    let mut changes = vec![Change::Put(Resource::Defaults(mesh.defaults.clone()))];
    for (name, service) in &mesh.services {
        let mut declaration = routes::declaration(context, view, name)?;
        declaration.overlay = service.overlay.clone();
        declaration.authorization.clone_from(&service.authorization);
        declaration.protocol = service.protocol;
        declaration.ports.clone_from(&service.ports);
        changes.push(Change::Put(Resource::Declaration(declaration)));
        changes.extend(service.route.clone().map(Resource::Route).map(Change::Put));
        changes.extend(service.split(name).map(Resource::Split).map(Change::Put));
    }
    let hosts = if mesh.gateway.hosts.is_empty() { Gateway::default().hosts } else { mesh.gateway.hosts.clone() };
    changes.push(Change::Put(Resource::Gateway(Gateway { hosts, issuers: issuers.to_vec(), ..Gateway::default() })));
    changes.push(Change::Put(Resource::Egress(mesh.egress.clone())));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> File {
        File { name: name.to_owned(), text: String::new() }
    }

    #[test]
    fn files_are_told_apart_by_their_place_beside_the_mesh_file() {
        let files = ["./gateway.yaml", "mesh-config.yml", "hello/route.yaml", "hello/gateway.yaml"].map(file);
        let sorted = sort("./mesh.yaml".to_owned(), None, files.into()).ok().unwrap();
        assert_eq!(sorted.gateway.unwrap().name, "./gateway.yaml");
        assert_eq!(sorted.config.unwrap().name, "mesh-config.yml");
        assert_eq!(sorted.others.keys().collect::<Vec<_>>(), ["hello/gateway.yaml", "hello/route.yaml"]);
        let files = ["/p/gateway.yaml", "/gateway.yaml"].map(file);
        let sorted = sort("/p/mesh.yaml".to_owned(), None, files.into()).ok().unwrap();
        assert_eq!(sorted.gateway.unwrap().name, "/p/gateway.yaml");
        assert_eq!(sorted.others.len(), 1);
    }

    #[test]
    fn a_file_that_is_sent_twice_is_refused() {
        for names in [["a/route.yaml", "./a//route.yaml"], ["gateway.yaml", "gateway.yml"]] {
            assert!(sort("mesh.yaml".to_owned(), None, names.map(file).into()).is_err());
        }
    }
}
