//! The project's own commands. One file each; this one only finds the right one.

use std::io::{self, Write as _};
use std::iter;
use std::process::ExitCode;

mod bench;
mod codegen;
mod debian;
mod demo;
mod drift;
mod engine;
mod examples;
mod fuzz;
mod golang;
mod process;
mod python;
mod reference;
mod settings;
mod size;
mod steps;
mod test;
mod tidy;

/// What a command answers: nothing, or one sentence about what went wrong.
type Outcome = Result<(), String>;

/// A command by its name, with the line that `cargo xtask` shows for it.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[
    Command {
        name: "demo",
        about: "start examples/hello and make the lab's calls; runs until Ctrl-C, --exit ends after the calls",
        run: demo::run,
    },
    Command {
        name: "test",
        about: "everything CI runs, in its order; `test STEP...` runs only these, `test --list` names them",
        run: test::run,
    },
    Command {
        name: "tidy",
        about: "our own rules over the tree: floors, sizes, left-over markers, codes, decisions, links",
        run: tidy::run,
    },
    Command {
        name: "codegen",
        about: "regenerate crates/wire/src/gen from api/proto; --check only compares",
        run: codegen::run,
    },
    Command {
        name: "reference",
        about: "regenerate the generated pages of docs/reference; --check only compares",
        run: reference::run,
    },
    Command {
        name: "drift",
        about: "whether everything generated follows its source: protobuf, OpenAPI, reference pages",
        run: drift::run,
    },
    Command {
        name: "fuzz",
        about: "fuzz one target of fuzz/ for some seconds; --smoke runs each for a short time, --list names them",
        run: fuzz::run,
    },
    Command {
        name: "size",
        about: "build hms-proxy for release and hold its stripped size to its bound",
        run: size::run,
    },
    Command {
        name: "engine",
        about: "the test of containers with a real Docker Engine and Compose, fetched and run in namespaces of its own; as root",
        run: engine::run,
    },
    Command {
        name: "bench",
        about: "measure ours against nginx, haproxy and envoy; [--quick] [--only CASE,…] [--peer …] [--json FILE] [--page FILE]",
        run: bench::run,
    },
];

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    let outcome = match COMMANDS.iter().find(|command| command.name == name) {
        Some(command) => (command.run)(&arguments),
        None => Err(usage(&name)),
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

fn usage(name: &str) -> String {
    let first = match name {
        "" => "usage: cargo xtask COMMAND".to_owned(),
        _ => format!("`{name}` is no command of xtask"),
    };
    let commands = COMMANDS.iter().map(|command| format!("  {:<10} {}", command.name, command.about));
    iter::once(first).chain(commands).collect::<Vec<_>>().join("\n")
}

/// The answer of a command that takes only `--check`: whether it stood there.
fn only_check(name: &str, arguments: &[String]) -> Result<bool, String> {
    match arguments {
        [] => Ok(false),
        [flag] if flag == "--check" => Ok(true),
        _ => Err(format!("usage: cargo xtask {name} [--check]")),
    }
}
