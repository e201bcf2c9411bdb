//! What is told about requests.

/// Tracing as the mesh's configuration asks for it (ruling R13).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telemetry {
    /// Share of traces that are kept, in parts per million. All on a laptop.
    pub sample_per_million: u32,
    /// Whether the gateway writes the trace id into JSON bodies as well. Off.
    pub in_json_body: bool,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self { sample_per_million: 1_000_000, in_json_body: false }
    }
}
