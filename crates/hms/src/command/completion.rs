//! `hms completion SHELL`.

use clap::CommandFactory as _;

use super::Context;
use crate::cli::Cli;
use crate::exit::Exit;

pub(super) fn run(context: Context<'_>, shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "hms", &mut script);
    context.output.write(&String::from_utf8_lossy(&script));
    Exit::Ok
}
