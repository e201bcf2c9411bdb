//! The `docker` program: the one way to the engine. It knows which engine the user means (contexts, `DOCKER_HOST`, TLS, rootless), and
//! containers are started by its Compose alone, so there is nothing that a second way could do better.

use std::ffi::{OsStr, OsString};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::exit::Exit;
use crate::failure::Failure;
use crate::settings::Settings;

/// The least Compose: before it, an override could not take ports and networks away from a service (`!reset`).
const LEAST: (u32, u32) = (2, 24);
/// How long a question to the engine may take.
const ANSWER: Duration = Duration::from_secs(30);
/// How long stopping containers may take: each has its own time to end, 10 s by default, and they end in order.
pub(super) const STOPPING: Duration = Duration::from_mins(2);
/// How long making containers may take; who waits has a shorter deadline of its own.
pub(super) const STARTING: Duration = Duration::from_mins(30);
/// Lines of what it said that a failure shows.
const SHOWN: usize = 12;

/// The program.
#[derive(Debug, Clone)]
pub(crate) struct Docker {
    program: PathBuf,
    environment: Vec<(OsString, OsString)>,
}

/// A container as `docker compose ps` tells of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Seen {
    /// The service of the Compose file.
    pub(super) service: String,
    /// The engine's number for it.
    #[serde(rename = "ID", default)]
    pub(super) id: String,
    /// `created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`.
    #[serde(default)]
    pub(super) state: String,
    /// Its image.
    #[serde(default)]
    pub(super) image: String,
    /// How its program ended.
    #[serde(default)]
    pub(super) exit_code: i64,
}

/// Something that happened to a container.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Happened {
    /// The service of the Compose file.
    #[serde(default)]
    pub(super) service: String,
    /// `start`, `die`, `stop` and others.
    #[serde(default)]
    pub(super) action: String,
}

impl Docker {
    /// The program on `PATH`, with a Compose that is new enough.
    pub(crate) async fn find(settings: &Settings) -> Result<Self, Failure> {
        let found = settings.search_path().into_iter().map(|folder| folder.join("docker")).find(|path| path.is_file());
        let program = found.ok_or_else(|| {
            Failure::new(Exit::Failed, 1401, "docker is not installed")
                .because("containers are started by `docker compose`, and no docker is on PATH")
                .fix("install Docker Engine with its Compose plugin: https://docs.docker.com/engine/install")
        })?;
        let docker = Self { program, environment: Vec::new() };
        let said = docker.run(&["compose", "version", "--short"], ANSWER).await.map_err(|failure| {
            let why = format!("`docker compose version` failed: {}", failure.why());
            Failure::new(Exit::Failed, 1402, "docker has no Compose").because(why).fix("install docker-compose-plugin")
        })?;
        match version(&said) {
            Some(found) if found < LEAST => {
                let (major, minor) = LEAST;
                Err(Failure::new(Exit::Failed, 1402, format!("Compose {} is too old", said.trim()))
                    .because(format!("an override takes ports and networks away since {major}.{minor}"))
                    .fix("update docker-compose-plugin"))
            }
            // One that does not tell its version was built by hand.
            _ => Ok(docker),
        }
    }

    /// The same with a variable in its environment.
    #[cfg(test)]
    fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        // Keys of the terminal are for us.
        command.stdin(Stdio::null()).process_group(0);
        command
    }

    /// Runs it to its end; what it wrote to standard output.
    pub(super) async fn run<S: AsRef<OsStr>>(&self, arguments: &[S], patience: Duration) -> Result<String, Failure> {
        let mut command = self.command(arguments);
        let shown: Vec<String> = arguments.iter().map(|word| word.as_ref().to_string_lossy().into_owned()).collect();
        let failed = |why: String| {
            Failure::new(Exit::Failed, 1403, "docker did not do what it was asked")
                .at(format!("docker {}", shown.join(" ")))
                .because(why)
                .fix("run the command by hand; docker info shows whether the engine answers")
        };
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        let group = Group(child.id());
        let output = tokio::time::timeout(patience, child.wait_with_output())
            .await
            .map_err(|_elapsed| failed(format!("no answer within {} s", patience.as_secs())))?
            .map_err(|error| failed(error.to_string()))?;
        group.ended();
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<String> = said.lines().map(crate::output::clean).filter(|line| !line.is_empty()).collect();
        // Docker ends with advice about its options; what is wrong stands before.
        let telling = lines.iter().rev().find(|line| !line.starts_with("Run '"));
        let last = telling.cloned().unwrap_or_else(|| output.status.to_string());
        let from = lines.len().saturating_sub(SHOWN);
        Err(failed(last).log(lines.into_iter().skip(from).collect()))
    }

    /// Where the host is in the network of this name, which is made if there is none: a bridge that leads nowhere else.
    pub(crate) async fn network(&self, name: &str, project: &str) -> Result<IpAddr, Failure> {
        if let Ok(address) = self.gateway(name).await {
            return Ok(address);
        }
        let label = format!("hms.project={project}");
        self.run(&["network", "create", "--internal", "--driver", "bridge", "--label", &label, name], ANSWER).await?;
        self.gateway(name).await
    }

    async fn gateway(&self, name: &str) -> Result<IpAddr, Failure> {
        let format = "{{range .IPAM.Config}}{{.Gateway}} {{end}}";
        let said = self.run(&["network", "inspect", "--format", format, name], ANSWER).await?;
        let first = said.split_ascii_whitespace().find_map(|word| word.split('/').next()?.parse().ok());
        first.ok_or_else(|| {
            Failure::new(Exit::Failed, 1403, format!("the network {name} has no address of this machine"))
                .because("containers reach the control plane there")
                .fix(format!("docker network rm {name}"))
        })
    }

    /// Removes a network; one that is not there is fine.
    pub(super) async fn remove_network(&self, name: &str) -> Result<(), Failure> {
        if self.gateway(name).await.is_err() {
            return Ok(());
        }
        self.run(&["network", "rm", name], ANSWER).await.map(drop)
    }

    /// Compose, over these files.
    pub(super) fn compose(&self, files: &[&Path]) -> Compose {
        let mut words: Vec<OsString> = vec!["compose".into(), "--ansi".into(), "never".into()];
        for file in files {
            words.extend(["-f".into(), file.as_os_str().to_owned()]);
        }
        Compose { docker: self.clone(), words }
    }
}

