//! `docs/benchmarks.md`.
use super::{kernel::Machine, options::Options, results::Results};
pub(crate) fn page(_o: &Options, _results: &Results, _m: &Machine) -> String {
    String::new()
}
