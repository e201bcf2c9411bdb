//! Which registered workloads are alive, as a machine without I/O: who holds a lease, who let go of one, who has to leave.
//!
//! A proxy's control stream holds the lease of its workload. When the stream ends the lease lapses: the workload leaves after
//! [`GRACE`] unless a stream takes it up again. Two things keep a fault of our own from emptying the mesh: after a start nothing
//! leaves for [`START_GRACE`], and when many lapse together ([`MASS_LAPSE`]) nobody leaves for [`HOLD`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::resource::ResourceKey;
use tokio::time::Instant;

/// How long a workload stays after its stream ended. With two pings of five seconds to notice a silent end it is gone within
/// fifteen.
pub const GRACE: Duration = Duration::from_secs(3);
/// How long after a start of the control plane nothing leaves.
pub const START_GRACE: Duration = Duration::from_secs(15);
/// Lapses within this time count together; longer than [`START_GRACE`], so that those of a start are still counted when it ends.
pub const PERIOD: Duration = Duration::from_secs(30);
/// How long everything stays once too much lapsed together.
pub const HOLD: Duration = Duration::from_mins(1);
/// Too much: so many, and more than a fifth of all.
pub const MASS_LAPSE: usize = 10;

/// One stream's claim to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LeaseId(pub u64);

#[derive(Debug, Clone, Copy)]
enum Lease {
    Held(LeaseId),
    Lapsed { until: Instant },
}

/// All leases.
#[derive(Debug, Default)]
pub struct Leases {
    all: BTreeMap<ResourceKey, Lease>,
    /// When leases lapsed, oldest first, at most a [`PERIOD`] back.
    lapses: VecDeque<Instant>,
    hold: Option<(Instant, usize)>,
}

impl Leases {
    /// Leases of everything that was stored before this start: lapsed, with [`START_GRACE`] to come back.
    pub fn after_start(stored: impl IntoIterator<Item = ResourceKey>, now: Instant) -> Self {
        let lapsed = Lease::Lapsed { until: now + START_GRACE };
        let all: BTreeMap<ResourceKey, Lease> = stored.into_iter().map(|key| (key, lapsed)).collect();
        let lapses = std::iter::repeat_n(now, all.len()).collect();
        Self { all, lapses, hold: None }
    }

    /// A stream takes the lease; one that held it before loses it.
    pub fn hold(&mut self, key: ResourceKey, id: LeaseId) {
        self.all.insert(key, Lease::Held(id));
    }

    /// A stream ended. Nothing happens if it no longer held the lease.
    pub fn lapse(&mut self, key: &ResourceKey, id: LeaseId, now: Instant) {
        if let Some(lease) = self.all.get_mut(key)
            && matches!(lease, Lease::Held(holder) if *holder == id)
        {
            *lease = Lease::Lapsed { until: now + GRACE };
            self.lapses.push_back(now);
        }
    }

    /// Whether nothing is removed at present, because too much lapsed together.
    pub fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// Whether this stream holds the lease.
    pub fn is_held_by(&self, key: &ResourceKey, id: LeaseId) -> bool {
        matches!(self.all.get(key), Some(Lease::Held(holder)) if *holder == id)
    }

    /// The entry was removed.
    pub fn forget(&mut self, key: &ResourceKey) {
        self.all.remove(key);
    }

    /// Who has to leave now. They stay listed until [`forget`](Self::forget), so that a removal that failed is tried again.
    pub fn due(&mut self, now: Instant) -> Vec<ResourceKey> {
        while self.lapses.front().is_some_and(|lapse| *lapse + PERIOD < now) {
            self.lapses.pop_front();
        }
        if let Some((until, _)) = self.hold {
            if now < until {
                return Vec::new();
            }
            self.hold = None;
            self.lapses.clear();
        }
        let ended = |lease: &Lease| matches!(lease, Lease::Lapsed { until, .. } if *until <= now);
        let due: Vec<ResourceKey> =
            self.all.iter().filter(|(_, lease)| ended(lease)).map(|(key, _)| key.clone()).collect();
        if due.is_empty() || !self.too_many() {
            return due;
        }
        let lapsed = self.lapsed();
        tracing::warn!(lapsed, of = self.all.len(), "many leases lapsed together, nothing is removed for a minute");
        self.hold = Some((now + HOLD, lapsed));
        Vec::new()
    }

    fn lapsed(&self) -> usize {
        self.all.values().filter(|lease| matches!(lease, Lease::Lapsed { .. })).count()
    }

