//! Scenarios: services, load, what happens to them, and the bounds that must hold. `hms sim` plays them.
//!
//! ```yaml
//! duration: 60s
//! services:
//!   front: {calls: [last]}
//!   last: {instances: 3, latency: {p50: 5ms, p99: 40ms}, breaker: {open: 1s}}
//! load:
//! - {to: front, rps: 200}
//! events:
//! - {at: 10s, service: last, fails: 100%}
//! - {at: 40s, service: last, fails: 0%}
//! bounds:
//!   last: {amplification: <= 1.25, recovery: <= 2s}
//! ```
//!
//! The keys of a service's policy are those of `mesh.yaml` and are read by the same code.

mod bounds;
mod events;
mod service;

use std::collections::BTreeMap;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::policy::{RateLimit, TrafficPolicy};
use hms_model::split::Share;
use http::{Method, StatusCode};

use crate::document::{self, Node};
use crate::mesh_yaml::policy;
use crate::read::{Field, Keys, Reader, Span};
use crate::source::Source;

const TOP: Keys =
    Keys::new(&["duration", "seed", "notice", "network", "defaults", "services", "load", "events", "bounds"]);

/// The longest time that is simulated.
pub const LONGEST: Duration = Duration::from_hours(1);
/// Services of a scenario.
const MOST_SERVICES: usize = 100;
/// Instances of all services together.
const MOST_INSTANCES: u32 = 1000;
/// Requests that all loads together make.
const MOST_REQUESTS: u64 = 2_000_000;
/// All of something, in the parts in which shares are counted.
pub const MILLION: u32 = 1_000_000;

/// A world and what happens in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// The seed of its dice, unless the command line gives one.
    pub seed: u64,
    /// How long requests are made.
    pub duration: Duration,
    /// How long it takes until callers are told what the control plane learned.
    pub notice: Duration,
    /// How long a message is under way between two proxies.
    pub network: Duration,
    /// The services.
    pub services: BTreeMap<ServiceName, Played>,
    /// Who makes requests.
    pub load: Vec<Load>,
    /// What happens, in the order of time.
    pub events: Vec<Happening>,
    /// What must hold.
    pub bounds: Vec<Bound>,
}

/// A service as it is played.
#[derive(Debug, Clone, PartialEq)]
pub struct Played {
    /// How calls to it are made.
    pub policy: TrafficPolicy,
    /// What each of its instances takes.
    pub rate_limit: Option<RateLimit>,
    /// Its instances, at least one.
    pub instances: Vec<Instance>,
    /// How its calls are divided among its versions; empty for evenly among the instances.
    pub split: Vec<Share>,
    /// The services that its application calls for every request, one after the other; never in a circle.
    pub calls: Vec<ServiceName>,
    /// The method of these calls.
    pub method: Method,
    /// What its application answers when a call of its own fails; `None` for the status that it was given.
    pub on_failure: Option<StatusCode>,
    /// Whether its application hands `x-hms-attempt` on with the calls it makes.
    pub forwards_attempt: bool,
}

/// One running thing.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its version.
    pub version: String,
    /// Its failure domain; may be empty.
    pub zone: String,
    /// How its application behaves at the beginning.
    pub behaviour: Behaviour,
}

/// How an application behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Behaviour {
    /// How long its own work takes.
    pub latency: Latency,
    /// The part of requests that it fails, in millionths.
    pub fails: u32,
    /// How it fails them.
    pub fails_with: FailsWith,
    /// What its work takes longer than `latency` says.
    pub slow: Duration,
    /// Whether it is there at all.
    pub state: State,
}

/// How long something takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Latency {
    /// A half of it takes no longer.
    pub p50: Duration,
    /// Of a hundred, one takes longer. Never less than `p50`; the same for what always takes equally long.
    pub p99: Duration,
}

/// How an application fails a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailsWith {
    /// It answers with this status.
    Status(StatusCode),
    /// It closes the connection without an answer.
    Reset,
}

/// Whether an instance is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// It runs.
    Up,
    /// Its application does not listen; its proxy does, and says so.
    Down,
    /// Its proxy is gone as well: connections are refused.
    Gone,
    /// The network swallows what is sent to it: connections time out, and the control plane is not told.
    Silent,
}

/// Requests from outside of the services.
#[derive(Debug, Clone, PartialEq)]
pub struct Load {
    /// The service that is called.
    pub to: ServiceName,
    /// Requests per second of all callers together.
    pub rps: u32,
    /// How they come.
    pub arrivals: Arrivals,
    /// From when.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
    /// The zone of the callers; may be empty.
    pub zone: String,
    /// The method of the requests.
    pub method: Method,
    /// How many proxies make them, in turn. At least one.
    pub callers: u32,
}

