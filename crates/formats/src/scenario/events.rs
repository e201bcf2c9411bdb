//! Who makes requests, and what happens meanwhile.

use std::collections::BTreeMap;
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::names::ServiceName;
use hms_model::split::{MOST_WEIGHT, Share};
use http::Method;

use super::service::method;
use super::{Arrivals, Change, Happening, Instance, Load, MOST_REQUESTS, Played, State, Whom, is_played, percentage};
use crate::read::{Field, Keys, Reader, Table};

type Services = BTreeMap<ServiceName, Played>;

const LOAD: Keys = Keys::new(&["to", "rps", "arrivals", "from", "until", "zone", "method", "callers"]);
const EVENT: Keys = Keys::new(&["at", "service", "zone", "version", "instance", "state", "fails", "slow", "split"]);
const ARRIVALS: [(&str, Arrivals); 2] = [("steady", Arrivals::Steady), ("poisson", Arrivals::Poisson)];
const STATES: [(&str, State); 4] =
    [("up", State::Up), ("down", State::Down), ("gone", State::Gone), ("silent", State::Silent)];
const MOST_LOADS: usize = 100;
const MOST_EVENTS: usize = 1000;

/// Reads `load:`.
pub(super) fn load(reader: &mut Reader<'_>, field: &Field<'_>, services: &Services, duration: Duration) -> Vec<Load> {
    let items = reader.list(field, "a list such as [{to: front, rps: 200}]").unwrap_or_default();
    if items.len() > MOST_LOADS {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_LOADS} entries", field.path));
        reader.report(field.key, finding.fix("play those that matter"));
        return Vec::new();
    }
    let loads: Vec<Load> = items.iter().filter_map(|item| one_load(reader, item, services, duration)).collect();
    let requests = |load: &Load| u64::from(load.rps) * load.until.saturating_sub(load.from).as_secs().max(1);
    let all: u64 = loads.iter().map(requests).sum();
    if all > MOST_REQUESTS {
        let finding =
            Finding::error(2112, format!("`{}` asks for {all} requests; at most {MOST_REQUESTS}", field.path));
        reader.report(field.key, finding.fix("play less time, or fewer requests per second"));
    }
    loads
}

fn one_load(reader: &mut Reader<'_>, item: &Field<'_>, services: &Services, duration: Duration) -> Option<Load> {
    let table = reader.table(item.node, &item.path, LOAD)?;
    let to = reader.need(&table, "to", "to: front").cloned();
    let to = to.and_then(|field| {
        let name = reader.service(&field)?;
        is_played(reader, &field, &name, services).then_some(name)
    });
    let rps = reader.need(&table, "rps", "rps: 200").cloned();
    let rps = rps.and_then(|field| reader.whole(&field, "requests per second", 1..=100_000));
    let within = Duration::ZERO..=duration;
    let from = table.field("from").and_then(|field| reader.duration(field, within.clone())).unwrap_or_default();
    let until = table.field("until").cloned();
    let ends = until.as_ref().and_then(|field| reader.duration(field, within)).unwrap_or(duration);
    if let (Some(field), true) = (until, ends <= from) {
        let finding = Finding::error(2105, format!("`{}` is not after its beginning", field.path));
        reader.report(field.node.span, finding.fix("make until: later than from:"));
    }
    Some(Load {
        rps: rps?,
        arrivals: table.field("arrivals").and_then(|field| reader.word(field, &ARRIVALS)).unwrap_or_default(),
        from,
        until: ends,
        zone: zone(reader, &table).unwrap_or_default(),
        method: table.field("method").and_then(|field| method(reader, field)).unwrap_or(Method::GET),
        callers: table
            .field("callers")
            .and_then(|field| reader.whole(field, "a number of callers", 1..=100))
            .unwrap_or(1),
        to: to?,
    })
}

fn zone(reader: &mut Reader<'_>, table: &Table<'_>) -> Option<String> {
    table.field("zone").and_then(|field| reader.line(field, "a zone such as eu-1a", 63)).map(str::to_owned)
}

