//! The tables.

use std::fmt::Write as _;

use super::bed::Who;
use super::case::{Case, Metric};
use super::options::Options;
use super::results::{Results, note, ratio};
use crate::figure::shown;

/// One table per metric, as Markdown that also reads well in a terminal.
pub(crate) fn tables(options: &Options, results: &Results) -> String {
    let metrics = [
        (Metric::Cpu, "Time on a processor, least of all rounds"),
        (
            Metric::P50,
            "Median: latency added to direct at 2 000 requests per second, least of all rounds; time to start, median",
        ),
        (Metric::P99, "99th percentile: latency added to direct at 2 000 requests per second, least of all rounds"),
        (Metric::Rss, "Resident memory, median of all rounds"),
        (Metric::Size, "Size of the program without symbols"),
    ];
    let mut text = String::new();
    for (metric, title) in metrics {
        let cases: Vec<&&Case> =
            options.cases.iter().filter(|case| results.metrics(case.name).contains(&metric)).collect();
        if !cases.is_empty() {
            let _infallible = writeln!(text, "### {title}\n\n{}", aligned(&table(options, results, metric, &cases)));
        }
    }
    text
}

fn table(options: &Options, results: &Results, metric: Metric, cases: &[&&'static Case]) -> Vec<Vec<String>> {
    let quiet = cases.iter().any(|case| results.of(case.name, metric, Who::OursQuiet).is_some());
    let mut head = vec!["case".to_owned(), "unit".to_owned(), "ours".to_owned()];
    if quiet {
        head.push("ours, no log".to_owned());
    }
    for peer in &options.peers {
        head.extend([peer.name().to_owned(), "ratio".to_owned()]);
    }
    let mut rows = vec![head];
    for case in cases {
        let ours = results.of(case.name, metric, Who::Ours);
        let mut row = vec![case.name.to_owned(), case.unit(metric).to_owned(), cell(ours)];
        if quiet {
            row.push(cell(results.of(case.name, metric, Who::OursQuiet)));
        }
        for &peer in &options.peers {
            let theirs = results.of(case.name, metric, Who::Peer(peer));
            row.extend([cell(theirs), cell(ratio(ours, theirs))]);
        }
        rows.push(row);
    }
    rows
}

fn cell(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), shown)
}

/// A Markdown table whose columns stand below each other; figures to the right.
pub(crate) fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default().max(3)).collect();
    let mut text = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < 2 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        let _infallible = writeln!(text, "| {} |", cells.collect::<Vec<_>>().join(" | "));
        if number == 0 {
            let rules = widths.iter().enumerate().map(|(column, &width)| {
                if column < 2 { "-".repeat(width) } else { format!("{}:", "-".repeat(width - 1)) }
            });
            let _infallible = writeln!(text, "| {} |", rules.collect::<Vec<_>>().join(" | "));
        }
    }
    text
}

/// What is missing, and why.
pub(crate) fn gaps(options: &Options, results: &Results) -> Vec<String> {
    let mut gaps = Vec::new();
    for case in &options.cases {
        for metric in results.metrics(case.name) {
            let ours = results.of(case.name, metric, Who::Ours);
            for &peer in &options.peers {
                let theirs = results.of(case.name, metric, Who::Peer(peer));
                let missing = (ours.is_none() || theirs.is_none()).then(|| note(case.name, ours, theirs)).flatten();
                gaps.extend(missing.map(|why| format!("{} against {}: {why}", case.name, peer.name())));
            }
        }
    }
    gaps.sort();
    gaps.dedup();
    gaps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["case", "unit", "ours"], ["pair-100b", "us/request", "17.7"]];
        let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        let expected =
            "| case      | unit       | ours |\n| --------- | ---------- | ---: |\n| pair-100b | us/request | 17.7 |\n";
        assert_eq!(aligned(&rows), expected);
    }
}
