//! The project's goals, against what was measured.

use super::bed::Who;
use super::case::Metric;
use super::peers::Peer;
use super::report::aligned;
use super::results::{Results, ratio};
use crate::figure::shown;

const NGINX: Who = Who::Peer(Peer::Nginx);
const HAPROXY: Who = Who::Peer(Peer::Haproxy);
const ENVOY: Who = Who::Peer(Peer::Envoy);

/// What a goal is about.
enum Measure {
    /// Our figure as a share of a peer's.
    Share(&'static str, Metric, Who),
    /// Our figure, divided by this.
    Own(&'static str, Metric, f64),
    /// By how much the first of our figures is above the second.
    Above(&'static str, &'static str, Metric),
}

/// One line of the table: what, how much at most, and the limit that may never be crossed.
struct Goal {
    figure: &'static str,
    measure: Measure,
    most: f64,
    floor: Option<f64>,
    unit: &'static str,
}

const fn share(figure: &'static str, case: &'static str, who: Who, most: f64, floor: Option<f64>) -> Goal {
    let unit = match who {
        NGINX => "× nginx",
        HAPROXY => "× haproxy",
        _ => "× envoy",
    };
    Goal { figure, measure: Measure::Share(case, Metric::Cpu, who), most, floor, unit }
}

const fn own(
    figure: &'static str,
    (case, metric, divisor): (&'static str, Metric, f64),
    most: f64,
    floor: Option<f64>,
    unit: &'static str,
) -> Goal {
    Goal { figure, measure: Measure::Own(case, metric, divisor), most, floor, unit }
}

/// A megabyte in KiB, and in bytes.
const MB_IN_KIB: f64 = 1_000_000.0 / 1024.0;
const MB: f64 = 1_000_000.0;

const GOALS: &[Goal] = &[
    share("pair mTLS 100 B, CPU per request", "pair-100b", NGINX, 0.75, Some(1.0)),
    share("pair mTLS 100 B, CPU per request", "pair-100b", HAPROXY, 1.0, Some(1.0)),
    share("pair mTLS 100 B, CPU per request", "pair-100b", ENVOY, 0.28, None),
    share("pair mTLS 16 KiB, CPU per request", "pair-16k", NGINX, 0.65, Some(1.0)),
    share("plain hop 100 B, CPU per request", "plain-100b", NGINX, 1.0, None),
    share("plain hop 100 B, CPU per request", "plain-100b", HAPROXY, 1.0, Some(1.0)),
    own("added p50, one plain hop", ("plain-100b", Metric::P50, 1.0), 80.0, None, "us"),
    own("added p99, one plain hop", ("plain-100b", Metric::P99, 1.0), 300.0, Some(2000.0), "us"),
    own("added p50, per hop of a pair", ("pair-100b", Metric::P50, 2.0), 80.0, None, "us"),
    own("added p99, per hop of a pair", ("pair-100b", Metric::P99, 2.0), 300.0, Some(2000.0), "us"),
    Goal {
        figure: "added p50 of capture, a captured pair above a pair",
        measure: Measure::Above("captured-100b", "pair-100b", Metric::P50),
        most: 60.0,
        floor: None,
        unit: "us",
    },
    own("memory of one proxy, idle", ("start", Metric::Rss, MB_IN_KIB), 6.0, Some(52.4), "MB"),
    own("memory per idle connection", ("idle-10k", Metric::Rss, 1.0), 4.0, None, "KiB"),
    own("memory per idle mTLS connection", ("idle-10k-mtls", Metric::Rss, 1.0), 16.0, None, "KiB"),
    own("hms-proxy, stripped", ("start", Metric::Size, MB), 7.0, Some(10.0), "MB"),
    share("mutual handshake + first request", "handshake", NGINX, 0.4, None),
    share("opaque TCP through the pair, CPU per byte", "opaque", HAPROXY, 1.0, None),
    share("HTTP/2 pair, CPU per request", "pair-h2", ENVOY, 0.35, None),
    share("gRPC pair, CPU per request", "pair-grpc", ENVOY, 0.35, None),
    own("start of one proxy until it serves", ("start", Metric::P50, 1.0), 50.0, None, "ms"),
];

/// What other tests hold.
const ELSEWHERE: &str =
    "The goals for the control plane, for a mesh of 10 000 services and for an open breaker are not measured here.\n";

/// The table. Of a whole run it has every goal; what was not measured says so.
pub(crate) fn table(results: &Results, whole: bool) -> String {
    let head = ["figure", "unit", "goal", "floor", "measured", "verdict"].map(str::to_owned).to_vec();
    let rows = GOALS.iter().filter(|goal| whole || goal.measured(results).is_some()).map(|goal| {
        let measured = goal.measured(results);
        vec![
            goal.figure.to_owned(),
            goal.unit.to_owned(),
            format!("≤ {}", limit(goal.most)),
            goal.floor.map_or_else(|| "–".to_owned(), |floor| format!("< {}", limit(floor))),
            measured.map_or_else(|| "–".to_owned(), shown),
            goal.verdict(measured).to_owned(),
        ]
    });
    let table = aligned(&std::iter::once(head).chain(rows).collect::<Vec<_>>());
    format!("{table}\n{ELSEWHERE}")
}

impl Goal {
    fn measured(&self, results: &Results) -> Option<f64> {
        match self.measure {
            Measure::Share(case, metric, who) => {
                ratio(results.of(case, metric, Who::Ours), results.of(case, metric, who))
            }
            Measure::Own(case, metric, divisor) => results.of(case, metric, Who::Ours).map(|value| value / divisor),
            Measure::Above(case, other, metric) => {
                Some(results.of(case, metric, Who::Ours)? - results.of(other, metric, Who::Ours)?)
            }
        }
    }

    fn verdict(&self, measured: Option<f64>) -> &'static str {
        match measured {
            None => "not measured",
            Some(value) if value < 0.0 => "too noisy to tell",
            Some(value) if value <= self.most && self.floor.is_none_or(|floor| value < floor) => "met",
            Some(value) if self.floor.is_some_and(|floor| value >= floor) => "MISSED, floor crossed",
            Some(_) => "missed",
        }
    }
}

/// A limit as it was written.
fn limit(value: f64) -> String {
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::super::case::CASES;
    use super::*;

    #[test]
    fn every_goal_is_about_a_case() {
        for goal in GOALS {
            let (Measure::Share(case, ..) | Measure::Own(case, ..) | Measure::Above(case, ..)) = goal.measure;
            assert!(CASES.iter().any(|known| known.name == case), "{case}");
        }
    }

    #[test]
    fn a_goal_is_met_missed_or_worse() {
        let goal = share("x", "pair-100b", NGINX, 0.75, Some(1.0));
        assert_eq!(goal.verdict(Some(0.75)), "met");
        assert_eq!(goal.verdict(Some(0.9)), "missed");
        assert_eq!(goal.verdict(Some(1.0)), "MISSED, floor crossed");
        assert_eq!(goal.verdict(None), "not measured");
        assert_eq!(goal.verdict(Some(-0.1)), "too noisy to tell");
    }
}
