//! A proxy that a file leads instead of a control plane: what it serves is known from the start, and only the addresses behind
//! host names change.
//!
//! Each name is asked for by a task of its own, on the runtime of administration and never on a request's way, as this machine
//! resolves names. What was known last stays while nobody answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use hms_model::mesh::ServiceState;
use hms_model::policy::AuthorizationPolicy;
use hms_model::port::{AppProtocol, Port};
use hms_model::service::Service;
use hms_model::snapshot::Snapshot;
use hms_model::standalone::{
    Family, HostName, Standalone, StaticListener, StaticProtocol, StaticService, StaticTarget, Take, TargetHost,
};
use hms_model::workload::{Address, Endpoint, Registrar, Transport};
use hms_traffic::dice::Dice;
use hms_traffic::hosts::HostTable;
use hms_wire::{STANDALONE_BYTES, decode_standalone};
use tokio::io::AsyncReadExt as _;
use tokio::sync::{Semaphore, mpsc, watch};

use crate::settings::Settings;
use crate::tasks;
use crate::worker::Shared;

/// How long the first requests wait for the first answers.
const FIRST_ANSWERS: Duration = Duration::from_secs(5);
/// Names asked for at the same time; each holds a thread while it is asked for.
const AT_ONCE: usize = 64;
/// Addresses of one name that are used.
const MOST_ADDRESSES: usize = 256;
/// Answers on their way.
const QUEUE: usize = 64;

/// A listener with what is served on it.
#[derive(Debug)]
pub struct StaticDoor {
    /// Its name.
    pub name: String,
    /// Its virtual hosts.
    pub table: HostTable,
    /// What its routes are called in telemetry, in their order.
    pub rules: Vec<Arc<str>>,
}

impl StaticDoor {
    /// A listener that really listens at `bound`.
    pub fn new(listener: &StaticListener, bound: SocketAddr) -> Self {
        let routes = listener.hosts.iter().flat_map(|host| host.routes.iter().map(move |route| (host, route)));
        Self {
            name: listener.name.clone(),
            table: HostTable::build(listener, bound),
            rules: routes.map(|(host, route)| format!("{} {}", host.name, route.path).into()).collect(),
        }
    }
}

/// The file that leads this proxy, if one does.
pub async fn asked_for(settings: &Settings) -> io::Result<Option<Standalone>> {
    match &settings.snapshot {
        Some(path) => load(path).await.map(Some),
        None => Ok(None),
    }
}

async fn load(path: &Path) -> io::Result<Standalone> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = tokio::fs::File::open(path).await.map_err(named)?;
    let mut bytes = Vec::new();
    let most = u64::try_from(STANDALONE_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    file.take(most).read_to_end(&mut bytes).await.map_err(named)?;
    decode_standalone(&bytes).map_err(|error| named(io::Error::new(io::ErrorKind::InvalidData, error)))
}

/// Keeps the addresses of a file's services.
#[derive(Debug)]
pub struct Names {
    shared: Arc<Shared>,
    standalone: Standalone,
    /// What is known of each name; none before its first answer.
    known: BTreeMap<HostName, Vec<IpAddr>>,
    dice: Dice,
    /// Becomes true when requests may come.
    configured: watch::Sender<bool>,
}

impl Names {
    /// For the services of `standalone`.
    pub fn new(shared: Arc<Shared>, standalone: Standalone, dice: Dice, configured: watch::Sender<bool>) -> Self {
        Self { shared, standalone, known: BTreeMap::new(), dice, configured }
    }

    /// Runs until this process leaves.
    pub async fn run(mut self) {
        let leaving = self.shared.drain.clone();
        tokio::select! {
            () = self.follow() => {}
            () = leaving.leaving() => {}
        }
    }

    async fn follow(&mut self) {
        self.swap();
        let targets = self.standalone.services.iter().flat_map(|service| &service.targets);
        let names: BTreeSet<HostName> = targets.filter_map(named).cloned().collect();
        let (answers, mut arriving) = mpsc::channel(QUEUE);
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        for name in &names {
            tasks::spawn("name", ask(name.clone(), answers.clone(), Arc::clone(&turns)));
        }
        drop(answers);
        let mut first = names.clone();
        let late = tokio::time::sleep(FIRST_ANSWERS);
        tokio::pin!(late);
        while !first.is_empty() {
            tokio::select! {
                Some((name, answer)) = arriving.recv() => {
                    first.remove(&name);
                    self.learn(name, answer);
                }
                () = &mut late => {
                    tracing::warn!(names = first.len(), "some names have no answer yet");
                    break;
                }
            }
        }
        self.configured.send_replace(true);
        while let Some((name, answer)) = arriving.recv().await {
            self.learn(name, answer);
        }
        // Without names nothing ever changes.
        std::future::pending::<()>().await;
    }

    fn learn(&mut self, name: HostName, answer: Vec<IpAddr>) {
        let before = self.known.get(&name).map(Vec::as_slice).unwrap_or_default();
        let now = chosen(&name, before, answer);
        if now.is_empty() || now == before {
            return;
        }
        tracing::info!(name = %name.name, addresses = ?now, "resolved");
        self.known.insert(name, now);
        self.swap();
    }

    fn swap(&mut self) {
        let services =
            self.standalone.services.iter().map(|service| (service.name.clone(), state(service, &self.known)));
        let snapshot = Snapshot { services: services.collect(), ..Snapshot::default() };
        self.shared.current.apply(snapshot, self.shared.clock.now(), &mut self.dice);
    }
}

