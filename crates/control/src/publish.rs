//! From the registry's state to the next view, whenever something changed.
//!
//! A single change is shown after [`SETTLE`], in which its neighbours join it. Under a flood there are at most
//! [`PER_SECOND`] views a second, each showing everything so far.

use std::time::Duration;

use tokio::time::Instant;

use crate::compile::compile;
use crate::registry::{Registry, View};

/// How long a change waits for others.
const SETTLE: Duration = Duration::from_millis(5);
/// Views per second under a flood.
const PER_SECOND: u32 = 10;

/// Publishes for ever.
pub(crate) async fn run(registry: Registry) {
    let mut pace = Pace::new(Instant::now());
    loop {
        registry.changed().await;
        let wait = pace.wait(Instant::now()).max(SETTLE);
        tokio::time::sleep(wait).await;
        pace.take(Instant::now());
        show(&registry);
    }
}

/// Makes the view of what the registry holds now, and shows it.
pub(crate) fn show(registry: &Registry) {
    registry.assembled(|gathered, mesh, mut findings| {
        let before = registry.view();
        let compiled = compile(&mesh, (&before.mesh, &before.compiled));
        findings.extend(gathered.findings);
        registry.show(View {
            revision: gathered.config.max(gathered.live),
            config: gathered.config,
            live: gathered.live,
            mesh,
            findings,
            resources: gathered.inputs.resources,
            stopped: gathered.stopped,
            compiled,
        });
    });
}

/// A bucket of [`PER_SECOND`] views that refills evenly.
#[derive(Debug)]
struct Pace {
    /// When the bucket would be full again.
    full_at: Instant,
}

impl Pace {
    const REFILL: Duration = Duration::from_millis(1000 / PER_SECOND as u64);

    fn new(now: Instant) -> Self {
        Self { full_at: now }
    }

    /// How long until there is something in the bucket.
    fn wait(&self, now: Instant) -> Duration {
        let allowed = Self::REFILL * (PER_SECOND - 1);
        self.full_at.saturating_duration_since(now).saturating_sub(allowed)
    }

    fn take(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + Self::REFILL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_paced_and_single_changes_are_not() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        for _ in 0..PER_SECOND {
            assert_eq!(pace.wait(start), Duration::ZERO);
            pace.take(start);
        }
        assert_eq!(pace.wait(start), Pace::REFILL);
        assert_eq!(pace.wait(start + Pace::REFILL), Duration::ZERO);
    }
}
