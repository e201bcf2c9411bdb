//! What is worked out of a service's `balance` once, when its table is built, so that no request has to.

use std::sync::Arc;
use std::time::Duration;

use hms_model::mesh::ServiceState;
use hms_model::policy::{Balance, Zones};
use hms_traffic::balance::hashed::Hashed;
use hms_traffic::balance::key;
use hms_traffic::subset::Caller;

use super::upstream::Upstream;

/// How the endpoints of a service are chosen beyond what every service has. A service without any of it has none.
#[derive(Debug)]
pub struct Spread {
    /// The endpoints by keys.
    pub hashed: Option<Arc<Hashed>>,
    /// What each endpoint is remembered by, in their order; empty if nobody is.
    pub tokens: Vec<u64>,
    /// Whether each endpoint is in the caller's zone, in their order; empty if that does not matter.
    pub near: Vec<bool>,
    /// How long an endpoint that is new gets less than its share.
    pub slow_start: Duration,
}

impl Spread {
    /// That of a service for `caller`. A table that would come out the same is taken from `old`.
    pub fn build(state: &ServiceState, old: Option<&Upstream>, caller: &Caller) -> Option<Arc<Self>> {
        let Balance { algorithm, affinity, zones, slow_start } = &state.service.policy.balance;
        let ids: Vec<&str> = state.endpoints.values().map(|endpoint| endpoint.id.as_str()).collect();
        let before = old.filter(|old| {
            let same = old.endpoints.iter().map(|own| own.endpoint.id.as_str()).eq(ids.iter().copied());
            same && old.service.policy.balance.algorithm == *algorithm
        });
        let before = before.and_then(|old| old.spread.as_ref()?.hashed.clone());
        let hashed = before.or_else(|| Hashed::build(algorithm, &ids).map(Arc::new));
        let tokens = match affinity {
            Some(_) => ids.iter().map(|id| key::token(&state.service.name.to_string(), id)).collect(),
            None => Vec::new(),
        };
        let near: Vec<bool> = match zones {
            Zones::Prefer if !caller.zone.is_empty() && hashed.is_none() => {
                state.endpoints.values().map(|endpoint| endpoint.zone == caller.zone).collect()
            }
            Zones::Prefer | Zones::Ignore => Vec::new(),
        };
        // Where all are near, or none is, there is nothing to prefer.
        let near = if near.iter().all(|own| Some(own) == near.first()) { Vec::new() } else { near };
        let slow_start = if hashed.is_some() { Duration::ZERO } else { *slow_start };
        let spread = Self { hashed, tokens, near, slow_start };
        spread.says_something().then(|| Arc::new(spread))
    }

    fn says_something(&self) -> bool {
        let Self { hashed, tokens, near, slow_start } = self;
        hashed.is_some() || !tokens.is_empty() || !near.is_empty() || !slow_start.is_zero()
    }
}
