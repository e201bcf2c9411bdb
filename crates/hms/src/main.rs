//! The mesh on one command line: every command, the laptop's supervisor, and the control plane.

mod catalogue;
mod cli;
mod client;
mod command;
mod exit;
mod failure;
mod laptop;
mod output;
mod processes;
mod project;
mod settings;
mod sim;
mod tasks;
mod views;

use std::process::ExitCode;

use exit::Exit;
use failure::Failure;
use output::Output;
use settings::{Environment, Settings};

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let settings = match Settings::resolve(&cli.globals, Environment::read()) {
        Ok(settings) => settings,
        Err(failure) => return end(Err(failure), &Output::bare()),
    };
    let output = Output::new(&settings);
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::new(Exit::Failed, 1013, "no runtime").because(error.to_string()))
        .and_then(|runtime| {
            let result = runtime.block_on(Box::pin(command::run(cli.command, &settings, &output)));
            // Blocking reads of a terminal would otherwise hold the process.
            runtime.shutdown_background();
            result
        });
    end(result, &output)
}

fn end(result: Result<Exit, Failure>, output: &Output) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(failure) => {
            output.failure(&failure);
            failure.exit().into()
        }
    }
}

/// Help and version go to stdout with code 0, mistakes to stderr with code 2.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody is left to tell when the stream is gone.
    drop(error.print());
    if error.use_stderr() { Exit::Usage.into() } else { Exit::Ok.into() }
}
