//! The control plane inside this process: which folder, which ports, which files.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use hms_control::app;
use hms_control::settings::{Ports, Settings as ControlSettings, StoreKind};
use hms_model::policy::egress::Unlisted;

use super::ports;
use crate::cli::{Control, PortChoice, Store};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::project::Project;

pub(crate) use hms_control::app::ControlPlane;

/// How a control plane is to be started.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// Where the registry is kept.
    pub(crate) store: Store,
    /// Address of REST.
    pub(crate) rest: SocketAddr,
    /// Address of gRPC.
    pub(crate) grpc: SocketAddr,
    /// Registry, authority, token.
    pub(crate) data: PathBuf,
    /// The user's edge authority.
    pub(crate) edge: PathBuf,
    /// Where it announces itself.
    pub(crate) run: PathBuf,
    /// Life of workload certificates.
    pub(crate) validity: Option<Duration>,
    /// What becomes of hosts outside that are not listed, unless the mesh says so itself.
    pub(crate) unlisted: Unlisted,
    /// Whether a taken port is an error; otherwise any free one will do.
    pub(crate) exact: bool,
}

impl Choice {
    /// For `hms up`: the project's folders, and the named ports if nobody has them. Also what to say about ports.
    pub(crate) fn of_laptop(project: &Project, choice: PortChoice) -> (Self, Vec<String>) {
        let (rest, rest_remark) = ports::internal(ports::REST, choice, "control plane REST");
        let (grpc, grpc_remark) = ports::internal(ports::GRPC, choice, "control plane gRPC");
        let choice = Self {
            store: Store::Sqlite,
            rest: ports::loopback(rest),
            grpc: ports::loopback(grpc),
            data: project.control_dir(),
            edge: project.data.clone(),
            run: project.run.clone(),
            validity: None,
            unlisted: Unlisted::Allowed,
            exact: false,
        };
        (choice, [rest_remark, grpc_remark].into_iter().flatten().collect())
    }

    /// For `hms control`: an address that was asked for must be free.
    pub(crate) fn of_flags(project: &Project, options: &Control) -> Result<(Self, Vec<String>), Failure> {
        for (what, address) in [("control plane REST", options.rest), ("control plane gRPC", options.grpc)] {
            if let Some(address) = address
                && address.port() != 0
                && std::net::TcpListener::bind(address).is_err()
            {
                let holder = crate::processes::holder(address.port());
                return Err(
                    ports::taken(what, address.port(), holder.as_ref()).fix("choose another port, or 0 for a free one")
                );
            }
        }
        let (laptop, remarks) = Self::of_laptop(project, PortChoice::Named);
        let asked = options.rest.is_some() || options.grpc.is_some();
        let choice = Self {
            store: options.store,
            rest: options.rest.unwrap_or(laptop.rest),
            grpc: options.grpc.unwrap_or(laptop.grpc),
            data: options.data_dir.clone().unwrap_or(laptop.data),
            validity: options.validity,
            exact: asked,
            unlisted: Unlisted::Refused,
            ..laptop
        };
        Ok((choice, if asked { Vec::new() } else { remarks }))
    }
}

/// Starts it; it serves when this returns.
pub(crate) async fn start(choice: Choice) -> Result<ControlPlane, Failure> {
    let mut settings = ControlSettings::new(choice.data, choice.edge, choice.run);
    settings.store = match choice.store {
        Store::Sqlite => StoreKind::Sqlite,
        Store::Memory => StoreKind::Memory,
    };
    settings.rest = choice.rest;
    settings.grpc = choice.grpc;
    settings.unlisted = choice.unlisted;
    settings.ports = if choice.exact { Ports::Exact } else { Ports::Preferred };
    if let Some(validity) = choice.validity {
        settings.lifetimes.default = validity;
        settings.lifetimes.minimum = settings.lifetimes.minimum.min(validity);
    }
    app::start(settings).await.map_err(|error| {
        let text = error.to_string();
        // The control plane's own errors carry their code in front.
        let (code, message) = match text.strip_prefix("HMS-").and_then(|rest| rest.split_once(": ")) {
            Some((code, message)) => (code.parse().unwrap_or(1106), message.to_owned()),
            None => (1106, text),
        };
        Failure::new(Exit::Failed, code, "the control plane did not start").because(message)
    })
}

/// Ends it politely.
pub(crate) async fn shutdown(control: ControlPlane) {
    control.shutdown().await;
}
