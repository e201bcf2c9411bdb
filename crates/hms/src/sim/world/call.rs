//! One call from its beginning to its end, as `attempt::run` of the proxy makes it.

use std::time::Duration;

use hms_formats::scenario::State;
use hms_model::policy::{KeepAlive, TrafficPolicy};
use hms_traffic::clock::Moment;
use hms_traffic::limits::Permit;
use hms_traffic::outlier::Outcome;
use hms_traffic::retry::{self, Attempted, Decision, NotProcessed};
use http::{Method, StatusCode};

use super::super::caller::{Came, Upstream};
use super::{Event, Seat, Try, World};

/// `attempt::FAIR`.
const FAIR: Duration = Duration::from_secs(1);
/// Why a caller's own proxy refuses a call.
const BREAKER_OPEN: &str = "breaker open";
const NO_ENDPOINT: &str = "no endpoint";
const TOO_MANY: &str = "too many at once";

/// A call under way.
#[derive(Debug)]
pub(super) struct Call {
    proxy: usize,
    to: usize,
    /// The work that made it; `None` for a load.
    by: Option<u64>,
    method: Method,
    /// It says of itself that it repeats another one.
    is_retry: bool,
    begun: Moment,
    deadline: Option<Moment>,
    /// When the request must be answered that it is made for.
    inherited: Option<Moment>,
    version: String,
    tries: u32,
    tried: Vec<usize>,
    /// The endpoint of the last try, and when that began.
    current: Option<(usize, Moment)>,
    /// Whether the last try is under way.
    is_waiting: bool,
    /// Why the next try is made.
    again_for: Option<String>,
    /// Its place among the requests under way.
    permit: Option<Permit>,
}

