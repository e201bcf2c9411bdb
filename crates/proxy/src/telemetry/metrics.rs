//! Istio's standard series, counted in cells that only one worker writes.
//!
//! A cell is found once per distinct set of labels and worker; counting is a few relaxed additions without a lock shared between
//! workers. The exposition adds the workers' cells up.

pub mod tcp;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hms_model::listener::Direction;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use super::decisions::Memory;

/// Upper bounds of the duration histogram, in milliseconds.
pub const BUCKETS: [u64; 10] = [1, 5, 10, 25, 50, 100, 250, 500, 1000, 5000];

/// Series that are found without comparing text, per worker.
const MOST_RECENT: usize = 1024;

/// Series one proxy may have before further ones are counted as `other`.
const MOST_SERIES: usize = 10_000;

/// What is known of one end of a flow. Only names that the mesh's configuration knows appear here, so nobody outside can make
/// series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Party {
    /// Name of the workload; `unknown` outside the mesh.
    pub workload: String,
    /// Its namespace.
    pub namespace: String,
    /// Its SPIFFE id.
    pub principal: String,
    /// Its version label.
    pub version: String,
}

impl Party {
    /// Somebody outside the mesh.
    pub fn unknown() -> Self {
        let unknown = || "unknown".to_owned();
        Self { workload: unknown(), namespace: unknown(), principal: unknown(), version: unknown() }
    }
}

/// The labels of a series.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Labels {
    /// Which end reports.
    pub direction: Direction,
    /// Who called.
    pub source: Arc<Party>,
    /// Who was called.
    pub destination: Arc<Party>,
    /// The service asked for: `calc-svc.mesh`.
    pub service: Arc<str>,
    /// Status answered.
    pub status: u16,
    /// Why the mesh answered, as Envoy's flags; `-` if it did not.
    pub flag: &'static str,
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// `grpc-status`, if it was a gRPC call.
    pub grpc_status: Option<u8>,
    /// Whether the mesh side was mutually authenticated.
    pub mutual_tls: bool,
}

impl Labels {
    /// The same for nobody in particular: what is beyond the bound on series.
    fn other(self) -> Self {
        Self { source: Arc::default(), destination: Arc::default(), service: "other".into(), ..self }
    }
}

/// The labels of a series, borrowed from a request at its end.
#[derive(Debug, Clone, Copy)]
pub struct Series<'a> {
    /// Which end reports.
    pub direction: Direction,
    /// Who called.
    pub source: &'a Arc<Party>,
    /// Who was called; `None` is nobody of the mesh.
    pub destination: Option<&'a Arc<Party>>,
    /// The service asked for; `None` is none of the mesh.
    pub service: Option<&'a Arc<str>>,
    /// Status answered.
    pub status: u16,
    /// Why the mesh answered, as Envoy's flags; `-` if it did not.
    pub flag: &'static str,
    /// `http`, `grpc` or `tcp`.
    pub protocol: &'static str,
    /// `grpc-status`, if it was a gRPC call.
    pub grpc_status: Option<u8>,
    /// Whether the mesh side was mutually authenticated.
    pub mutual_tls: bool,
}

impl Series<'_> {
    fn labels(&self) -> Labels {
        Labels {
            direction: self.direction,
            source: Arc::clone(self.source),
            destination: self.destination.map_or_else(|| Arc::new(Party::unknown()), Arc::clone),
            service: self.service.map_or_else(|| "unknown".into(), Arc::clone),
            status: self.status,
            flag: self.flag,
            protocol: self.protocol,
            grpc_status: self.grpc_status,
            mutual_tls: self.mutual_tls,
        }
    }

    /// The same without a look at any text: who keeps the key keeps alive what it points at.
    fn key(&self) -> Key {
        let place = |party: &Arc<Party>| Arc::as_ptr(party).addr();
        Key {
            direction: self.direction,
            source: place(self.source),
            destination: self.destination.map_or(0, place),
            service: self.service.map_or(0, |service| Arc::as_ptr(service).addr()),
            status: self.status,
            flag: self.flag.as_ptr().addr(),
            protocol: self.protocol.as_ptr().addr(),
            grpc_status: self.grpc_status,
            mutual_tls: self.mutual_tls,
        }
    }
}

