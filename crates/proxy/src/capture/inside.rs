//! The first process inside: it sets everything up, makes sockets for the proxy outside, starts the application and reaps. When it
//! ends, the kernel ends everything else inside.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::ExitCode;
use std::sync::mpsc::{Sender, channel};

use nix::sys::signal::SigSet;
use rustix::net::sockopt::{set_ipv6_v6only, set_socket_reuseaddr};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, listen, socket_with};

use super::application::{self, Rights};
use super::flock::{Event, Flock, watch_signals};
use super::shepherd::Options;
use super::{DNS_PORT, OUTBOUND_PORT, link, mounts, refused, routes, rules};

/// Connections that wait in the kernel while the proxy does not accept; it takes no more than `net.core.somaxconn`.
const BACKLOG: i32 = 4096;
/// Lets any user listen on any port of this network, which nobody else has.
const LOWEST_PORT: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";

/// Lives as the first process of the namespaces; the application's exit code.
pub(super) fn live(link: OwnedFd, own_users: bool, options: &Options, signals: SigSet) -> ExitCode {
    let six = match set_up(&link, options) {
        Ok(six) => six,
        Err(why) => {
            let _gone = link::send(&link, &format!("failed {why}"), &[]).is_err();
            return ExitCode::FAILURE;
        }
    };
    if options.command.is_empty() {
        return ExitCode::SUCCESS;
    }
    let rights = if own_users { Rights::None } else { Rights::Root };
    let child = match application::start(&options.command, options.own_group, rights) {
        Ok(child) => child,
        Err(error) => return application::complain(&options.command, &error).into(),
    };
    let (sender, events) = channel();
    serve_outside(link, six, sender.clone());
    watch_signals(signals, sender);
    Flock::new(child, options.own_group, events).tend().into()
}

/// Everything, in the order in which the parts need each other. Answers whether there is IPv6.
fn set_up(link: &OwnedFd, options: &Options) -> Result<bool, String> {
    let failed = |what: &'static str| move |error: io::Error| format!("{what}: {error}");
    mounts::set_up(&options.masks, &options.keep)?;
    let six = routes::set_up().map_err(failed("network"))?;
    rules::set_up().map_err(failed("nf_tables"))?;
    // Kernels before 4.11 have no such setting; then only ports from 1024 on are anybody's.
    let _as_before = std::fs::write(LOWEST_PORT, "0").is_err();
    let send = |text: &str, socket: &OwnedFd| link::send(link, text, &[socket.as_fd()]).map_err(failed("handing out"));
    for ip in [SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), (Ipv6Addr::LOCALHOST, 0).into()] {
        if ip.is_ipv6() && !six {
            continue;
        }
        let at = |port: u16| SocketAddr::new(ip.ip(), port);
        send("door", &listener(at(OUTBOUND_PORT)).map_err(failed("listening"))?)?;
        send("dns-tcp", &listener(at(DNS_PORT)).map_err(failed("listening"))?)?;
        send("dns-udp", &bound(at(DNS_PORT), SocketType::DGRAM).map_err(failed("listening"))?)?;
        for port in &options.host_ports {
            send(&format!("host {port}"), &listener(at(*port)).map_err(failed("listening for host_ports"))?)?;
        }
    }
    // Only a remark would be missing.
    if let Ok(refusals) = refused::open() {
        send("refusals", &refusals)?;
    }
    link::send(link, "ready", &[]).map_err(failed("handing out"))?;
    Ok(six)
}

fn listener(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = bound(address, SocketType::STREAM)?;
    listen(&socket, BACKLOG)?;
    Ok(socket)
}

fn bound(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if kind == SocketType::STREAM {
        set_socket_reuseaddr(&socket, true)?;
    }
    bind(&socket, &address)?;
    Ok(socket)
}

/// Makes sockets whenever the proxy has few left. The end of the link is the end of the shepherd, and ours.
fn serve_outside(link: OwnedFd, six: bool, events: Sender<Event>) {
    std::thread::spawn(move || {
        while let Ok(Some(message)) = link::receive(&link) {
            if message.text == "mint" && mint(&link, six).is_err() {
                break;
            }
        }
        let _ending_already = events.send(Event::LifelineClosed).is_err();
    });
}

/// One message of unconnected sockets. Those of IPv6 reach IPv4 as well.
fn mint(link: &OwnedFd, six: bool) -> io::Result<()> {
    let family = if six { AddressFamily::INET6 } else { AddressFamily::INET };
    let mut sockets = Vec::with_capacity(link::MOST);
    for _ in 0..link::MOST {
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
        if six {
            set_ipv6_v6only(&socket, false)?;
        }
        sockets.push(socket);
    }
    let borrowed: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    link::send(link, if six { "minted 6" } else { "minted 4" }, &borrowed)
}
