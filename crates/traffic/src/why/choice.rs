//! Which endpoint of a service a request goes to, as far as that can be said beforehand.

use hms_model::mesh::{Mesh, ServiceState};
use hms_model::policy::{Affinity, Algorithm, Balance, HashKey, Zones};
use hms_model::workload::{Endpoint, Health};

use super::{Question, Step};
use crate::balance::hashed::Hashed;
use crate::balance::key;

/// What a service's `balance` makes of a request to one of its versions; nothing where it is left to chance and load.
pub(super) fn steps(mesh: &Mesh, state: &ServiceState, version: &str, question: &Question<'_>) -> Vec<Step> {
    let Balance { algorithm, affinity, zones, slow_start } = &state.service.policy.balance;
    let usable = |own: &Endpoint| own.health == Health::Healthy && (version.is_empty() || own.version == version);
    let remembered = affinity.as_ref().map(|own| remembered(own, state, usable, question));
    let by_key = algorithm.key().map(|key| by_key(algorithm, key, state, usable, question));
    let near = match zones {
        Zones::Prefer if algorithm.key().is_none() => near(mesh, state, usable, question),
        Zones::Prefer | Zones::Ignore => None,
    };
    let warming = (!slow_start.is_zero() && algorithm.key().is_none())
        .then(|| format!("an endpoint that is new gets less than its share for {} s", slow_start.as_secs_f64()));
    let texts = [remembered, by_key, near, warming].into_iter().flatten();
    texts.map(|text| Step::note("balance", text)).collect()
}

fn named(endpoint: &Endpoint) -> String {
    format!("{} at {}", endpoint.id, endpoint.address)
}

/// Whether the request shows by whom an earlier one was answered.
fn remembered(
    affinity: &Affinity,
    state: &ServiceState,
    usable: impl Fn(&Endpoint) -> bool,
    question: &Question<'_>,
) -> String {
    let what = match affinity {
        Affinity::Cookie { name, .. } => format!("cookie {name}"),
        Affinity::Header(name) => format!("header {name}"),
    };
    let Some(shown) = key::shown(affinity, question.head) else {
        return format!(
            "the request has no {what}, so its answer brings one, and the next stays with the same endpoint"
        );
    };
    let service = state.service.name.to_string();
    let own = state.endpoints.values().find(|endpoint| key::token(&service, &endpoint.id) == shown);
    match own {
        Some(endpoint) if usable(endpoint) => format!("its {what} leads to {}", named(endpoint)),
        Some(endpoint) => format!("its {what} leads to {}, which is not usable: another takes it", named(endpoint)),
        None => format!("its {what} leads to nobody who is there: another takes it"),
    }
}

/// Where the key of the request leads.
fn by_key(
    algorithm: &Algorithm,
    hashed: &HashKey,
    state: &ServiceState,
    usable: impl Fn(&Endpoint) -> bool,
    question: &Question<'_>,
) -> String {
    let what = match hashed {
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("parameter {name}"),
        HashKey::Source => return "each workload of the caller stays with one endpoint".to_owned(),
    };
    let Some(key) = key::of(hashed, question.head, &[]) else {
        return format!("the request has no {what}, so the less loaded of two endpoints gets it");
    };
    let endpoints: Vec<&Endpoint> = state.endpoints.values().collect();
    let ids: Vec<&str> = endpoints.iter().map(|endpoint| endpoint.id.as_str()).collect();
    let found = Hashed::build(algorithm, &ids)
        .and_then(|table| table.find(key, |place| endpoints.get(place).is_some_and(|endpoint| usable(endpoint))))
        .and_then(|place| endpoints.get(place));
    match found {
        Some(endpoint) => format!("its {what} leads to {}", named(endpoint)),
        None => format!("its {what} leads to nobody who is usable"),
    }
}

/// How many endpoints are in the caller's zone.
fn near(
    mesh: &Mesh,
    state: &ServiceState,
    usable: impl Fn(&Endpoint) -> bool,
    question: &Question<'_>,
) -> Option<String> {
    let callers = mesh.services.get(question.from)?.endpoints.values();
    let mut zones: Vec<&str> = callers.map(|own| own.zone.as_str()).filter(|zone| !zone.is_empty()).collect();
    zones.sort_unstable();
    zones.dedup();
    let counts = zones.into_iter().map(|zone| {
        let own = state.endpoints.values().filter(|endpoint| endpoint.zone == zone);
        let usable = own.clone().filter(|endpoint| usable(endpoint)).count();
        format!("from {zone} the {usable} usable of {} endpoints there come first", own.count())
    });
    Some(counts.collect::<Vec<_>>().join(", ")).filter(|text| !text.is_empty())
}
