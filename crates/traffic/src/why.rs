//! What would become of a request, step by step, and whose word decides: the same decisions that proxies make, asked of the whole
//! mesh instead of by one of them.

mod choice;
mod claimed;
mod served;

use std::collections::BTreeMap;

use hms_model::http_route::{Backend, Bound, HttpRule};
use hms_model::mesh::{Mesh, ServiceState};
use hms_model::message::RequestHead;
use hms_model::names::ServiceName;
use hms_model::split::Share;
use hms_model::workload::{Health, Transport};

use crate::http_route::{HttpTable, LedRule, Selected, Whose, act};
use crate::routing::{RouteTable, Selection};

/// Who asks whom for what.
#[derive(Debug, Clone)]
pub struct Question<'a> {
    /// Who calls; the gateway's own name for a request from outside.
    pub from: &'a ServiceName,
    /// Who is called; `None` leaves it to the gateway's routes.
    pub to: Option<&'a ServiceName>,
    /// The port of it; 0 is the first.
    pub port: u16,
    /// The request.
    pub head: &'a RequestHead,
    /// The services whose breaker is open at the caller, and why.
    pub open: &'a BTreeMap<ServiceName, String>,
}

/// What one step says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The request passes.
    Pass,
    /// It is answered or refused here; what follows is not evaluated.
    Stop,
    /// It passes, and something may become of it.
    Note,
}

/// One step of a request's way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// What decides: `token`, `route`, `backend`, `breaker`, `endpoint`, `balance`, `identity`, `authz`, `rate`, `terms`.
    pub name: &'static str,
    /// What it says.
    pub says: Says,
    /// A sentence.
    pub text: String,
    /// `file:line` of the rule that decides; empty where there is none.
    pub origin: String,
    /// The number of the code that the caller would get; 0 for none.
    pub code: u16,
    /// What would let it pass; empty where nothing would.
    pub fix: String,
}

impl Step {
    fn new(name: &'static str, says: Says, text: impl Into<String>) -> Self {
        Self { name, says, text: text.into(), origin: String::new(), code: 0, fix: String::new() }
    }

    fn pass(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Says::Pass, text)
    }

    fn stop(name: &'static str, code: u16, text: impl Into<String>) -> Self {
        Self { code, ..Self::new(name, Says::Stop, text) }
    }

    fn note(name: &'static str, text: impl Into<String>) -> Self {
        Self::new(name, Says::Note, text)
    }

    fn at(self, origin: &str) -> Self {
        Self { origin: origin.to_owned(), ..self }
    }

    fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: fix.into(), ..self }
    }
}

/// The steps in the order in which they are taken; with a [`Says::Stop`] it is the last.
pub fn why(mesh: &Mesh, question: &Question<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let ended = steps_of(mesh, question, &mut steps);
    if let Err(last) = ended {
        steps.push(*last);
    }
    steps
}

type Going<T> = Result<T, Box<Step>>;

fn stop<T>(step: Step) -> Going<T> {
    Err(Box::new(step))
}

fn steps_of(mesh: &Mesh, question: &Question<'_>, steps: &mut Vec<Step>) -> Going<()> {
    if question.from.is_gateway() {
        steps.push(claimed::token(mesh, question)?);
    }
    let (led, table, parent);
    let (selected, to) = if question.from.is_gateway() && question.to.is_none() {
        table = HttpTable::build(&mesh.gateway.routes, Whose::Gateway);
        let selected = table.as_ref().and_then(|table| table.select(question.head, 0));
        match selected {
            Some(selected) => (Some(selected), None),
            None => (None, Some(at_the_gateway(mesh, question.head, steps)?)),
        }
    } else {
        parent = match question.to {
            Some(name) => known(mesh, name)?,
            None => return stop(Step::stop("route", 3403, "no service was named")),
        };
        led = led_by(parent, question);
        match &led {
            None => {
                let text = format!("no route leads the requests to {} elsewhere", parent.service.name);
                steps.push(Step::pass("route", text));
                (None, Some(parent))
            }
            Some(led) => match led.select(question.head, question.port) {
                Some(selected) => (Some(selected), Some(parent)),
                None => return stop(unmatched(led, parent, question.head)),
            },
        }
    };
    let goal = match selected {
        Some(selected) => led_to(mesh, selected, to, question.head, steps)?,
        None => Goal { shares: to.map(|to| to.service.split.clone()).unwrap_or_default(), parent: to, rule: None },
    };
    let state = backends(mesh, &goal, question, steps)?;
    served::steps(mesh, state, question, steps)?;
    steps.push(terms(state, goal.rule));
    Ok(())
}

/// Where a request goes.
struct Goal<'a> {
    shares: Vec<Share>,
    parent: Option<&'a ServiceState>,
    rule: Option<&'a HttpRule>,
}

fn known<'m>(mesh: &'m Mesh, name: &ServiceName) -> Going<&'m ServiceState> {
    mesh.services.get(name).map(AsRef::as_ref).ok_or_else(|| {
        let names: Vec<String> = mesh.services.keys().take(8).map(ToString::to_string).collect();
        let text = format!("no service is called {name}; there is {}", names.join(", "));
        Box::new(Step::stop("route", 3403, text).fix("hms services"))
    })
}

