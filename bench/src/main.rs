//! `hms-bench`: what proxies cost, ours and the peers', measured in alternation in one run.
//!
//! One program with a tool for each part of a measurement, so that a run needs nothing but itself: `run` is what
//! `cargo xtask bench` calls, the others are started by it. What is measured and why is written in `docs/benchmarks.md`.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

mod arguments;
mod clock;
mod figure;
mod run;
mod settings;
mod tool;

/// What a tool answers: nothing, or one sentence about what went wrong.
type Outcome<T = ()> = Result<T, String>;

/// A tool by its name.
type Tool = (&'static str, fn(Vec<OsString>) -> Outcome);

const TOOLS: &[Tool] = &[
    ("run", run::main),
    ("backend", tool::backend::main),
    ("open-loop", tool::open_loop::main),
    ("hold", tool::hold::main),
    ("handshake", tool::handshake::main),
    ("pump", tool::pump::main),
];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    let outcome = match TOOLS.iter().find(|(known, _)| name == *known) {
        Some((_, tool)) => tool(arguments.collect()),
        None => Err(usage()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to do if even the error cannot be written; the exit code still tells.
            let _closed = writeln!(io::stderr(), "{message}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> String {
    let names: Vec<&str> = TOOLS.iter().map(|(name, _)| *name).collect();
    format!("usage: hms-bench {}", names.join("|"))
}

/// Prints one line at once; a tool's answer to whoever started it.
fn say(line: &str) {
    let mut out = io::stdout().lock();
    // A reader that went away ends nothing; the exit code still tells.
    let _closed = writeln!(out, "{line}").and_then(|()| out.flush());
}
