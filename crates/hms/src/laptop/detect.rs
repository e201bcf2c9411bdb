//! What a folder without a `mesh.yaml` contains: route files one level below, and the applications beside them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use hms_model::names::ServiceName;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::project::{ROUTE_FILES, unreadable};
use crate::settings::Settings;

/// The most folders looked into.
const MOST_FOLDERS: usize = 1000;
/// A larger source or route file is not one.
const LARGEST_FILE: u64 = 1 << 20;

/// A route file with the application beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// The service the route file names; `None` if the file does not say, which its registration will complain about.
    pub(crate) service: Option<ServiceName>,
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The route file, relative to the project where possible.
    pub(crate) route_file: String,
    /// Its text.
    pub(crate) text: String,
    /// The application, if one was recognised.
    pub(crate) app: Option<FastApi>,
}

/// A `FastAPI` application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FastApi {
    /// The module: `app` for `app.py`.
    pub(crate) module: String,
    /// The variable that holds it.
    pub(crate) variable: String,
    /// Where it was found: `app.py:2`.
    pub(crate) origin: String,
}

impl FastApi {
    /// `app:app`, as uvicorn wants it.
    pub(crate) fn target(&self) -> String {
        format!("{}:{}", self.module, self.variable)
    }
}

/// Every route file in `root` and one level below, ordered by folder.
pub(crate) fn services(root: &Path) -> Result<Vec<Found>, Failure> {
    let mut folders = vec![root.to_path_buf()];
    let entries = std::fs::read_dir(root).map_err(|error| unreadable(root, &error))?;
    folders.extend(
        entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()).take(MOST_FOLDERS),
    );
    folders.sort();
    let mut found = Vec::new();
    for folder in folders {
        for name in ROUTE_FILES {
            let path = folder.join(name);
            if path.is_file() {
                found.push(read_service(root, folder.clone(), &path)?);
                break;
            }
        }
    }
    let mut seen: BTreeMap<&ServiceName, &str> = BTreeMap::new();
    for one in &found {
        let Some(service) = &one.service else { continue };
        if let Some(other) = seen.insert(service, &one.route_file) {
            return Err(Failure::new(Exit::Failed, 1010, format!("two route files name {service}"))
                .at(format!("{other} and {}", one.route_file))
                .fix("give one of them another service name, or write a mesh.yaml"));
        }
    }
    Ok(found)
}

fn read_service(root: &Path, folder: PathBuf, path: &Path) -> Result<Found, Failure> {
    let text = read_text(path)?;
    let route_file = path.strip_prefix(root).unwrap_or(path).display().to_string();
    Ok(Found { service: service_name(&text), app: fast_api(&folder), folder, route_file, text })
}

/// Reads a text file of bounded size.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, &error))?;
    if !metadata.is_file() || metadata.len() > LARGEST_FILE {
        return Err(Failure::new(Exit::Failed, 1005, format!("cannot read {}", path.display()))
            .because(format!("it is no ordinary file of at most {LARGEST_FILE} bytes")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))
}

/// The value of the top-level key `service`. Only the name is needed to find the application; the control plane judges the
/// file as a whole.
pub(crate) fn service_name(text: &str) -> Option<ServiceName> {
    let document: serde_json::Value = serde_saphyr::from_str(text).ok()?;
    ServiceName::from_host(document.get("service")?.as_str()?, hms_model::names::DEFAULT_NAMESPACE).ok()
}

/// The `FastAPI` application of a folder: `app.py` before `main.py`.
pub(crate) fn fast_api(folder: &Path) -> Option<FastApi> {
    ["app", "main"].into_iter().find_map(|module| {
        let text = read_text(&folder.join(format!("{module}.py"))).ok()?;
        text.lines().enumerate().find_map(|(index, line)| {
            let variable = assigned_fast_api(line)?;
            Some(FastApi {
                module: module.to_owned(),
                variable: variable.to_owned(),
                origin: format!("{module}.py:{}", index + 1),
            })
        })
    })
}

