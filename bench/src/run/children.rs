//! Processes that a run starts. None outlives it: each ends with the value that stands for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::interrupt::Interrupt;
use super::kernel;
use crate::Outcome;
use crate::clock::now;

/// How often a state is looked at; as exact as the start of a proxy is measured.
const LOOK: Duration = Duration::from_millis(1);
/// How often a load is looked at, which must not be disturbed.
const GLANCE: Duration = Duration::from_millis(20);

/// A program that runs until it is no longer needed.
pub(crate) struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Starts it, with what it says in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let name = described(command);
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let again = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stdin(Stdio::piped()).stdout(file).stderr(again).spawn();
        Ok(Self {
            child: child.map_err(|error| format!("`{name}` does not start: {error}"))?,
            name,
            log: log.to_owned(),
        })
    }

    /// Starts it with pipes, for whoever talks to it.
    pub(crate) fn piped(command: &mut Command) -> Outcome<Self> {
        let name = described(command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Ok(Self {
            child: child.map_err(|error| format!("`{name}` does not start: {error}"))?,
            name,
            log: PathBuf::new(),
        })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process and those that it started.
    pub(crate) fn family(&self) -> Vec<u32> {
        kernel::family(self.pid())
    }

    /// The last lines of what it said, for failures.
    pub(crate) fn said(&self) -> String {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(10)..).unwrap_or_default().join("\n")
    }

    /// Its ends of the pipes.
    pub(crate) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// An error if it has ended.
    pub(crate) fn lives(&mut self) -> Outcome {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("`{}` ended with {status}", self.name)),
            Err(error) => Err(format!("`{}`: {error}", self.name)),
        }
    }
}

impl Drop for Program {
    /// Ends it with all that it started, at once: nothing here has anything to finish.
    fn drop(&mut self) {
        self.family().into_iter().for_each(end);
        let _gone_is_fine = self.child.wait();
    }
}

/// Ends a process; one that has ended needs nothing.
pub(crate) fn end(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone_is_fine = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
}

/// Runs a command to its end and returns what it printed. Ctrl-C and the limit end it.
pub(crate) fn finish(command: &mut Command, limit: Duration, interrupt: &Interrupt) -> Outcome<String> {
    let name = described(command);
    let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
    let (out, err) = (folder.path().join("out"), folder.path().join("err"));
    let file = |path: &Path| File::create(path).map_err(|error| format!("{}: {error}", path.display()));
    let child = command.stdin(Stdio::null()).stdout(file(&out)?).stderr(file(&err)?).spawn();
    let child = child.map_err(|error| format!("`{name}` does not start: {error}"))?;
    let mut program = Program { child, name, log: PathBuf::new() };
    let end = now() + limit;
    let status = loop {
        match program.child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if now() < end => interrupt.pause(GLANCE)?,
            Ok(None) => return Err(format!("`{}` still runs after {limit:?}", program.name)),
            Err(error) => return Err(format!("`{}`: {error}", program.name)),
        }
    };
    let said = fs::read_to_string(&out).unwrap_or_default();
    if status.success() {
        return Ok(said);
    }
    let why = fs::read_to_string(&err).unwrap_or_default();
    Err(format!("`{}` ended with {status}\n{said}{why}", program.name))
}

/// Asks again until something is so, within a limit. The error repeats what was seen last.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    interrupt: &Interrupt,
    mut look: impl FnMut() -> Outcome<T>,
) -> Outcome<T> {
    let end = now() + limit;
    loop {
        match look() {
            Ok(value) => return Ok(value),
            Err(seen) if now() >= end => return Err(format!("not within {limit:?}: {what}; seen: {seen}")),
            Err(_) => interrupt.pause(LOOK)?,
        }
    }
}

/// The command as a person would type it.
fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}
