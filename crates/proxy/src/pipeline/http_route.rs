//! A request that a rule of a route takes: what is done with it, who gets it, what is done with the answer.
//!
//! What is decided is decided in [`hms_traffic::http_route`]; the order here is the order of [`hms_model::http_route::Actions`].

use std::rc::Rc;
use std::sync::Arc;

use hms_model::http_route::{Backend, HeaderEdits, Rewrite, Scheme};
use hms_model::message::{Authority, RequestHead, ResponseHead};
use hms_model::names::ServiceName;
use hms_traffic::http_route::act::{self, Told};
use hms_traffic::http_route::{HttpTable, LedRule, Selected};
use http::header::{LOCATION, VARY};
use http::{HeaderValue, StatusCode};

use super::split::{self, Pick};
use super::{Asked, details, empty, mirror, named_port};
use crate::attempt::{self, Call, Terms};
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::Upstream;
use crate::telemetry::record::Exchange;
use crate::transport::{Edits, Response};
use crate::worker::Worker;

/// How many rules are named to somebody whose request fits none.
const KNOWN: usize = 8;

/// How a request came to a rule.
#[derive(Clone, Copy)]
pub(super) struct Way<'a> {
    /// The rule that takes it.
    pub selected: Selected<'a>,
    /// The service that was called, unless it came from outside.
    pub parent: Option<&'a Arc<Upstream>>,
    /// The port of it.
    pub port: u16,
    /// By what it was called.
    pub scheme: Scheme,
}

/// The refusal of a request that fits no rule.
pub(super) fn unmatched(table: &HttpTable, head: &RequestHead, of: &ServiceName) -> Refusal {
    let known = table.known(KNOWN).join("; ");
    let detail = format!("no rule of a route of {of} takes {} {}; there is {known}", head.method, head.path);
    Refusal::new(Reason::NoRoute, detail)
}

/// Does with a request what its rule says.
pub(super) async fn serve(
    worker: &Rc<Worker>,
    runtime: &Runtime,
    asked: Asked<'_>,
    way: Way<'_>,
    mut edits: Edits,
    exchange: &mut Exchange<'_>,
) -> Result<Response, Refusal> {
    let Asked { downstream, head, body } = asked;
    let Selected { rule, prefix } = way.selected;
    let actions = &rule.rule.actions;
    exchange.rule = Some(Arc::clone(&rule.title));
    if let Some(parent) = way.parent {
        exchange.service = Some(Arc::clone(&parent.host));
    }
    if let Some(answer) = answered_here(way, head) {
        return Ok(answer);
    }
    go_wrong(worker, rule, head).await?;
    change_request(head, &actions.request_headers, &mut edits);
    let chosen = choose(worker, runtime, way).await?;
    if let Some(backend) = chosen.backend {
        change_request(head, &backend.request_headers, &mut edits);
    }
    if let Some(rewrite) = &actions.rewrite {
        change_target(head, rewrite, prefix, &mut edits);
    }
    let body = mirror::copies(worker, &actions.mirrors, head, &edits, body);
    let terms = Terms { retry: rule.rule.retry.as_ref(), timeouts: rule.rule.timeouts };
    let port = named_port(&chosen.upstream, chosen.backend.and_then(|backend| backend.port).unwrap_or(way.port));
    let call = Call { head, body, edits, protocol: downstream.protocol, port, terms, pick: chosen.pick };
    let mut response = attempt::run(worker, &chosen.upstream, call, exchange).await?;
    change_answer(&mut response.head, &actions.response_headers);
    if let Some(backend) = chosen.backend {
        change_answer(&mut response.head, &backend.response_headers);
    }
    if let Some(cors) = &actions.cors {
        tell(&mut response.head, act::exposed(cors, head));
    }
    Ok(response)
}

/// The answer to a browser that asks whether it may ask. It comes without a token.
pub(super) fn preflight(selected: Selected<'_>, head: &RequestHead) -> Option<Response> {
    let cors = selected.rule.rule.actions.cors.as_ref().filter(|_| act::is_preflight(head))?;
    let mut response = empty(StatusCode::NO_CONTENT);
    tell(&mut response.head, act::preflight(cors, head));
    Some(response)
}

/// The answer that needs no backend: to a browser that asks whether it may ask, or elsewhere.
fn answered_here(way: Way<'_>, head: &RequestHead) -> Option<Response> {
    let Selected { rule, prefix } = way.selected;
    let actions = &rule.rule.actions;
    if let Some(answer) = preflight(way.selected, head) {
        return Some(answer);
    }
    let redirect = actions.redirect.as_ref()?;
    let location = act::location(redirect, prefix, head, (way.scheme, head.authority.port()));
    let mut response = empty(StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::FOUND));
    tell(&mut response.head, vec![(LOCATION, location)]);
    if let Some(cors) = &actions.cors {
        tell(&mut response.head, act::exposed(cors, head));
    }
    Some(response)
}

