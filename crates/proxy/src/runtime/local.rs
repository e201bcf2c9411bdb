//! The service behind this proxy: its rules, and what they remember.

use std::collections::HashMap;
use std::sync::Arc;

use hms_model::mesh::ServiceState;
use hms_model::message::RequestHead;
use hms_model::policy::{LimitKey, RateLimit};
use hms_model::route::Route;
use hms_model::service::Service;
use hms_model::spiffe::SpiffeId;
use hms_traffic::clock::Moment;
use hms_traffic::rate_limit::{Bucket, Buckets, Verdict};
use hms_traffic::routing::RouteTable;
use parking_lot::Mutex;

/// The rules that the destination enforces.
#[derive(Debug)]
pub struct Local {
    /// The service.
    pub service: Service,
    /// Its name in series: `calc-svc.mesh`.
    pub host: Arc<str>,
    /// Its routes, to find the rule of a request.
    pub table: RouteTable,
    /// The rules in the order of the route, each with its bucket.
    pub rules: Vec<LocalRule>,
}

/// One rule with its bucket.
#[derive(Debug)]
pub struct LocalRule {
    /// `GET /sum/{a}/{b}`.
    pub name: Arc<str>,
    /// Its limit and the bucket that counts it.
    pub limit: Option<(RateLimit, Arc<Kept>)>,
}

/// The buckets of one limit.
#[derive(Debug)]
pub enum Kept {
    /// One for all.
    One(Bucket),
    /// One for each key. Behind a lock, because buckets come and go.
    Each(Mutex<Buckets>),
}

impl Kept {
    fn of(limit: &RateLimit) -> Arc<Self> {
        Arc::new(match limit.key() {
            LimitKey::Route => Self::One(Bucket::new()),
            LimitKey::Identity | LimitKey::Header(_) => Self::Each(Mutex::default()),
        })
    }

    /// Takes the tokens of a request by `peer`.
    pub fn take(&self, limit: &RateLimit, peer: &SpiffeId, head: &RequestHead, now: Moment) -> Verdict {
        match (self, limit.key()) {
            (Self::One(bucket), _) => bucket.take(limit, now),
            (Self::Each(buckets), LimitKey::Header(name)) => {
                buckets.lock().take(head.fields.first(name).unwrap_or_default(), limit, now)
            }
            (Self::Each(buckets), _) => buckets.lock().take(peer.as_str().as_bytes(), limit, now),
        }
    }
}

impl Local {
    /// Builds the rules. A bucket stays as full as it is while its rule and limit do (ruling R15).
    pub fn build(state: &ServiceState, old: Option<&Self>) -> Self {
        let mut buckets: HashMap<(&str, &RateLimit), &Arc<Kept>> = HashMap::new();
        for rule in old.into_iter().flat_map(|old| &old.rules) {
            if let Some((limit, bucket)) = &rule.limit {
                buckets.insert((&rule.name, limit), bucket);
            }
        }
        let empty = Route { service: state.service.name.clone(), rules: Vec::new() };
        let route = state.route.as_ref().unwrap_or(&empty);
        let rules = route
            .rules
            .iter()
            .map(|rule| {
                let name: Arc<str> = rule.matches.to_string().into();
                let limit = rule.rate_limit.as_ref().map(|limit| {
                    let kept = buckets.get(&(&*name, limit)).map_or_else(|| Kept::of(limit), |kept| Arc::clone(kept));
                    (limit.clone(), kept)
                });
                LocalRule { name, limit }
            })
            .collect();
        let table = RouteTable::build(std::iter::once((&route.service, route)));
        Self { service: state.service.clone(), host: state.service.name.mesh_host().into(), table, rules }
    }
}
