//! Processes that a run starts. None outlives it: each ends with the value that stands for it.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::interrupt::Interrupt;
use super::kernel;
use crate::Outcome;
use crate::clock::now;

/// How long a program may take to end when it is asked to.
const FAREWELL: Duration = Duration::from_secs(5);
/// How often something is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// A program that runs until it is no longer needed.
pub(crate) struct Program {
    child: Child,
    name: String,
}

impl Program {
    /// Starts it, with what it says in `log`.
    pub(crate) fn start(command: &mut Command, log: &Path) -> Outcome<Self> {
        let name = described(command);
        let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
        let again = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
        let child = command.stdin(Stdio::piped()).stdout(file).stderr(again).spawn();
        Ok(Self { child: child.map_err(|error| format!("`{name}` does not start: {error}"))?, name })
    }

    /// Starts it with pipes, for whoever talks to it.
    pub(crate) fn piped(command: &mut Command) -> Outcome<Self> {
        let name = described(command);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        Ok(Self { child: child.map_err(|error| format!("`{name}` does not start: {error}"))?, name })
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its process and those that it started.
    pub(crate) fn family(&self) -> Vec<u32> {
        kernel::family(self.pid())
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
    /// Asks it to end, then insists.
    fn drop(&mut self) {
        signal(self.pid(), Signal::SIGTERM);
        drop(self.child.stdin.take());
        let end = now() + FAREWELL;
        while now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::park_timeout(LOOK);
        }
        let _gone_is_fine = self.child.kill().and_then(|()| self.child.wait());
    }
}

/// Sends a signal; a process that has ended needs none.
pub(crate) fn signal(pid: u32, signal: Signal) {
    if let Ok(pid) = i32::try_from(pid) {
        let _gone_is_fine = kill(Pid::from_raw(pid), signal);
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
    let mut program = Program { child, name };
    let status = until(&format!("`{}` ends", program.name), limit, interrupt, || {
        program.child.try_wait().map_err(|error| error.to_string())?.ok_or_else(|| "it still runs".to_owned())
    })?;
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
