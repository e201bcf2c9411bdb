//! Canaries: giving versions more and more of the calls, watching what callers see of them, and taking it back.
//!
//! What to do is decided in `hms_traffic::canary`; here it is done. A canary is written down before it changes a split, so a control
//! plane that dies in between knows afterwards whether the split is the one it wanted, the one there was, or somebody else's. What was
//! seen is in memory only: after a restart a step's time and figures begin anew.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use hms_identity::clock::Clock;
use hms_model::names::ServiceName;
use hms_model::resource::{Kind, Resource, ResourceKey};
use hms_model::split::{Share, Split};
use hms_model::workload::Health;
use hms_traffic::canary::{Figures, Gate, Next, Phase, Plan, next};
use hms_traffic::split::{NoDivision, divide};
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use crate::live::{BreakerPhase, Live, Watched};
use crate::registry::{Change, Registry, RegistryError, View};
use crate::store::{Keyspace, Revision, Store, StoreError, Write};

mod record;
#[cfg(test)]
mod tests;

pub use record::Record;

use self::record::{Division, PREFIX, key, service_of};

/// How often every canary is looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Canaries that a mesh may have, those that are over and not forgotten among them.
const MOST: usize = 200;
/// How often a change is tried anew at once because somebody else changed something else.
const TRIES: usize = 5;
/// Who changes the splits.
const ACTOR: &str = "canary";

/// Why a canary does not do what was asked. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum CanaryError {
    /// The service has one already.
    #[error("a canary of `{0}` is under way")]
    UnderWay(ServiceName),
    /// The service has none.
    #[error("`{0}` has no canary")]
    None(ServiceName),
    /// It is over.
    #[error("the canary of `{0}` is {phase}", phase = .1.as_str())]
    Over(ServiceName, Phase),
    /// What is asked for is not how it stands.
    #[error("the canary of `{0}` is {phase} already", phase = .1.as_str())]
    Already(ServiceName, Phase),
    /// Nobody serves the version.
    #[error("no instance has the version `{version}`")]
    NoVersion {
        /// The version.
        version: String,
        /// Those that there are, as a list.
        known: String,
    },
    /// The version gets as much already.
    #[error("`{version}` gets {percent} % of the calls already")]
    NoRise {
        /// The version.
        version: String,
        /// What it gets.
        percent: f64,
    },
    /// The calls cannot be divided so.
    #[error("{0}")]
    NoDivision(#[from] NoDivision),
    /// More than a mesh may have.
    #[error("a mesh has at most {MOST} canaries")]
    TooMany,
    /// The configuration could not be changed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
}

impl From<StoreError> for CanaryError {
    fn from(error: StoreError) -> Self {
        Self::Registry(RegistryError::Store(error))
    }
}

/// What somebody says to a canary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Stay on the step.
    Pause,
    /// Go on; the step begins anew.
    Resume,
    /// Everything at once, whatever the gates say.
    Promote,
    /// What held before, at once.
    Abort,
}

/// A canary as it is at this moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Seen {
    /// What is known of it.
    pub record: Record,
    /// What was seen of its version since the step began.
    pub figures: Figures,
    /// The same for every version.
    pub versions: BTreeMap<String, Watched>,
    /// How long the step has lasted.
    pub lasted: Duration,
}

/// One that this control plane looks after.
#[derive(Debug)]
struct Canary {
    record: Record,
    /// When its step began, in this process.
    entered: Instant,
}

/// Every canary of a mesh; clones share them.
#[derive(Clone)]
pub struct Canaries(Arc<Inner>);

struct Inner {
    registry: Registry,
    live: Live,
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    all: Mutex<BTreeMap<ServiceName, Canary>>,
}

impl fmt::Debug for Canaries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canaries").finish_non_exhaustive()
    }
}

