//! The data plane: it moves bytes between services, and decides nothing that the control plane did not say.
//!
//! `main` reads the settings and hands them to [`app`], the only place where parts meet. A connection enters by [`listen`], a
//! request runs through [`pipeline`], and leaves by [`attempt`]. [`subscribe`] brings configuration, [`runtime`] holds it.

pub mod admin;
pub mod app;
pub mod app_probe;
pub mod attach;
pub mod attempt;
pub mod body;
pub mod capture;
pub mod certificate;
pub mod clock;
pub mod control_channel;
pub mod credentials;
pub mod detect;
pub mod drain;
pub mod egress;
pub mod endpoint;
pub mod filters;
pub mod gate;
pub mod last_good;
pub mod listen;
pub mod local_app;
pub mod opaque;
pub mod overload;
pub mod peer;
pub mod pipeline;
mod private_socket;
pub mod probe;
pub mod refusal;
pub mod report;
pub mod runtime;
pub mod settings;
pub mod standalone;
pub mod subscribe;
pub mod takeover;
pub mod tasks;
pub mod telemetry;
pub mod timer;
pub mod transport;
pub mod worker;
