//! What is measured in which order, and how long that takes.

use std::fmt;
use std::time::{Duration, Instant};

use super::bed::Who;
use super::case::{Case, Kind, Metric};
use super::options::Options;
use super::peers::Peer;
use crate::clock::now;
use crate::figure::shown as figure;

/// Rounds of a run that is not quick.
const ROUNDS: u32 = 3;

/// How long loads last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    /// Saturation.
    pub(crate) load: Duration,
    /// A fixed rate.
    pub(crate) rate: Duration,
    /// Handshakes, and bytes.
    pub(crate) short: Duration,
}

impl Times {
    const WHOLE: Self =
        Self { load: Duration::from_secs(4), rate: Duration::from_secs(5), short: Duration::from_secs(3) };
    const QUICK: Self =
        Self { load: Duration::from_secs(1), rate: Duration::from_secs(2), short: Duration::from_secs(1) };
}

/// One measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Of what.
    pub(crate) case: &'static Case,
    /// Of whom.
    pub(crate) who: Who,
    /// From 1.
    pub(crate) round: u32,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}, round {}", self.case.name, self.who, self.round)
    }
}

impl Step {
    /// Seconds it takes, roughly.
    fn estimate(&self, times: Times) -> Duration {
        match self.case.kind {
            Kind::Requests { latency, .. } => {
                let load = if self.who == Who::Direct { Duration::ZERO } else { times.load };
                if latency { load + times.rate } else { load }
            }
            Kind::Http2 { .. } => times.load,
            Kind::Bytes | Kind::Handshakes(_) => times.short + Duration::from_millis(200),
            Kind::Idle { count, role } => {
                let each = if role == super::bed::Role::Plain { 250 } else { 1500 };
                Duration::from_secs(1) + Duration::from_micros(each) * count
            }
            Kind::Start => Duration::from_secs(1),
        }
    }
}

/// The whole run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// In this order.
    pub(crate) steps: Vec<Step>,
    /// How long loads last.
    pub(crate) times: Times,
    rounds: u32,
}

impl Plan {
    /// Of a run with these options.
    pub(crate) fn of(options: &Options) -> Self {
        let rounds = if options.quick { 1 } else { ROUNDS };
        let mut steps = Vec::new();
        for round in 1..=rounds {
            for &case in &options.cases {
                if round <= case.rounds(rounds) {
                    steps.extend(contenders(case, &options.peers).into_iter().map(|who| Step { case, who, round }));
                }
            }
        }
        Self { steps, times: if options.quick { Times::QUICK } else { Times::WHOLE }, rounds }
    }

    /// How long it takes, roughly.
    pub(crate) fn estimate(&self) -> Duration {
        self.steps.iter().map(|step| step.estimate(self.times)).sum()
    }

    /// From here on, how far it is.
    pub(crate) fn progress(&self) -> Progress<'_> {
        Progress { plan: self, begin: now(), done: Duration::ZERO, count: 0 }
    }
}

/// Who is measured in a case, in alternation.
fn contenders(case: &Case, peers: &[Peer]) -> Vec<Who> {
    let mut who = Vec::new();
    if matches!(case.kind, Kind::Requests { latency: true, .. }) {
        who.push(Who::Direct);
    }
    who.push(Who::Ours);
    if case.logs() {
        who.push(Who::OursQuiet);
    }
    let able = peers.iter().filter(|peer| case.hop().is_none_or(|hop| peer.can(hop)));
    who.extend(able.map(|peer| Who::Peer(*peer)));
    who
}

/// How far a run is.
pub(crate) struct Progress<'p> {
    plan: &'p Plan,
    begin: Instant,
    done: Duration,
    count: usize,
}

impl Progress<'_> {
    /// The line after a step.
    pub(crate) fn line(&mut self, step: &Step, figures: &[(Metric, f64)]) -> String {
        self.done += step.estimate(self.plan.times);
        self.count += 1;
        let left = self.plan.estimate().saturating_sub(self.done);
        let pace = self.begin.elapsed().as_secs_f64() / self.done.as_secs_f64().max(0.001);
        let figures: Vec<String> = figures
            .iter()
            .map(|(metric, value)| {
                let unit = if step.case.subtracts(*metric) { "us" } else { step.case.unit(*metric) };
                format!("{metric} {} {unit}", figure(*value))
            })
            .collect();
        format!(
            "[{:>3}/{}] round {}/{}  {:<16} {:<12} {}  · {} left",
            self.count,
            self.plan.steps.len(),
            step.round,
            self.plan.rounds,
            step.case.name,
            step.who.to_string(),
            figures.join(", "),
            shown(left.mul_f64(pace)),
        )
    }
}

/// Minutes and seconds.
pub(crate) fn shown(time: Duration) -> String {
    format!("{}:{:02}", time.as_secs() / 60, time.as_secs() % 60)
}

#[cfg(test)]
mod tests {
    use super::super::case::CASES;
    use super::*;

    #[test]
    fn every_round_alternates_between_all_who_can() {
        let all = Options { cases: CASES.iter().collect(), peers: Peer::ALL.to_vec(), ..Options::default() };
        let plan = Plan::of(&all);
        let of = |name: &str| plan.steps.iter().filter(|step| step.case.name == name).map(|step| step.who).collect();
        let http2: Vec<Who> = of("pair-h2");
        let round = [Who::Ours, Who::OursQuiet, Who::Peer(Peer::Haproxy), Who::Peer(Peer::Envoy)];
        assert_eq!(http2, [round, round, round].concat());
        let bytes: Vec<Who> = of("opaque");
        assert_eq!(bytes, [[Who::Ours, Who::Peer(Peer::Haproxy)]; 3].concat());
    }

    #[test]
    fn a_run_is_as_long_as_promised() {
        let mut all = Options { cases: CASES.iter().collect(), peers: Peer::ALL.to_vec(), ..Options::default() };
        assert!(Plan::of(&all).estimate() < Duration::from_mins(18));
        all.quick = true;
        assert!(Plan::of(&all).estimate() < Duration::from_mins(4));
        assert_eq!(shown(Duration::from_secs(61)), "1:01");
    }
}
