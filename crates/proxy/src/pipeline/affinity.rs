//! Which endpoint a request wants, and a caller's way to come back to it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::num::NonZeroU64;

use hms_model::listener::Role;
use hms_model::message::RequestHead;
use hms_model::policy::{Affinity, HashKey};
use hms_model::workload::Health;
use hms_traffic::balance::slow_start::{self, WHOLE};
use hms_traffic::balance::zones::{self, Zone};
use hms_traffic::balance::{self, hashed, key};
use hms_traffic::clock::Moment;
use hms_traffic::http_route::CLAIMS;
use hms_traffic::outlier::Phase;
use http::HeaderValue;
use http::header::SET_COOKIE;

use super::split::Pick;
use crate::attempt;
use crate::runtime::spread::Spread;
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::transport::Response;
use crate::worker::Worker;

/// What a request says of the endpoint it wants. Most services do not ask, and then it costs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wish {
    /// Its key; 0 stands for 1, which only means that these two keys go to the same endpoint.
    key: Option<NonZeroU64>,
    /// The endpoint that its caller was with.
    token: Option<NonZeroU64>,
}

impl Wish {
    /// That of a request from `peer`.
    pub fn of(worker: &Worker, upstream: &Upstream, head: &RequestHead, peer: SocketAddr) -> Self {
        if upstream.spread.is_none() {
            return Self::default();
        }
        let policy = &upstream.service.policy.balance;
        let is_gateway = worker.shared.settings.role == Role::Gateway;
        // What only the mesh may say is a claim, not a key, when an outsider sends it.
        let wanted = policy.algorithm.key().filter(|key| !(is_gateway && is_claim(key)));
        let key = wanted.and_then(|wanted| {
            let source = if *wanted == HashKey::Source { source(worker, peer) } else { String::new() };
            key::of(wanted, head, source.as_bytes())
        });
        let token = policy.affinity.as_ref().and_then(|affinity| key::shown(affinity, head));
        Self { key: key.map(not_zero), token: token.and_then(NonZeroU64::new) }
    }

    /// That of a connection that nobody reads: that it comes from the workload beside us is all that is known of it.
    pub fn of_connection(worker: &Worker, upstream: &Upstream) -> Self {
        let is_known = worker.shared.settings.role == Role::Sidecar;
        let by_source = is_known
            && upstream.spread.is_some()
            && upstream.service.policy.balance.algorithm.key() == Some(&HashKey::Source);
        let key = by_source.then(|| not_zero(hashed::key(own_workload(worker).as_bytes())));
        Self { key, token: None }
    }

    /// Tells the caller how to come back to the endpoint that answered, unless it has just said so itself.
    pub fn remember(self, worker: &Worker, upstream: &Upstream, index: usize, mut answer: Response) -> Response {
        let token = upstream.spread.as_ref().and_then(|spread| spread.tokens.get(index).copied());
        let Some(token) = token.filter(|token| self.token.map(NonZeroU64::get) != Some(*token)) else { return answer };
        let Some(affinity) = &upstream.service.policy.balance.affinity else { return answer };
        let text = key::write_token(token);
        let (name, text) = match affinity {
            Affinity::Header(name) => (name.clone(), text),
            Affinity::Cookie { name, ttl } => {
                let mut cookie = format!("{name}={text}; Path=/; HttpOnly; SameSite=Lax");
                if let Some(ttl) = ttl {
                    let _infallible = write!(cookie, "; Max-Age={}", ttl.as_secs()).is_ok();
                }
                // What comes in at a gateway comes over TLS; a sidecar answers its application in clear text.
                if worker.shared.settings.role == Role::Gateway {
                    cookie.push_str("; Secure");
                }
                (SET_COOKIE, cookie)
            }
        };
        if let Ok(value) = HeaderValue::try_from(text) {
            let fields = &mut answer.head.fields;
            if name == SET_COOKIE { fields.append(name, value) } else { fields.set(name, value) }
        }
        answer
    }
}

fn is_claim(key: &HashKey) -> bool {
    matches!(key, HashKey::Header(name) if CLAIMS.iter().any(|begin| name.as_str().starts_with(begin)))
}

fn not_zero(key: u64) -> NonZeroU64 {
    NonZeroU64::new(key).unwrap_or(NonZeroU64::MIN)
}

