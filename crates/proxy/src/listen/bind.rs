//! Opening the listeners: those that were not handed over by a former process are bound.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use hms_model::listener::Role;
use hms_model::names::ServiceName;
use hms_model::standalone::Standalone;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use super::Door;
use crate::capture::joined;
use crate::settings::Settings;
use crate::standalone::StaticDoor;

/// Connections that wait in the kernel while we do not accept; it takes no more than `net.core.somaxconn`.
const BACKLOG: u32 = 4096;

/// The name of a gateway's listener for the outside.
pub const HTTPS: &str = "https";

/// The name of the listener for other proxies.
pub const INBOUND: &str = "inbound";

/// Listening sockets by name: `admin`, `inbound`, `outbound`, `https`, `upstream:NAME.NAMESPACE`, `listener:NAME`.
pub type Sockets = BTreeMap<String, std::net::TcpListener>;

/// Every socket this process listens on.
#[derive(Debug)]
pub struct Bound {
    /// Health and metrics.
    pub admin: TcpListener,
    /// For connections that are served.
    pub doors: Vec<(TcpListener, Door)>,
    /// The application's own port on the host, around the mesh.
    pub published: Option<TcpListener>,
    /// Where other proxies connect; without such a listener, what the settings say.
    pub inbound: SocketAddr,
    /// The same sockets once more, for a successor.
    pub sockets: Sockets,
    /// What `ports.json` says.
    pub ports: Value,
}

/// Opens every listener of a proxy with these settings. One of `inherited` is used if it is where the settings want it; the
/// others are closed here, but not in the process that gave them.
pub fn bind(settings: &Settings, inherited: Sockets) -> io::Result<Bound> {
    let mut binding = Binding { inherited, sockets: Sockets::new() };
    let admin = binding.open("admin", settings.admin)?;
    let mut doors = Vec::new();
    let mut inbound = settings.inbound;
    let mut upstreams = BTreeMap::new();
    match settings.role {
        Role::Gateway => {
            // Workloads reach it as any other service; what its own door expects is inside.
            let mesh = binding.open(INBOUND, settings.inbound)?;
            inbound = mesh.local_addr()?;
            doors.push((mesh, Door::Inbound));
            doors.push((binding.open(HTTPS, settings.https)?, Door::Gateway));
        }
        Role::Egress => {
            let mesh = binding.open(INBOUND, settings.inbound)?;
            inbound = mesh.local_addr()?;
            doors.push((mesh, Door::Inbound));
        }
        // Its file names its listeners: [`bind_static`].
        Role::Standalone => {}
        Role::Sidecar | Role::Node => {
            let mesh = binding.open(INBOUND, settings.inbound)?;
            inbound = mesh.local_addr()?;
            doors.push((mesh, Door::Inbound));
            doors.push((binding.open("outbound", settings.outbound)?, Door::Outbound(None)));
            for (name, address) in &settings.upstreams {
                let upstream = binding.open(&upstream(name), *address)?;
                upstreams.insert(name.to_string(), upstream.local_addr()?.to_string());
                doors.push((upstream, Door::Outbound(Some(name.clone()))));
            }
        }
    }
    if settings.joined.is_some() {
        for (name, address) in joined::doors() {
            match binding.open(name, address) {
                Ok(door) => doors.push((door, Door::Captured)),
                // A namespace without IPv6.
                Err(error) if address.is_ipv6() => tracing::debug!(%error, "not captured"),
                Err(error) => return Err(error),
            }
        }
    }
    let published = settings.publish.map(|address| binding.open("publish", address)).transpose()?;
    let address = |name: &str| binding.sockets.get(name).and_then(|socket| socket.local_addr().ok());
    let told = |name: &str| address(name).map(|address| address.to_string());
    let ports = json!({
        "pid": std::process::id(),
        "admin": told("admin"), "inbound": told(INBOUND), "outbound": told("outbound"), "https": told("https"),
        "publish": told("publish"),
        "upstreams": upstreams,
    });
    Ok(Bound { admin, doors, published, inbound, sockets: binding.sockets, ports })
}

/// Opens the listeners that a file describes. `inherited` is used as above.
pub fn bind_static(settings: &Settings, standalone: &Standalone, inherited: Sockets) -> io::Result<Bound> {
    let mut binding = Binding { inherited, sockets: Sockets::new() };
    // What the command line says comes before the file.
    let asked = Some(settings.admin).filter(|own| own.port() != 0);
    let admin = binding.open("admin", asked.or(standalone.admin).unwrap_or(settings.admin))?;
    let mut doors = Vec::new();
    let mut told = BTreeMap::new();
    for listener in &standalone.listeners {
        let socket = binding.open(&format!("listener:{}", listener.name), listener.address)?;
        let bound = socket.local_addr()?;
        told.insert(listener.name.clone(), bound.to_string());
        doors.push((socket, Door::Static(Arc::new(StaticDoor::new(listener, bound)))));
    }
    let address = admin.local_addr()?.to_string();
    let ports = json!({"pid": std::process::id(), "admin": address, "listeners": told});
    Ok(Bound { admin, doors, published: None, inbound: settings.inbound, sockets: binding.sockets, ports })
}

/// The name of a listener that leads to one service only.
fn upstream(service: &ServiceName) -> String {
    format!("upstream:{}.{}", service.name(), service.namespace())
}

struct Binding {
    inherited: Sockets,
    sockets: Sockets,
}

impl Binding {
    fn open(&mut self, name: &str, wanted: SocketAddr) -> io::Result<TcpListener> {
        let listener = match self.inherited.remove(name).filter(|socket| is_at(socket, wanted)) {
            Some(socket) => {
                socket.set_nonblocking(true)?;
                TcpListener::from_std(socket)?
            }
            None => listen(wanted)
                .map_err(|error| io::Error::new(error.kind(), format!("{name} cannot listen on {wanted}: {error}")))?,
        };
        let socket = listener.into_std()?;
        self.sockets.insert(name.to_owned(), socket.try_clone()?);
        TcpListener::from_std(socket)
    }
}

/// Whether a socket is where it should be; port 0 is any.
fn is_at(socket: &std::net::TcpListener, wanted: SocketAddr) -> bool {
    socket.local_addr().is_ok_and(|own| own.ip() == wanted.ip() && (wanted.port() == 0 || own.port() == wanted.port()))
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    // Connections of a former process that are in TIME-WAIT do not keep the address.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(more: &[&str]) -> Settings {
        let least = ["--service", "portal", "--control", "unix:/c", "--trust-domain", "k.hms", "--runtime-dir", "/r"];
        Settings::parse(least.iter().chain(more).map(std::ffi::OsString::from)).unwrap()
    }

    #[tokio::test]
    async fn what_was_handed_over_is_not_bound_again() {
        let first = bind(&settings(&["--upstream", "calc-svc=127.0.0.1:0"]), Sockets::new()).unwrap();
        let names: Vec<_> = first.sockets.keys().cloned().collect();
        assert_eq!(names, ["admin", "inbound", "outbound", "upstream:calc-svc.default"]);
        let before = first.ports.clone();
        let second = bind(&settings(&["--upstream", "calc-svc=127.0.0.1:0"]), first.sockets).unwrap();
        assert_eq!(second.ports, before);
    }

    #[tokio::test]
    async fn a_listener_that_should_be_elsewhere_is_bound_there() {
        let first = bind(&settings(&[]), Sockets::new()).unwrap();
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let second = bind(&settings(&["--inbound", &free]), first.sockets).unwrap();
        assert_eq!(second.ports["inbound"], free);
        assert_eq!(second.ports["outbound"], first.ports["outbound"]);
    }
}
