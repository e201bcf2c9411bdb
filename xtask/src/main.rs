//! The project's own commands. One file each; this one only finds the right one.

use std::io::{self, Write as _};
use std::iter;
use std::process::ExitCode;

mod codegen;

/// What a command answers: nothing, or one sentence about what went wrong.
type Outcome = Result<(), String>;

/// A command by its name, with the line that `cargo xtask` shows for it.
struct Command {
    name: &'static str,
    about: &'static str,
    run: fn(&[String]) -> Outcome,
}

const COMMANDS: &[Command] = &[Command {
    name: "codegen",
    about: "regenerate crates/wire/src/gen from api/proto; --check only compares",
    run: codegen::run,
}];

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