/// Labels by where they are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    direction: Direction,
    source: usize,
    destination: usize,
    service: usize,
    status: u16,
    flag: usize,
    protocol: usize,
    grpc_status: Option<u8>,
    mutual_tls: bool,
}

/// What is counted under one set of labels.
#[derive(Debug, Default)]
pub struct Cell {
    requests: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    total_us: AtomicU64,
}

impl Cell {
    fn count(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.requests.fetch_add(1, Relaxed);
        self.total_us.fetch_add(micros, Relaxed);
        let bucket = BUCKETS.iter().position(|bound| micros <= bound * 1000);
        if let Some(bucket) = bucket.and_then(|index| self.buckets.get(index)) {
            bucket.fetch_add(1, Relaxed);
        }
    }
}

/// Counts under one set of labels, added up over the workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests.
    pub requests: u64,
    /// Per bucket of [`BUCKETS`], not cumulative; slower ones are in none.
    pub buckets: [u64; BUCKETS.len()],
    /// Sum of durations in microseconds.
    pub total_us: u64,
}

type Cells = HashMap<Labels, Arc<Cell>>;
type Counted = (Labels, Arc<Cell>);
/// Answers about names, by who made them and what they say.
type Names = BTreeMap<(&'static str, &'static str), u64>;
type Retries = BTreeMap<Arc<str>, Arc<AtomicU64>>;
/// Failed tries that were followed by another, by service and version.
pub type Rescues = BTreeMap<(Arc<str>, String), u64>;
/// Pairs of service and version that such tries are counted for; beyond that they are not.
const MOST_RESCUES: usize = 1000;

/// One worker's cells.
#[derive(Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    cells: RefCell<Cells>,
    recent: RefCell<FxHashMap<Key, Recent>>,
}

/// Why a copy of a request was not sent, or not answered in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotSent {
    /// Too many are under way.
    TooMany,
    /// Its body is larger than what is kept.
    TooLarge,
    /// The request broke off.
    Broken,
    /// Nothing is known of whom it is for.
    Unknown,
    /// It took too long.
    Late,
}

impl NotSent {
    /// As the series says it, in the order of the reasons.
    const WORDS: [&str; 5] = ["too_many", "too_large", "broken", "unknown", "late"];
}

/// A cell, and what its key points at.
#[derive(Debug)]
struct Recent {
    cell: Arc<Cell>,
    _source: Arc<Party>,
    _destination: Option<Arc<Party>>,
    _service: Option<Arc<str>>,
}

/// Every worker's cells.
#[derive(Debug, Default)]
pub struct Registry {
    memory: Memory,
    series: Mutex<Vec<Counted>>,
    retries: Mutex<Retries>,
    rescues: Mutex<Rescues>,
    /// Requests that waited for a connection, and those that did so in vain or might not.
    pending: Mutex<Retries>,
    pending_refused: Mutex<Retries>,
    /// Copies of requests that were to be sent and were not.
    mirrors_dropped: [AtomicU64; NotSent::WORDS.len()],
    breaches: Mutex<BTreeMap<&'static str, u64>>,
    names: Mutex<Names>,
    gauges: Mutex<BTreeMap<String, f64>>,
    tcp: tcp::TcpCells,
}

impl Metrics {
    /// Cells for one more worker.
    pub fn new(registry: Arc<Registry>) -> Self {
        Self { registry, cells: RefCell::default(), recent: RefCell::default() }
    }

    /// Counts one request.
    pub fn request(&self, series: &Series<'_>, duration: Duration) {
        let key = series.key();
        if let Some(recent) = self.recent.borrow().get(&key) {
            return recent.cell.count(duration);
        }
        let cell = self.cell(&series.labels());
        cell.count(duration);
        let mut recent = self.recent.borrow_mut();
        if recent.len() >= MOST_RECENT {
            recent.clear();
        }
        let (source, destination) = (Arc::clone(series.source), series.destination.cloned());
        let service = series.service.cloned();
        recent.insert(key, Recent { cell, _source: source, _destination: destination, _service: service });
    }

    /// Counts one retry of calls to `service`.
    pub fn retry(&self, service: &Arc<str>) {
        add(&self.registry.retries, service);
    }

    /// Counts one request to `service` that waits for a connection.
    pub fn pending(&self, service: &Arc<str>) {
        add(&self.registry.pending, service);
    }

