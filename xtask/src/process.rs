//! Running other programs and talking to the person who waits for them.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use crate::Outcome;
use crate::settings::{cargo, root};

/// Prints one line at once, so that it stands before what a program prints.
pub(crate) fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away ends nothing: what is asked for is still done, and the exit code tells.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}

/// A cargo command in the workspace.
pub(crate) fn cargo_command<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(cargo());
    command.args(arguments).current_dir(root());
    command
}

/// Runs a program with our own input and output; anything but success is an error.
pub(crate) fn run(command: &mut Command) -> Outcome {
    let status = command.status().map_err(|error| cannot_run(command, &error))?;
    if status.success() { Ok(()) } else { Err(format!("`{}` ended with {status}", described(command))) }
}

/// Does something while a program runs that gets ready what a later step needs. That step runs it again and tells what it said.
pub(crate) fn beside(command: &mut Command, work: fn() -> Outcome) -> Outcome {
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = quiet.spawn().map_err(|error| cannot_run(command, &error))?;
    let outcome = work();
    if outcome.is_err() {
        // It may have ended by itself.
        let _gone = child.kill();
    }
    child.wait().map_err(|error| cannot_run(command, &error))?;
    outcome
}

/// Runs a program and keeps what it says, whatever its exit code.
pub(crate) fn capture(command: &mut Command) -> Result<Output, String> {
    command.output().map_err(|error| cannot_run(command, &error))
}

/// Runs a program and keeps its standard output; anything but success is an error that repeats what it said.
pub(crate) fn output_of(command: &mut Command) -> Result<String, String> {
    let output = capture(command)?;
    if output.status.success() {
        return String::from_utf8(output.stdout)
            .map_err(|_bad| format!("`{}` wrote something that is not UTF-8", described(command)));
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("`{}` ended with {}\n{}", described(command), output.status, said.trim_end()))
}

/// The command as a person would type it.
pub(crate) fn described(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

fn cannot_run(command: &Command, error: &io::Error) -> String {
    format!("`{}` cannot be run: {error}", described(command))
}

/// Seconds on the wall, for people.
pub(crate) struct Stopwatch(Instant);

impl Stopwatch {
    #[expect(clippy::disallowed_methods, reason = "the time a step takes is shown to a person and decides nothing")]
    pub(crate) fn start() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