impl Canaries {
    /// Those that are stored. Nothing moves until [`run`](Self::run). One that cannot be read is left where it is and reported.
    pub async fn open(
        registry: Registry,
        live: Live,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, StoreError> {
        let mut all = BTreeMap::new();
        for entry in store.list(Keyspace::Config, PREFIX).await?.entries {
            let read = service_of(&entry.key).ok_or_else(|| "it is no service's".to_owned());
            match read.and_then(|service| Ok((service, Record::read(&entry.value)?))) {
                Ok((service, record)) => {
                    if !record.phase.is_over() {
                        live.watch_versions(&service);
                    }
                    all.insert(service, Canary { record, entered: Instant::now() });
                }
                Err(why) => tracing::error!(key = %entry.key, %why, "a stored canary is left out"),
            }
        }
        Ok(Self(Arc::new(Inner { registry, live, store, clock, all: Mutex::new(all) })))
    }

    /// Looks after them for ever.
    pub async fn run(self) {
        let mut beat = tokio::time::interval(LOOK);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            beat.tick().await;
            let mut all = self.0.all.lock().await;
            for (service, canary) in all.iter_mut() {
                if let Err(error) = self.0.look(service, canary).await {
                    // It is tried again with the next look.
                    tracing::warn!(%service, %error, "the canary could not do what it wanted");
                }
            }
        }
    }

    /// Begins one: the first step takes effect at once. With `expected` the configuration must still be at that revision.
    pub async fn start(
        &self,
        service: &ServiceName,
        to: &str,
        plan: Plan,
        expected: Option<Revision>,
    ) -> Result<(), CanaryError> {
        let mut all = self.0.all.lock().await;
        match all.get(service) {
            Some(canary) if canary.record.is_unfinished() => return Err(CanaryError::UnderWay(service.clone())),
            None if all.len() >= MOST => return Err(CanaryError::TooMany),
            _ => {}
        }
        let view = self.0.registry.view();
        if let Some(expected) = expected
            && expected != view.config
        {
            return Err(RegistryError::Conflict { current: view.config }.into());
        }
        let record = self.0.begun(&view, service, to, plan)?;
        if !self.0.live.watch_versions(service) {
            return Err(CanaryError::TooMany);
        }
        let mut canary = Canary { record, entered: Instant::now() };
        if let Err(error) = self.0.keep(service, &canary.record).await {
            self.0.live.unwatch_versions(service);
            return Err(error);
        }
        tracing::info!(target: "audit", %service, version = %to, "began a canary");
        // Whether or not the split could be changed: what is written down is looked after from here on, and tried again.
        let begun = self.0.divide(service, &mut canary).await;
        all.insert(service.clone(), canary);
        begun
    }

    /// Tells one what to do.
    pub async fn order(&self, service: &ServiceName, order: Order) -> Result<(), CanaryError> {
        let mut all = self.0.all.lock().await;
        let canary = all.get_mut(service).ok_or_else(|| CanaryError::None(service.clone()))?;
        let phase = canary.record.phase;
        if phase.is_over() {
            return Err(CanaryError::Over(service.clone(), phase));
        }
        // What somebody else did meanwhile is seen first.
        self.0.settle(service, canary).await?;
        if canary.record.phase.is_over() {
            return Err(CanaryError::Over(service.clone(), canary.record.phase));
        }
        match (order, phase) {
            (Order::Pause, Phase::Paused) | (Order::Resume, Phase::Running) => {
                Err(CanaryError::Already(service.clone(), phase))
            }
            (Order::Pause, _) => {
                canary.record.phase = Phase::Paused;
                self.0.keep(service, &canary.record).await
            }
            (Order::Resume, _) => {
                canary.record.phase = Phase::Running;
                self.0.keep(service, &canary.record).await?;
                self.0.enter(service, canary);
                Ok(())
            }
            (Order::Promote, _) => {
                let everything = hms_model::split::MOST_WEIGHT;
                let wanted = Some(division(service, &canary.record, everything)?);
                self.0.end(service, canary, Phase::Promoted, "somebody said so".to_owned(), wanted).await
            }
            (Order::Abort, _) => {
                let wanted = canary.record.before.clone();
                self.0.end(service, canary, Phase::Aborted, "somebody said so".to_owned(), wanted).await
            }
        }
    }