    /// Those that came back do not count.
    fn too_many(&self) -> bool {
        let recent = self.lapses.len().min(self.lapsed());
        recent >= MASS_LAPSE && recent * 5 > self.all.len()
    }

    /// When to ask for [`due`](Self::due) next.
    pub fn next(&self) -> Option<Instant> {
        let ends = self.all.values().filter_map(|lease| match lease {
            Lease::Lapsed { until } => Some(*until),
            Lease::Held(_) => None,
        });
        let next = ends.min()?;
        Some(self.hold.map_or(next, |(until, _)| until.max(next)))
    }

    /// What people should know.
    pub fn finding(&self) -> Option<Finding> {
        let (_, lapsed) = self.hold.filter(|_| self.lapsed() > 0)?;
        let message = format!("{lapsed} of {} workloads lost their control stream together", self.all.len());
        let why = "so many at once is more likely a fault of the network or of the control plane; nothing is removed for a minute";
        Some(Finding::warning(2310, message).because(why))
    }
}

#[cfg(test)]
mod tests {
    use hms_model::names::ServiceName;

    use super::*;

    fn key(n: usize) -> ResourceKey {
        ResourceKey::endpoint(&ServiceName::new("calc-svc").unwrap(), &n.to_string())
    }

    fn held(count: usize) -> Leases {
        let mut leases = Leases::default();
        for n in 0..count {
            leases.hold(key(n), LeaseId(1));
        }
        leases
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_workload_leaves_a_grace_after_its_stream_ended() {
        let now = Instant::now();
        let mut leases = held(2);
        leases.lapse(&key(0), LeaseId(1), now);
        assert_eq!(leases.next(), Some(now + GRACE));
        assert_eq!(leases.due(now + GRACE - SECOND), []);
        assert_eq!(leases.due(now + GRACE), [key(0)]);
        assert_eq!(leases.due(now + GRACE), [key(0)], "until it is gone");
        leases.forget(&key(0));
        assert_eq!((leases.due(now + GRACE), leases.next()), (vec![], None));
    }

    #[test]
    fn a_new_stream_takes_the_lease_up_and_the_old_one_can_no_longer_lose_it() {
        let now = Instant::now();
        let mut leases = held(1);
        leases.lapse(&key(0), LeaseId(1), now);
        leases.hold(key(0), LeaseId(2));
        leases.lapse(&key(0), LeaseId(1), now);
        assert!(!leases.is_held_by(&key(0), LeaseId(1)));
        assert_eq!(leases.due(now + HOLD), []);
        assert!(leases.is_held_by(&key(0), LeaseId(2)));
    }

    #[test]
    fn nothing_leaves_right_after_a_start() {
        let now = Instant::now();
        let mut leases = Leases::after_start((0..5).map(key), now);
        leases.hold(key(0), LeaseId(1));
        assert_eq!(leases.due(now + START_GRACE - SECOND), []);
        assert_eq!(leases.due(now + START_GRACE).len(), 4);
    }

    #[test]
    fn when_many_lapse_together_nobody_leaves_for_a_minute() {
        let now = Instant::now();
        let mut leases = held(20);
        (0..12).for_each(|n| leases.lapse(&key(n), LeaseId(1), now));
        assert_eq!(leases.due(now + GRACE), []);
        assert!(leases.finding().is_some());
        let end = now + GRACE + HOLD;
        assert_eq!(leases.next(), Some(end));
        leases.hold(key(0), LeaseId(2));
        assert_eq!(leases.due(end - SECOND), []);
        assert_eq!(leases.due(end).len(), 11, "who came back stays, the others leave");
        assert!(leases.finding().is_none());
    }

    #[test]
    fn a_few_or_a_small_share_leave_as_usual() {
        let now = Instant::now();
        let mut few = held(9);
        (0..9).for_each(|n| few.lapse(&key(n), LeaseId(1), now));
        assert_eq!(few.due(now + GRACE).len(), 9);
        let mut small = held(100);
        (0..20).for_each(|n| small.lapse(&key(n), LeaseId(1), now));
        assert_eq!(small.due(now + GRACE).len(), 20);
    }

    #[test]
    fn those_that_came_back_are_no_mass_lapse() {
        let now = Instant::now();
        let mut leases = Leases::after_start((0..20).map(key), now);
        (0..18).for_each(|n| leases.hold(key(n), LeaseId(1)));
        assert_eq!(leases.due(now + START_GRACE).len(), 2);
    }
}
