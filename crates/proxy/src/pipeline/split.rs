//! Where a call to a service goes when its calls are divided.

use std::sync::Arc;

use hms_model::split::{self, Share};
use hms_model::workload::Health;
use hms_traffic::clock::Moment;
use hms_traffic::outlier::Phase;
use hms_traffic::split as decide;

use super::details;
use crate::refusal::{Reason, Refusal};
use crate::runtime::Runtime;
use crate::runtime::upstream::{Upstream, UpstreamEndpoint};
use crate::worker::Worker;

/// Which endpoints of a service a call may go to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pick<'a> {
    /// The version that was chosen for it; empty for any.
    version: &'a str,
    /// The split that it was chosen from: whoever has no share in it gets no call.
    shares: &'a [Share],
}

impl<'a> Pick<'a> {
    /// The version that one of some shares is of.
    pub fn of(share: &'a Share, shares: &'a [Share]) -> Self {
        Self { version: &share.version, shares }
    }
}

impl Pick<'_> {
    /// Whether an endpoint is of the version that was chosen.
    pub fn is_meant(&self, endpoint: &UpstreamEndpoint) -> bool {
        self.version.is_empty() || endpoint.endpoint.version == self.version
    }

    /// Whether an endpoint of another version may stand in when those that were meant cannot.
    pub fn may_stand_in(&self, upstream: &Upstream, endpoint: &UpstreamEndpoint) -> bool {
        split::takes(self.shares, &upstream.service.name, &endpoint.endpoint.version)
    }
}

/// The service that gets this call, and which endpoints of it. Rolled once per call: a second try stays where the first was, as long
/// as somebody there can be tried.
pub async fn follow<'a>(
    worker: &Worker,
    runtime: &Runtime,
    asked: &'a Arc<Upstream>,
) -> Result<(Arc<Upstream>, Pick<'a>), Refusal> {
    let shares = asked.service.split.as_slice();
    if shares.is_empty() {
        return Ok((Arc::clone(asked), Pick::default()));
    }
    let chosen = roll(worker, runtime, Some(asked), shares, |_| false);
    let Some(share) = chosen.and_then(|place| shares.get(place)) else {
        return Err(Refusal::new(
            Reason::NoEndpoint,
            format!("the split of {} gives nobody a share", asked.service.name),
        ));
    };
    let pick = Pick::of(share, shares);
    if share.service == asked.service.name {
        return Ok((Arc::clone(asked), pick));
    }
    Ok((details(worker, runtime, &share.service).await?, pick))
}

/// The place of the share that gets this call. `asked` is the service that was called, if one was; a share for which `is_fixed` holds
/// by its place keeps its part, whoever is behind it. A service that is not known in detail yet gets no call while others can take it:
/// it was asked for when its share became known.
pub fn roll(
    worker: &Worker,
    runtime: &Runtime,
    asked: Option<&Arc<Upstream>>,
    shares: &[Share],
    is_fixed: impl Fn(usize) -> bool,
) -> Option<usize> {
    let now = worker.now();
    let usable = |place: usize| {
        let Some(share) = shares.get(place) else { return false };
        let own = asked.filter(|asked| asked.service.name == share.service);
        match own.or_else(|| runtime.upstreams.get(&share.service)) {
            Some(upstream) => is_fixed(place) || serves(upstream, &share.version, now),
            None => is_fixed(place),
        }
    };
    decide::choose(shares, usable, &mut worker.dice.borrow_mut())
}

/// Whether a version has an endpoint that could be called now.
fn serves(upstream: &Upstream, version: &str, now: Moment) -> bool {
    upstream.endpoints.iter().any(|own| {
        let meant = version.is_empty() || own.endpoint.version == version;
        meant && own.endpoint.health == Health::Healthy && own.cells.health.phase(now) == Phase::Closed
    })
}