/// Reads `events:`.
pub(super) fn read(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    services: &Services,
    duration: Duration,
) -> Vec<Happening> {
    let items = reader.list(field, "a list such as [{at: 10s, service: last, fails: 100%}]").unwrap_or_default();
    if items.len() > MOST_EVENTS {
        let finding = Finding::error(2112, format!("`{}` has more than {MOST_EVENTS} entries", field.path));
        reader.report(field.key, finding.fix("play a shorter time"));
        return Vec::new();
    }
    items.iter().filter_map(|item| event(reader, item, services, duration)).collect()
}

fn event(reader: &mut Reader<'_>, item: &Field<'_>, services: &Services, duration: Duration) -> Option<Happening> {
    let table = reader.table(item.node, &item.path, EVENT)?;
    let at = reader.need(&table, "at", "at: 10s").cloned();
    let at = at.and_then(|field| reader.duration(&field, Duration::ZERO..=duration));
    let service = match table.field("service") {
        None => None,
        Some(field) => {
            let name = reader.service(field)?;
            Some(is_played(reader, field, &name, services).then_some(name)?)
        }
    };
    let version = table.field("version").and_then(|field| reader.line(field, "a version such as v2", 63));
    let instance =
        table.field("instance").and_then(|field| reader.whole(field, "the number of an instance", 1..=10_000));
    let whom = Whom { zone: zone(reader, &table), version: version.map(str::to_owned), instance, service };
    let fails = table.field("fails").and_then(|field| {
        let text = reader.text(field, "a share such as 50%")?;
        percentage(reader, field, text)
    });
    let slow = table.field("slow").and_then(|field| reader.duration(field, Duration::ZERO..=Duration::from_hours(1)));
    let split = table.field("split").and_then(|field| split(reader, field, &whom, services));
    let state = table.field("state").and_then(|field| reader.word(field, &STATES));
    let changes = ["state", "fails", "slow", "split"].iter().any(|key| table.field(key).is_some());
    if !changes {
        let finding = Finding::error(2102, format!("nothing happens in `{}`", item.path));
        reader
            .report(item.node.span, finding.fix("add state: down, fails: 50%, slow: 300ms or split: {v1: 50, v2: 50}"));
    }
    if !services.iter().any(|(name, own)| is_meant(&whom, name, &own.instances)) {
        let finding = Finding::error(2105, format!("`{}` happens to nobody", item.path));
        let why = "no instance has all of the service, zone, version and number that are given";
        reader.report(item.node.span, finding.because(why).fix("correct them, or leave some out"));
    }
    Some(Happening {
        at: at?,
        whom,
        change: Change { state, fails, slow, split },
        origin: reader.origin(item.node.span),
    })
}

fn is_meant(whom: &Whom, name: &ServiceName, instances: &[Instance]) -> bool {
    (1..).zip(instances).any(|(number, instance)| whom.means(name, number, instance))
}

/// `{v1: 90, v2: 10}`: weights of versions.
fn split(reader: &mut Reader<'_>, field: &Field<'_>, whom: &Whom, services: &Services) -> Option<Vec<Share>> {
    let table = reader.open_table(field.node, &field.path)?;
    let Some(service) =
        whom.service.as_ref().filter(|_| *whom == Whom { service: whom.service.clone(), ..Whom::default() })
    else {
        let finding = Finding::error(2105, format!("`{}` is about a whole service", field.path));
        reader.report(field.key, finding.fix("say which one with service:, and nothing else of it"));
        return None;
    };
    let played = services.get(service)?;
    let mut shares = Vec::new();
    for field in table.fields() {
        let weight = reader.whole(field, "a weight", 0..=MOST_WEIGHT).unwrap_or_default();
        if !played.instances.iter().any(|instance| instance.version == field.name) {
            let finding = Finding::error(2105, format!("`{}` is no version that runs", field.path));
            reader.report(field.key, finding.fix(format!("add it under versions: of {service}")));
        }
        shares.push(Share { service: service.clone(), version: field.name.to_owned(), weight });
    }
    if shares.iter().all(|share| share.weight == 0) {
        let finding = Finding::error(2105, format!("`{}` gives nobody a call", field.path));
        reader.report(field.node.span, finding.fix("give one of them weight 100"));
    }
    Some(shares)
}
