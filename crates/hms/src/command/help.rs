//! `hms help`, `hms help COMMAND`, `hms help exit-codes`.

use clap::CommandFactory as _;

use super::Context;
use crate::cli::Cli;
use crate::exit::{Exit, TABLE};
use crate::failure::Failure;
use crate::output::table::{Cell, Table};

pub(super) fn run(context: Context<'_>, topic: &[String]) -> Result<Exit, Failure> {
    if topic == ["exit-codes"] {
        let mut table = Table::new(&["CODE", "MEANING"]);
        for (code, meaning) in TABLE {
            table.row(vec![Cell::number(code.to_string()), meaning.into()]);
        }
        context.output.table(&table);
        context.output.line("hms run returns the program's own code; 128 + n if signal n ended it.");
        return Ok(Exit::Ok);
    }
    let mut command = Cli::command();
    command.build();
    for word in topic {
        let Some(found) = command.find_subcommand(word).cloned() else {
            return Err(Failure::new(
                Exit::Usage,
                1021,
                format!("there is no command `{}`", crate::output::clean(word)),
            )
            .fix("hms -h"));
        };
        command = found;
    }
    context.output.write(&command.render_long_help().to_string());
    Ok(Exit::Ok)
}
