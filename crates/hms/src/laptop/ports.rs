//! Which port to take: the named one, the next free one, or none because a stranger has it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::cli::PortChoice;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::processes::{self, Holder};

/// Port of REST, health and metrics.
pub(crate) const REST: u16 = 15014;
/// Port of gRPC.
pub(crate) const GRPC: u16 = 15012;
/// Port of the gateway.
pub(crate) const HTTPS: u16 = 8443;

/// The first port given out; below it are those that people give their servers.
const LOWEST: u16 = 20_000;
/// Where the kernel's own choice begins unless the machine says otherwise.
const KERNELS: u16 = 32_768;

/// Free ports handed out by this process; none twice.
#[derive(Debug, Clone, Default)]
pub(crate) struct Free(Arc<Mutex<BTreeSet<u16>>>);

impl Free {
    /// A free loopback port below the range from which the kernel serves whoever asks for any port or connects: our own
    /// proxies do both while the application starts. It is not held until its user binds it, so a stranger may still take it
    /// meanwhile; the user then fails and says so.
    pub(crate) fn take(&self) -> Result<u16, Failure> {
        let span = kernels_range().saturating_sub(LOWEST).max(1000);
        // Each process begins elsewhere, so that two that start at the same time seldom meet.
        let begin = std::process::id().wrapping_mul(61);
        let port =
            |step: u16| LOWEST + u16::try_from(begin.wrapping_add(step.into()) % u32::from(span)).unwrap_or_default();
        let mut given = self.0.lock();
        let found = (0..span).map(port).find(|port| !given.contains(port) && is_free(*port));
        let port = found.ok_or_else(|| {
            Failure::new(Exit::Failed, 1101, "no free port on 127.0.0.1")
                .because(format!("every port from {LOWEST} to {} is taken", u32::from(LOWEST) + u32::from(span) - 1))
        })?;
        given.insert(port);
        Ok(port)
    }
}

/// The first port of the kernel's own choice (`ip_local_port_range`, ip(7)).
fn kernels_range() -> u16 {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    text.split_ascii_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(KERNELS)
}

/// A loopback address with this port.
pub(crate) fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// Whether this process can listen on a loopback port now.
pub(crate) fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

/// An internal port: the named one, or any free one (0) with a remark that says who has it.
pub(crate) fn internal(port: u16, choice: PortChoice, what: &str) -> (u16, Option<String>) {
    if choice == PortChoice::Auto {
        return (0, None);
    }
    if is_free(port) {
        return (port, None);
    }
    (0, Some(format!("{what} takes a free port: {port} is held by {}", describe(processes::holder(port).as_ref()))))
}

/// The gateway's port. One that was asked for must be free; the named one gives way to another project's mesh, but not to a
/// stranger, because the address is meant for people.
pub(crate) fn public(asked: Option<u16>, choice: PortChoice) -> Result<(u16, Option<String>), Failure> {
    let port = match asked {
        Some(port) => port,
        None if choice == PortChoice::Auto => return Ok((0, None)),
        None => HTTPS,
    };
    if port == 0 || is_free(port) {
        return Ok((port, None));
    }
    let holder = processes::holder(port);
    if asked.is_none() && holder.as_ref().is_some_and(Holder::is_ours) {
        return Ok((0, Some(format!("gateway takes a free port: {port} belongs to another project's mesh"))));
    }
    Err(taken("gateway", port, holder.as_ref())
        .fix(format!("hms up --https {}   # or stop that process", next_free(port))))
}

/// The failure when a port that must be ours is not.
pub(crate) fn taken(who: &str, port: u16, holder: Option<&Holder>) -> Failure {
    Failure::new(Exit::Failed, 1101, format!("{who} cannot listen on {port}"))
        .because(format!("held by {}", describe(holder)))
}

fn describe(holder: Option<&Holder>) -> String {
    match holder {
        Some(holder) => format!("pid {} ({})", holder.pid, holder.command),
        None => "a process of another user".to_owned(),
    }
}

fn next_free(port: u16) -> u16 {
    (port..u16::MAX).skip(1).find(|candidate| is_free(*candidate)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strangers_port_names_its_holder() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let failure = public(Some(port), PortChoice::Named).unwrap_err();
        assert_eq!(failure.code().to_string(), "HMS-1101");
        assert!(failure.why().contains(&format!("pid {}", std::process::id())), "{}", failure.why());
        let (chosen, remark) = internal(port, PortChoice::Named, "control plane");
        assert_eq!(chosen, 0);
        assert!(remark.unwrap().contains(&format!("{port} is held by pid")));
    }

    #[test]
    fn free_ports_are_given_once() {
        let free = Free::default();
        let taken: BTreeSet<u16> = (0..50).map(|_| free.take().unwrap()).collect();
        assert_eq!(taken.len(), 50);
        let below = kernels_range() <= LOWEST || taken.iter().all(|port| *port < kernels_range());
        assert!(below, "our proxies cannot be given one of these: {taken:?}");
        assert_eq!(public(None, PortChoice::Auto).unwrap(), (0, None));
    }
}