    /// Forgets one that is over.
    pub async fn forget(&self, service: &ServiceName) -> Result<(), CanaryError> {
        let mut all = self.0.all.lock().await;
        match all.get(service) {
            None => return Err(CanaryError::None(service.clone())),
            Some(canary) if canary.record.is_unfinished() => return Err(CanaryError::UnderWay(service.clone())),
            Some(_) => {}
        }
        self.0.store.commit(Keyspace::Config, Vec::new(), vec![Write::Delete(key(service))]).await?;
        all.remove(service);
        Ok(())
    }

    /// One of them as it is now.
    pub async fn show(&self, service: &ServiceName) -> Result<Seen, CanaryError> {
        let all = self.0.all.lock().await;
        let canary = all.get(service).ok_or_else(|| CanaryError::None(service.clone()))?;
        Ok(Seen {
            record: canary.record.clone(),
            figures: self.0.figures(service, &canary.record.to),
            versions: self.0.live.versions(service),
            lasted: canary.entered.elapsed(),
        })
    }
}

impl Inner {
    /// What a canary begins with.
    fn begun(&self, view: &View, service: &ServiceName, to: &str, plan: Plan) -> Result<Record, CanaryError> {
        let endpoints = view.mesh.services.get(service).into_iter().flat_map(|state| state.endpoints.values());
        let mut known: Vec<String> = endpoints.map(|endpoint| endpoint.version.clone()).collect();
        known.sort();
        known.dedup();
        if !known.iter().any(|version| version == to) {
            return Err(CanaryError::NoVersion { version: to.to_owned(), known: known.join(", ") });
        }
        let before = present(view, service);
        let mut record = Record {
            to: to.to_owned(),
            phase: Phase::Running,
            step: 0,
            why: String::new(),
            wanted: None,
            was: before.clone(),
            before,
            known,
            started: self.seconds(),
            ended: None,
            plan,
        };
        let first = record.plan.steps.first().copied().unwrap_or_default();
        let shares = record.before.as_deref().unwrap_or_default();
        let all: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
        let own = shares.iter().filter(|share| share.service == *service && share.version == to);
        let own: u64 = own.map(|share| u64::from(share.weight)).sum();
        let million = u64::from(hms_model::split::MOST_WEIGHT);
        let gets = u32::try_from((own * million).checked_div(all).unwrap_or_default()).unwrap_or_default();
        if gets >= first && gets > 0 {
            return Err(CanaryError::NoRise { version: to.to_owned(), percent: f64::from(gets) / 10_000.0 });
        }
        record.wanted = Some(division(service, &record, first)?);
        Ok(record)
    }

    /// Looks at one and does what is to be done.
    async fn look(&self, service: &ServiceName, canary: &mut Canary) -> Result<(), CanaryError> {
        self.settle(service, canary).await?;
        let record = &canary.record;
        let figures = self.figures(service, &record.to);
        match next(&record.plan, record.phase, record.step, &figures, canary.entered.elapsed()) {
            Next::Stay(_) => Ok(()),
            Next::Step(step) => {
                let weight = record.plan.steps.get(step).copied().unwrap_or_default();
                let wanted = Some(division(service, record, weight)?);
                tracing::info!(target: "audit", %service, weight, "the canary goes on");
                self.change(service, canary, |record| (record.step, record.wanted) = (step, wanted)).await?;
                self.enter(service, canary);
                Ok(())
            }
            Next::Finish(Phase::Promoted) => {
                let wanted = record.wanted.clone();
                self.end(service, canary, Phase::Promoted, "every step was good".to_owned(), wanted).await
            }
            Next::Finish(phase) => {
                tracing::info!(target: "audit", %service, phase = phase.as_str(), "the canary's steps are over");
                canary.record.phase = phase;
                self.keep(service, &canary.record).await
            }
            Next::Abort(gate) => {
                let (why, wanted) = (broken(gate, &record.plan, &figures), record.before.clone());
                if !anybody_lives(&self.registry.view(), wanted.as_deref()) {
                    // A version that fails now and then is better than nobody at all.
                    if record.phase != Phase::Paused {
                        tracing::warn!(target: "audit", %service, %why, "the canary is held: nobody is left to give the calls back to");
                        canary.record.phase = Phase::Paused;
                        canary.record.why = format!("{why}, but nobody who had the calls before is healthy");
                        return self.keep(service, &canary.record).await;
                    }
                    return Ok(());
                }
                self.end(service, canary, Phase::Aborted, why, wanted).await
            }
        }
    }