/// A process with what it started: Compose is a program of its own below `docker`, and would go on making containers after it.
struct Group(Option<u32>);

impl Group {
    /// It has ended by itself.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok()).map(Pid::from_raw);
        if let Some(leader) = leader
            && let Err(error) = killpg(leader, Signal::SIGKILL)
        {
            tracing::debug!(%error, "docker had ended already");
        }
    }
}

/// Compose, over the files of one project.
#[derive(Debug, Clone)]
pub(super) struct Compose {
    docker: Docker,
    words: Vec<OsString>,
}

impl Compose {
    fn words(&self, more: &[&str]) -> Vec<OsString> {
        self.words.iter().cloned().chain(more.iter().map(Into::into)).collect()
    }

    /// Runs a command of Compose to its end.
    pub(super) async fn run(&self, words: &[&str], patience: Duration) -> Result<String, Failure> {
        self.docker.run(&self.words(words), patience).await
    }

    /// Every container of the project.
    pub(super) async fn containers(&self) -> Result<Vec<Seen>, Failure> {
        let said = self.run(&["ps", "--all", "--format", "json"], ANSWER).await?;
        // One document per line.
        Ok(said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What happens to the project's containers from now on. It runs for as long as we do, however we end: under a shepherd.
    pub(super) fn events(&self, proxy: &Path, lifeline: &Path) -> std::io::Result<Events> {
        let mut command = Command::new(proxy);
        command.args(["__shepherd", "--mode", "none", "--own-group", "--lifeline"]).arg(lifeline).arg("--");
        command.arg(&self.docker.program).args(self.words(&["events", "--json"]));
        command.stdin(Stdio::null()).kill_on_drop(true).process_group(0);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let stdout = child.stdout.take().ok_or(std::io::ErrorKind::BrokenPipe)?;
        Ok(Events { _child: child, lines: BufReader::new(stdout).lines() })
    }
}

/// A stream of what happens; it ends with the engine.
#[derive(Debug)]
pub(super) struct Events {
    _child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Events {
    /// The next thing that happened.
    pub(super) async fn next(&mut self) -> Option<Happened> {
        loop {
            let line = self.lines.next_line().await.ok().flatten()?;
            if let Ok(happened) = serde_json::from_str(&line) {
                return Some(happened);
            }
        }
    }
}

/// `2.36` of `v2.36.2-desktop.1`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.trim().trim_start_matches('v').split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert_eq!(version("2.36.2\n"), Some((2, 36)));
        assert_eq!(version("v2.9.0-desktop.1"), Some((2, 9)));
        assert!(version("2.9.0") < Some(LEAST) && version("2.24.0") >= Some(LEAST) && version("10.0.0") >= Some(LEAST));
        assert_eq!(version("dev"), None);
    }

    #[tokio::test]
    async fn what_it_says_in_failing_is_the_reason() {
        let docker = Docker { program: "/bin/sh".into(), environment: Vec::new() }.with("WHY", "no engine");
        let failure = docker.run(&["-c", "echo first >&2; echo \"$WHY\" >&2; exit 3"], ANSWER).await.unwrap_err();
        assert_eq!((failure.code().to_string().as_str(), failure.why()), ("HMS-1403", "no engine"));
    }
}
