//! What this process can take, and what it does when more comes: it refuses early and says so, instead of failing somewhere.

pub mod descriptors;
pub mod places;

use std::sync::Arc;
use std::time::Duration;

use hms_model::listener::Role;
use hms_traffic::limits::{Concurrency, Permit};
use parking_lot::Mutex;
use tokio::time::Instant;

use self::places::Places;
use crate::settings::Settings;
use crate::telemetry::metrics::Registry;

/// A line of the log per so much time, however often its cause comes.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The bounds of one process.
#[derive(Debug)]
pub struct Overload {
    places: Arc<Places>,
    upstream: Arc<Concurrency>,
    most_upstream: u32,
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
            said: Mutex::default(),
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
        registry.gauge("hms_upstream_connections_open", f64::from(self.upstream.in_flight()));
    }
}
