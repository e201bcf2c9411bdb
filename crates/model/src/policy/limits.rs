//! Bounds in number, so that one slow service cannot take everything.

/// How much may be under way to one service from one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Requests at the same time. 1024.
    pub requests: u32,
    /// Connections at the same time. 1024.
    pub connections: u32,
    /// Requests that wait for a connection when all of those are in use; 0 refuses them at once. 256.
    pub pending: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { requests: 1024, connections: 1024, pending: 256 }
    }
}