/// How requests come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Arrivals {
    /// With the same time between each two.
    Steady,
    /// By chance, each without regard to the others.
    #[default]
    Poisson,
}

/// Something that happens.
#[derive(Debug, Clone, PartialEq)]
pub struct Happening {
    /// When.
    pub at: Duration,
    /// To whom.
    pub whom: Whom,
    /// What.
    pub change: Change,
    /// Where it was written.
    pub origin: String,
}

/// The instances that something happens to: those for which all that is said holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Whom {
    /// Of this service.
    pub service: Option<ServiceName>,
    /// In this zone.
    pub zone: Option<String>,
    /// Of this version.
    pub version: Option<String>,
    /// The instance of this number in its service, from 1.
    pub instance: Option<u32>,
}

impl Whom {
    /// Whether an instance is meant; its number counts from 1.
    pub fn means(&self, service: &ServiceName, number: u32, instance: &Instance) -> bool {
        self.service.as_ref().is_none_or(|own| own == service)
            && self.zone.as_ref().is_none_or(|own| *own == instance.zone)
            && self.version.as_ref().is_none_or(|own| *own == instance.version)
            && self.instance.is_none_or(|own| own == number)
    }
}

/// What changes; `None` is left as it is.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Change {
    /// Whether it is there.
    pub state: Option<State>,
    /// The part of requests that it fails, in millionths.
    pub fails: Option<u32>,
    /// How much longer its work takes.
    pub slow: Option<Duration>,
    /// How the service's calls are divided.
    pub split: Option<Vec<Share>>,
}

/// Something that must hold for a service over the whole time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The service.
    pub service: ServiceName,
    /// What is measured, with its limit.
    pub measure: Measure,
    /// How it was written: `amplification: <= 1.25`.
    pub text: String,
    /// Where it was written.
    pub origin: String,
}

/// What is measured of a service, with the limit it must keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// What its applications received of what the load asked for is at most so much, in millionths.
    Amplification(u64),
    /// At least this part of its calls is answered well, in millionths.
    Success(u32),
    /// No caller's breaker opens again more often than this.
    Flaps(u32),
    /// No instance's part of the requests is off its share by more than this, in millionths of the share.
    Fair(u32),
    /// A half of its calls takes at most this.
    P50(Duration),
    /// Of a hundred calls one takes longer.
    P99(Duration),
    /// After something got better its calls succeed again within this.
    Recovery(Duration),
}

/// Reads a scenario. One finding that is an error means that it cannot be played.
pub fn translate(source: &Source) -> (Option<Scenario>, Vec<Finding>) {
    let mut reader = Reader::default();
    let file = reader.add(source);
    let root = file.and_then(|file| document::parse(&mut reader, file));
    let scenario = root.and_then(|root| read(&mut reader, &root));
    let broken = file.is_none_or(|file| reader.has_errors(file));
    (scenario.filter(|_| !broken), reader.into_findings())
}

fn read(reader: &mut Reader<'_>, root: &Node) -> Option<Scenario> {
    let table = reader.table(root, "", TOP)?;
    let second = Duration::from_secs(1);
    let duration = reader.need(&table, "duration", "duration: 60s").cloned();
    let duration = duration.and_then(|field| reader.duration(&field, second..=LONGEST)).unwrap_or(LONGEST);
    let seed = table.field("seed").and_then(|field| reader.whole(field, "a whole number", 0..=u32::MAX));
    let small = Duration::ZERO..=Duration::from_mins(1);
    let notice = table.field("notice").and_then(|field| reader.duration(field, small.clone()));
    let network = table.field("network").and_then(|field| reader.duration(field, small));
    let defaults = table.field("defaults").cloned();
    let defaults = defaults.and_then(|field| reader.table(field.node, &field.path, policy::DEFAULTS));
    let defaults = defaults.map(|table| policy::defaults(reader, &table)).unwrap_or_default();
    let field = reader.need(&table, "services", "services: {front: {calls: [last]}, last: {instances: 3}}").cloned()?;
    let services = services(reader, &field, &defaults);
    let load = reader.need(&table, "load", "load: [{to: front, rps: 200}]").cloned();
    let load = load.map(|field| events::load(reader, &field, &services, duration)).unwrap_or_default();
    let mut events =
        table.field("events").map(|field| events::read(reader, field, &services, duration)).unwrap_or_default();
    events.sort_by_key(|event| event.at);
    let bounds = table.field("bounds").map(|field| bounds::read(reader, field, &services)).unwrap_or_default();
    Some(Scenario {
        seed: u64::from(seed.unwrap_or(1)),
        duration,
        notice: notice.unwrap_or(Duration::from_millis(100)),
        network: network.unwrap_or(Duration::from_micros(200)),
        services,
        load,
        events,
        bounds,
    })
}