impl World<'_> {
    /// The policy of calls to a service.
    fn policy(&self, service: usize) -> Option<&TrafficPolicy> {
        self.services.get(service).map(|own| &own.played.policy)
    }

    fn upstream(&mut self, proxy: usize, to: usize) -> Option<&mut Upstream> {
        self.proxies.get_mut(proxy)?.upstreams.get_mut(&to)
    }

    /// A caller's application makes a call.
    pub(super) fn begin(&mut self, proxy: usize, to: usize, by: Option<u64>, method: Method, is_retry: bool) {
        let (number, now) = (self.name(), self.now);
        if let Some(account) = self.accounts.get_mut(to) {
            account.call(now);
        }
        let mut call = Call {
            proxy,
            to,
            by,
            method,
            is_retry,
            begun: now,
            deadline: None,
            // One that is over was forgotten with its answer.
            inherited: by.and_then(|work| self.works.get(&work)?.until).filter(|until| *until > now),
            version: String::new(),
            tries: 0,
            tried: Vec::new(),
            current: None,
            is_waiting: false,
            again_for: None,
            permit: None,
        };
        let Some(timeouts) = self.policy(to).map(|policy| policy.timeouts) else { return };
        let Some(requests) = self.policy(to).map(|policy| policy.limits.requests) else { return };
        let own = timeouts.request.map(|timeout| now.plus(timeout));
        call.deadline = [own, call.inherited].into_iter().flatten().min();
        let Some(upstream) = self.proxies.get_mut(proxy).and_then(|own| own.upstreams.get_mut(&to)) else { return };
        let refusal = match upstream.follow(now, &mut self.choices) {
            None => Some(NO_ENDPOINT),
            Some(version) => {
                call.version = version;
                call.permit = upstream.concurrency.try_acquire(requests);
                if call.permit.is_none() { Some(TOO_MANY) } else { None }
            }
        };
        if refusal.is_none() {
            upstream.budget.record_request(now);
        }
        self.calls.insert(number, call);
        match refusal {
            Some(why) => self.refuse(number, why),
            None => self.try_once(number),
        }
    }

    /// A refusal of the caller's own proxy.
    fn refuse(&mut self, number: u64, why: &'static str) {
        if why != NO_ENDPOINT {
            self.shed(number);
        }
        self.end(number, StatusCode::SERVICE_UNAVAILABLE, Some(why.to_owned()));
    }

    /// The caller's proxy has seen a refusal on purpose (`pipeline::shed::note`).
    fn shed(&self, number: u64) {
        let proxy = self.calls.get(&number).and_then(|call| self.proxies.get(call.proxy));
        if let Some(proxy) = proxy {
            proxy.refusals.note(self.now);
        }
    }

    /// Chooses an endpoint and sends the request there, or refuses it.
    pub(super) fn try_once(&mut self, number: u64) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&number) else { return };
        let Some(upstream) = self.proxies.get_mut(call.proxy).and_then(|own| own.upstreams.get_mut(&call.to)) else {
            return;
        };
        let Some(index) = upstream.choose(&call.version, &call.tried, now, &mut self.choices) else {
            let why = if upstream.is_open(now) { BREAKER_OPEN } else { NO_ENDPOINT };
            return self.refuse(number, why);
        };
        // The place at the endpoint before is given up when the next one is taken.
        if let Some((before, _)) = call.current.replace((index, now)) {
            upstream
                .endpoints
                .get_mut(before)
                .into_iter()
                .for_each(|own| own.in_flight = own.in_flight.saturating_sub(1));
        }
        let Some(endpoint) = upstream.endpoints.get_mut(index) else { return };
        endpoint.in_flight += 1;
        let pooled = endpoint.idle > 0;
        endpoint.idle = endpoint.idle.saturating_sub(1);
        call.tries += 1;
        call.is_waiting = true;
        let again_for = call.again_for.take();
        let is_retry = call.is_retry || call.tries > 1;
        let sent = Try {
            call: number,
            number: call.tries,
            to: Seat { service: call.to, place: endpoint.place },
            pooled,
            is_retry,
            told: None,
        };
        let (to, deadline) = (call.to, call.deadline);
        if let Some(account) = self.accounts.get_mut(to) {
            account.try_made(again_for);
        }
        let attempt = self.policy(to).and_then(|policy| policy.timeouts.attempt);
        let told = time_left(attempt, deadline, now);
        if let Some(limit) = told {
            self.plan(limit, Event::Expire { call: number, number: sent.number });
        }
        self.plan(self.scenario.network, Event::Arrive(Try { told, ..sent }));
    }

    /// A try came to something: what that says is noted, and whether to try again is decided.
    pub(super) fn answered(&mut self, number: u64, of: u32, came: Came) {
        let now = self.now;
        let Some(call) = self.calls.get_mut(&number).filter(|call| call.is_waiting && call.tries == of) else { return };
        let Some((index, begun)) = call.current else { return };
        call.is_waiting = false;
        let (proxy, to) = (call.proxy, call.to);
        let (mut outcome, mut failure) = came.judge();
        // `attempt::once`: so little time says nothing about the endpoint, and there is no more of it.
        let hurried = |until: Moment| until.saturating_since(begun) < FAIR && now >= until;
        if matches!(came, Came::TimedOut) && call.inherited.is_some_and(hurried) {
            (outcome, failure) = (Outcome::Ignored, Some(retry::Failure::Shed));
        }
        let keeps = self.policy(to).is_some_and(|policy| policy.keep_alive == KeepAlive::On);
        let Some(upstream) = self.proxies.get_mut(proxy).and_then(|own| own.upstreams.get_mut(&to)) else { return };
        if let Some(endpoint) = upstream.endpoints.get_mut(index) {
            if matches!(outcome, Outcome::Success | Outcome::AppError5xx) {
                endpoint.latency.observe(now.saturating_since(begun), now);
            }
            let is_free =
                matches!(came, Came::Status(_) | Came::Shed(_) | Came::AppDown | Came::AppReset | Came::Limited);
            endpoint.idle += u32::from(is_free && keeps);
        }
        upstream.note(index, outcome, now, &mut self.choices);
        if matches!(came, Came::Shed(_)) {
            self.shed(number);
        }
        self.watch_breaker(proxy, to);
        let Some(failure) = failure else {
            let well = came.status().is_success();
            return self.end(number, came.status(), (!well).then(|| came.word()));
        };
        match self.decide(number, index, failure) {
            Some(Decision::Retry { after, avoid_tried }) => {
                if let Some(call) = self.calls.get_mut(&number) {
                    call.again_for = Some(came.word());
                    if !avoid_tried {
                        call.tried.clear();
                    }
                }
                if let Some(account) = self.accounts.get_mut(to) {
                    account.grant(now);
                }
                self.plan(after, Event::Again(number));
            }
            Some(Decision::Stop(why)) => {
                let account = self.accounts.get_mut(to);
                if let Some(account) = account {
                    *account.stopped_for.entry(why.as_str()).or_default() += 1;
                }
                self.end(number, came.status(), Some(came.word()));
            }
            // The breaker opened meanwhile.
            None => {
                let account = self.accounts.get_mut(to);
                if let Some(account) = account {
                    *account.stopped_for.entry(BREAKER_OPEN).or_default() += 1;
                }
                self.end(number, came.status(), Some(came.word()));
            }
        }
    }

    /// Whether to try again; `None` when that was granted and the breaker is open.
    fn decide(&mut self, number: u64, index: usize, failure: retry::Failure) -> Option<Decision> {
        let now = self.now;
        let call = self.calls.get_mut(&number)?;
        call.tried.push(index);
        let upstream = self.proxies.get(call.proxy)?.upstreams.get(&call.to)?;
        let attempted = Attempted {
            method: &call.method,
            tries: call.tries,
            failure,
            body: retry::Body::Kept,
            next: if upstream.has_other(&call.tried, now) { retry::Next::Other } else { retry::Next::Same },
            deadline: call.deadline,
            usual: upstream.endpoints.get(index).map(|own| own.latency.value(now)).unwrap_or_default(),
            idempotency_key: false,
            is_retry: call.is_retry,
        };
        let policy = self.services.get(call.to).map(|own| &own.played.policy)?;
        let decision = retry::decide(&attempted, &policy.retry, &upstream.budget, now, &mut self.choices);
        let refused = matches!(decision, Decision::Retry { .. }) && upstream.is_open(now);
        (!refused).then_some(decision)
    }

    /// The caller's application has its answer.
    pub(super) fn end(&mut self, number: u64, status: StatusCode, failure: Option<String>) {
        let Some(mut call) = self.calls.remove(&number) else { return };
        drop(call.permit.take());
        if let (Some((index, _)), Some(upstream)) = (call.current, self.upstream(call.proxy, call.to)) {
            let endpoint = upstream.endpoints.get_mut(index);
            if let Some(own) = endpoint {
                own.in_flight = own.in_flight.saturating_sub(1);
            }
        }
        if let Some(account) = self.accounts.get_mut(call.to) {
            account.untried += u64::from(call.tries == 0);
            account.end(call.begun, self.now, failure);
        }
        if let Some(work) = call.by {
            self.called(work, status);
        }
    }

    /// What becomes of a try that reaches an instance that is not there.
    pub(super) fn miss(&mut self, arriving: Try, state: State) {
        let account = self.accounts.get_mut(arriving.to.service);
        if let Some(account) = account {
            account.missed += 1;
        }
        let connect = self.policy(arriving.to.service).map_or(Duration::ZERO, |policy| policy.timeouts.connect);
        let network = self.scenario.network;
        let (after, came) = match state {
            State::Gone => (network, Came::NotConnected(NotProcessed::ConnectRefused)),
            // What is sent on a connection that had been used before is never answered, nor refused.
            State::Silent if arriving.pooled => return,
            State::Silent => (connect.saturating_sub(network), Came::NotConnected(NotProcessed::ConnectTimeout)),
            State::Up | State::Down => (network, Came::AppDown),
        };
        self.plan(after, Event::Answer { call: arriving.call, number: arriving.number, came });
    }
}

/// `attempt::time_left`.
fn time_left(attempt: Option<Duration>, deadline: Option<Moment>, now: Moment) -> Option<Duration> {
    let until_deadline = deadline.map(|deadline| deadline.saturating_since(now));
    match (attempt, until_deadline) {
        (Some(attempt), Some(left)) => Some(attempt.min(left)),
        (one, other) => one.or(other),
    }
}
