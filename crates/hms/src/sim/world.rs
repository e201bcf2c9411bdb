//! What happens next: a queue of events in the order of time, and among equals in the order in which they were planned.

mod call;
mod serve;

use std::collections::BTreeMap;
use std::time::Duration;

use hms_formats::scenario::{Arrivals, Behaviour, Change, Happening, Load, Played, Scenario, State};
use hms_model::names::ServiceName;
use hms_model::workload::Health;
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::outlier::{Admission, Outcome};
use hms_traffic::rate_limit::Bucket;
use hms_traffic::shed::Refusals;
use hms_traffic::subset;

use super::MOST_STEPS;
use super::account::Account;
use super::caller::{Came, Proxy, Upstream};
use call::Call;
use serve::Work;

/// How often a proxy looks its ejected endpoints over (`probe::watch_ejected`).
const LOOK: Duration = Duration::from_millis(100);

/// Something that is going to happen.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// A load makes its next request.
    Offer(usize),
    /// A try reaches the destination's proxy.
    Arrive(Try),
    /// An application has done its own work.
    Worked(u64),
    /// A try's end reaches the caller's proxy.
    Answer { call: u64, number: u32, came: Came },
    /// The time of a try is over.
    Expire { call: u64, number: u32 },
    /// The wait before another try is over.
    Again(u64),
    /// The scenario's event of this number happens.
    Happen(usize),
    /// Callers are told how an instance is.
    Noticed { seat: Seat, state: State },
    /// Callers are told how calls are divided, by the event of this number.
    Divided(usize),
    /// Every proxy looks its ejected endpoints over.
    Look,
    /// A probe comes back.
    Probed { proxy: usize, service: usize, index: usize, outcome: Outcome },
}

/// An instance: its service, and its place there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seat {
    service: usize,
    place: usize,
}

/// A try under way.
#[derive(Debug, Clone, Copy)]
struct Try {
    call: u64,
    number: u32,
    to: Seat,
    /// On a connection that had been used before.
    pooled: bool,
    /// It says of itself that it is not the first (`x-hms-attempt`).
    is_retry: bool,
    /// How long its proxy will wait, which it tells (`x-envoy-expected-rq-timeout-ms`).
    told: Option<Duration>,
}

/// A service that is played.
#[derive(Debug)]
struct Service<'a> {
    name: &'a ServiceName,
    played: &'a Played,
    calls: Vec<usize>,
    running: Vec<Running>,
}

/// An instance that is played.
#[derive(Debug)]
struct Running {
    behaviour: Behaviour,
    bucket: Bucket,
    /// Its proxy, if its application calls anybody.
    proxy: Option<usize>,
}

/// A load that is played.
#[derive(Debug)]
struct Loading<'a> {
    load: &'a Load,
    to: usize,
    proxies: Vec<usize>,
    turn: usize,
    /// Requests that it has made.
    made: u64,
    /// How often each service is asked for by one request.
    asks: Vec<(usize, u64)>,
}

/// Everything, at one moment.
#[derive(Debug)]
pub(crate) struct World<'a> {
    scenario: &'a Scenario,
    now: Moment,
    planned: u64,
    queue: BTreeMap<(Moment, u64), Event>,
    services: Vec<Service<'a>>,
    accounts: Vec<Account>,
    proxies: Vec<Proxy>,
    loads: Vec<Loading<'a>>,
    calls: BTreeMap<u64, Call>,
    works: BTreeMap<u64, Work>,
    named: u64,
    /// Dice of the arrivals, the applications and the proxies. Apart, so that another policy meets the same load.
    arrivals: Dice,
    applications: Dice,
    choices: Dice,
}

