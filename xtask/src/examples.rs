//! The examples, installed as their READMEs say, in a folder of their own.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::process::{run, say};
use crate::settings::{path_after, root, target};
use crate::{debian, golang};

/// The heading of what has to be typed once.
const HEADING: &str = "## Install";
/// Written last, so that what was interrupted is begun again.
const STAMP: &str = ".installed";
/// What an installation makes; nobody wrote it.
const MADE: [&str; 4] = ["node_modules", ".venv", "__pycache__", STAMP];
/// What else has no part in it.
const PAGE: &str = "README.md";

/// Where they are.
pub(crate) fn folder() -> PathBuf {
    target().join("examples")
}

/// Installs every example whose files have changed since it was installed.
pub(crate) fn install() -> Result<PathBuf, String> {
    let examples = root().join("examples");
    for name in names(&examples)? {
        let commands = commands(&read(&examples.join(&name).join(PAGE))?);
        one(&examples.join(&name), &folder().join(&name), &commands)?;
    }
    Ok(folder())
}

/// The programs they are written for.
pub(crate) fn programs() -> Outcome {
    debian::program("npm", "--version")?;
    debian::tool("javac", "default-jdk-headless", "-version")?;
    // The Python that everybody on the machine may use, with the part that makes environments.
    let ensurepip = Command::new("/usr/bin/python3").args(["-c", "import ensurepip, venv"]).output();
    if !ensurepip.is_ok_and(|output| output.status.success()) {
        debian::install("python3-venv")?;
    }
    golang::go().map(drop)
}

fn one(from: &Path, to: &Path, commands: &[String]) -> Outcome {
    let mut sources = Vec::new();
    collect(from, "", &mut sources)?;
    let stamp = sources.iter().fold(commands.join("\n"), |all, (name, text)| format!("{all}\n== {name}\n{text}"));
    if fs::read_to_string(to.join(STAMP)).is_ok_and(|last| last == stamp) {
        return Ok(());
    }
    say(&format!("installing {} into {}", from.display(), to.display()));
    let failed = |error: std::io::Error| format!("{}: {error}", to.display());
    if to.exists() {
        fs::remove_dir_all(to).map_err(failed)?;
    }
    for (name, text) in &sources {
        let path = to.join(name);
        fs::create_dir_all(path.parent().unwrap_or(to)).and_then(|()| fs::write(&path, text)).map_err(failed)?;
    }
    for command in commands {
        // Whoever clones the repository builds below a folder of git, which is not ours to look at here.
        run(Command::new("sh")
            .args(["-c", command])
            .current_dir(to)
            .env("PATH", path()?)
            .env("GOFLAGS", "-buildvcs=false"))?;
    }
    fs::write(to.join(STAMP), stamp).map_err(failed)
}

/// The system's programs before those of whoever runs this, because other users must be able to run what is installed.
fn path() -> Result<OsString, String> {
    let go = Path::new(golang::go()?).parent().map(Path::to_path_buf);
    let mut folders: Vec<PathBuf> = ["/usr/local/bin", "/usr/bin", "/bin"].map(PathBuf::from).to_vec();
    folders.extend(go.filter(|folder| folder.is_absolute()));
    path_after(&folders)
}

/// The lines behind `$ ` in the blocks below the heading.
fn commands(page: &str) -> Vec<String> {
    let below = page.lines().skip_while(|line| *line != HEADING).skip(1);
    let section = below.take_while(|line| !line.starts_with("## "));
    section.filter_map(|line| line.strip_prefix("$ ")).map(str::to_owned).collect()
}

fn names(examples: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(examples).map_err(|error| format!("{}: {error}", examples.display()))?;
    let folders = entries.filter_map(Result::ok).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = folders.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Every file that somebody wrote, with its text, ordered by name.
fn collect(folder: &Path, prefix: &str, sources: &mut Vec<(String, String)>) -> Outcome {
    let entries = fs::read_dir(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if MADE.contains(&name.as_str()) || name == PAGE || name.ends_with("_pb2.py") || name.ends_with("_pb2_grpc.py")
        {
            continue;
        }
        if path.is_dir() {
            collect(&path, &format!("{prefix}{name}/"), sources)?;
        } else if let Ok(text) = fs::read_to_string(&path) {
            // What is no text was built.
            sources.push((format!("{prefix}{name}"), text));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_installation_is_typed() {
        let page =
            "# x\n\n## Install\n\n```console\n$ npm ci\n$ go build\n```\n\n## Start\n\n```console\n$ hms up\n```\n";
        assert_eq!(commands(page), ["npm ci", "go build"]);
        assert!(commands("# x\n\n```console\n$ hms up\n```\n").is_empty());
    }
}