    /// Counts one that did so in vain, or might not.
    pub fn pending_refused(&self, service: &Arc<str>) {
        add(&self.registry.pending_refused, service);
    }

    /// Counts one failed try of a version that another try follows.
    pub fn rescue(&self, service: &Arc<str>, version: &str) {
        let mut rescues = self.registry.rescues.lock();
        let key = (Arc::clone(service), version.to_owned());
        if rescues.len() < MOST_RESCUES || rescues.contains_key(&key) {
            *rescues.entry(key).or_default() += 1;
        }
    }

    /// Counts a copy of a request that was not sent, or not answered in time.
    pub fn mirror_dropped(&self, why: NotSent) {
        if let Some(cell) = self.registry.mirrors_dropped.get(why as usize) {
            cell.fetch_add(1, Relaxed);
        }
    }

    fn cell(&self, labels: &Labels) -> Arc<Cell> {
        if let Some(cell) = self.cells.borrow().get(labels) {
            return Arc::clone(cell);
        }
        let mut series = self.registry.series.lock();
        if series.len() >= MOST_SERIES {
            let other = labels.clone().other();
            if let Some((_, cell)) = series.iter().find(|(own, _)| *own == other) {
                return Arc::clone(cell);
            }
            let cell = Arc::<Cell>::default();
            series.push((other, Arc::clone(&cell)));
            return cell;
        }
        let cell = Arc::<Cell>::default();
        series.push((labels.clone(), Arc::clone(&cell)));
        drop(series);
        self.cells.borrow_mut().insert(labels.clone(), Arc::clone(&cell));
        cell
    }
}

impl Registry {
    /// Everything counted so far, ordered by labels.
    pub fn counts(&self) -> BTreeMap<Labels, Counts> {
        let mut all: BTreeMap<Labels, Counts> = BTreeMap::new();
        for (labels, cell) in self.series.lock().iter() {
            let counts = all.entry(labels.clone()).or_default();
            counts.requests += cell.requests.load(Relaxed);
            counts.total_us += cell.total_us.load(Relaxed);
            for (sum, bucket) in counts.buckets.iter_mut().zip(&cell.buckets) {
                *sum += bucket.load(Relaxed);
            }
        }
        all
    }

    /// What is remembered of requests that ended.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Retries per service.
    pub fn retries(&self) -> BTreeMap<Arc<str>, u64> {
        read(&self.retries)
    }

    /// Failed tries that were followed by another, per service and version.
    pub fn rescues(&self) -> Rescues {
        self.rescues.lock().clone()
    }

    /// Counts one HTTP/2 connection that was ended because it went over this limit.
    pub fn breach(&self, limit: &'static str) {
        *self.breaches.lock().entry(limit).or_default() += 1;
    }

    /// Counts one answer to a question about a name.
    pub fn dns(&self, kind: &'static str, code: &'static str) {
        *self.names.lock().entry((kind, code)).or_default() += 1;
    }

    /// Sets a gauge; `name` carries its labels.
    pub fn gauge(&self, name: impl Into<String>, value: f64) {
        self.gauges.lock().insert(name.into(), value);
    }

    /// Forgets every gauge whose name begins so.
    pub fn forget_gauges(&self, prefix: &str) {
        self.gauges.lock().retain(|name, _| !name.starts_with(prefix));
    }

