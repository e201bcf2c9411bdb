//! Asking an application whether it is well.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::message::CanonicalPath;

/// How the proxy beside an application asks it, and what it makes of the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// What is asked.
    pub question: Question,
    /// Time from one question to the next. 2 s; 100 ms to 1 h.
    pub interval: Duration,
    /// How long an answer may take. 1 s; 10 ms to 1 min.
    pub timeout: Duration,
    /// Good answers in a row that make an unhealthy application healthy. 1; 1 to 100. The first one ever is enough.
    pub healthy: u32,
    /// Bad answers in a row that make a healthy one unhealthy. 3; 1 to 100. Where nothing listens, one is enough.
    pub unhealthy: u32,
}

impl Default for Probe {
    fn default() -> Self {
        Self {
            question: Question::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            healthy: 1,
            unhealthy: 3,
        }
    }
}

/// What an application is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Whether it accepts a connection.
    Tcp,
    /// `GET` of a path, over HTTP/1.1. Redirects are not followed.
    Http {
        /// The path.
        path: CanonicalPath,
        /// Statuses of a good answer; those below 400 if there are none here. At most [`MOST_STATUSES`].
        statuses: Vec<RangeInclusive<u16>>,
    },
    /// `grpc.health.v1.Health/Check`, over HTTP/2.
    Grpc {
        /// The service that is asked for; empty for the application as a whole. At most [`GRPC_SERVICE_BYTES`].
        service: String,
    },
}

/// Most ranges of statuses.
pub const MOST_STATUSES: usize = 16;
/// Longest name of a gRPC service, in bytes.
pub const GRPC_SERVICE_BYTES: usize = 120;

/// Whether a text can be the name of a gRPC service: `package.Service`, or empty.
pub fn is_grpc_service(text: &str) -> bool {
    text.len() <= GRPC_SERVICE_BYTES && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_'))
}
