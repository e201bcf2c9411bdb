//! What `hms up` is going to start: read from `mesh.yaml`, or found in the folder.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::Path;

use hms_formats::Source;
use hms_formats::compose;
use hms_formats::mesh_yaml::HealthFile;
use hms_formats::mesh_yaml::{self, Intercept, MeshFile, Tokens};
use hms_model::finding::{Finding, did_you_mean};
use hms_model::names::ServiceName;
use hms_model::policy::egress::Through;
use serde::Serialize;

use super::app::{self, Program};
use super::containers;
use super::detect;
use super::intercept::Capture;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::project::{MESH_FILE, Project};
use crate::settings::Settings;
use crate::views::NamedText;

/// Files beside `mesh.yaml` that belong to it (ruling R14).
const BESIDE: [&str; 2] = ["gateway.yaml", "mesh-config.yaml"];

/// Everything `hms up` needs to know.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// What the control plane is sent.
    pub(crate) request: Request,
    /// The services, in the order of their names.
    pub(crate) services: Vec<Service>,
    /// What was found without a mesh file, for people.
    pub(crate) detected: Option<String>,
    /// The gateway's port, if the files say.
    pub(crate) https: Option<u16>,
    /// Whether calls leave the mesh through an egress gateway.
    pub(crate) egress_gateway: bool,
    /// Warnings.
    pub(crate) findings: Vec<Finding>,
    /// The containers, if the file is Compose's.
    pub(crate) containers: Option<containers::Plan>,
}

/// The files of a project as `PUT /v1/mesh` takes them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Request {
    /// The mesh file's name, or the one it would have.
    pub(crate) file: String,
    /// Its text, if there is one.
    pub(crate) text: Option<String>,
    /// Route files, the issuer's keys, and the files beside the mesh file.
    pub(crate) files: Vec<NamedText>,
    /// What `${NAME}` in them stands for: only the names they use, since the rest of the environment is nobody's business.
    pub(crate) variables: BTreeMap<String, String>,
}

/// One service.
#[derive(Debug, Clone)]
pub(crate) struct Service {
    /// Its name.
    pub(crate) name: ServiceName,
    /// How to start it; `None` if that is not known, so it waits for a `hms run`.
    pub(crate) app: Option<app::Plan>,
    /// Its fixed port, if it has one.
    pub(crate) port: Option<u16>,
    /// How it is to be captured, if the files say.
    pub(crate) intercept: Option<Intercept>,
    /// Where its own port is open on the laptop.
    pub(crate) publish: Option<u16>,
    /// Its version.
    pub(crate) version: Option<String>,
    /// Its failure domain.
    pub(crate) zone: Option<String>,
    /// Whether it runs beside the service's own program.
    pub(crate) beside: bool,
    /// How long it may take until it listens.
    pub(crate) health: HealthFile,
    /// Whether it serves anything. A service without routes may be a pure client.
    pub(crate) has_routes: bool,
}

impl Service {
    /// What it is called where programs of one service are told apart.
    pub(crate) fn label(&self) -> String {
        match self.version.as_ref().filter(|_| self.beside) {
            Some(version) => format!("{}@{version}", self.name),
            None => self.name.to_string(),
        }
    }
}

impl Plan {
    /// Nothing but the base: control plane and gateway.
    pub(crate) fn empty() -> Self {
        Self {
            request: Request { file: MESH_FILE.to_owned(), text: None, files: Vec::new(), variables: BTreeMap::new() },
            services: Vec::new(),
            detected: None,
            https: None,
            egress_gateway: false,
            findings: Vec::new(),
            containers: None,
        }
    }

