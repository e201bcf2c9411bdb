//! The other end of a call: the destination's proxy and its application.

use std::time::Duration;

use hms_formats::scenario::{FailsWith, Latency, MILLION, State};
use hms_traffic::clock::Moment;
use hms_traffic::dice::Dice;
use hms_traffic::outlier::{FailureKind, Outcome};
use hms_traffic::rate_limit::Verdict;
use http::StatusCode;

use super::super::caller::Came;
use super::{Event, Seat, Try, World};

/// A request that an application works on.
#[derive(Debug)]
pub(super) struct Work {
    of: Try,
    begun: Moment,
    /// Which of its own calls is next.
    next: usize,
    /// When its caller's proxy gives up, or its own (`traffic::deadline`): its own calls have no more time.
    pub(super) until: Option<Moment>,
}

impl World<'_> {
    /// A try reaches the destination's proxy.
    pub(super) fn arrive(&mut self, arriving: Try) {
        let (now, seat) = (self.now, arriving.to);
        let Some(own) = self.services.get(seat.service) else { return };
        let (limit, Some(running)) = (own.played.rate_limit.as_ref(), own.running.get(seat.place)) else { return };
        let behaviour = running.behaviour;
        if matches!(behaviour.state, State::Gone | State::Silent) {
            return self.miss(arriving, behaviour.state);
        }
        let refused = limit.is_some_and(|limit| matches!(running.bucket.take(limit, now), Verdict::Refused { .. }));
        let Some(account) = self.accounts.get_mut(seat.service) else { return };
        if refused {
            account.limited += 1;
            return self.answer(arriving, Came::Limited);
        }
        if behaviour.state == State::Down {
            return self.miss(arriving, State::Down);
        }
        account.receive(now, seat.place);
        let own = self.services.get(seat.service).and_then(|own| own.played.policy.timeouts.request);
        let until = [arriving.told, own].into_iter().flatten().min().map(|left| now.plus(left));
        let work = self.name();
        self.works.insert(work, Work { of: arriving, begun: now, next: 0, until });
        let takes = sample(behaviour.latency, &mut self.applications) + behaviour.slow;
        self.plan(takes, Event::Worked(work));
    }

    fn answer(&mut self, of: Try, came: Came) {
        self.plan(self.scenario.network, Event::Answer { call: of.call, number: of.number, came });
    }

    /// An application has done its own work: it fails, or calls others, or answers.
    pub(super) fn worked(&mut self, work: u64) {
        let Some(of) = self.works.get(&work).map(|own| own.of) else { return };
        let running = self.services.get(of.to.service).and_then(|own| own.running.get(of.to.place));
        let Some(behaviour) = running.map(|running| running.behaviour) else { return };
        let rolled = self.applications.below(usize::try_from(MILLION).unwrap_or(usize::MAX));
        if u32::try_from(rolled).is_ok_and(|rolled| rolled < behaviour.fails) {
            self.works.remove(&work);
            let came = match behaviour.fails_with {
                FailsWith::Status(status) => Came::Status(status),
                FailsWith::Reset => Came::AppReset,
            };
            return self.answer(of, came);
        }
        self.call_on(work);
    }

    /// An application's own call has ended.
    pub(super) fn called(&mut self, work: u64, status: StatusCode) {
        let Some(own) = self.works.get_mut(&work) else { return };
        own.next += 1;
        if status.is_success() {
            return self.call_on(work);
        }
        let (of, begun) = (own.of, own.begun);
        let service = self.services.get(of.to.service);
        let status = service.and_then(|own| own.played.on_failure).unwrap_or(status);
        let proxy = service.and_then(|own| own.running.get(of.to.place)).and_then(|running| running.proxy);
        let was_refused = proxy.and_then(|proxy| self.proxies.get(proxy)).is_some_and(|own| own.refusals.since(begun));
        let is_shed = status.is_server_error() && was_refused;
        self.works.remove(&work);
        self.answer(of, if is_shed { Came::Shed(status) } else { Came::Status(status) });
    }

    /// The next of an application's own calls, or its answer.
    fn call_on(&mut self, work: u64) {
        let Some((of, next)) = self.works.get(&work).map(|own| (own.of, own.next)) else { return };
        let Some(own) = self.services.get(of.to.service) else { return };
        let proxy = own.running.get(of.to.place).and_then(|running| running.proxy);
        let is_retry = own.played.forwards_attempt && of.is_retry;
        if let Some((to, proxy)) = own.calls.get(next).copied().zip(proxy) {
            let method = own.played.method.clone();
            self.begin(proxy, to, Some(work), method, is_retry);
        } else {
            self.works.remove(&work);
            self.answer(of, Came::Status(StatusCode::OK));
        }
    }

    /// What an instance was working on when it went.
    pub(super) fn cut_off(&mut self, seat: Seat, state: State) {
        if state == State::Up {
            return;
        }
        let under_way = self.works.iter().filter(|(_, own)| own.of.to == seat);
        let under_way: Vec<(u64, Try)> = under_way.map(|(work, own)| (*work, own.of)).collect();
        for (work, of) in under_way {
            self.works.remove(&work);
            match state {
                State::Down => self.answer(of, Came::AppReset),
                State::Gone => self.answer(of, Came::Broken),
                State::Silent | State::Up => {}
            }
        }
        if state == State::Gone {
            // The other end closes what nobody uses.
            for proxy in &mut self.proxies {
                let upstream = proxy.upstreams.get_mut(&seat.service);
                let endpoint = upstream.and_then(|own| own.endpoints.get_mut(seat.place));
                if let Some(endpoint) = endpoint {
                    endpoint.idle = 0;
                }
            }
        }
    }

    /// What a probe comes to, and after what time (`endpoint::probe`): whether the application listens, not what it answers.
    pub(super) fn probe(&self, seat: Seat) -> (Duration, Outcome) {
        let own = self.services.get(seat.service);
        let running = own.and_then(|own| own.running.get(seat.place));
        let connect = own.map_or(Duration::ZERO, |own| own.played.policy.timeouts.connect);
        let there_and_back = self.scenario.network.saturating_mul(2);
        match running.map_or(State::Gone, |running| running.behaviour.state) {
            State::Up => (there_and_back, Outcome::Success),
            State::Down => (there_and_back, Outcome::GatewayFailure(FailureKind::AppDown)),
            State::Gone => (there_and_back, Outcome::GatewayFailure(FailureKind::ConnectRefused)),
            State::Silent => (connect, Outcome::GatewayFailure(FailureKind::ConnectTimeout)),
        }
    }
}

/// How long one request takes: half of them from a half of p50 to p50, of the others nearly all up to p99, rarely near it, and the
/// last of a hundred up to twice p99. Only plain arithmetic, so that every machine has the same.
fn sample(latency: Latency, dice: &mut Dice) -> Duration {
    let Latency { p50, p99 } = latency;
    if p50 == p99 {
        return p50;
    }
    let roll = dice.unit();
    let tail = p99.saturating_sub(p50);
    if roll < 0.5 {
        p50.mul_f64(0.5 + roll)
    } else if roll < 0.99 {
        let part = (roll - 0.5) / 0.49;
        p50 + tail.mul_f64(part * part * part)
    } else {
        p99.mul_f64(1.0 + (roll - 0.99) / 0.01)
    }
}
