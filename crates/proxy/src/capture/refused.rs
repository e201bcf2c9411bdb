//! Notices that an application in a network of its own dials a loopback port at which nobody listens there, but somebody does on the
//! laptop: usually its database (HMS-1207).

use std::collections::BTreeSet;
use std::io;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};
use socket2::{SockFilter, SockRef};

use super::application::say;

/// `ETH_P_ALL`, in network order.
const ALL: u32 = 0x0003_u16.to_be() as u32;
/// Ports that are told of at most; each once.
const MOST: usize = 100;
/// What a refusal has in its flags: RST and ACK.
const REFUSED: u32 = 0x14;

/// A socket that receives refusals on loopback and nothing else. To be opened inside.
pub(super) fn open() -> io::Result<OwnedFd> {
    let protocol = NonZeroU32::new(ALL).map(Protocol::from_raw);
    let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, SocketFlags::CLOEXEC, protocol)?;
    SockRef::from(&socket).attach_filter(&filter())?;
    Ok(socket)
}

/// Packets from 127.0.0.0/8 or `::1` that answer a SYN with a refusal. Offsets count from the network header.
fn filter() -> [SockFilter; 24] {
    const BYTE: u16 = 0x30;
    const WORD: u16 = 0x20;
    const EQUAL: u16 = 0x15;
    const AND: u16 = 0x54;
    const HEADER_LENGTH: u16 = 0xb1;
    const BYTE_BEHIND: u16 = 0x50;
    const RETURN: u16 = 0x06;
    const NO: u8 = 23;
    let jump = |own: u8, target: u8| target - own - 1;
    let line = |code: u16, k: u32, jt: u8, jf: u8| SockFilter::new(code, jt, jf, k);
    let unless = |own: u8, k: u32| line(EQUAL, k, 0, jump(own, NO));
    [
        line(BYTE, 0, 0, 0),
        line(AND, 0xf0, 0, 0),
        line(EQUAL, 0x60, jump(2, 11), 0),
        // IPv4: protocol, source, flags.
        line(BYTE, 9, 0, 0),
        unless(4, 6),
        line(BYTE, 12, 0, 0),
        unless(6, 127),
        line(HEADER_LENGTH, 0, 0, 0),
        line(BYTE_BEHIND, 13, 0, 0),
        line(EQUAL, REFUSED, jump(9, 22), jump(9, NO)),
        line(RETURN, 0, 0, 0),
        // IPv6: protocol, source, flags.
        line(BYTE, 6, 0, 0),
        unless(12, 6),
        line(WORD, 16, 0, 0),
        unless(14, 0),
        line(WORD, 20, 0, 0),
        unless(16, 1),
        line(WORD, 8, 0, 0),
        unless(18, 0),
        line(BYTE, 53, 0, 0),
        line(EQUAL, REFUSED, jump(20, 22), jump(20, NO)),
        line(RETURN, 0, 0, 0),
        line(RETURN, 128, 0, 0),
        line(RETURN, 0, 0, 0),
    ]
}

/// Tells of each port once, on the application's stderr. `own` is where the application itself listens or will listen.
pub(super) fn watch(socket: OwnedFd, own: Vec<u16>) {
    std::thread::spawn(move || {
        let mut told: BTreeSet<u16> = own.into_iter().collect();
        let mut packet = [0; 128];
        while let Ok((_, length)) = recv(&socket, &mut packet, RecvFlags::empty()) {
            let Some(port) = packet.get(..length).and_then(refusing_port) else { continue };
            if told.len() >= MOST {
                return;
            }
            if is_listened_on(port) && told.insert(port) {
                let what = format!("the program dialled 127.0.0.1:{port}, where nothing listens in its own network");
                let why = format!("it has a loopback of its own; on the laptop's, something listens at {port}");
                say(1207, &what, &why, &format!("host_ports: [{port}]   # in mesh.yaml"));
            }
        }
    });
}

/// The port that refuses.
fn refusing_port(packet: &[u8]) -> Option<u16> {
    let start = match packet.first()? >> 4 {
        4 => usize::from(packet.first()? & 0xf) * 4,
        _ => 40,
    };
    Some(u16::from_be_bytes(packet.get(start..start + 2)?.try_into().ok()?))
}

/// Whether anything listens on a port of this process's own network (proc(5)).
fn is_listened_on(port: u16) -> bool {
    let listens = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let local = fields.next().and_then(|local| local.rsplit_once(':')).map(|(_, port)| port);
        local.and_then(|port| u16::from_str_radix(port, 16).ok()) == Some(port) && fields.nth(1) == Some("0A")
    };
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .any(|text| text.lines().any(listens))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_refusing_port_is_read_behind_headers_of_any_length() {
        let mut four = vec![0; 60];
        four[0] = 0x46;
        four[24..26].copy_from_slice(&5432_u16.to_be_bytes());
        assert_eq!(refusing_port(&four), Some(5432));
        let mut six = vec![0; 60];
        six[0] = 0x60;
        six[40..42].copy_from_slice(&6379_u16.to_be_bytes());
        assert_eq!(refusing_port(&six), Some(6379));
        assert_eq!(refusing_port(&[0x4f, 0]), None);
    }

    #[test]
    fn a_listening_port_is_found_and_a_closed_one_is_not() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert!(is_listened_on(port));
        drop(listener);
        assert!(!is_listened_on(port));
    }
}
