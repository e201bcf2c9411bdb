//! What was counted over the last minute, per pair of services, in slices of five seconds.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hms_model::names::ServiceName;
use hms_wire::proto::hms::v1;
use tokio::time::Instant;

use super::report::text;

/// What is looked back over.
const WINDOW: Duration = Duration::from_mins(1);
/// What is dropped at once when it falls out of the window.
const SLICE: Duration = Duration::from_secs(5);
/// Pairs (and versions) remembered per slice; what comes beyond is counted for `other`.
const PAIRS: usize = 10_000;
/// Upper bounds of the latency buckets in milliseconds; the last bucket has none.
const BOUNDS: [f64; 10] = [1.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 5000.0];

/// What was counted of calls to a service.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Requests per second.
    pub rps: f64,
    /// Share of requests that did not fail, 0 to 1; `None` without requests.
    pub success: Option<f64>,
    /// The 95th percentile of the time to answer, from the buckets; `None` without requests.
    pub p95: Option<Duration>,
    /// Tries after the first.
    pub retries: u64,
    /// Whether every request came over mutual TLS; `None` without requests.
    pub mtls: Option<bool>,
}

/// What was counted of calls to one version of a service since somebody began to watch it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Watched {
    /// Tries that ended, those that another one followed among them.
    pub requests: u64,
    /// Those that failed.
    pub failures: u64,
    /// The 95th percentile of the time to answer, from the buckets; `None` without answers.
    pub p95: Option<Duration>,
}

/// What was counted between two services.
#[derive(Debug, Clone, PartialEq)]
pub struct FlowStats {
    /// Who called.
    pub source: String,
    /// Who was called.
    pub destination: ServiceName,
    /// Which version answered.
    pub version: String,
    /// The figures.
    pub stats: Stats,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    destination: ServiceName,
    source: String,
    version: String,
}

/// Versions that are told apart while a service is watched; what comes beyond is not counted.
const VERSIONS: usize = 64;
/// Services that are watched at the same time.
pub(super) const WATCHED: usize = 1000;

#[derive(Debug, Clone, Default)]
struct Count {
    /// Failed tries that were followed by another; no request is about them.
    rescued: u64,
    requests: u64,
    failures: u64,
    retries: u64,
    plain: u64,
    latency: [u64; BOUNDS.len() + 1],
}

impl Count {
    fn add(&mut self, other: &Self) {
        self.rescued = self.rescued.saturating_add(other.rescued);
        self.requests = self.requests.saturating_add(other.requests);
        self.failures = self.failures.saturating_add(other.failures);
        self.retries = self.retries.saturating_add(other.retries);
        self.plain = self.plain.saturating_add(other.plain);
        for (own, more) in self.latency.iter_mut().zip(other.latency) {
            *own = own.saturating_add(more);
        }
    }

    fn read(flow: &v1::Flow) -> Self {
        let mut count = Self {
            rescued: flow.rescued,
            requests: flow.requests,
            failures: flow.failures.min(flow.requests),
            retries: flow.retries,
            plain: if flow.mtls { 0 } else { flow.requests },
            ..Self::default()
        };
        for (own, value) in count.latency.iter_mut().zip(&flow.latency) {
            *own = *value;
        }
        count
    }

    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn stats(&self, over: Duration) -> Stats {
        if self.requests == 0 {
            return Stats { retries: self.retries, ..Stats::default() };
        }
        let requests = self.requests as f64;
        Stats {
            rps: requests / over.as_secs_f64().max(1.0),
            success: Some(1.0 - self.failures as f64 / requests),
            p95: self.percentile(0.95),
            retries: self.retries,
            mtls: Some(self.plain == 0),
        }
    }

    /// By linear interpolation within the bucket, as Prometheus does; what lies above all bounds is given the last one.
    #[expect(clippy::cast_precision_loss, reason = "figures for people")]
    fn percentile(&self, share: f64) -> Option<Duration> {
        let all: u64 = self.latency.iter().fold(0, |sum, count| sum.saturating_add(*count));
        if all == 0 {
            return None;
        }
        let rank = all as f64 * share;
        let (mut below, mut lower) = (0.0, 0.0);
        for (count, upper) in self.latency.iter().zip(BOUNDS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= rank {
                let milliseconds = lower + (upper - lower) * (rank - below) / count;
                return Some(Duration::from_secs_f64(milliseconds / 1000.0));
            }
            below += count;
            lower = upper;
        }
        Some(Duration::from_secs_f64(lower / 1000.0))
    }
}

/// When a slice began, and what was counted in it.
type Slice = (Instant, BTreeMap<Pair, Count>);

/// The slices, oldest first.
#[derive(Debug, Default)]
pub(super) struct Counts {
    slices: VecDeque<Slice>,
    begun: Option<Instant>,
    /// Services that somebody watches, with their versions.
    watched: BTreeMap<ServiceName, BTreeMap<String, Count>>,
}

impl Counts {
    pub(super) fn add(&mut self, flows: Vec<v1::Flow>, now: Instant) {
        self.forget(now);
        self.begun.get_or_insert(now);
        if self.slices.back().is_none_or(|(begin, _)| now.saturating_duration_since(*begin) >= SLICE) {
            self.slices.push_back((now, BTreeMap::new()));
        }
        let Some((_, slice)) = self.slices.back_mut() else { return };
        for flow in flows {
            let count = Count::read(&flow);
            let Some(name) = flow.destination else { continue };
            let Ok(destination) = ServiceName::in_namespace(&name.namespace, &name.name) else { continue };
            if let Some(versions) = self.watched.get_mut(&destination) {
                let version = text(flow.version.clone(), 64);
                if versions.len() < VERSIONS || versions.contains_key(&version) {
                    versions.entry(version).or_default().add(&count);
                }
            }
            let mut pair = Pair { destination, source: text(flow.source, 256), version: text(flow.version, 64) };
            if slice.len() >= PAIRS && !slice.contains_key(&pair) {
                "other".clone_into(&mut pair.source);
                pair.version.clear();
            }
            slice.entry(pair).or_default().add(&count);
        }
    }