impl<'a> World<'a> {
    /// The beginning.
    pub(crate) fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let place: BTreeMap<&ServiceName, usize> = scenario.services.keys().zip(0..).collect();
        let services = scenario.services.iter().map(|(name, played)| {
            let running = |behaviour| Running { behaviour, bucket: Bucket::new(), proxy: None };
            Service {
                name,
                played,
                calls: played.calls.iter().filter_map(|called| place.get(called).copied()).collect(),
                running: played.instances.iter().map(|own| running(own.behaviour)).collect(),
            }
        });
        let dice = |stream: u64| Dice::seeded(seed.wrapping_mul(3).wrapping_add(stream));
        let mut world = Self {
            scenario,
            now: Moment::ZERO,
            planned: 0,
            queue: BTreeMap::new(),
            services: services.collect(),
            accounts: scenario
                .services
                .iter()
                .map(|(name, own)| Account::new(name, &own.instances, &own.split))
                .collect(),
            proxies: Vec::new(),
            loads: Vec::new(),
            calls: BTreeMap::new(),
            works: BTreeMap::new(),
            named: 0,
            arrivals: dice(0),
            applications: dice(1),
            choices: dice(2),
        };
        world.populate(&place);
        world
    }

    /// Makes the proxies, and plans what is certain.
    fn populate(&mut self, place: &BTreeMap<&ServiceName, usize>) {
        for service in 0..self.services.len() {
            let Some(own) = self.services.get(service).filter(|own| !own.calls.is_empty()) else { continue };
            let (name, calls, instances) = (own.name, own.calls.clone(), &own.played.instances);
            for (at, instance) in instances.iter().enumerate() {
                let proxy = self.proxy(format!("{name}/{}", at + 1), &instance.zone, &calls);
                let seat = self.services.get_mut(service).and_then(|own| own.running.get_mut(at));
                if let Some(running) = seat {
                    running.proxy = Some(proxy);
                }
            }
        }
        for (number, load) in self.scenario.load.iter().enumerate() {
            let Some(to) = place.get(&load.to).copied() else { continue };
            let names = (1..=load.callers).map(|caller| format!("load-{}/{caller}", number + 1));
            let proxies = names.map(|name| self.proxy(name, &load.zone, &[to])).collect();
            let asks = self.asks(to);
            self.loads.push(Loading { load, to, proxies, turn: 0, made: 0, asks });
        }
        for (number, event) in self.scenario.events.iter().enumerate() {
            self.plan_at(Moment::ZERO.plus(event.at), Event::Happen(number));
        }
        for number in 0..self.loads.len() {
            self.plan_offer(number);
        }
        self.plan(LOOK, Event::Look);
    }

    fn proxy(&mut self, name: String, zone: &str, calls: &[usize]) -> usize {
        let caller = subset::Caller { id: name.clone(), zone: zone.to_owned() };
        let called = calls.iter().filter_map(|service| Some((*service, self.services.get(*service)?)));
        let upstreams = called.map(|(service, own)| {
            let policy = (own.name, &own.played.policy);
            (service, Upstream::new(policy, &caller, &own.played.instances, &own.played.split))
        });
        let proxy = Proxy { name, upstreams: upstreams.collect(), refusals: Refusals::new() };
        self.proxies.push(proxy);
        self.proxies.len().saturating_sub(1)
    }

    /// How often each service is asked for when one is, if every call is made once.
    fn asks(&self, to: usize) -> Vec<(usize, u64)> {
        let calls = |of: usize| self.services.get(of).map(|own| own.calls.as_slice()).unwrap_or_default();
        // Callers before those they call: a service comes when all that it calls have come, and then all is turned around.
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.services.len() {
            let ready = |of: &usize| !order.contains(of) && calls(*of).iter().all(|called| order.contains(called));
            let Some(next) = (0..self.services.len()).find(ready) else { break };
            order.push(next);
        }
        let mut times: BTreeMap<usize, u64> = BTreeMap::from([(to, 1)]);
        for of in order.into_iter().rev() {
            let own = times.get(&of).copied().unwrap_or_default();
            for called in calls(of).iter().filter(|_| own > 0) {
                let count = times.entry(*called).or_default();
                *count = count.saturating_add(own);
            }
        }
        times.into_iter().collect()
    }

    /// Plays to the end: no more requests are made, and every one has ended. `None` when that takes too many steps.
    pub(crate) fn run(mut self) -> Option<super::Played> {
        let mut steps = 0_u64;
        while let Some(((at, _), event)) = self.queue.pop_first() {
            steps += 1;
            if steps > MOST_STEPS {
                return None;
            }
            self.now = at;
            self.happen(event);
        }
        // What waits for an answer without a time limit waits for ever.
        while let Some(call) = self.calls.first_key_value().map(|(call, _)| *call) {
            self.end(call, http::StatusCode::GATEWAY_TIMEOUT, Some("never answered".to_owned()));
        }
        self.accounts.iter_mut().for_each(Account::reckon);
        Some(super::Played { accounts: self.accounts, steps })
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Offer(load) => self.offer(load),
            Event::Arrive(arriving) => self.arrive(arriving),
            Event::Worked(work) => self.worked(work),
            Event::Answer { call, number, came } => self.answered(call, number, came),
            Event::Expire { call, number } => self.answered(call, number, Came::TimedOut),
            Event::Again(call) => self.try_once(call),
            Event::Happen(number) => self.change(number),
            Event::Noticed { seat, state } => self.noticed(seat, state),
            Event::Divided(number) => self.divided(number),
            Event::Look => self.look(),
            Event::Probed { proxy, service, index, outcome } => {
                let upstream = self.proxies.get_mut(proxy).and_then(|own| own.upstreams.get_mut(&service));
                if let Some(own) = upstream {
                    own.note(index, outcome, self.now, &mut self.choices);
                }
                self.watch_breaker(proxy, service);
            }
        }
    }

    fn plan(&mut self, after: Duration, event: Event) {
        self.plan_at(self.now.plus(after), event);
    }

    fn plan_at(&mut self, at: Moment, event: Event) {
        self.planned += 1;
        self.queue.insert((at, self.planned), event);
    }

    /// A number that nothing else has.
    fn name(&mut self) -> u64 {
        self.named += 1;
        self.named
    }

    /// Plans a load's next request, unless it is over.
    fn plan_offer(&mut self, number: usize) {
        let Some(own) = self.loads.get(number) else { return };
        let (load, made) = (own.load, own.made);
        let at = match load.arrivals {
            Arrivals::Steady => {
                let after = Duration::from_micros(made.saturating_mul(1_000_000) / u64::from(load.rps));
                Moment::ZERO.plus(load.from + after)
            }
            Arrivals::Poisson => {
                let begun = if made == 0 { Moment::ZERO.plus(load.from) } else { self.now };
                // The time between two of a Poisson process has an exponential distribution.
                let gap = -(1.0 - self.arrivals.unit()).ln() / f64::from(load.rps);
                begun.plus(Duration::try_from_secs_f64(gap).unwrap_or_default())
            }
        };
        if at < Moment::ZERO.plus(load.until) {
            self.plan_at(at, Event::Offer(number));
        }
    }

    fn offer(&mut self, number: usize) {
        let Some(own) = self.loads.get_mut(number) else { return };
        let proxy = own.proxies.get(own.turn % own.proxies.len().max(1)).copied();
        own.turn += 1;
        own.made += 1;
        let (to, method) = (own.to, own.load.method.clone());
        for (service, many) in own.asks.clone() {
            if let Some(account) = self.accounts.get_mut(service) {
                account.offer(self.now, many);
            }
        }
        self.plan_offer(number);
        if let Some(proxy) = proxy {
            self.begin(proxy, to, None, method, false);
        }
    }

    /// An event of the scenario.
    fn change(&mut self, number: usize) {
        let Some(Happening { whom, change, .. }) = self.scenario.events.get(number) else { return };
        let Change { state, fails, slow, split } = change;
        for service in 0..self.services.len() {
            let Some(own) = self.services.get_mut(service) else { continue };
            let mut moved = Vec::new();
            for (place, running) in own.running.iter_mut().enumerate() {
                let is_meant = (1..).zip(&own.played.instances).nth(place);
                if !is_meant.is_some_and(|(number, instance)| whom.means(own.name, number, instance)) {
                    continue;
                }
                let behaviour = &mut running.behaviour;
                behaviour.fails = fails.unwrap_or(behaviour.fails);
                behaviour.slow = slow.unwrap_or(behaviour.slow);
                if let Some(state) = state.filter(|state| *state != behaviour.state) {
                    behaviour.state = state;
                    moved.push((place, state));
                }
            }
            for (place, state) in moved {
                self.moved(Seat { service, place }, state);
            }
        }
        if split.is_some() {
            self.plan(self.scenario.notice, Event::Divided(number));
        }
    }

    /// An instance came or went.
    fn moved(&mut self, seat: Seat, state: State) {
        self.cut_off(seat, state);
        if state != State::Silent {
            self.plan(self.scenario.notice, Event::Noticed { seat, state });
        }
    }

    fn noticed(&mut self, seat: Seat, state: State) {
        let account = self.accounts.get_mut(seat.service);
        if let Some(account) = account {
            account.set_up(seat.place, state == State::Up);
        }
        let listed = match state {
            State::Up => Some(Health::Healthy),
            State::Down => Some(Health::Unhealthy),
            State::Gone => None,
            State::Silent => return,
        };
        for proxy in 0..self.proxies.len() {
            let upstream = self.proxies.get_mut(proxy).and_then(|own| own.upstreams.get_mut(&seat.service));
            let Some(upstream) = upstream else { continue };
            upstream.follow_health(seat.place, listed, self.now, &mut self.choices);
            self.watch_breaker(proxy, seat.service);
        }
    }

    fn divided(&mut self, number: usize) {
        let Some(event) = self.scenario.events.get(number) else { return };
        let Some(split) = &event.change.split else { return };
        let Some(service) = self.services.iter().position(|own| Some(own.name) == event.whom.service.as_ref()) else {
            return;
        };
        if let Some(account) = self.accounts.get_mut(service) {
            account.set_split(split);
        }
        for proxy in &mut self.proxies {
            if let Some(upstream) = proxy.upstreams.get_mut(&service) {
                upstream.shares.clone_from(split);
            }
        }
    }

    /// Probes ejected endpoints whose time is up (`probe::watch_ejected`).
    fn look(&mut self) {
        let mut probes = Vec::new();
        for (proxy, own) in self.proxies.iter().enumerate() {
            for (service, upstream) in &own.upstreams {
                for (index, endpoint) in upstream.endpoints.iter().enumerate() {
                    let health = &endpoint.health;
                    let is_due = endpoint.listed.is_some() && health.force_probe_due(self.now);
                    if is_due && health.admit(self.now) == Admission::Probe {
                        probes.push((proxy, *service, index, endpoint.place));
                    }
                }
            }
        }
        for (proxy, service, index, place) in probes {
            let (after, outcome) = self.probe(Seat { service, place });
            self.plan(after, Event::Probed { proxy, service, index, outcome });
        }
        // Once nothing else is planned, nothing will happen any more.
        if !self.queue.is_empty() {
            self.plan(LOOK, Event::Look);
        }
    }

    /// Counts a breaker that has just opened.
    fn watch_breaker(&mut self, proxy: usize, service: usize) {
        let Some(own) = self.proxies.get_mut(proxy) else { return };
        let opened = own.upstreams.get_mut(&service).is_some_and(|upstream| upstream.has_opened(self.now));
        if opened && let Some(account) = self.accounts.get_mut(service) {
            account.openings.push(super::account::Opening { at: self.now, caller: own.name.clone() });
        }
    }
}
