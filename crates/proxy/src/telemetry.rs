//! What is told about requests: series, log lines, live taps and trace ids.

pub mod access_log;
pub mod decisions;
pub mod flow;
pub mod metrics;
pub mod record;
pub mod tap;
pub mod time;
pub mod trace;