    /// Counts the versions of a service from nothing, from now on; `false` where too many are watched.
    pub(super) fn watch(&mut self, service: &ServiceName) -> bool {
        let has_room = self.watched.len() < WATCHED || self.watched.contains_key(service);
        if has_room {
            self.watched.insert(service.clone(), BTreeMap::new());
        }
        has_room
    }

    pub(super) fn unwatch(&mut self, service: &ServiceName) {
        self.watched.remove(service);
    }

    /// What was counted of each version since a service is watched.
    pub(super) fn watched(&self, service: &ServiceName) -> BTreeMap<String, Watched> {
        let versions = self.watched.get(service).into_iter().flatten();
        let watched = |count: &Count| Watched {
            requests: count.requests.saturating_add(count.rescued),
            failures: count.failures.saturating_add(count.rescued),
            p95: count.percentile(0.95),
        };
        versions.map(|(version, count)| (version.clone(), watched(count))).collect()
    }

    fn forget(&mut self, now: Instant) {
        while self.slices.front().is_some_and(|(begin, _)| now.saturating_duration_since(*begin) > WINDOW) {
            self.slices.pop_front();
        }
    }

    /// How much of the window there has been time to fill.
    fn span(&self, now: Instant) -> Duration {
        self.begun.map_or(WINDOW, |begun| now.saturating_duration_since(begun).clamp(SLICE, WINDOW))
    }

    pub(super) fn stats(&mut self, service: &ServiceName, now: Instant) -> Stats {
        self.forget(now);
        let mut sum = Count::default();
        for (pair, count) in self.slices.iter().flat_map(|(_, slice)| slice) {
            if pair.destination == *service {
                sum.add(count);
            }
        }
        sum.stats(self.span(now))
    }

    pub(super) fn flows(&mut self, now: Instant) -> Vec<FlowStats> {
        self.forget(now);
        let mut sums: BTreeMap<&Pair, Count> = BTreeMap::new();
        for (pair, count) in self.slices.iter().flat_map(|(_, slice)| slice) {
            sums.entry(pair).or_default().add(count);
        }
        let span = self.span(now);
        let flow = |(pair, count): (&Pair, Count)| FlowStats {
            source: pair.source.clone(),
            destination: pair.destination.clone(),
            version: pair.version.clone(),
            stats: count.stats(span),
        };
        sums.into_iter().map(flow).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(requests: u64, failures: u64, latency: [u64; 11]) -> v1::Flow {
        v1::Flow {
            source: "a".to_owned(),
            destination: Some(v1::ServiceName { namespace: "default".to_owned(), name: "b".to_owned() }),
            version: "v1".to_owned(),
            requests,
            failures,
            retries: 1,
            latency: latency.to_vec(),
            mtls: true,
            rescued: 0,
        }
    }

    fn b() -> ServiceName {
        ServiceName::new("b").unwrap()
    }

    #[test]
    fn figures_are_of_the_last_minute() {
        let start = Instant::now();
        let mut counts = Counts::default();
        counts.add(vec![flow(600, 60, [0, 600, 0, 0, 0, 0, 0, 0, 0, 0, 0])], start);
        let stats = counts.stats(&b(), start + WINDOW);
        assert_eq!((stats.rps, stats.success, stats.retries, stats.mtls), (10.0, Some(0.9), 1, Some(true)));
        assert_eq!(stats.p95, Some(Duration::from_micros(4800)));
        assert_eq!(counts.stats(&b(), start + WINDOW + SLICE), Stats::default());
    }

    #[test]
    fn a_version_that_is_watched_is_counted_from_nothing_with_the_tries_that_others_made_good() {
        let start = Instant::now();
        let mut counts = Counts::default();
        let version = |version: &str, rescued: u64| {
            let latency = [0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            v1::Flow { version: version.to_owned(), rescued, ..flow(10, 1, latency) }
        };
        counts.add(vec![version("v2", 5)], start);
        assert!(counts.watched(&b()).is_empty() && counts.watch(&b()));
        counts.add(vec![version("v1", 0), version("v2", 5)], start);
        counts
            .add(vec![v1::Flow { rescued: 2, ..v1::Flow { version: "v2".to_owned(), ..flow(0, 0, [0; 11]) } }], start);
        let seen = counts.watched(&b());
        assert_eq!((seen["v1"].requests, seen["v1"].failures), (10, 1));
        assert_eq!((seen["v2"].requests, seen["v2"].failures), (17, 8));
        assert_eq!(seen["v2"].p95, Some(Duration::from_micros(4800)));
        assert_eq!(counts.stats(&b(), start).success, Some(0.9), "requests are counted once all the same");
        counts.unwatch(&b());
        assert!(counts.watched(&b()).is_empty());
    }

    #[test]
    fn what_is_slower_than_every_bucket_counts_as_the_slowest() {
        let mut counts = Counts::default();
        let start = Instant::now();
        counts.add(vec![flow(10, 0, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10])], start);
        assert_eq!(counts.stats(&b(), start).p95, Some(Duration::from_secs(5)));
    }

    #[test]
    fn a_flood_of_names_is_counted_as_others() {
        let mut counts = Counts::default();
        let start = Instant::now();
        let flows = (0..PAIRS + 500).map(|n| v1::Flow { source: n.to_string(), ..flow(1, 0, [1; 11]) }).collect();
        counts.add(flows, start);
        assert_eq!(counts.flows(start).len(), PAIRS + 1);
    }
}
