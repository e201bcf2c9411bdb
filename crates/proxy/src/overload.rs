//! What this process can take, and what it does when more comes: it refuses early and says so, instead of failing somewhere.

pub mod descriptors;
pub mod memory;
pub mod places;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use hms_model::listener::Role;
use hms_traffic::limits::{Concurrency, Permit};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, MissedTickBehavior};

use self::memory::{Level, Source};
use self::places::Places;
use crate::drain::Drain;
use crate::settings::Settings;
use crate::telemetry::metrics::Registry;

/// A line of the log per so much time, however often its cause comes.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// How often memory is looked at.
const SAMPLE: Duration = Duration::from_millis(100);
/// With so few connections it is not they that hold the memory, and refusing them would free none: a process whose memory never
/// falls again still serves.
const FEW: usize = 16;

/// The bounds of one process.
#[derive(Debug)]
pub struct Overload {
    places: Arc<Places>,
    upstream: Arc<Concurrency>,
    most_upstream: u32,
    /// The [`Level`] of memory.
    level: AtomicU8,
    /// Memory in use and its limit, in bytes.
    memory: (AtomicU64, AtomicU64),
    changed: Notify,
    /// When the last line was written, and how many were not since.
    said: Mutex<(Option<Instant>, u64)>,
}

impl Overload {
    /// Bounds for a process that may have `descriptors` open.
    pub fn new(settings: &Settings, descriptors: u64) -> Self {
        let half = descriptors::most_connections(descriptors);
        let most = settings.max_connections.map_or(half, |most| most.min(half));
        let share = (settings.role == Role::Gateway).then_some(most / 4);
        Self {
            places: Arc::new(Places::new(most, share)),
            upstream: Arc::default(),
            most_upstream: u32::try_from(half).unwrap_or(u32::MAX),
            level: AtomicU8::default(),
            memory: (AtomicU64::default(), AtomicU64::default()),
            changed: Notify::new(),
            said: Mutex::default(),
        }
    }

    /// Looks at the memory, again and again, for as long as the process lives. Ends at once if nothing limits it.
    pub async fn watch_memory(&self, setting: Option<u64>, drain: &Drain) {
        let Some(source) = Source::find(setting) else { return };
        tracing::info!(limit = source.limit(), "memory is limited");
        self.memory.1.store(source.limit(), Relaxed);
        let mut tick = tokio::time::interval(SAMPLE);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let Some(used) = source.used() else { continue };
            self.memory.0.store(used, Relaxed);
            let before = self.level();
            let level = Level::of(used, source.limit(), before);
            if level != before {
                tracing::warn!(?level, used, limit = source.limit(), "memory");
                self.level.store(level as u8, Relaxed);
                drain.keep_none(level >= Level::Closing);
                self.changed.notify_waiters();
            }
        }
    }

    /// How tight memory is.
    pub fn level(&self) -> Level {
        Level::from_number(self.level.load(Relaxed))
    }

    /// Whether no new connections are taken.
    pub fn is_closing(&self) -> bool {
        self.level.load(Relaxed) >= Level::Closing as u8 && self.places.open() > FEW
    }

    /// Whether requests are refused.
    pub fn is_shedding(&self) -> bool {
        self.level.load(Relaxed) >= Level::Shedding as u8 && self.places.open() > FEW
    }

    /// Resolves when new connections may be taken.
    pub async fn accepting(&self) {
        loop {
            // Listening before looking, so that no change is missed.
            let (changed, freed) = (self.changed.notified(), self.places.freed());
            if !self.is_closing() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = freed => {}
            }
        }
    }

    /// Places for connections that others open to us.
    pub fn places(&self) -> &Arc<Places> {
        &self.places
    }

    /// A place for a connection that we open, whatever it is for.
    pub fn upstream_place(&self) -> Option<Permit> {
        self.upstream.try_acquire(self.most_upstream)
    }

    /// Says that something ran out, at most once per second for the whole process.
    pub fn complain(&self, what: &str, why: &dyn std::fmt::Display) {
        let mut said = self.said.lock();
        let now = Instant::now();
        if said.0.is_some_and(|last| now.duration_since(last) < LINE_EVERY) {
            said.1 += 1;
            return;
        }
        let silent = std::mem::replace(&mut *said, (Some(now), 0)).1;
        drop(said);
        tracing::warn!(%why, silent, "{what}");
    }

    /// Writes down how things stand.
    pub fn gauges(&self, registry: &Registry) {
        let number = |count: usize| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        registry.gauge("hms_connections_open", number(self.places.open()));
        registry.gauge("hms_connections_limit", number(self.places.most()));
        registry.gauge("hms_connections_refused", number(self.places.refused()));
        registry.gauge("hms_memory_level", f64::from(self.level.load(Relaxed)));
        // Whole MiB are exact in a float, and nobody needs more.
        let mebibytes = |bytes: &AtomicU64| f64::from(u32::try_from(bytes.load(Relaxed) >> 20).unwrap_or(u32::MAX));
        if self.memory.1.load(Relaxed) > 0 {
            registry.gauge("hms_memory_used_mebibytes", mebibytes(&self.memory.0));
            registry.gauge("hms_memory_limit_mebibytes", mebibytes(&self.memory.1));
        }
        registry.gauge("hms_upstream_connections_open", f64::from(self.upstream.in_flight()));
    }
}