fn led_by(parent: &ServiceState, question: &Question<'_>) -> Option<HttpTable> {
    let whose = Whose::Service { service: &parent.service.name, caller: question.from };
    HttpTable::build(&parent.service.http, whose)
}

fn unmatched(table: &HttpTable, parent: &ServiceState, head: &RequestHead) -> Step {
    let known = table.known(8).join("; ");
    let text =
        format!("no rule of a route of {} takes {} {}; there is {known}", parent.service.name, head.method, head.path);
    Step::stop("route", 3401, text).fix("add a rule that takes it, or one without matches that takes everything")
}

/// Where the services' own routes lead a request from outside.
fn at_the_gateway<'m>(mesh: &'m Mesh, head: &RequestHead, steps: &mut Vec<Step>) -> Going<&'m ServiceState> {
    let routes = mesh.services.values().filter_map(|state| Some((&state.service.name, state.route.as_ref()?)));
    let table = RouteTable::build(routes);
    match table.select(&head.method, &head.path) {
        Selection::Found(target) => {
            let state = known(mesh, &target.service)?;
            let rule = state.route.as_ref().and_then(|route| route.rules.get(target.rule));
            let origin = rule.map(|rule| rule.origin.as_str()).unwrap_or_default();
            steps.push(Step::pass("route", format!("{} is served by {}", target.pattern, target.service)).at(origin));
            Ok(state)
        }
        Selection::NoMethod { allowed } => {
            let words: Vec<&str> = allowed.iter().map(http::Method::as_str).collect();
            let text = format!("{} takes {}, not {}", head.path, words.join(", "), head.method);
            stop(Step::stop("route", 3402, text))
        }
        Selection::NoPath { known } => {
            let there = if known.is_empty() { "nothing yet".to_owned() } else { known.join(", ") };
            stop(Step::stop("route", 3401, format!("no route has {}; there is {there}", head.path)))
        }
    }
}

/// What the rule of a route does with a request.
fn led_to<'a>(
    mesh: &Mesh,
    selected: Selected<'a>,
    parent: Option<&'a ServiceState>,
    head: &RequestHead,
    steps: &mut Vec<Step>,
) -> Going<Goal<'a>> {
    let LedRule { rule, route, title, shares } = selected.rule;
    steps.push(Step::pass("route", format!("the rule `{title}` of the route {route} takes it")).at(&rule.origin));
    let actions = &rule.actions;
    if actions.cors.is_some() && act::is_preflight(head) {
        return stop(Step::new("route", Says::Stop, "a browser's question is answered by the proxy").at(&rule.origin));
    }
    if let Some(redirect) = &actions.redirect {
        let scheme =
            if parent.is_some() { hms_model::http_route::Scheme::Http } else { hms_model::http_route::Scheme::Https };
        let location = act::location(redirect, selected.prefix, head, (scheme, head.authority.port()));
        let text = format!("the proxy answers {} and sends the caller to {location}", redirect.status);
        return stop(Step::new("route", Says::Stop, text).at(&rule.origin));
    }
    steps.extend(changes(selected, head).into_iter().map(|text| Step::note("route", text).at(&rule.origin)));
    if rule.backends.is_empty() {
        return match parent {
            Some(parent) => {
                let shares = parent.service.split.clone();
                Ok(Goal { shares, parent: Some(parent), rule: Some(rule) })
            }
            None => stop(Step::stop("backend", 3012, "the rule names no backend").at(&rule.origin)),
        };
    }
    let refused: Vec<&Backend> =
        rule.backends.iter().filter(|own| own.refused.is_some() && own.share.weight > 0).collect();
    for backend in &refused {
        let why = backend.refused.clone().unwrap_or_default();
        steps.push(Step { code: 3012, ..Step::note("backend", format!("its part is answered with 500: {why}")) });
    }
    if refused.len() == rule.backends.iter().filter(|own| own.share.weight > 0).count() {
        return stop(Step::stop("backend", 3012, "nobody that the rule names can be called").at(&rule.origin));
    }
    let whole = |share: &Share| parent.is_some_and(|own| own.service.name == share.service && share.version.is_empty());
    let shares = match (shares.as_slice(), parent) {
        ([only], Some(parent)) if whole(only) => parent.service.split.clone(),
        _ => shares.iter().filter(|share| mesh.services.contains_key(&share.service)).cloned().collect(),
    };
    Ok(Goal { shares, parent, rule: Some(rule) })
}

