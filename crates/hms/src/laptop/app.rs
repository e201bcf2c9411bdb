//! Starting an application under its shepherd, and knowing how it fares.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::process::{Child, Command};

use super::environment::Variables;
use super::intercept::{self, Capture};
use super::journal::{Journal, Source};
use super::sidecar::Surroundings;
use super::trust::GatewayRecord;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes::{self, ProcessId};

/// What the shepherd needs at most: its five seconds, and a little to get there.
const LONGEST_END: Duration = Duration::from_secs(7);

/// How an application is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Program {
    /// A line for the shell, as in `mesh.yaml`.
    Shell(String),
    /// A program and its arguments; an argument that is exactly `$PORT` becomes the port.
    Arguments(Vec<OsString>),
}

impl Program {
    /// The command line with the port filled in.
    pub(crate) fn words(&self, port: u16) -> Vec<OsString> {
        match self {
            Self::Shell(line) => vec!["/bin/sh".into(), "-c".into(), line.into()],
            Self::Arguments(words) => words
                .iter()
                .map(|word| if word == "$PORT" { OsString::from(port.to_string()) } else { word.clone() })
                .collect(),
        }
    }

    /// The command as a person would write it.
    pub(crate) fn display(&self) -> String {
        match self {
            Self::Shell(line) => line.clone(),
            Self::Arguments(words) => {
                let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
                words.join(" ")
            }
        }
    }
}

/// An application to start.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// The program.
    pub(crate) program: Program,
    /// Its working directory.
    pub(crate) folder: PathBuf,
    /// Variables the person asked for; they win over ours.
    pub(crate) variables: BTreeMap<String, String>,
    /// How it is captured.
    pub(crate) capture: Capture,
    /// Ports of the laptop's loopback that it may use.
    pub(crate) host_ports: Vec<u16>,
    /// Whether it keeps the terminal and the process group of `hms run`.
    pub(crate) interactive: bool,
}

/// A running application.
#[derive(Debug)]
pub(crate) struct App {
    child: Child,
    shepherd: ProcessId,
}

