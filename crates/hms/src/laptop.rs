//! The laptop: how a folder becomes a running mesh, and how nothing of it is left behind.
//!
//! One supervisor process (`hms up`, or `hms run` for one program) starts per service a proxy and, under a shepherd, the
//! application. All of them hold a connection to the supervisor's lifeline socket; the kernel closes it when the supervisor
//! ends for whatever reason, and that is their sign to finish.

pub(crate) mod app;
pub(crate) mod base;
pub(crate) mod containers;
pub(crate) mod control_plane;
pub(crate) mod detach;
pub(crate) mod detect;
pub(crate) mod environment;
pub(crate) mod intercept;
pub(crate) mod ipc;
pub(crate) mod journal;
pub(crate) mod lifeline;
pub(crate) mod lock;
pub(crate) mod plan;
pub(crate) mod ports;
pub(crate) mod records;
pub(crate) mod run;
pub(crate) mod sidecar;
pub(crate) mod supervise;
pub(crate) mod trust;
pub(crate) mod unit;
pub(crate) mod up;
