//! Sockets to answer on.

use std::io;
use std::net::SocketAddr;

use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with, sockopt};
use tokio::net::{TcpListener, TcpSocket, UdpSocket};

/// Ports that are tried until one is free for both.
const TRIES: usize = 16;
/// Connections that wait in the kernel.
const BACKLOG: u32 = 64;

/// Bound sockets of one application.
#[derive(Debug, Default)]
pub struct Sockets {
    /// For datagrams.
    pub udp: Vec<UdpSocket>,
    /// For connections.
    pub tcp: Vec<TcpListener>,
}

impl Sockets {
    /// Opens both at one address; port 0 is one that is free for both. A process that takes over binds the same port while the former
    /// one still has it.
    pub fn open(address: SocketAddr) -> io::Result<(Self, SocketAddr)> {
        let mut tries = if address.port() == 0 { TRIES } else { 1 };
        loop {
            tries = tries.saturating_sub(1);
            let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
            socket.set_reuseaddr(true)?;
            socket.set_reuseport(address.port() != 0)?;
            socket.bind(address)?;
            let tcp = socket.listen(BACKLOG)?;
            let bound = tcp.local_addr()?;
            match datagrams(bound, address.port() != 0) {
                Ok(udp) => return Ok((Self { udp: vec![udp], tcp: vec![tcp] }, bound)),
                Err(error) if tries == 0 || error.kind() != io::ErrorKind::AddrInUse => return Err(error),
                Err(_taken) => {}
            }
        }
    }
}

fn datagrams(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(family, SocketType::DGRAM, flags, None)?;
    sockopt::set_socket_reuseport(&socket, shared)?;
    bind(&socket, &address)?;
    UdpSocket::from_std(socket.into())
}