/// `app` of `app = FastAPI(…)`, `app: FastAPI = fastapi.FastAPI(…)`; top level only.
fn assigned_fast_api(line: &str) -> Option<&str> {
    let (left, right) = line.split_once('=')?;
    let call = right.trim_start();
    let call = call.strip_prefix("fastapi.").unwrap_or(call);
    if !call.starts_with("FastAPI(") || left.starts_with(char::is_whitespace) {
        return None;
    }
    let name = left.split(':').next()?.trim();
    let valid = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_alphanumeric() || c == '_');
    valid.then_some(name)
}

/// The Python to run a folder's application with: of a `.venv` in the folder or the project, of `VIRTUAL_ENV`, or of `PATH`.
pub(crate) fn python(settings: &Settings, folder: &Path, root: &Path) -> PathBuf {
    let environments = [folder.join(".venv"), root.join(".venv"), folder.join("venv"), root.join("venv")];
    let virtual_env = settings.environment.text("VIRTUAL_ENV").map(PathBuf::from);
    environments
        .into_iter()
        .chain(virtual_env)
        .map(|environment| environment.join("bin/python3"))
        .chain(settings.search_path().into_iter().map(|entry| entry.join("python3")))
        .find(|program| program.is_file())
        .unwrap_or_else(|| PathBuf::from("python3"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seeds_folder_is_understood() {
        let lab = tempfile::tempdir().unwrap();
        for (folder, service, route) in
            [("hello_svc", "hello-svc", "GET /hello"), ("calc_svc", "calc-svc", "GET /sum/{a}/{b}")]
        {
            let folder = lab.path().join(folder);
            std::fs::create_dir(&folder).unwrap();
            std::fs::write(folder.join("route.yaml"), format!("service: {service}\nroutes:\n  - {route}\n")).unwrap();
            std::fs::write(folder.join("app.py"), "from fastapi import FastAPI\napp = FastAPI()\n").unwrap();
        }
        std::fs::create_dir(lab.path().join("docs")).unwrap();
        let found = services(lab.path()).unwrap();
        let names: Vec<String> = found.iter().map(|one| one.service.as_ref().unwrap().to_string()).collect();
        assert_eq!(names, ["calc-svc", "hello-svc"]);
        assert_eq!(found[0].route_file, "calc_svc/route.yaml");
        let app = found[0].app.as_ref().unwrap();
        assert_eq!((app.target().as_str(), app.origin.as_str()), ("app:app", "app.py:2"));
    }

    #[test]
    fn json_route_files_and_other_variable_names_work() {
        let lab = tempfile::tempdir().unwrap();
        let folder = lab.path().join("a");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(folder.join("route.json"), r#"{"service": "a-svc", "routes": ["GET /"]}"#).unwrap();
        std::fs::write(folder.join("main.py"), "import fastapi\nweb: fastapi.FastAPI = fastapi.FastAPI(title='x')\n")
            .unwrap();
        let found = services(lab.path()).unwrap();
        assert_eq!(found[0].app.as_ref().unwrap().target(), "main:web");
        assert_eq!(found[0].service, ServiceName::new("a-svc").ok());
    }

    #[test]
    fn only_top_level_assignments_count() {
        assert_eq!(assigned_fast_api("app = FastAPI()"), Some("app"));
        assert_eq!(assigned_fast_api("app=FastAPI(title='a=b')"), Some("app"));
        for line in
            ["    app = FastAPI()", "# app = FastAPI()", "app = Flask()", "app == FastAPI()", "x.app = FastAPI()"]
        {
            assert_eq!(assigned_fast_api(line), None, "{line}");
        }
    }

    #[test]
    fn two_files_for_one_service_are_refused() {
        let lab = tempfile::tempdir().unwrap();
        for folder in ["a", "b"] {
            std::fs::create_dir(lab.path().join(folder)).unwrap();
            std::fs::write(lab.path().join(folder).join("route.yaml"), "service: x\nroutes: []\n").unwrap();
        }
        assert_eq!(services(lab.path()).unwrap_err().code().to_string(), "HMS-1010");
    }
}
