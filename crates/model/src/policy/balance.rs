//! Choosing one endpoint of several.

/// How the next endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// Of two random endpoints the one with less load: outstanding requests times its moving average of latency.
    #[default]
    LeastRequest,
    /// One after the other.
    RoundRobin,
    /// Any, evenly.
    Random,
}