    /// Reads the project. Every mistake in its files comes back at once, and then nothing is started.
    pub(crate) fn read(settings: &Settings, project: &Project, file: Option<&Path>) -> Result<Self, Failure> {
        let given = file.map(|path| source(&project.root, path)).transpose()?;
        let compose = given.as_ref().filter(|source| compose::recognises(source)).cloned();
        // A mesh.yaml beside a Compose file says everything about the mesh; without one, the Compose file does.
        let own = || project.mesh_file().map(|path| source(&project.root, &path)).transpose();
        let beside_compose = if compose.is_some() { own()? } else { None };
        let mesh = match given {
            Some(given) => Some(beside_compose.clone().unwrap_or(given)),
            None => own()?,
        };
        let used: RefCell<BTreeMap<String, String>> = RefCell::default();
        let lookup = |name: &str| {
            let value = settings.environment.text(name)?.to_owned();
            used.borrow_mut().insert(name.to_owned(), value.clone());
            Some(value)
        };
        let beside: Vec<Source> = BESIDE
            .iter()
            .map(|name| project.root.join(name))
            .filter(|path| path.is_file())
            .map(|path| source(&project.root, &path))
            .collect::<Result<_, _>>()?;
        let found = if mesh.is_some() { Vec::new() } else { detect::services(&project.root)? };
        let route_files: Vec<Source> = match &mesh {
            Some(mesh) => mesh_yaml::route_file_names(mesh, &lookup)
                .iter()
                .map(|name| source(&project.root, &project.root.join(name)))
                .collect::<Result<_, _>>()?,
            None => found.iter().map(|one| Source::new(&one.route_file, &one.text)).collect(),
        };
        let by_name = |name: &str| beside.iter().find(|source| source.name == name);
        let (meaning, mut findings) = mesh_yaml::translate(
            mesh.as_ref(),
            by_name("gateway.yaml"),
            by_name("mesh-config.yaml"),
            &route_files,
            &lookup,
        );
        let containers = compose.zip(file).map(|(compose, path)| {
            let (compose, said) = compose::read(&compose, beside_compose.is_some().then_some(&meaning), &lookup);
            let new = |finding: &Finding| !findings.contains(finding);
            let said: Vec<Finding> = said.into_iter().filter(new).collect();
            findings.extend(said);
            let file = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
            containers::Plan { file, compose, mesh: meaning.clone(), only: Vec::new() }
        });
        if findings.iter().any(Finding::is_error) {
            return Err(refused(findings));
        }
        let keys = match &meaning.gateway.jwt {
            Some(Tokens::External { keys_file, .. }) => Some(source(&project.root, &project.root.join(keys_file))?),
            Some(Tokens::BuiltIn { .. }) | None => None,
        };
        let detected = mesh.is_none().then(|| say_detected(&found));
        Ok(Self {
            services: services(settings, project, &meaning, containers.as_ref()),
            containers,
            https: meaning.gateway.https,
            egress_gateway: meaning.egress.through == Through::Gateway,
            detected,
            findings,
            request: Request {
                file: mesh.as_ref().map_or_else(|| MESH_FILE.to_owned(), |mesh| mesh.name.clone()),
                text: mesh.map(|mesh| mesh.text),
                files: beside.iter().chain(&keys).chain(&route_files).map(named).collect(),
                variables: used.take(),
            },
        })
    }

    /// Every service there is.
    fn known(&self) -> impl Iterator<Item = &ServiceName> {
        let containers = self.containers.iter().flat_map(|plan| &plan.compose.containers);
        self.services.iter().map(|service| &service.name).chain(containers.map(|container| &container.name))
    }

    /// Keeps the named services only; an unknown name is an error with a suggestion.
    pub(crate) fn only(&mut self, wanted: &[String], namespace: &str) -> Result<(), Failure> {
        if wanted.is_empty() {
            return Ok(());
        }
        let mut names = Vec::new();
        for text in wanted {
            let name = ServiceName::from_host(text, namespace).ok();
            match name.filter(|name| self.known().any(|known| known == name)) {
                Some(name) => names.push(name),
                None => {
                    return Err(unknown_service(text, self.known().map(ToString::to_string)));
                }
            }
        }
        self.services.retain(|service| names.contains(&service.name));
        if let Some(containers) = &mut self.containers {
            containers.only(&names);
        }
        Ok(())
    }
}

/// The failure for a service nobody knows.
pub(crate) fn unknown_service(text: &str, known: impl IntoIterator<Item = String>) -> Failure {
    let known: Vec<String> = known.into_iter().collect();
    let failure = Failure::new(Exit::Failed, 1004, format!("there is no service `{text}`"));
    match did_you_mean(text, known.iter().map(String::as_str)) {
        Some(near) => failure.because(format!("did you mean `{near}`?")),
        None if known.is_empty() => failure.because("no service is known").fix("hms register FILE"),
        None => failure.because(format!("known are {}", known.join(", "))),
    }
}

/// The failure for files with mistakes.
pub(crate) fn refused(findings: Vec<Finding>) -> Failure {
    let errors = findings.iter().filter(|finding| finding.is_error()).count();
    let message = if errors == 1 {
        "1 error; nothing was changed".to_owned()
    } else {
        format!("{errors} errors; nothing was changed")
    };
    Failure::new(Exit::Failed, 2100, message).findings(findings).fix("correct the file, then: hms lint")
}

