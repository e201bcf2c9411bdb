//! Ejecting one failing endpoint; when all are ejected the service's breaker is open (ruling R3).

use std::time::Duration;

/// When an endpoint is ejected, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outlier {
    /// Gateway-class failures in a row that eject. 3; at least 1.
    pub consecutive: u32,
    /// How long an ejection lasts before one probe is let through. 30 s; spread by `jitter_percent`.
    pub open_for: Duration,
    /// Spread of `open_for`, in percent either way. 10.
    pub jitter_percent: u8,
    /// Share of 5xx answers that ejects, in percent. 50; `None` turns the rate mode off.
    pub rate_percent: Option<u8>,
    /// Answers within `rate_window` before the share counts. 20.
    pub rate_minimum: u32,
    /// The window of the rate mode. 10 s.
    pub rate_window: Duration,
}

impl Default for Outlier {
    fn default() -> Self {
        Self {
            consecutive: 3,
            open_for: Duration::from_secs(30),
            jitter_percent: 10,
            rate_percent: Some(50),
            rate_minimum: 20,
            rate_window: Duration::from_secs(10),
        }
    }
}
