//! Trying again (rulings R1 and R2).

use std::time::Duration;

/// How often, for what, and how much of all traffic may be second tries.
#[derive(Debug, Clone, PartialEq)]
pub struct Retry {
    /// Tries after the first; 0 turns retrying off. At most 10.
    pub retries: u8,
    /// Back-off base when another endpoint is free.
    pub backoff_other: Duration,
    /// Back-off base when the same endpoint must be tried again.
    pub backoff_same: Duration,
    /// Methods retried after a response or a reset although they are not idempotent, as the policy's author asked for.
    pub methods: Vec<http::Method>,
    /// Which failures of a request that may have been processed are retried.
    pub on: RetryOn,
    /// Of the 5xx answers only these, 500 to 599; empty for all of them. At most 100.
    pub statuses: Vec<u16>,
    /// Part of the requests of the last ten seconds that may be retries, in percent (0 to 100).
    pub budget_percent: u8,
    /// Retries per second that are always allowed.
    pub budget_floor_per_second: u32,
}

/// Failures of a request that may have been processed. A request that provably was not is always retried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryOn {
    /// A 5xx answer.
    pub status_5xx: bool,
    /// A reset before the response head.
    pub reset: bool,
    /// A try that ran into its timeout.
    pub timeout: Toggle,
}

/// On or off, where a bare `bool` would be a third in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Toggle {
    /// Yes.
    On,
    /// No.
    Off,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self { status_5xx: true, reset: true, timeout: Toggle::On }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: 2,
            backoff_other: Duration::from_millis(25),
            backoff_same: Duration::from_millis(200),
            methods: Vec::new(),
            on: RetryOn::default(),
            statuses: Vec::new(),
            budget_percent: 20,
            budget_floor_per_second: 10,
        }
    }
}

/// Largest request body that is kept for a replay, in bytes (ruling R2). A larger one makes the request final.
pub const REPLAY_LIMIT: usize = 64 * 1024;