/// Waits, and refuses, as the rule's fault says.
async fn go_wrong(worker: &Worker, rule: &LedRule, head: &RequestHead) -> Result<(), Refusal> {
    let Some(fault) = &rule.rule.actions.fault else { return Ok(()) };
    let wrong = act::fault(fault, head, &mut worker.dice.borrow_mut());
    if let Some(delay) = wrong.delay {
        tokio::time::sleep(delay).await;
    }
    let Some(status) = wrong.abort else { return Ok(()) };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    Err(Refusal::new(Reason::Fault, format!("{} asks for this fault", written(rule))).status(status))
}

/// Where a rule was written, for people.
fn written(rule: &LedRule) -> String {
    match rule.rule.origin.as_str() {
        "" => format!("a rule of the route {}", rule.route),
        origin => format!("the route {} ({origin})", rule.route),
    }
}

/// Who gets a request.
struct Chosen<'a> {
    backend: Option<&'a Backend>,
    upstream: Arc<Upstream>,
    pick: Pick<'a>,
}

async fn choose<'a>(worker: &Worker, runtime: &Runtime, way: Way<'a>) -> Result<Chosen<'a>, Refusal> {
    let rule = way.selected.rule;
    let backends = &rule.rule.backends;
    if let ([], Some(parent)) = (backends.as_slice(), way.parent) {
        let (upstream, pick) = split::follow(worker, runtime, parent).await?;
        return Ok(Chosen { backend: None, upstream, pick });
    }
    let is_refused = |place: usize| backends.get(place).is_some_and(|backend| backend.refused.is_some());
    let place = split::roll(worker, runtime, way.parent, &rule.shares, is_refused);
    let Some(backend) = place.and_then(|place| backends.get(place)) else {
        let why = if backends.is_empty() { "names no backend" } else { "gives nobody a share" };
        return Err(Refusal::new(Reason::BadBackend, format!("{} {why}", written(rule))));
    };
    if let Some(why) = &backend.refused {
        return Err(Refusal::new(Reason::BadBackend, format!("{}: {why}", written(rule))));
    }
    let share = &backend.share;
    let parent = way.parent.filter(|parent| parent.service.name == share.service);
    let (upstream, pick) = match parent {
        // What is said of the service's versions holds for every rule that does not say it better.
        Some(parent) if share.version.is_empty() => split::follow(worker, runtime, parent).await?,
        Some(parent) => (Arc::clone(parent), Pick::of(share, &rule.shares)),
        None => (details(worker, runtime, &share.service).await?, Pick::of(share, &rule.shares)),
    };
    Ok(Chosen { backend: Some(backend), upstream, pick })
}

/// Sets, adds and removes, in this order.
fn change_request(head: &RequestHead, changes: &HeaderEdits, edits: &mut Edits) {
    for (name, value) in changes.set.iter().filter(|(name, _)| !HeaderEdits::is_protected(name)) {
        edits.set(name.clone(), value.clone());
    }
    for (name, value) in changes.add.iter().filter(|(name, _)| !HeaderEdits::is_protected(name)) {
        // One line says the same as several (RFC 9110 §5.3).
        let mut values = edits.values(head, name);
        values.push(value.as_bytes());
        let joined = values.join(b", ".as_slice());
        edits.set_line(name, &joined);
    }
    for name in changes.remove.iter().filter(|name| !HeaderEdits::is_protected(name)) {
        edits.remove(name.clone());
    }
}

fn change_target(head: &RequestHead, rewrite: &Rewrite, prefix: Option<&str>, edits: &mut Edits) {
    if let Some(authority) = rewrite.host.as_deref().and_then(|host| Authority::parse(host).ok()) {
        edits.rename(authority);
    }
    if let Some(path) = rewrite.path.as_ref().and_then(|path| act::rewrite(path, prefix, &head.path)) {
        edits.rewrite(path);
    }
}

fn change_answer(head: &mut ResponseHead, changes: &HeaderEdits) {
    for (name, value) in changes.set.iter().filter(|(name, _)| !HeaderEdits::is_protected(name)) {
        head.fields.set(name.clone(), value.clone());
    }
    for (name, value) in changes.add.iter().filter(|(name, _)| !HeaderEdits::is_protected(name)) {
        head.fields.append(name.clone(), value.clone());
    }
    for name in changes.remove.iter().filter(|name| !HeaderEdits::is_protected(name)) {
        head.fields.remove(name);
    }
}

/// Adds fields to an answer. A value that cannot stand in one is left out.
fn tell(head: &mut ResponseHead, told: Told) {
    for (name, value) in told {
        let Ok(value) = HeaderValue::try_from(value) else { continue };
        if name == VARY { head.fields.append(name, value) } else { head.fields.set(name, value) }
    }
}
