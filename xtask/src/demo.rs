//! `cargo xtask demo`: the hands-on lab, made by a program that shows what it types and what comes back.

mod calls;
mod interrupt;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use calls::{CALLS, Call, Kind};
use interrupt::Interrupt;

use crate::Outcome;
use crate::process::{self, Stopwatch, capture, cargo_command, say};
use crate::python::{self, Venv};
use crate::settings::{path_after, root, target};

/// Longest time an opened breaker may take to close by itself: 30 s and a tenth, the probe, and a slow machine.
const PATIENCE: f64 = 60.0;
const LOOK: Duration = Duration::from_millis(500);

/// Runs it; with `--exit` it ends after the calls.
pub(crate) fn run(arguments: &[String]) -> Outcome {
    let stay = match arguments {
        [] => true,
        [flag] if flag == "--exit" => false,
        _ => return Err("usage: cargo xtask demo [--exit]".to_owned()),
    };
    say("building hms and hms-proxy (debug profile)");
    process::run(&mut cargo_command(&["build", "-p", "hms", "-p", "hms-proxy"]))?;
    let mesh = Mesh { venv: Venv::with(&python::DEMO)?, interrupt: Interrupt::watch()? };
    let shown = mesh.show(stay);
    // Also after a failure: nothing is left running.
    say("\n$ hms down");
    let down = mesh.shell("hms down").and_then(|mut command| process::run(&mut command));
    shown.and(down)
}

/// The project in `examples/hello`, and how to reach it.
struct Mesh {
    venv: Venv,
    interrupt: Interrupt,
}

impl Mesh {
    fn show(&self, stay: bool) -> Outcome {
        say(&format!("\n$ cd {}", project().display()));
        say("$ hms up -d --wait");
        process::run(&mut self.shell("hms up -d --wait")?)?;
        say("\n$ eval \"$(hms env)\"");
        let mut wrong = Vec::new();
        for call in &CALLS {
            if !self.make(call)? {
                wrong.push(call.title);
            }
        }
        if !wrong.is_empty() {
            return Err(format!("not as expected: {}", wrong.join("; ")));
        }
        say("\nevery answer was as expected");
        if stay { self.stay() } else { Ok(()) }
    }

    /// Makes one call, shows it, and says whether the answer is the expected one.
    fn make(&self, call: &Call) -> Result<bool, String> {
        say(&format!("\n# {}\n$ {}", call.title, call.line));
        let (output, good) = match call.kind {
            Kind::Once => {
                let output = self.answer(call.line)?;
                let good = call.fits(&output);
                (output, good)
            }
            Kind::Until => self.until(call)?,
        };
        say(output.trim_end());
        if !good {
            say(&format!("^ NOT AS EXPECTED: {}", call.expected()));
        }
        Ok(good)
    }

    /// Asks again until the answer fits, at most [`PATIENCE`] seconds.
    fn until(&self, call: &Call) -> Result<(String, bool), String> {
        let watch = Stopwatch::start();
        loop {
            let output = self.answer(call.line)?;
            if call.fits(&output) {
                return Ok((format!("{}\n(after {:.0} s)", output.trim_end(), watch.seconds()), true));
            }
            if watch.seconds() > PATIENCE {
                return Ok((output, false));
            }
            if self.interrupt.within(Some(LOOK))? {
                return Err("interrupted".to_owned());
            }
        }
    }

    /// What a line of shell says, on both streams. An exit code other than 0 is part of the answer: the words decide.
    fn answer(&self, line: &str) -> Result<String, String> {
        let output = capture(&mut self.shell(&format!("eval \"$(hms env)\" && {line}"))?)?;
        let said = [output.stdout, output.stderr].concat();
        Ok(String::from_utf8_lossy(&said).replace('\r', ""))
    }

    fn stay(&self) -> Outcome {
        let folder = project();
        say(&format!(
            "\nThe mesh keeps running. In another terminal:\n\n  export PATH=\"{}:$PATH\"\n  cd {}\n  eval \"$(hms env)\"\n  \
             curl -H \"Authorization: Bearer $JWT\" https://gateway.local/sum/2/3\n  hms tap calc-svc\n\n\
             Ctrl-C here stops it.",
            binaries().display(),
            folder.display()
        ));
        self.interrupt.within(None).map(drop)
    }

    /// A shell in the project's folder that finds our binaries, and whose applications find our Python.
    fn shell(&self, line: &str) -> Result<Command, String> {
        let path: OsString = path_after(&[binaries(), self.venv.folder().join("bin")])?;
        let mut command = Command::new("sh");
        command.args(["-c", line]).current_dir(project()).env("PATH", path).env("VIRTUAL_ENV", self.venv.folder());
        Ok(command)
    }
}

fn project() -> PathBuf {
    root().join("examples/hello")
}

fn binaries() -> PathBuf {
    target().join("debug")
}