fn services(reader: &mut Reader<'_>, field: &Field<'_>, defaults: &TrafficPolicy) -> BTreeMap<ServiceName, Played> {
    let mut services = BTreeMap::new();
    let Some(table) = reader.open_table(field.node, &field.path) else { return services };
    if table.fields().is_empty() || table.fields().len() > MOST_SERVICES {
        let finding = Finding::error(2112, format!("a scenario has 1 to {MOST_SERVICES} services"));
        reader.report(field.key, finding.fix("play a part of the mesh"));
        return services;
    }
    let mut called: Vec<(ServiceName, Field<'_>)> = Vec::new();
    for field in table.fields() {
        let name = reader.service_name(field, field.name);
        let read = service::read(reader, field, name.as_ref(), defaults);
        let (Some(name), Some((service, calls))) = (name, read) else { continue };
        called.extend(calls);
        services.insert(name, service);
    }
    for (name, at) in &called {
        let _known = is_played(reader, at, name, &services);
    }
    let instances: usize = services.values().map(|service| service.instances.len()).sum();
    if u32::try_from(instances).is_ok_and(|instances| instances > MOST_INSTANCES) {
        let finding = Finding::error(2112, format!("there are {instances} instances; at most {MOST_INSTANCES}"));
        reader.report(field.key, finding.fix("play a part of the mesh"));
    }
    circles(reader, field.key, &services);
    services
}

/// Whether a service is one of the scenario; else there is a finding.
fn is_played(
    reader: &mut Reader<'_>,
    at: &Field<'_>,
    name: &ServiceName,
    services: &BTreeMap<ServiceName, Played>,
) -> bool {
    if services.contains_key(name) {
        return true;
    }
    let known: Vec<&str> = services.keys().map(ServiceName::name).collect();
    let near = crate::read::nearest(name.name(), &known);
    let finding = Finding::error(2105, format!("`{}` names `{name}`, which is no service of this scenario", at.path));
    let why = format!("its services are {}", known.join(", "));
    let fix = near.map_or_else(|| format!("add {name} under services:"), |near| format!("write {near}"));
    reader.report(at.node.span, finding.because(why).fix(fix));
    false
}

/// A request that comes back to where it began never ends.
fn circles(reader: &mut Reader<'_>, at: Span, services: &BTreeMap<ServiceName, Played>) {
    let mut open: BTreeMap<&ServiceName, Vec<&ServiceName>> = services
        .iter()
        .map(|(name, own)| (name, own.calls.iter().filter(|called| services.contains_key(*called)).collect()))
        .collect();
    // Whoever calls none of those that are left, or is called by none of them, is part of no circle.
    loop {
        let calls = |name: &ServiceName| open.get(name).into_iter().flatten().any(|to| open.contains_key(*to));
        let is_called = |name: &ServiceName| open.values().flatten().any(|to| *to == name);
        let outside = |name: &&ServiceName| !calls(name) || !is_called(name);
        let Some(name) = open.keys().copied().find(outside) else { break };
        open.remove(name);
    }
    if !open.is_empty() {
        let names: Vec<String> = open.keys().map(ToString::to_string).collect();
        let finding = Finding::error(2150, format!("these services call each other in a circle: {}", names.join(", ")));
        let why = "every request would make another one without end";
        reader.report(at, finding.because(why).fix("take one of the calls out"));
    }
}

/// A share such as `99.9%`, in millionths.
fn percentage(reader: &mut Reader<'_>, field: &Field<'_>, text: &str) -> Option<u32> {
    const WANTS: &str = "a share such as 99.9%";
    let share = text.trim().strip_suffix('%').and_then(|number| decimal(number, 4));
    let share = share.and_then(|share| u32::try_from(share).ok()).filter(|share| *share <= MILLION);
    if share.is_none() {
        let why = "it is a number from 0 to 100 with at most four decimals, and a %";
        reader.bad(field, WANTS, why, "write for example 99.9%");
    }
    share
}

/// `12.5` as 125 followed by as many zeros as `places` says.
fn decimal(text: &str, places: usize) -> Option<u64> {
    let text = text.trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || whole.len() > 6 || fraction.len() > places {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}
