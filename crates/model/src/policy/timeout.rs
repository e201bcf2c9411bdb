//! Bounds in time.

use std::time::Duration;

/// How long a call may take, and its parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// TCP connect and TLS handshake of one try. 1 s.
    pub connect: Duration,
    /// The whole request, all tries together, up to the response head and then until the body's end. 15 s; `None` for none.
    pub request: Option<Duration>,
    /// One try; none unless configured.
    pub attempt: Option<Duration>,
    /// A stream without a byte either way. 5 min.
    pub idle: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            request: Some(Duration::from_secs(15)),
            attempt: None,
            idle: Duration::from_mins(5),
        }
    }
}
