//! Whether every proxy that an object concerns has it.

use std::collections::HashMap;

use hms_model::http_route::Parent;
use hms_model::names::ServiceName;
use hms_model::resource::{Kind, Resource, ResourceKey};
use hms_model::snapshot::Scope;
use tokio::time::Instant;

use super::{Fault, Reason};
use crate::live::Reach;
use crate::registry::{Age, View};

/// Proxies that are named.
const NAMED: usize = 10;

/// Every connected proxy, found by what it subscribed to.
#[derive(Debug, Default)]
pub(crate) struct Proxies {
    all: Vec<Reach>,
    by_scope: HashMap<Scope, Vec<usize>>,
}

impl Proxies {
    /// An index of how far proxies came.
    pub(crate) fn new(all: Vec<Reach>) -> Self {
        let mut by_scope: HashMap<Scope, Vec<usize>> = HashMap::new();
        for (place, reach) in all.iter().enumerate() {
            for scope in reach.scopes.iter() {
                by_scope.entry(scope.clone()).or_default().push(place);
            }
        }
        Self { all, by_scope }
    }

    /// The proxies that hold one of these, in their order.
    fn concerned(&self, view: &View, carried: &Carried) -> Vec<&Reach> {
        if carried.is_everybodys {
            return self.all.iter().collect();
        }
        let holds = |scope: &&Scope| {
            let part = view.compiled.scope(scope);
            part.is_some_and(|part| carried.keys.iter().any(|key| part.contains_key(key)))
        };
        let mut places: Vec<usize> = carried
            .scopes
            .iter()
            .filter(holds)
            .filter_map(|scope| self.by_scope.get(scope))
            .flatten()
            .copied()
            .collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().filter_map(|place| self.all.get(place)).collect()
    }
}

/// By what an object is sent.
#[derive(Debug, Default)]
struct Carried {
    /// Every proxy has a part of it.
    is_everybodys: bool,
    /// The resources that say it.
    keys: Vec<ResourceKey>,
    /// Where they may be.
    scopes: Vec<Scope>,
}

impl Carried {
    fn by(resource: &Resource) -> Self {
        match resource {
            Resource::HttpRoute(route) => {
                let parents = route.parents.iter().map(|parent| match parent {
                    Parent::Service { service, .. } => Self::service(Kind::Service, service),
                    Parent::Gateway => Self::gateway(),
                });
                parents.fold(Self::default(), |mut all, one| {
                    all.keys.extend(one.keys);
                    all.scopes.extend(one.scopes);
                    all
                })
            }
            Resource::Split(split) => Self::service(Kind::Service, &split.service),
            Resource::Route(route) => Self::service(Kind::Route, &route.service),
            Resource::Gateway(_) => Self::gateway(),
            // Every proxy knows every service by its name.
            Resource::Declaration(declaration) => {
                let keys = [Kind::Entry, Kind::Service].map(|kind| ResourceKey::of(kind, &declaration.name));
                Self { is_everybodys: true, keys: keys.into(), scopes: Vec::new() }
            }
            other => Self { is_everybodys: true, keys: vec![other.key()], scopes: Vec::new() },
        }
    }

    /// What is of a service stands with its callers and with the gateway.
    fn service(kind: Kind, service: &ServiceName) -> Self {
        let scopes = vec![Scope::Service(service.clone()), Scope::Gateway];
        Self { keys: vec![ResourceKey::of(kind, service)], scopes, ..Self::default() }
    }

    fn gateway() -> Self {
        Self { keys: vec![ResourceKey::mesh(Kind::Gateway)], scopes: vec![Scope::Gateway], ..Self::default() }
    }
}

/// How many proxies have an object.
#[derive(Debug)]
pub(super) struct Programmed {
    pub(super) of: usize,
    pub(super) have: usize,
    pub(super) result: Result<String, Fault>,
    pub(super) since: Instant,
}

impl Programmed {
    /// Of what is not accepted.
    pub(super) fn nowhere(age: Age) -> Self {
        let result = Err((Reason::Invalid, "it is not accepted, so no proxy is sent it".to_owned()));
        Self { of: 0, have: 0, result, since: age.at }
    }
}

/// Counts who has it, who not yet, and who refuses it.
pub(super) fn judge(view: &View, proxies: &Proxies, resource: &Resource, age: Age) -> Programmed {
    let carried = Carried::by(resource);
    let names: Vec<String> = carried.keys.iter().map(ToString::to_string).collect();
    let concerned = proxies.concerned(view, &carried);
    let (mut have, mut behind, mut refusing) = (0, Vec::new(), Vec::new());
    // Since the last came that far; since somebody is behind.
    let (mut reached, mut missed, mut refused) = (age.at, None, age.at);
    for proxy in &concerned {
        let Some(at) = proxy.reached(age.shown.0) else {
            let so_far =
                proxy.acknowledged.map_or_else(|| "nothing".to_owned(), |revision| format!("revision {revision}"));
            behind.push(format!("{} has {so_far}", proxy.who));
            missed = Some(missed.map_or(proxy.since, |first: Instant| first.min(proxy.since)));
            continue;
        };
        let refusals = proxy.refused.iter().filter(|refusal| names.contains(&refusal.name));
        let refusals: Vec<String> = refusals.map(|own| format!("{} ({})", own.name, own.reason)).collect();
        if refusals.is_empty() {
            have += 1;
            reached = reached.max(at);
        } else {
            refusing.push(format!("{} refuses {}", proxy.who, refusals.join(", ")));
            refused = refused.max(at);
        }
    }
    let of = concerned.len();
    let (result, since) = if !refusing.is_empty() {
        (Err((Reason::Invalid, some(&refusing, "; "))), refused)
    } else if !behind.is_empty() {
        let words = format!("{have} of {of} proxies have it; {}", some(&behind, ", "));
        (Err((Reason::Pending, words)), missed.map_or(age.at, |first| first.max(age.at)))
    } else if of == 0 {
        (Ok("no connected proxy needs it".to_owned()), age.at)
    } else {
        (Ok(format!("{of} of {of} proxies have it")), reached)
    };
    Programmed { of, have, result, since }
}

fn some(texts: &[String], between: &str) -> String {
    let named = texts.iter().take(NAMED).cloned().collect::<Vec<_>>().join(between);
    match texts.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named}{between}and {more} more"),
    }
}