fn named(target: &StaticTarget) -> Option<&HostName> {
    match &target.host {
        TargetHost::Address(_) => None,
        TargetHost::Name(name) => Some(name),
    }
}

/// Asks for one name, again and again; never a second time before the first is answered.
async fn ask(name: HostName, answers: mpsc::Sender<(HostName, Vec<IpAddr>)>, turns: Arc<Semaphore>) {
    let (mut answered, mut failing) = (false, false);
    loop {
        let answer = {
            // Never closed.
            let _turn = turns.acquire().await;
            tokio::net::lookup_host((name.name.as_str(), 0)).await
        };
        let addresses = match answer {
            Ok(addresses) => addresses.map(|address| address.ip()).collect(),
            Err(error) => {
                // Once, not every time.
                if !failing {
                    let meanwhile = if answered { "what was known stays" } else { "there is no address yet" };
                    tracing::warn!(name = %name.name, %error, meanwhile, "no answer");
                }
                Vec::new()
            }
        };
        failing = addresses.is_empty();
        answered |= !failing;
        tokio::select! {
            sent = answers.send((name.clone(), addresses)) => if sent.is_err() { return },
            () = answers.closed() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(name.every) => {}
            () = answers.closed() => return,
        }
    }
}

/// The addresses of an answer that count, each once, in an order that does not change with the answer's.
fn chosen(name: &HostName, before: &[IpAddr], mut answer: Vec<IpAddr>) -> Vec<IpAddr> {
    let has_v4 = answer.iter().any(IpAddr::is_ipv4);
    answer.retain(|ip| match name.family {
        Family::Both => true,
        Family::V4 => ip.is_ipv4(),
        Family::V6 => ip.is_ipv6(),
        Family::V4First => ip.is_ipv4() == has_v4,
    });
    if name.take == Take::First {
        // One that is in use stays as long as it is among the answers: they come in any order.
        let kept = before.first().filter(|ip| answer.contains(ip)).or_else(|| answer.first()).copied();
        return kept.into_iter().collect();
    }
    answer.truncate(MOST_ADDRESSES);
    answer.sort_unstable();
    answer.dedup();
    answer
}

/// A service as a control plane would send it, with the addresses that are known.
fn state(service: &StaticService, known: &BTreeMap<HostName, Vec<IpAddr>>) -> ServiceState {
    let mut endpoints = BTreeMap::new();
    for target in &service.targets {
        let addresses = match &target.host {
            TargetHost::Address(ip) => std::slice::from_ref(ip),
            TargetHost::Name(name) => known.get(name).map(Vec::as_slice).unwrap_or_default(),
        };
        for ip in addresses {
            let address = Address { ip: *ip, port: target.port };
            // Brackets are not for ids.
            let id = format!("{ip}-{}", target.port);
            endpoints.entry(id.clone()).or_insert_with(|| endpoint(service, target, id, address));
        }
    }
    let service = Service {
        split: Vec::new(),
        http: Vec::new(),
        name: service.name.clone(),
        identities: BTreeSet::new(),
        sni: service.name.name().to_owned(),
        policy: service.policy.clone(),
        authorization: AuthorizationPolicy::default(),
        ports: vec![port(service)],
    };
    ServiceState { service, addresses: Vec::new(), route: None, endpoints }
}

/// What is spoken to it; nobody dials it by number.
fn port(service: &StaticService) -> Port {
    let number = service.targets.first().map_or(80, |target| target.port);
    let protocol = match service.protocol {
        StaticProtocol::Http1 => AppProtocol::Http,
        StaticProtocol::Http2 => AppProtocol::Http2,
    };
    Port { number, name: String::new(), protocol, target: None }
}

fn endpoint(service: &StaticService, target: &StaticTarget, id: String, address: Address) -> Endpoint {
    Endpoint {
        service: service.name.clone(),
        id,
        app_port: address.port,
        address,
        version: "latest".to_owned(),
        zone: target.zone.clone(),
        health: target.health,
        source: Registrar::Api,
        transport: Transport::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(family: Family, take: Take) -> HostName {
        HostName { name: "a".into(), family, take, every: Duration::from_secs(5) }
    }

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_family_asked_for_is_the_one_that_is_used() {
        let answer = ["::1", "10.0.0.2", "10.0.0.1", "10.0.0.2"];
        for (family, expected) in [
            (Family::Both, &["10.0.0.1", "10.0.0.2", "::1"][..]),
            (Family::V4, &["10.0.0.1", "10.0.0.2"]),
            (Family::V6, &["::1"]),
            (Family::V4First, &["10.0.0.1", "10.0.0.2"]),
        ] {
            assert_eq!(chosen(&name(family, Take::All), &[], ips(&answer)), ips(expected), "{family:?}");
        }
        assert_eq!(chosen(&name(Family::V4First, Take::All), &[], ips(&["::2", "::1"])), ips(&["::1", "::2"]));
    }

    #[test]
    fn of_a_logical_name_the_address_in_use_stays() {
        let name = name(Family::Both, Take::First);
        let first = chosen(&name, &[], ips(&["10.0.0.2", "10.0.0.1"]));
        assert_eq!(first, ips(&["10.0.0.2"]));
        assert_eq!(chosen(&name, &first, ips(&["10.0.0.1", "10.0.0.2"])), first);
        assert_eq!(chosen(&name, &first, ips(&["10.0.0.1"])), ips(&["10.0.0.1"]));
    }
}