    /// The Prometheus text exposition (version 0.0.4).
    pub fn expose(&self, release: &str) -> String {
        let mut out = String::with_capacity(16 * 1024);
        let counts = self.counts();
        out.push_str("# HELP istio_requests_total Requests, by both ends.\n# TYPE istio_requests_total counter\n");
        let labelled: Vec<(String, Counts)> = counts.iter().map(|(l, c)| (l.to_string(), *c)).collect();
        for (labels, counts) in &labelled {
            line(&mut out, &format!("istio_requests_total{{{labels}}}"), counts.requests);
        }
        out.push_str(
            "# HELP istio_request_duration_milliseconds Duration from a request's head to its response's end.\n",
        );
        out.push_str("# TYPE istio_request_duration_milliseconds histogram\n");
        for (labels, counts) in &labelled {
            histogram(&mut out, labels, counts);
        }
        self.tcp.expose(&mut out);
        out.push_str("# HELP hms_retries_total Tries after the first.\n# TYPE hms_retries_total counter\n");
        each(&mut out, "hms_retries_total", self.retries());
        out.push_str("# TYPE hms_pending_total counter\n");
        each(&mut out, "hms_pending_total", read(&self.pending));
        out.push_str("# TYPE hms_pending_refused_total counter\n");
        each(&mut out, "hms_pending_refused_total", read(&self.pending_refused));
        out.push_str("# TYPE hms_mirrors_dropped_total counter\n");
        for (why, count) in NotSent::WORDS.iter().zip(&self.mirrors_dropped) {
            line(&mut out, &format!("hms_mirrors_dropped_total{{reason=\"{why}\"}}"), count.load(Relaxed));
        }
        out.push_str("# HELP hms_http2_breaches_total HTTP/2 connections ended because they went over a limit.\n");
        out.push_str("# TYPE hms_http2_breaches_total counter\n");
        for (limit, count) in self.breaches.lock().iter() {
            line(&mut out, &format!("hms_http2_breaches_total{{limit=\"{limit}\"}}"), count);
        }
        out.push_str("# HELP hms_dns_queries_total Questions about names, by who answered and what.\n");
        out.push_str("# TYPE hms_dns_queries_total counter\n");
        for ((kind, code), count) in self.names.lock().iter() {
            line(&mut out, &format!("hms_dns_queries_total{{kind=\"{kind}\",code=\"{code}\"}}"), count);
        }
        let mut family = "";
        let gauges = self.gauges.lock();
        for (name, value) in gauges.iter() {
            let own = name.split('{').next().unwrap_or_default();
            if own != family {
                let _infallible = writeln!(out, "# TYPE {own} gauge").is_ok();
                family = own;
            }
            line(&mut out, name, value);
        }
        let _infallible = writeln!(out, "# TYPE istio_build gauge").is_ok();
        line(&mut out, &format!("istio_build{{component=\"proxy\",tag=\"{release}\"}}"), 1);
        out
    }
}

fn add(counters: &Mutex<Retries>, service: &Arc<str>) {
    let counter = Arc::clone(counters.lock().entry(Arc::clone(service)).or_default());
    counter.fetch_add(1, Relaxed);
}

fn read(counters: &Mutex<Retries>) -> BTreeMap<Arc<str>, u64> {
    counters.lock().iter().map(|(service, count)| (Arc::clone(service), count.load(Relaxed))).collect()
}

fn each(out: &mut String, name: &str, counts: BTreeMap<Arc<str>, u64>) {
    for (service, count) in counts {
        line(out, &format!("{name}{{destination_service=\"{service}\"}}"), count);
    }
}

fn line(out: &mut String, name: &str, value: impl std::fmt::Display) {
    let _infallible = writeln!(out, "{name} {value}").is_ok();
}

fn histogram(out: &mut String, labels: &str, counts: &Counts) {
    let name = "istio_request_duration_milliseconds";
    let mut below = 0;
    for (bound, count) in BUCKETS.iter().zip(&counts.buckets) {
        below += count;
        line(out, &format!("{name}_bucket{{{labels},le=\"{bound}\"}}"), below);
    }
    line(out, &format!("{name}_bucket{{{labels},le=\"+Inf\"}}"), counts.requests);
    let micros = counts.total_us;
    line(out, &format!("{name}_sum{{{labels}}}"), format_args!("{}.{:03}", micros / 1000, micros % 1000));
    line(out, &format!("{name}_count{{{labels}}}"), counts.requests);
}

