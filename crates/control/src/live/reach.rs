//! How far proxies came: what each subscribed to, what it acknowledged and when, what it refuses.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use hms_model::listener::Role;
use hms_model::snapshot::Scope;
use tokio::time::Instant;

use super::{Live, ProxyKey, RefusedReport};

/// Steps of a proxy that are remembered; older ones are thinned out.
const STEPS: usize = 32;

/// What a discovery stream knows of its proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Subscriber {
    stream: u64,
    scopes: Arc<BTreeSet<Scope>>,
    pub(super) acknowledged: Option<u64>,
    pub(super) refused: Vec<RefusedReport>,
    steps: Steps,
}

/// When somebody came how far: revisions and times, both ascending.
#[derive(Debug, Clone, Default)]
struct Steps(VecDeque<(u64, Instant)>);

impl Steps {
    fn add(&mut self, revision: u64, now: Instant) {
        if self.0.back().is_some_and(|(last, _)| *last >= revision) {
            return;
        }
        if self.0.len() >= STEPS {
            // Of the older half every second one: what is long ago need not be known to the millisecond.
            let mut place = 0;
            self.0.retain(|_| {
                place += 1;
                place > STEPS / 2 || place % 2 == 1
            });
        }
        self.0.push_back((revision, now));
    }

    /// When a revision was reached, or a later one if that is forgotten.
    fn reached(&self, revision: u64) -> Option<Instant> {
        self.0.iter().find(|(own, _)| *own >= revision).map(|(_, at)| *at)
    }
}

/// How far one connected proxy came.
#[derive(Debug, Clone)]
pub(crate) struct Reach {
    /// Its service, if it has one, and its id.
    pub(crate) who: String,
    /// What it subscribed to. Of one that did not ask yet, what it is going to ask for at least.
    pub(crate) scopes: Arc<BTreeSet<Scope>>,
    /// The newest revision of which it has everything it would take.
    pub(crate) acknowledged: Option<u64>,
    /// What it refuses at present.
    pub(crate) refused: Vec<RefusedReport>,
    /// Since when it is connected.
    pub(crate) since: Instant,
    steps: Steps,
}

impl Reach {
    /// When it had everything of a revision that it would take; `None` if it has not.
    pub(crate) fn reached(&self, revision: u64) -> Option<Instant> {
        let has_it = self.acknowledged.is_some_and(|own| own >= revision);
        has_it.then(|| self.steps.reached(revision).unwrap_or(self.since))
    }
}

#[cfg(test)]
impl Reach {
    /// A proxy that came so far at this moment.
    pub(crate) fn of(who: &str, scopes: impl IntoIterator<Item = Scope>, reached: &[(u64, Instant)]) -> Self {
        let mut steps = Steps::default();
        for (revision, at) in reached {
            steps.add(*revision, *at);
        }
        Self {
            who: who.to_owned(),
            scopes: Arc::new(scopes.into_iter().collect()),
            acknowledged: reached.last().map(|(revision, _)| *revision),
            refused: Vec::new(),
            since: reached.first().map_or_else(Instant::now, |(_, at)| *at),
            steps,
        }
    }
}

impl Live {
    /// How far every connected proxy came, in the order of identity and id.
    pub(crate) fn reaches(&self) -> Vec<Reach> {
        let subscribers = self.0.subscribers.lock().clone();
        let proxies = self.0.proxies.lock();
        let reach = |(key, proxy): (&ProxyKey, &super::Proxy)| {
            let Subscriber { scopes, acknowledged, refused, steps, .. } =
                subscribers.get(key).cloned().unwrap_or_default();
            let sure = |own: &super::Proxy| {
                let served = own.service.clone().map(Scope::Service);
                let gateway = (own.hello.role == Role::Gateway).then_some(Scope::Gateway);
                Arc::new([Scope::Mesh].into_iter().chain(served).chain(gateway).collect())
            };
            let id = &proxy.hello.id;
            Reach {
                who: proxy.service.as_ref().map_or_else(|| id.clone(), |service| format!("{service} ({id})")),
                scopes: if scopes.is_empty() { sure(proxy) } else { scopes },
                acknowledged,
                refused,
                since: proxy.since,
                steps,
            }
        };
        proxies.iter().map(reach).collect()
    }

    /// A discovery stream of a proxy begins; the number tells it from a later one of the same proxy.
    pub(crate) fn subscriber_began(&self, node: &ProxyKey) -> u64 {
        let stream = self.number();
        self.0.subscribers.lock().insert(node.clone(), Subscriber { stream, ..Subscriber::default() });
        stream
    }

    /// What a discovery stream's proxy subscribed to.
    pub(crate) fn subscriber_wants(&self, node: &ProxyKey, stream: u64, scopes: &BTreeSet<Scope>) {
        if let Some(subscriber) = self.0.subscribers.lock().get_mut(node).filter(|found| found.stream == stream) {
            if !scopes.is_subset(&subscriber.scopes) {
                // Of what is new it has nothing yet.
                subscriber.acknowledged = None;
            }
            subscriber.scopes = Arc::new(scopes.clone());
        }
    }

    /// What a discovery stream's proxy has reached.
    pub(crate) fn subscriber_reached(
        &self,
        node: &ProxyKey,
        stream: u64,
        acknowledged: Option<u64>,
        refused: Option<Vec<RefusedReport>>,
    ) {
        if let Some(subscriber) = self.0.subscribers.lock().get_mut(node).filter(|found| found.stream == stream) {
            subscriber.acknowledged = acknowledged;
            if let Some(revision) = acknowledged {
                subscriber.steps.add(revision, Instant::now());
            }
            if let Some(refused) = refused {
                subscriber.refused = refused;
            }
            self.0.reached.notify_waiters();
        }
    }

    /// Waits until every proxy that is subscribed now has everything of `revision` that it would take, or has gone.
    pub(crate) async fn all_reached(&self, revision: u64) {
        let mut behind: BTreeMap<ProxyKey, u64> =
            self.0.subscribers.lock().iter().map(|(key, subscriber)| (key.clone(), subscriber.stream)).collect();
        loop {
            // Listening before looking, so that no step is missed.
            let reached = self.0.reached.notified();
            let subscribers = self.0.subscribers.lock().clone();
            behind.retain(|key, stream| {
                let same = subscribers.get(key).filter(|subscriber| subscriber.stream == *stream);
                same.is_some_and(|subscriber| {
                    subscriber.acknowledged.is_none_or(|acknowledged| acknowledged < revision)
                })
            });
            if behind.is_empty() {
                return;
            }
            reached.await;
        }
    }

    /// A discovery stream ended.
    pub(crate) fn subscriber_ended(&self, node: &ProxyKey, stream: u64) {
        let mut subscribers = self.0.subscribers.lock();
        if subscribers.get(node).is_some_and(|found| found.stream == stream) {
            subscribers.remove(node);
            self.0.reached.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_step_is_found_again_and_of_old_ones_some_are_forgotten() {
        let begin = Instant::now();
        let at = |revision: u64| begin + Duration::from_secs(revision);
        let mut steps = Steps::default();
        for revision in (10..=1000).step_by(10) {
            steps.add(revision, at(revision));
        }
        assert!(steps.0.len() <= STEPS);
        assert_eq!(steps.reached(1), Some(at(10)), "the first is kept");
        assert_eq!(steps.reached(995), Some(at(1000)));
        let old = steps.reached(500).unwrap();
        assert!(at(500) <= old && old <= at(1000));
        assert_eq!(steps.reached(1001), None);
        steps.add(1000, at(2000));
        assert_eq!(steps.reached(1000), Some(at(1000)), "the same again is no step");
    }
}