    /// Sees to it that the split is the one that is wanted, unless it is neither that nor the one there was: then somebody else
    /// divided the calls, and they stay so.
    async fn settle(&self, service: &ServiceName, canary: &mut Canary) -> Result<(), CanaryError> {
        let record = &canary.record;
        if record.phase.is_over() && !record.is_pending() {
            return Ok(());
        }
        let now = present(&self.registry.view(), service);
        if now == record.wanted {
            if record.is_pending() {
                canary.record.was = now;
                return self.keep(service, &canary.record).await;
            }
            return Ok(());
        }
        if record.is_pending() && now == record.was {
            return self.divide(service, canary).await;
        }
        tracing::info!(target: "audit", %service, "the canary stops: somebody else divided the calls");
        self.live.unwatch_versions(service);
        canary.record.was.clone_from(&canary.record.wanted);
        if !canary.record.phase.is_over() {
            canary.record.phase = Phase::Stopped;
            "somebody else divided the calls anew; they stay so".clone_into(&mut canary.record.why);
            canary.record.ended = Some(self.seconds());
        }
        self.keep(service, &canary.record).await
    }

    /// Writes down what a canary wants from now on, then does it. Where it could not be written down nothing has changed.
    async fn change(
        &self,
        service: &ServiceName,
        canary: &mut Canary,
        change: impl FnOnce(&mut Record),
    ) -> Result<(), CanaryError> {
        let mut record = canary.record.clone();
        record.was = record.wanted.clone();
        change(&mut record);
        self.keep(service, &record).await?;
        canary.record = record;
        if canary.record.is_pending() { self.divide(service, canary).await } else { Ok(()) }
    }

    async fn end(
        &self,
        service: &ServiceName,
        canary: &mut Canary,
        phase: Phase,
        why: String,
        wanted: Division,
    ) -> Result<(), CanaryError> {
        tracing::info!(target: "audit", %service, phase = phase.as_str(), %why, "the canary is over");
        let ended = Some(self.seconds());
        let done = self
            .change(service, canary, |record| {
                (record.phase, record.why, record.wanted, record.ended) = (phase, why, wanted, ended);
            })
            .await;
        if canary.record.phase.is_over() {
            self.live.unwatch_versions(service);
        }
        done
    }

    /// A step begins: its time and its figures.
    fn enter(&self, service: &ServiceName, canary: &mut Canary) {
        canary.entered = Instant::now();
        self.live.watch_versions(service);
    }

    /// Makes the split what is wanted, if it still is what it was.
    async fn divide(&self, service: &ServiceName, canary: &mut Canary) -> Result<(), CanaryError> {
        let mut tries = 0;
        loop {
            let view = self.registry.view();
            if present(&view, service) != canary.record.was {
                // What that means is for the next look to say.
                return Err(RegistryError::Conflict { current: view.config }.into());
            }
            let change = match &canary.record.wanted {
                Some(shares) => {
                    Change::Put(Resource::Split(Split { service: service.clone(), shares: shares.clone() }))
                }
                None => Change::Delete(ResourceKey::of(Kind::Split, service)),
            };
            tries += 1;
            match self.registry.commit(ACTOR, vec![change], Some(view.config)).await {
                Err(RegistryError::Conflict { .. }) if tries < TRIES => tokio::task::yield_now().await,
                Err(error) => return Err(error.into()),
                Ok(_revision) => break,
            }
        }
        canary.record.was.clone_from(&canary.record.wanted);
        self.keep(service, &canary.record).await
    }

