//! What the called side says: who calls, whether it may, how often.

use hms_model::mesh::{Mesh, ServiceState};
use hms_model::names::ServiceName;
use hms_model::policy::LimitKey;
use hms_model::policy::authorization::{AllowRule, Source};
use hms_model::spiffe::SpiffeId;

use super::{Going, Question, Step, stop};
use crate::authorize::{Verdict, authorize};
use crate::routing::{RouteTable, Selection};

pub(super) fn steps(mesh: &Mesh, state: &ServiceState, question: &Question<'_>, steps: &mut Vec<Step>) -> Going<()> {
    let identity = identity(mesh, question.from);
    let Some(caller) = &identity else {
        let text = format!("{} has no identity in this mesh", question.from);
        return stop(Step::stop("identity", 3201, text).fix(format!("hms run {} -- COMMAND", question.from.name())));
    };
    steps.push(Step::pass("identity", format!("the caller is {caller}")));
    allowed(mesh, state, caller, question, steps)?;
    steps.extend(rate(state, question));
    Ok(())
}

/// The identity that a service calls with.
fn identity(mesh: &Mesh, name: &ServiceName) -> Option<SpiffeId> {
    if let Some(own) = mesh.services.get(name).and_then(|state| state.service.identities.first()) {
        return Some(own.clone());
    }
    // A gateway serves nothing, so nobody declared it.
    let domain = mesh.trust.as_ref().map(|trust| trust.trust_domain.as_str())?;
    let own = format!("spiffe://{domain}/ns/{}/sa/{}", name.namespace(), name.name());
    name.is_gateway().then(|| SpiffeId::parse(&own).ok()).flatten()
}

fn allowed(
    mesh: &Mesh,
    state: &ServiceState,
    caller: &SpiffeId,
    question: &Question<'_>,
    steps: &mut Vec<Step>,
) -> Going<()> {
    let name = &state.service.name;
    let rules = &state.service.authorization.allow;
    let identities = |name: &ServiceName| mesh.services.get(name).map(|state| &state.service.identities);
    let head = question.head;
    match authorize(&state.service, Some(caller), identities, &head.method, &head.path) {
        Verdict::Allow { rule: None } => {
            steps.push(Step::pass(
                "authz",
                format!("{name} has no allow rule, so every member of the mesh may call it"),
            ));
            Ok(())
        }
        Verdict::Allow { rule: Some(place) } => {
            let rule = rules.get(place);
            let origin = rule.map(|rule| rule.origin.as_str()).unwrap_or_default();
            steps.push(Step::pass("authz", format!("allowed: {}", rule.map(words).unwrap_or_default())).at(origin));
            Ok(())
        }
        Verdict::Deny { nearest } => {
            let rule = nearest.and_then(|place| rules.get(place));
            let nearest = rule.map(|rule| format!("; nearest: {}", words(rule))).unwrap_or_default();
            let text = format!("the sidecar of {name} refuses: no allow rule matches{nearest}");
            let origin = rule.map(|rule| rule.origin.as_str()).unwrap_or_default();
            let (from, method, path) = (question.from.name(), &head.method, &head.path);
            let smallest = format!("allow: [{{from: {from}, to: {name}, routes: [{method} {path}]}}]");
            stop(Step::stop("authz", 3201, text).at(origin).fix(smallest))
        }
    }
}

/// A rule as people read it.
fn words(rule: &AllowRule) -> String {
    let who = match &rule.source {
        Source::Any => "everybody".to_owned(),
        Source::Gateway => "the gateway".to_owned(),
        Source::Service(name) => name.to_string(),
    };
    let what: Vec<String> = rule.matches.iter().map(ToString::to_string).collect();
    if what.is_empty() { format!("{who} may do anything") } else { format!("{who} may {}", what.join(", ")) }
}

/// The bucket that a request takes a token from.
fn rate(state: &ServiceState, question: &Question<'_>) -> Option<Step> {
    let route = state.route.as_ref()?;
    let table = RouteTable::of(route);
    let Selection::Found(target) = table.select(&question.head.method, &question.head.path) else { return None };
    let rule = route.rules.get(target.rule)?;
    let limit = rule.rate_limit.as_ref()?;
    let whose = match limit.key() {
        LimitKey::Route => String::new(),
        key => format!(", one bucket for each {key}"),
    };
    let cost = if limit.cost() == 1 { "one token".to_owned() } else { format!("{} tokens", limit.cost()) };
    let text = format!("{} {}: {cost} of {limit} at each instance{whose}", state.service.name, rule.matches);
    Some(Step::note("rate", text).at(&rule.origin))
}