/// Reads a file under its name relative to the project.
pub(crate) fn source(root: &Path, path: &Path) -> Result<Source, Failure> {
    let path =
        if path.is_absolute() { path.to_path_buf() } else { std::env::current_dir().unwrap_or_default().join(path) };
    let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
    let metadata = std::fs::metadata(&path).map_err(|error| crate::project::unreadable(&path, &error))?;
    let limit = u64::try_from(hms_formats::source::MAX_BYTES).unwrap_or(u64::MAX);
    if !metadata.is_file() || metadata.len() > limit {
        return Err(Failure::new(Exit::Failed, 1005, format!("cannot read {shown}"))
            .because(format!("it is no ordinary file of at most {limit} bytes")));
    }
    let bytes = std::fs::read(&path).map_err(|error| crate::project::unreadable(&path, &error))?;
    Source::from_bytes(shown, &bytes).map_err(|finding| refused(vec![*finding]))
}

fn named(source: &Source) -> NamedText {
    NamedText { name: source.name.clone(), text: source.text.clone() }
}

fn say_detected(found: &[detect::Found]) -> String {
    let apps: Vec<String> = found
        .iter()
        .filter_map(|one| Some(format!("{} ({})", one.service.as_ref()?, one.app.as_ref()?.origin)))
        .collect();
    match apps.as_slice() {
        [] => format!("found {} route files, no application", found.len()),
        [one] => format!("detected 1 FastAPI app: {one}"),
        many => format!("detected {} FastAPI apps: {}", many.len(), many.join(", ")),
    }
}

/// Those that run here, and not in containers.
fn services(
    settings: &Settings,
    project: &Project,
    meaning: &MeshFile,
    containers: Option<&containers::Plan>,
) -> Vec<Service> {
    let contained = |name: &ServiceName| {
        containers.is_some_and(|plan| plan.compose.containers.iter().any(|container| container.name == *name))
    };
    let app = |dir: &str, run: Option<&String>, env: BTreeMap<String, String>, service: &mesh_yaml::ServiceFile| {
        let folder = project.root.join(dir);
        let program = run.cloned().map(Program::Shell).or_else(|| detected_program(settings, project, &folder))?;
        Some(app::Plan {
            program,
            folder: if folder.is_dir() { folder } else { project.root.clone() },
            variables: env,
            capture: Capture::undecided(),
            host_ports: service.host_ports.clone(),
            interactive: false,
        })
    };
    let own = |name: &ServiceName, service: &mesh_yaml::ServiceFile| Service {
        name: name.clone(),
        app: app(&service.dir, service.run.as_ref(), service.env.0.clone(), service),
        port: service.port,
        intercept: service.intercept.or(meaning.intercept),
        publish: service.publish,
        version: service.main_version(),
        zone: service.zone.clone(),
        beside: false,
        health: service.health.clone(),
        has_routes: service.route.is_some() || service.port.is_some(),
    };
    let of = |(name, service): (&ServiceName, &mesh_yaml::ServiceFile)| {
        let main = own(name, service);
        let mut all = vec![main.clone()];
        all.extend(service.versions.iter().map(|(version, file)| {
            let dir = file.dir.as_ref().unwrap_or(&service.dir);
            // The same command means another program in another folder, and in the same one its environment tells it which it is.
            let run = file.run.as_ref().or(service.run.as_ref());
            let env = service.env.0.iter().chain(&file.env.0).map(|(name, value)| (name.clone(), value.clone()));
            Service {
                app: app(dir, run, env.collect(), service),
                port: file.port,
                publish: None,
                version: Some(version.clone()),
                beside: true,
                ..main.clone()
            }
        }));
        all
    };
    meaning.services.iter().filter(|(name, _)| !contained(name)).flat_map(of).collect()
}

fn detected_program(settings: &Settings, project: &Project, folder: &Path) -> Option<Program> {
    let app = detect::fast_api(folder)?;
    let python = detect::python(settings, folder, &project.root);
    let words = ["-m", "uvicorn", &app.target(), "--host", "127.0.0.1", "--port", "$PORT"];
    Some(Program::Arguments(std::iter::once(python.into_os_string()).chain(words.map(Into::into)).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_name_suggests_a_known_one() {
        let failure = unknown_service("calc-scv", ["calc-svc".to_owned(), "hello-svc".to_owned()]);
        assert_eq!(failure.why(), "did you mean `calc-svc`?");
        assert_eq!(unknown_service("x", []).fixes(), ["hms register FILE"]);
    }
}