/// What may become of a request beside going somewhere.
fn changes(selected: Selected<'_>, head: &RequestHead) -> Vec<String> {
    let actions = &selected.rule.rule.actions;
    let mut texts = Vec::new();
    let percent = |millionths: u32| f64::from(millionths) / 10_000.0;
    if let Some(fault) = &actions.fault {
        let when = fault.trigger.as_ref().map(|name| format!(" if it has {name}")).unwrap_or_default();
        texts.extend(fault.delay.map(|(time, part)| {
            format!("on purpose {} % wait {} ms first{when}", percent(part.get()), time.as_millis())
        }));
        texts.extend(
            fault
                .abort
                .map(|(status, part)| format!("on purpose {} % are answered with {status}{when}", percent(part.get()))),
        );
    }
    if let Some(rewrite) = &actions.rewrite {
        let path = rewrite.path.as_ref().and_then(|path| act::rewrite(path, selected.prefix, &head.path));
        texts.extend(path.map(|path| format!("it is sent as {path}")));
        texts.extend(rewrite.host.as_ref().map(|host| format!("it is sent to the host {host}")));
    }
    for mirror in &actions.mirrors {
        texts.push(format!("{} % are copied to {}", percent(mirror.portion.get()), mirror.share.service));
    }
    texts
}

/// Who gets a request: the one service whose further steps are looked at.
fn backends<'m>(
    mesh: &'m Mesh,
    goal: &Goal<'_>,
    question: &Question<'_>,
    steps: &mut Vec<Step>,
) -> Going<&'m ServiceState> {
    let parent = goal.parent.map(|parent| parent.service.name.clone());
    if goal.shares.is_empty() {
        let Some(name) = parent else { return stop(Step::stop("backend", 3012, "nobody gets it")) };
        let state = known(mesh, &name)?;
        endpoints(mesh, state, "", question, steps)?;
        return Ok(state);
    }
    let total: u64 = goal.shares.iter().map(|share| u64::from(share.weight)).sum();
    let mut reachable = None;
    let mut last = None;
    for share in goal.shares.iter().filter(|share| share.weight > 0) {
        let version = if share.version.is_empty() { String::new() } else { format!(" {}", share.version) };
        #[expect(clippy::cast_precision_loss, reason = "sums of 32 weights of at most a million")]
        let percent = f64::from(share.weight) * 100.0 / total as f64;
        steps.push(Step::pass(
            "backend",
            format!("{percent:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
                + &format!(" % go to {}{version}", share.service),
        ));
        let state = known(mesh, &share.service)?;
        match endpoints(mesh, state, &share.version, question, steps) {
            Ok(()) => reachable = reachable.or(Some(state)),
            Err(step) => {
                steps.push(Step::note(step.name, format!("{}; its part goes to the others", step.text)));
                last = Some(step);
            }
        }
    }
    match (reachable, last) {
        (Some(state), _) => Ok(state),
        (None, Some(step)) => Err(step),
        (None, None) => stop(Step::stop("backend", 3002, "no share has a weight")),
    }
}

/// Whether a service, or a version of it, has an endpoint that would be called.
fn endpoints(
    mesh: &Mesh,
    state: &ServiceState,
    version: &str,
    question: &Question<'_>,
    steps: &mut Vec<Step>,
) -> Going<()> {
    let name = &state.service.name;
    if let Some(why) = question.open.get(name) {
        let text = format!("the breaker of {name} is open at {}: {why}", question.from);
        return stop(Step::stop("breaker", 3001, text).fix(format!("hms breaker show {name}")));
    }
    let meant: Vec<_> = state.endpoints.values().filter(|own| version.is_empty() || own.version == version).collect();
    let healthy = meant.iter().filter(|own| own.health == Health::Healthy).count();
    let of = if version.is_empty() { name.to_string() } else { format!("{name} {version}") };
    if healthy == 0 {
        let text = match meant.len() {
            0 => format!("{of} has no endpoint"),
            some => format!("none of the {some} endpoints of {of} is healthy"),
        };
        return stop(Step::stop("endpoint", 3002, text).fix(format!("hms start {name}")));
    }
    let plain = meant.iter().filter(|own| own.transport == Transport::Plain).count();
    let bare = if plain > 0 { format!("; {plain} without a proxy, so without mTLS") } else { String::new() };
    let text = format!("{healthy} of {} endpoints of {of} are healthy, the breaker is closed{bare}", meant.len());
    steps.push(Step::pass("endpoint", text));
    steps.extend(choice::steps(mesh, state, version, question));
    Ok(())
}

/// What holds of time and tries.
fn terms(state: &ServiceState, rule: Option<&HttpRule>) -> Step {
    let policy = &state.service.policy;
    let timeouts = rule.map_or(policy.timeouts, |rule| rule.timeouts.over(policy.timeouts));
    let retry = rule.and_then(|rule| rule.retry.as_ref()).unwrap_or(&policy.retry);
    let bound =
        |time: Option<std::time::Duration>| time.map_or_else(|| "no bound".to_owned(), |time| format!("{time:?}"));
    let own = rule.is_some_and(|rule| {
        rule.retry.is_some()
            || rule.timeouts.request.is_some_and(|own| own != Bound::Lifted)
            || rule.timeouts.attempt.is_some()
    });
    let text = format!(
        "up to {} retries within {} % of all requests; {} for all of it, {} for one try",
        retry.retries,
        retry.budget_percent,
        bound(timeouts.request),
        bound(timeouts.attempt)
    );
    let origin = rule.filter(|_| own).map(|rule| rule.origin.as_str()).unwrap_or_default();
    Step::pass("terms", text).at(origin)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