/// The 25 labels of Istio's request series, in Istio's order. Names come from the mesh's configuration, whose grammar has nothing
/// that would need escaping.
impl std::fmt::Display for Labels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or_unknown = |text: &'static str, own: &str| if own.is_empty() { text.to_owned() } else { own.to_owned() };
        let (source, destination) = (&*self.source, &*self.destination);
        let reporter = match self.direction {
            Direction::Inbound => "destination",
            Direction::Outbound => "source",
        };
        let security = match (self.direction, self.mutual_tls) {
            // Istio's calling side says `unknown`, because only the called side knows what it demanded.
            (Direction::Outbound, _) => "unknown",
            (Direction::Inbound, true) => "mutual_tls",
            (Direction::Inbound, false) => "none",
        };
        write!(f, "reporter=\"{reporter}\"")?;
        for (end, party) in [("source", source), ("destination", destination)] {
            let name = or_unknown("unknown", &party.workload);
            let namespace = or_unknown("unknown", &party.namespace);
            let principal = or_unknown("unknown", &party.principal);
            let version = or_unknown("unknown", &party.version);
            let revision = or_unknown("latest", &party.version);
            write!(
                f,
                ",{end}_workload=\"{name}\",{end}_canonical_service=\"{name}\",{end}_canonical_revision=\"{revision}\",\
                 {end}_workload_namespace=\"{namespace}\",{end}_principal=\"{principal}\",{end}_app=\"{name}\",\
                 {end}_version=\"{version}\",{end}_cluster=\"hms\""
            )?;
        }
        let service_name = self.service.split('.').next().unwrap_or_default();
        write!(
            f,
            ",destination_service=\"{}\",destination_service_name=\"{service_name}\",destination_service_namespace=\"{}\",\
             request_protocol=\"{}\"",
            self.service,
            or_unknown("unknown", &destination.namespace),
            self.protocol,
        )?;
        // A connection that nobody reads has none.
        if self.protocol != "tcp" {
            write!(f, ",response_code=\"{}\"", self.status)?;
        }
        if let Some(status) = self.grpc_status {
            write!(f, ",grpc_response_status=\"{status}\"")?;
        }
        write!(f, ",response_flags=\"{}\",connection_security_policy=\"{security}\"", self.flag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(status: u16) -> Labels {
        Labels {
            direction: Direction::Inbound,
            source: Arc::new(Party::unknown()),
            destination: Arc::new(Party {
                workload: "calc-svc".into(),
                namespace: "default".into(),
                ..Party::default()
            }),
            service: "calc-svc.mesh".into(),
            status,
            flag: "-",
            protocol: "http",
            grpc_status: None,
            mutual_tls: true,
        }
    }

    /// Counts one request as a worker does at its end.
    fn request(metrics: &Metrics, labels: &Labels, duration: Duration) {
        let series = Series {
            direction: labels.direction,
            source: &labels.source,
            destination: Some(&labels.destination),
            service: Some(&labels.service),
            status: labels.status,
            flag: labels.flag,
            protocol: labels.protocol,
            grpc_status: labels.grpc_status,
            mutual_tls: labels.mutual_tls,
        };
        metrics.request(&series, duration);
    }

    #[test]
    fn workers_add_up_and_buckets_are_cumulative() {
        let registry = Arc::new(Registry::default());
        let (one, two) = (Metrics::new(Arc::clone(&registry)), Metrics::new(Arc::clone(&registry)));
        request(&one, &labels(200), Duration::from_micros(900));
        request(&two, &labels(200), Duration::from_millis(7));
        request(&two, &labels(200), Duration::from_secs(9));
        let text = registry.expose("0.0.0");
        let find = |part: &str| text.lines().find(|l| l.contains(part)).unwrap().to_owned();
        assert!(find("istio_requests_total{").ends_with(" 3"));
        assert!(find("le=\"1\"").ends_with(" 1"));
        assert!(find("le=\"10\"").ends_with(" 2"));
        assert!(find("le=\"5000\"").ends_with(" 2"));
        assert!(find("le=\"+Inf\"").ends_with(" 3"));
        assert!(find("_sum").ends_with(" 9007.900"));
    }

    #[test]
    fn a_request_series_has_istios_labels() {
        let text = labels(200).to_string();
        assert_eq!(text.matches("=\"").count(), 24, "25 without grpc_response_status");
        assert!(text.contains("connection_security_policy=\"mutual_tls\""));
        assert!(text.contains("destination_service=\"calc-svc.mesh\""));
    }

    #[test]
    fn series_are_bounded() {
        let registry = Arc::new(Registry::default());
        let metrics = Metrics::new(Arc::clone(&registry));
        for i in 0..MOST_SERIES + 50 {
            let own = Labels { service: format!("s{i}.mesh").into(), ..labels(200) };
            request(&metrics, &own, Duration::ZERO);
        }
        let counts = registry.counts();
        assert_eq!(counts.len(), MOST_SERIES + 1);
        assert_eq!(counts.iter().find(|(l, _)| &*l.service == "other").unwrap().1.requests, 50);
    }
}