    async fn keep(&self, service: &ServiceName, record: &Record) -> Result<(), CanaryError> {
        let bytes = record.write().map_err(StoreError::Unavailable)?;
        self.store.commit(Keyspace::Config, Vec::new(), vec![Write::Put(key(service), bytes)]).await?;
        Ok(())
    }

    /// What callers saw of the version since the step began.
    fn figures(&self, service: &ServiceName, to: &str) -> Figures {
        let seen = self.live.versions(service).get(to).copied().unwrap_or_default();
        Figures {
            requests: seen.requests,
            failures: seen.failures,
            p95: seen.p95,
            is_ejected: self.is_ejected(service, to),
        }
    }

    /// Whether some caller calls none of the healthy instances of a version any more.
    fn is_ejected(&self, service: &ServiceName, to: &str) -> bool {
        let view = self.registry.view();
        let Some(state) = view.mesh.services.get(service) else { return false };
        let reports = self.live.breakers(Some(service));
        reports.iter().any(|report| {
            let meant = |id: &str| {
                let endpoint = state.endpoints.get(id);
                endpoint.is_some_and(|own| own.version == to && own.health == Health::Healthy)
            };
            let mut own = report.endpoints.iter().filter(|endpoint| meant(&endpoint.id)).peekable();
            own.peek().is_some() && own.all(|endpoint| endpoint.phase != BreakerPhase::Closed)
        })
    }

    fn seconds(&self) -> u64 {
        self.clock.now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    }
}

/// Whether a division gives anything to an endpoint that is healthy; without one everybody gets calls.
fn anybody_lives(view: &View, division: Option<&[Share]>) -> bool {
    division.is_none_or(|shares| {
        shares.iter().filter(|share| share.weight > 0).any(|share| {
            let state = view.mesh.services.get(&share.service);
            let mut endpoints = state.into_iter().flat_map(|state| state.endpoints.values());
            let meant = |version: &str| share.version.is_empty() || share.version == version;
            endpoints.any(|own| own.health == Health::Healthy && meant(&own.version))
        })
    })
}

/// The split of a service.
fn present(view: &View, service: &ServiceName) -> Division {
    match view.resources.get(&ResourceKey::of(Kind::Split, service)).map(AsRef::as_ref) {
        Some(Resource::Split(split)) => Some(split.shares.clone()),
        _ => None,
    }
}

/// The split in which the version has this weight; the others have what they had before, in proportion.
fn division(service: &ServiceName, record: &Record, weight: u32) -> Result<Vec<Share>, NoDivision> {
    let wanted = [(record.to.clone(), weight)];
    divide(service, record.before.as_deref().unwrap_or_default(), &record.known, &wanted)
}

/// What was broken, against what was allowed.
fn broken(gate: Gate, plan: &Plan, seen: &Figures) -> String {
    let Figures { requests, failures, p95, .. } = *seen;
    let percent = |millionths: u32| f64::from(millionths) / 10_000.0;
    match gate {
        Gate::Failures => {
            let most = percent(plan.gates.failures.unwrap_or_default());
            format!("{failures} of {requests} tries failed, {most} % are allowed")
        }
        Gate::P95 => {
            let longest = plan.gates.p95.unwrap_or_default().as_millis();
            format!("the 95th percentile is {} ms, {longest} ms are allowed", p95.unwrap_or_default().as_millis())
        }
        Gate::Errors => format!("{failures} tries failed, {} are allowed", plan.gates.errors.unwrap_or_default()),
        Gate::Instances => "a caller calls none of its instances any more, because they failed".to_owned(),
    }
}
