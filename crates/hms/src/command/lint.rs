//! `hms lint`: the verdict the control plane would give, without asking it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use hms_formats::{Source, compose, envoy_static, lints, mesh_yaml, objects, stored};
use hms_model::finding::Finding;
use hms_model::http_route::HttpRoute;
use hms_model::names::ServiceName;
use hms_model::resource::Resource;
use serde_json::json;

use super::Context;
use crate::cli;
use crate::exit::Exit;
use crate::failure::{Failure, finding_to_json};
use crate::laptop::{detect, plan};
use crate::output::Mark;
use crate::project::{MESH_FILE, unreadable};

pub(super) fn run(context: Context<'_>, options: &cli::Lint) -> Result<Exit, Failure> {
    let files = if options.files.is_empty() { whole_project(context)? } else { options.files.clone() };
    let (count, mut findings) = named(context, &files)?;
    findings.extend(habits(&files, options)?);
    Ok(show(context, count, &findings))
}

/// What is allowed and seldom meant, in the files themselves.
fn habits(files: &[PathBuf], options: &cli::Lint) -> Result<Vec<Finding>, Failure> {
    let here = std::env::current_dir().map_err(|error| unreadable(std::path::Path::new("."), &error))?;
    // What is no text was said before.
    let sources: Vec<Source> = files.iter().filter_map(|file| plan::source(&here, file).ok()).collect();
    Ok(lints::look(&sources, &options.suppress))
}

/// Shows what was found in `count` files.
pub(super) fn show(context: Context<'_>, count: usize, findings: &[Finding]) -> Exit {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let output = context.output;
    let listed: Vec<_> = findings.iter().map(finding_to_json).collect();
    if !output.document("Lint", &json!({"files": count, "items": listed})) {
        output.write(&hms_formats::render(findings, output.has_colour()));
        let mark = if errors > 0 { Mark::Failed } else { Mark::Ok };
        output.line(&format!(
            "{} {}, {}, {}",
            output.mark(mark),
            counted(count, "file"),
            counted(errors, "error"),
            counted(findings.len() - errors, "warning")
        ));
    }
    if findings.is_empty() { Exit::Ok } else { Exit::Findings }
}

/// `1 file`, `2 files`.
fn counted(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What is wrong with objects and resources, and what their routes never do.
fn of_routes(applied: &[Source], shown: &[Source]) -> Vec<Finding> {
    let (objects, mut findings) = objects::translate(applied);
    let (resources, more) = hms_control::resources(shown);
    findings.extend(more);
    let stored = resources.into_iter().filter_map(|resource| match resource {
        Resource::HttpRoute(route) => Some(route),
        _ => None,
    });
    let mut of: BTreeMap<Option<ServiceName>, Vec<HttpRoute>> = BTreeMap::new();
    for route in objects.routes.into_iter().chain(stored) {
        let parents: BTreeSet<Option<ServiceName>> =
            route.parents.iter().map(|parent| parent.service().cloned()).collect();
        for parent in parents {
            of.entry(parent).or_default().push(route.clone());
        }
    }
    for (parent, routes) in of {
        let inert = hms_traffic::http_route::inert(parent.as_ref(), &routes);
        let new: Vec<Finding> = inert.into_iter().filter(|finding| !objects::repeats(&findings, finding)).collect();
        findings.extend(new);
    }
    findings
}

/// What `hms up` would read.
fn whole_project(context: Context<'_>) -> Result<Vec<PathBuf>, Failure> {
    let project = context.project()?;
    let mut files: Vec<PathBuf> =
        ["gateway.yaml", "mesh-config.yaml"].iter().map(|name| project.root.join(name)).collect();
    files.retain(|path| path.is_file());
    match project.mesh_file() {
        Some(mesh) => files.push(mesh),
        None => files.extend(detect::services(&project.root)?.iter().map(|one| project.root.join(&one.route_file))),
    }
    if files.is_empty() {
        return Err(Failure::new(Exit::Failed, 1010, "there is nothing to check")
            .at(project.root.display().to_string())
            .because("no mesh.yaml here, and no route.yaml one level below")
            .fix("hms lint FILE"));
    }
    Ok(files)
}

/// Mesh files are recognised by their names, static files of Envoy's by their keys; everything else is a route file.
fn named(context: Context<'_>, files: &[PathBuf]) -> Result<(usize, Vec<Finding>), Failure> {
    let lookup = |name: &str| context.settings.environment.text(name).map(str::to_owned);
    let here = std::env::current_dir().map_err(|error| unreadable(std::path::Path::new("."), &error))?;
    let (mut mesh, mut gateway, mut config, mut routes) = (None, None, None, Vec::new());
    let mut contained = None;
    let (mut applied, mut shown) = (Vec::new(), Vec::new());
    let (mut statics, mut of_statics) = (0, Vec::new());
    for file in files {
        let source = match plan::source(&here, file) {
            Ok(source) => source,
            // Bytes that are no text are a finding; a file that is not there is a failure.
            Err(failure) if !failure.all_findings().is_empty() => {
                return Ok((files.len(), failure.all_findings().to_vec()));
            }
            Err(failure) => return Err(failure),
        };
        match file.file_name().and_then(|name| name.to_str()) {
            Some(MESH_FILE) => {
                let folder = here.join(file).parent().map(std::path::Path::to_path_buf).unwrap_or_default();
                for name in mesh_yaml::route_file_names(&Source::new(MESH_FILE, &source.text), &lookup) {
                    routes.push(plan::source(&here, &folder.join(name))?);
                }
                mesh = Some(source);
            }
            Some("gateway.yaml") => gateway = Some(source),
            Some("mesh-config.yaml") => config = Some(source),
            _ if stored::recognises(&source) => shown.push(source),
            _ if objects::recognises(&source) => applied.push(source),
            _ if compose::recognises(&source) => contained = Some(source),
            _ if envoy_static::recognises(&source) => {
                statics += 1;
                of_statics.extend(envoy_static::translate(&source).1);
            }
            _ => routes.push(source),
        }
    }
    statics += applied.len() + shown.len();
    of_statics.extend(of_routes(&applied, &shown));
    let alone = mesh.is_none();
    if let (true, Some(source)) = (alone, &contained) {
        // What it says of the mesh is as good as a mesh.yaml.
        mesh = Some(source.clone());
    }
    let count = usize::from(!alone && contained.is_some())
        + usize::from(mesh.is_some())
        + usize::from(gateway.is_some())
        + usize::from(config.is_some())
        + routes.len();
    if count == 0 {
        return Ok((statics, of_statics));
    }
    let (meaning, mut findings) =
        mesh_yaml::translate(mesh.as_ref(), gateway.as_ref(), config.as_ref(), &routes, &lookup);
    if let Some(source) = &contained {
        let (_, said) = compose::read(source, (!alone).then_some(&meaning), &lookup);
        let new: Vec<Finding> = said.into_iter().filter(|finding| !findings.contains(finding)).collect();
        findings.extend(new);
    }
    of_statics.extend(findings);
    Ok((count + statics, of_statics))
}
