//! `docs/benchmarks.md`, written from a run.

use std::fmt::Write as _;

use super::bed::Who;
use super::case::Metric;
use super::goals;
use super::kernel::Machine;
use super::options::Options;
use super::report::{gaps, tables};
use super::results::Results;
use crate::figure::shown;

/// The whole page.
pub(crate) fn page(options: &Options, results: &Results, machine: &Machine, versions: &[String]) -> String {
    let mut text = include_str!("page/head.md").to_owned();
    let kind = if options.quick {
        "These figures are from a **quick** run, one short round: they show the order of magnitude and nothing more."
    } else {
        "Three rounds, in alternation."
    };
    let direct = |metric| results.of("pair-100b", metric, Who::Direct).map_or_else(|| "–".to_owned(), shown);
    let _infallible = write!(
        text,
        "## The machine\n\n{} × {}, {} MiB, Linux {}, {}. Compared with {}. {kind}\n\n\
         Straight to the backend, without any proxy: median {} us, 99th percentile {} us.\n\n\
         ## Goals\n\n{}\n## Figures\n\nA ratio is ours divided by theirs: below 1 is better for us.\n\n{}",
        machine.processors,
        machine.processor,
        machine.memory,
        machine.kernel,
        machine.system,
        versions.join(", "),
        direct(Metric::P50),
        direct(Metric::P99),
        goals::table(results, true),
        tables(options, results),
    );
    let missing = gaps(options, results);
    if !missing.is_empty() {
        let _infallible = writeln!(text, "### What is missing\n\n- {}\n", missing.join("\n- "));
    }
    let _infallible = writeln!(text, "## What each case is\n\n| case | what it is |\n| --- | --- |");
    for case in &options.cases {
        let _infallible = writeln!(text, "| `{}` | {} |", case.name, case.about);
    }
    text.push_str(include_str!("page/tail.md"));
    text
}
