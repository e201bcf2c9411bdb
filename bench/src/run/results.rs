//! Figures by case, owner and metric.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::bed::Who;
use super::case::{CASES, Case, Metric};
use super::kernel::Machine;
use super::peers::Peer;
use crate::figure::{median, min};

/// The name of a case, of what, of whom.
type Key = (&'static str, Metric, Who);

/// One figure for many.
type Summary = fn(&[f64]) -> Option<f64>;

/// What was measured, every round.
#[derive(Debug, Default)]
pub(crate) struct Results(BTreeMap<Key, Vec<f64>>);

impl Results {
    /// Adds one figure.
    pub(crate) fn add(&mut self, case: &Case, metric: Metric, who: Who, value: f64) {
        self.0.entry((case.name, metric, who)).or_default().push(value);
    }

    /// The figure that stands for all rounds. A latency is what is added to direct.
    pub(crate) fn of(&self, case: &str, metric: Metric, who: Who) -> Option<f64> {
        let case = CASES.iter().find(|one| one.name == case)?;
        self.added(case, metric, who, if case.takes_least(metric) { min } else { median })
    }

    /// The same from the medians of all rounds.
    fn median(&self, case: &Case, metric: Metric, who: Who) -> Option<f64> {
        self.added(case, metric, who, median)
    }

    fn added(&self, case: &Case, metric: Metric, who: Who, of_rounds: Summary) -> Option<f64> {
        let value = of_rounds(self.0.get(&(case.name, metric, who))?)?;
        if who == Who::Direct || !case.subtracts(metric) {
            return Some(value);
        }
        Some(value - of_rounds(self.0.get(&(case.name, metric, Who::Direct))?)?)
    }

    /// What was measured of a case.
    pub(crate) fn metrics(&self, case: &str) -> Vec<Metric> {
        let all = [Metric::Cpu, Metric::P50, Metric::P99, Metric::Rss, Metric::Size];
        let known = |metric: &Metric| self.0.keys().any(|(name, one, _)| *name == case && one == metric);
        all.into_iter().filter(known).collect()
    }

    /// The whole as JSON: a row for each case, metric and peer. Our figures without an access log are rows of a case `…-nolog`.
    pub(crate) fn json(&self, cases: &[&'static Case], peers: &[Peer], machine: &Machine) -> Value {
        let mut rows = Vec::new();
        for case in cases {
            for metric in self.metrics(case.name) {
                for &peer in peers {
                    rows.push(self.row(case, metric, peer, (Who::Ours, "")));
                    if self.of(case.name, metric, Who::OursQuiet).is_some() {
                        rows.push(self.row(case, metric, peer, (Who::OursQuiet, "-nolog")));
                    }
                }
            }
        }
        json!({
            "machine": {
                "processor": machine.processor,
                "processors": machine.processors,
                "memory_mib": machine.memory,
                "kernel": machine.kernel,
                "system": machine.system,
            },
            "rows": rows,
        })
    }

    fn row(&self, case: &Case, metric: Metric, peer: Peer, (who, suffix): (Who, &str)) -> Value {
        let ours = self.of(case.name, metric, who);
        let theirs = self.of(case.name, metric, Who::Peer(peer));
        let mut row = json!({
            "case": format!("{}{suffix}", case.name),
            "peer": peer.name(),
            "metric": metric.to_string(),
            "unit": case.unit(metric),
            "ours": ours,
            "theirs": theirs,
            "ratio": ratio(ours, theirs),
            "ours_median": self.median(case, metric, who),
            "theirs_median": self.median(case, metric, Who::Peer(peer)),
        });
        if let Some(row) = row.as_object_mut().filter(|_| case.subtracts(metric)) {
            row.insert("direct".to_owned(), self.of(case.name, metric, Who::Direct).into());
        }
        if let (Some(row), Some(note)) = (row.as_object_mut(), note(case.name, ours, theirs)) {
            row.insert("note".to_owned(), note.into());
        }
        row
    }
}

/// Ours in terms of theirs; below 1 is better. A figure that noise made negative has none.
pub(crate) fn ratio(ours: Option<f64>, theirs: Option<f64>) -> Option<f64> {
    let (ours, theirs) = (ours?, theirs?);
    (ours > 0.0 && theirs > 0.0).then(|| ours / theirs)
}

/// Why a figure is missing.
pub(crate) fn note(case: &str, ours: Option<f64>, theirs: Option<f64>) -> Option<&'static str> {
    match (case, ours, theirs) {
        ("opaque", _, None) => Some("measured for haproxy only"),
        ("captured-100b", _, None) => Some("no peer captures programs by itself"),
        (_, _, None) => Some("this peer cannot do it"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_stands_for_all_rounds_and_latency_is_what_is_added() {
        let case = CASES.iter().find(|case| case.name == "pair-100b").unwrap();
        let mut results = Results::default();
        for value in [3.0, 1.0, 2.0] {
            results.add(case, Metric::Cpu, Who::Ours, value);
            results.add(case, Metric::P50, Who::Ours, value);
        }
        for value in [0.5, 0.25, 9.0] {
            results.add(case, Metric::P50, Who::Direct, value);
        }
        results.add(case, Metric::Cpu, Who::Peer(Peer::Nginx), 4.0);
        assert_eq!(results.of("pair-100b", Metric::Cpu, Who::Ours), Some(1.0));
        assert_eq!(results.of("pair-100b", Metric::P50, Who::Ours), Some(0.75));
        assert_eq!(results.median(case, Metric::P50, Who::Ours), Some(1.5));
        let json = results.json(&[case], &[Peer::Nginx], &Machine::this());
        let row = &json["rows"][0];
        assert_eq!((row["case"].as_str(), row["peer"].as_str()), (Some("pair-100b"), Some("nginx")));
        assert_eq!((row["ratio"].as_f64(), row["unit"].as_str()), (Some(0.25), Some("us/request")));
        assert!(json["rows"][1]["theirs"].is_null());
    }

    #[test]
    fn there_is_no_ratio_without_both() {
        assert_eq!(ratio(None, Some(1.0)), None);
        assert_eq!(ratio(Some(-1.0), Some(1.0)), None);
        assert_eq!(note("opaque", Some(1.0), None), Some("measured for haproxy only"));
    }
}
