//! `hms-bench run`: everything in one run, ours and theirs in alternation, and a table at the end.

mod bed;
mod beds;
mod case;
mod certificates;
mod children;
mod goals;
mod interrupt;
mod kernel;
mod measure;
mod options;
mod ours;
mod page;
mod peers;
mod plan;
mod report;
mod results;

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use beds::Beds;
use interrupt::Interrupt;
use kernel::Machine;
use options::Options;
use plan::Plan;
use results::Results;

use crate::{Outcome, say};

/// The tool.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let options = Options::read(arguments)?;
    let interrupt = Interrupt::watch()?;
    let results = measured(&options, &interrupt)?;
    let machine = Machine::this();
    say("");
    say(&report::tables(&options, &results));
    say(&goals::table(&results, options.whole));
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", results.json(&options.cases, &options.peers, &machine));
        write(path, &text)?;
    }
    if let Some(path) = &options.page {
        let versions = beds::versions(&options)?;
        write(path, &page::page(&options, &results, &machine, &versions))?;
    }
    Ok(())
}

/// Starts everything, measures everything; all that was started has ended when it returns.
fn measured(options: &Options, interrupt: &Interrupt) -> Outcome<Results> {
    let plan = Plan::of(options);
    say(&format!("{} measurements, about {}", plan.steps.len(), plan::shown(plan.estimate())));
    let beds = Beds::start(options, interrupt)?;
    let mut results = Results::default();
    let mut progress = plan.progress();
    for step in &plan.steps {
        let figures = beds.measure(step, plan.times, interrupt).map_err(|why| format!("{step}: {why}"))?;
        for (metric, value) in &figures {
            results.add(step.case, *metric, step.who, *value);
        }
        say(&progress.line(step, &figures));
    }
    Ok(results)
}

fn write(path: &Path, text: &str) -> Outcome {
    fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    say(&format!("written: {}", path.display()));
    Ok(())
}