/// Who calls: of a sidecar its own workload, which is the only one that calls through it; elsewhere the other end's address.
fn source(worker: &Worker, peer: SocketAddr) -> String {
    match worker.shared.settings.role {
        Role::Sidecar => own_workload(worker),
        Role::Gateway | Role::Egress | Role::Node | Role::Standalone => peer.ip().to_canonical().to_string(),
    }
}

fn own_workload(worker: &Worker) -> String {
    format!("{}/{}", worker.shared.settings.service, worker.shared.settings.workload_id)
}

/// The endpoint that a service's `balance` leads to, of the version that was meant and not yet tried; `None` leaves the choice to
/// what every service has.
pub fn choose(
    worker: &Worker,
    upstream: &Upstream,
    (spread, pick, wish): (&Spread, Pick<'_>, Wish),
    tried: &[usize],
    now: Moment,
) -> Option<usize> {
    let is_usable = |endpoint: &UpstreamEndpoint| {
        endpoint.endpoint.health == Health::Healthy && endpoint.cells.health.phase(now) == Phase::Closed
    };
    let fits = |index: usize, among: &dyn Fn(&UpstreamEndpoint) -> bool| {
        let endpoint = upstream.endpoints.get(index).filter(|_| !tried.contains(&index));
        endpoint.is_some_and(|endpoint| among(endpoint) && is_usable(endpoint))
    };
    let (meant, others) =
        (|own: &UpstreamEndpoint| pick.is_meant(own), |own: &UpstreamEndpoint| pick.may_stand_in(upstream, own));
    if let Some(token) = wish.token {
        // A session stays with its version too, as long as that has a share.
        let remembered = spread.tokens.iter().position(|own| *own == token.get());
        if let Some(index) = remembered.filter(|index| fits(*index, &others)) {
            list_for_the_record(worker, upstream, &others, tried, now);
            return Some(index);
        }
    }
    if let (Some(hashed), Some(key)) = (&spread.hashed, wish.key) {
        list_for_the_record(worker, upstream, &meant, tried, now);
        let found = hashed.find(key.get(), |index| fits(index, &meant));
        return found.or_else(|| hashed.find(key.get(), |index| fits(index, &others)));
    }
    if spread.near.is_empty() {
        return among(worker, upstream, spread, &meant, tried, now);
    }
    let is_near = |own: &UpstreamEndpoint| own.endpoint.zone == worker.shared.settings.zone;
    let [mut own, mut far] = [Zone::default(); 2];
    for (endpoint, near) in upstream.endpoints.iter().zip(&spread.near).filter(|(endpoint, _)| meant(endpoint)) {
        let zone = if *near { &mut own } else { &mut far };
        zone.all += 1;
        zone.usable += usize::from(is_usable(endpoint));
    }
    let stays = zones::stays(own, far, &mut worker.dice.borrow_mut());
    let here = |endpoint: &UpstreamEndpoint| meant(endpoint) && is_near(endpoint) == stays;
    let first = among(worker, upstream, spread, &here, tried, now);
    first.or_else(|| among(worker, upstream, spread, &meant, tried, now))
}

/// Who could have been called, for whoever asks later; the choice does without it.
fn list_for_the_record(
    worker: &Worker,
    upstream: &Upstream,
    part: &dyn Fn(&UpstreamEndpoint) -> bool,
    tried: &[usize],
    now: Moment,
) {
    let mut list = worker.candidates.borrow_mut();
    list.clear();
    list.extend(attempt::candidates(upstream, now, part, tried));
}

/// Chooses among the endpoints of a part, those that are new as seldom as they should be.
fn among(
    worker: &Worker,
    upstream: &Upstream,
    spread: &Spread,
    part: &dyn Fn(&UpstreamEndpoint) -> bool,
    tried: &[usize],
    now: Moment,
) -> Option<usize> {
    let mut list = worker.candidates.borrow_mut();
    let mut dice = worker.dice.borrow_mut();
    list.clear();
    list.extend(attempt::candidates(upstream, now, part, tried));
    if !spread.slow_start.is_zero() {
        let share = |index: usize| {
            upstream.endpoints.get(index).map_or(WHOLE, |own| own.cells.since.share(spread.slow_start, now))
        };
        slow_start::thin(&mut list, |candidate| share(candidate.index), &mut dice);
    }
    balance::choose(&upstream.service.policy.balance.algorithm, &list, &upstream.cells.rotor, &mut dice)
}