impl App {
    /// Starts it.
    pub(crate) fn start(
        service: &str,
        plan: &Plan,
        variables: &Variables,
        port: u16,
        (around, proxy, journal): (&Surroundings, &Path, &Journal),
    ) -> Result<Self, Failure> {
        let failed = |why: String| {
            Failure::new(Exit::Failed, 1103, format!("cannot start {service}"))
                .at(plan.program.display())
                .because(why)
                .fix(format!("check that {} is a folder", plan.folder.display()))
        };
        let mut command = shepherd(around, plan, proxy);
        command.arg("--own-port").arg(port.to_string());
        if plan.interactive {
            command.stdin(Stdio::inherit()).stdout(Stdio::inherit()).stderr(Stdio::inherit());
        } else {
            command.arg("--own-group").process_group(0);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        command
            .arg("--")
            .args(plan.program.words(port))
            .current_dir(&plan.folder)
            .envs(variables)
            .envs(&plan.variables);
        journal.forget();
        let mut child = command.spawn().map_err(|error| failed(error.to_string()))?;
        if let Some(stdout) = child.stdout.take() {
            journal.follow(Source::App, stdout);
        }
        if let Some(stderr) = child.stderr.take() {
            journal.follow(Source::App, stderr);
        }
        let pid = child.id().unwrap_or_default();
        Ok(Self { child, shepherd: ProcessId::of(pid).unwrap_or(ProcessId { pid, start_time: 0 }) })
    }

    /// The application's process, whose parents are programs of ours. The shepherd's own number until it has one.
    pub(crate) fn pid(&self) -> u32 {
        let below = processes::descendants(self.shepherd.pid);
        below.into_iter().find(|pid| !processes::is_ours(*pid)).unwrap_or(self.shepherd.pid)
    }

    /// Whether that is known.
    pub(crate) fn is_known(&self, pid: u32) -> bool {
        pid != self.shepherd.pid
    }

    /// Whether anything listens on a port of the network it lives in.
    pub(crate) fn is_listened_on(&self, port: u16, private: bool) -> bool {
        if !private {
            return processes::is_listened_on(port);
        }
        let below = processes::descendants(self.shepherd.pid);
        below.last().is_some_and(|pid| processes::is_listened_on_beside(*pid, port))
    }

    /// Where it, or anything it started, listens.
    pub(crate) fn listening(&self) -> Vec<SocketAddr> {
        processes::listening(&processes::descendants(self.shepherd.pid))
    }

    /// Waits until it ends; its exit code. Safe to drop and call again.
    pub(crate) async fn ended(&mut self) -> u8 {
        match self.child.wait().await {
            Ok(status) => self.after(status).await,
            Err(_) => 1,
        }
    }

    /// If the shepherd itself was killed, the kernel killed the application; what that had started came to us, and ends too.
    async fn after(&self, status: ExitStatus) -> u8 {
        use std::os::unix::process::ExitStatusExt as _;
        if status.signal().is_some() {
            end_strays(self.shepherd.pid).await;
        }
        exit_code(status)
    }

    /// SIGTERM, five seconds, SIGKILL; returns when every process of it is gone.
    pub(crate) async fn stop(&mut self) {
        self.shepherd.signal(Signal::SIGTERM);
        if tokio::time::timeout(LONGEST_END, self.child.wait()).await.is_err() {
            tracing::warn!(pid = self.shepherd.pid, "shepherd did not finish; killed");
            drop(self.child.kill().await);
            end_strays(self.shepherd.pid).await;
        }
    }
}

/// The shepherd of an application, without the application.
fn shepherd(around: &Surroundings, plan: &Plan, proxy: &Path) -> Command {
    let mut command = Command::new(&around.program);
    command.arg("__shepherd").args(["--mode", plan.capture.mode.of_shepherd()]);
    command.arg("--lifeline").arg(&around.lifeline).arg("--proxy").arg(proxy);
    for mask in intercept::masks(&around.project) {
        command.arg("--mask").arg(mask);
    }
    // `hms env` leads curl to the gateway's port on this loopback; from a network of its own that is another loopback.
    let gateway = GatewayRecord::read(&around.project).map(|gateway| gateway.https.port());
    let ports: BTreeSet<u16> = plan.host_ports.iter().copied().chain(gateway).collect();
    for port in ports {
        command.arg("--host-port").arg(port.to_string());
    }
    command
}

/// The shell's convention: the code, or 128 + signal.
fn exit_code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    u8::try_from(code & 0xff).unwrap_or(1)
}

/// Kills children of this process that it did not start itself: orphans that were handed to it as their reaper. Each of our
/// own children runs one of our two programs. What the dying have started meanwhile comes to us as well, and dies in the next round.
async fn end_strays(shepherd: u32) {
    /// A second; only a process that hangs in the kernel outlives that.
    const ROUNDS: u32 = 200;
    const TICK: Duration = Duration::from_millis(5);
    for _ in 0..ROUNDS {
        let orphans = processes::children(std::process::id());
        let strays: Vec<u32> =
            orphans.into_iter().filter(|pid| *pid != shepherd && !processes::is_ours(*pid)).collect();
        if strays.is_empty() {
            return;
        }
        for pid in strays {
            let whole = std::iter::once(pid).chain(processes::descendants(pid));
            for process in whole.filter_map(ProcessId::of) {
                process.signal(Signal::SIGKILL);
            }
        }
        tokio::time::sleep(TICK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_filled_in_without_a_shell() {
        let program = Program::Arguments(["uvicorn", "app:app", "--port", "$PORT"].map(OsString::from).to_vec());
        assert_eq!(program.words(8000), ["uvicorn", "app:app", "--port", "8000"].map(OsString::from));
        assert_eq!(program.display(), "uvicorn app:app --port $PORT");
        let line = Program::Shell("uvicorn app:app --port $PORT".into());
        assert_eq!(line.words(8000).first(), Some(&OsString::from("/bin/sh")));
    }
}
