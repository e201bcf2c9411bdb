//! What to do *now*: every decision of the data plane as a pure function.
//!
//! Nothing here waits, reads a clock or rolls dice of its own: the present ([`clock::Moment`]) and the randomness
//! ([`dice::Dice`]) are arguments, so a test of a minute takes a microsecond. What several workers share is a cell of
//! relaxed atomics, used behind an `Arc` without a lock; such a cell is written only when something must change.
//!
//! A policy has the same file name on every floor: `hms_model::policy::outlier` says what was asked, [`outlier`] decides.
//!
//! The cells are also run under the loom model checker:
//! `RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p hms-traffic --release -- loom`.

pub mod authorize;
pub mod backoff;
pub mod balance;
pub mod breaker;
pub mod canary;
mod cell;
pub mod clock;
pub mod deadline;
pub mod detect;
pub mod dice;
pub mod egress;
pub mod ewma;
pub mod grpc;
pub mod hosts;
pub mod http_route;
pub mod limits;
pub mod line;
pub mod outlier;
pub mod probe;
pub mod rate_limit;
pub mod retry;
pub mod routing;
pub mod shed;
pub mod split;
mod stable_hash;
pub mod subset;
pub mod why;
mod window;
