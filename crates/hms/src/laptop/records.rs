//! The records supervisors leave in the runtime folder, so other commands find them, and so leftovers of crashed ones are
//! recognised by process number and start time and removed.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::processes::ProcessId;
use crate::project::{Project, write_file};

/// Which command a supervisor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// `hms up`.
    Up,
    /// `hms run`.
    Run,
    /// `hms control`.
    Control,
}

/// One supervisor, as others see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The process.
    #[serde(flatten)]
    pub(crate) process: ProcessId,
    /// Which command it is.
    pub(crate) kind: Kind,
    /// The project's folder.
    pub(crate) root: PathBuf,
    /// Where its control plane keeps things, if not in the project's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) data: Option<PathBuf>,
}

/// Where a supervisor's files are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    /// The record.
    pub(crate) record: PathBuf,
    /// The socket that takes questions.
    pub(crate) socket: PathBuf,
    /// The lifeline of its children.
    pub(crate) lifeline: PathBuf,
}

impl Paths {
    /// The files of the supervisor with this process number.
    pub(crate) fn of(project: &Project, pid: u32) -> Self {
        let file = |extension: &str| project.supervisors_dir().join(format!("{pid}.{extension}"));
        Self { record: file("json"), socket: file("sock"), lifeline: file("lifeline") }
    }

    /// Removes them; those that are gone already are fine.
    pub(crate) fn remove(&self) {
        for path in [&self.record, &self.socket, &self.lifeline] {
            drop(std::fs::remove_file(path));
        }
    }
}

/// Writes this process's record.
pub(crate) fn announce(project: &Project, kind: Kind, data: Option<&Path>) -> std::io::Result<Paths> {
    let paths = Paths::of(project, std::process::id());
    // A recycled process number may have left files behind.
    paths.remove();
    let data = data.map(std::path::absolute).transpose()?;
    let record = Record { process: ProcessId::own(), kind, root: project.root.clone(), data };
    let text = serde_json::to_string(&record).map_err(std::io::Error::other)?;
    write_file(&paths.record, &text, false)?;
    Ok(paths)
}

/// The living supervisors of a project, oldest first.
pub(crate) fn living(project: &Project) -> Vec<Record> {
    let mut records: Vec<Record> =
        all(project).into_iter().filter_map(|(_, record)| record).filter(|record| record.process.is_alive()).collect();
    records.sort_by_key(|record| (record.process.start_time, record.process.pid));
    records
}

/// Where the project's control plane keeps its things.
pub(crate) fn data_dir(project: &Project) -> PathBuf {
    living(project).into_iter().find_map(|record| record.data).unwrap_or_else(|| project.control_dir())
}

/// Removes what crashed supervisors and control planes left in the runtime folder. Returns one line per leftover.
pub(crate) fn sweep(project: &Project) -> Vec<String> {
    let mut said = Vec::new();
    for (pid, record) in all(project) {
        if record.as_ref().is_some_and(|record| record.process.is_alive()) {
            continue;
        }
        Paths::of(project, pid).remove();
        said.push(format!("stale record of process {pid} removed"));
    }
    for path in [project.control_file(), project.gateway_file()] {
        let stale = std::fs::read_to_string(&path)
            .ok()
            .and_then(|text| serde_json::from_str::<ProcessId>(&text).ok())
            .is_some_and(|process| !process.is_alive());
        if stale && std::fs::remove_file(&path).is_ok() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            said.push(format!("stale {name} removed"));
        }
    }
    said
}

fn all(project: &Project) -> Vec<(u32, Option<Record>)> {
    let Ok(entries) = std::fs::read_dir(project.supervisors_dir()) else { return Vec::new() };
    let mut found: Vec<(u32, Option<Record>)> = entries
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let pid = path.file_stem()?.to_str()?.parse().ok()?;
            (path.extension()? == "json").then(|| (pid, read(&path)))
        })
        .collect();
    found.sort_by_key(|(pid, _)| *pid);
    found
}

fn read(path: &Path) -> Option<Record> {
    serde_json::from_str(&std::fs::read_to_string(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Directories, Environment};

    fn project(home: &Path) -> Project {
        let directories = Directories::resolve(&Environment::of(&[
            ("HOME", home.to_str().unwrap()),
            ("XDG_RUNTIME_DIR", home.join("run").to_str().unwrap()),
        ]))
        .unwrap();
        let project = Project::at(home.to_path_buf(), &directories);
        project.prepare().unwrap();
        project
    }

    #[test]
    fn the_living_stay_and_the_dead_are_swept() {
        let home = tempfile::tempdir().unwrap();
        let project = project(home.path());
        announce(&project, Kind::Up, None).unwrap();
        let own = ProcessId::own();
        let recycled = ProcessId { start_time: own.start_time + 7, ..own };
        let dead = Record {
            process: ProcessId { pid: 999_999_999, ..recycled },
            kind: Kind::Run,
            root: "/".into(),
            data: None,
        };
        let path = Paths::of(&project, 999_999_999);
        std::fs::write(&path.record, serde_json::to_string(&dead).unwrap()).unwrap();
        std::fs::write(&path.socket, "").unwrap();
        std::fs::write(project.control_file(), serde_json::to_string(&recycled).unwrap()).unwrap();
        assert_eq!(living(&project).iter().map(|record| record.process).collect::<Vec<_>>(), [own]);
        insta::assert_debug_snapshot!(sweep(&project), @r#"
        [
            "stale record of process 999999999 removed",
            "stale control.json removed",
        ]
        "#);
        assert!(!path.socket.exists() && sweep(&project).is_empty());
        assert_eq!(living(&project).len(), 1);
    }
}
