//! Capture without namespaces: the parent answers the application's connect(2) and its datagrams.
//!
//! The socket is taken by its descriptor, the address copied, and the call carried out by us with the copy, so that nothing the
//! application does meanwhile changes where it leads. A TCP connection leads to the proxy, which was told before from which port it
//! comes and what was dialled. Nothing here keeps a hostile program in: it is no boundary, and `hms status` says so.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::net::sockopt::{socket_domain, socket_type};
use rustix::net::{AddressFamily, SendFlags, SocketType, bind, connect, connect_unspec, getsockname, sendto};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};

use super::hand_out::HandOut;
use super::link::Message;
use super::mounts;
use super::seccomp::{Answer, Question, Questions, read_memory, thread_pidfd, write_memory};

/// Threads that answer: one that waits for a full queue of the proxy does not hold the others.
const THREADS: usize = 4;
/// The longest datagram.
const DATAGRAM: usize = 65_535;
/// Pieces of one message that are put together.
const PIECES: usize = 64;
/// Sizes of the kernel's structs on 64-bit machines.
const MSGHDR: usize = 56;
const MMSGHDR: usize = 64;
/// Nobody listens there (RFC 863); who connects a datagram socket somewhere only learns its own address.
const NOWHERE: u16 = 9;

/// Where calls lead, by the family of the socket.
#[derive(Debug, Clone, Copy)]
struct Doors {
    tcp: SocketAddr,
    dns_tcp: SocketAddr,
    dns_udp: SocketAddr,
}

/// Answers the questions of one application.
pub(super) struct Notify {
    questions: Questions,
    out: Arc<HandOut>,
    four: Doors,
    six: Option<Doors>,
    /// Sockets of files that lead around the mesh.
    closed: Vec<PathBuf>,
    /// Folders whose sockets are ours.
    masks: Vec<PathBuf>,
}

/// Listening sockets of the host's loopback, as messages for the proxy.
pub(super) struct Opened {
    messages: Vec<Message>,
    four: Doors,
    six: Option<Doors>,
}

/// Opens what the application will be led to.
pub(super) fn open() -> io::Result<Opened> {
    let mut messages = Vec::new();
    let four = doors(Ipv4Addr::LOCALHOST.into(), &mut messages)?;
    // A machine without IPv6 has no sockets of that family either, or only such as reach IPv4 by mapped addresses.
    let six = doors(Ipv6Addr::LOCALHOST.into(), &mut messages).ok();
    Ok(Opened { messages, four, six })
}

fn doors(ip: IpAddr, messages: &mut Vec<Message>) -> io::Result<Doors> {
    let at = SocketAddr::new(ip, 0);
    let (door, dns_tcp, dns_udp) = (TcpListener::bind(at)?, TcpListener::bind(at)?, UdpSocket::bind(at)?);
    for listener in [&door, &dns_tcp] {
        listener.set_nonblocking(true)?;
    }
    dns_udp.set_nonblocking(true)?;
    let doors = Doors { tcp: door.local_addr()?, dns_tcp: dns_tcp.local_addr()?, dns_udp: dns_udp.local_addr()? };
    let sockets = [("door", OwnedFd::from(door)), ("dns-tcp", dns_tcp.into()), ("dns-udp", dns_udp.into())];
    messages.extend(sockets.map(|(text, socket)| Message { text: text.to_owned(), sockets: vec![socket] }));
    Ok(doors)
}

impl Opened {
    /// Answers from now on, in threads of this process.
    pub(super) fn answer(self, listener: OwnedFd, proxy: PathBuf, masks: Vec<PathBuf>, keep: &[PathBuf]) {
        let out = HandOut::begin(proxy, None, self.messages);
        let closed = mounts::sockets().filter(|socket| !keep.contains(socket)).collect();
        let questions = Questions::new(listener);
        let notify = Arc::new(Notify { questions, out, four: self.four, six: self.six, closed, masks });
        for _ in 0..THREADS {
            let notify = Arc::clone(&notify);
            std::thread::spawn(move || {
                while let Ok(question) = notify.questions.next() {
                    let answer = notify.decide(&question).unwrap_or_else(Answer::from);
                    notify.questions.answer(&question, answer);
                }
            });
        }
    }
}

impl Notify {
    fn decide(&self, question: &Question) -> io::Result<Answer> {
        let [descriptor, second, third, fourth, fifth, sixth] = question.arguments;
        match question.call {
            libc::SYS_connect => {
                let address = address_at(question, second, third)?;
                self.connect(question, descriptor, address)
            }
            libc::SYS_sendto => {
                let address = address_at(question, fifth, sixth)?;
                let socket = self.socket(question, descriptor)?;
                if !is_datagram(&socket) {
                    return Ok(on_stream(fourth));
                }
                let bytes = read_memory(question.thread, second, length(third))?;
                self.send(&socket, &bytes, fourth, &address)
            }
            libc::SYS_sendmsg => {
                let socket = self.socket(question, descriptor)?;
                if !is_datagram(&socket) {
                    return Ok(on_stream(third));
                }
                match Self::message(question, &read_memory(question.thread, second, MSGHDR)?)? {
                    Some((address, bytes)) => self.send(&socket, &bytes, third, &address),
                    None => Ok(Answer::Continue),
                }
            }
            libc::SYS_sendmmsg => self.send_many(question),
            _ => Ok(Answer::Continue),
        }
    }

    /// The first of several messages alone: the kernel may send fewer than it was given, and callers know that.
    fn send_many(&self, question: &Question) -> io::Result<Answer> {
        let [descriptor, vector, count, flags, ..] = question.arguments;
        let socket = self.socket(question, descriptor)?;
        if !is_datagram(&socket) {
            return Ok(on_stream(flags));
        }
        let count = length(count).min(PIECES);
        let headers = read_memory(question.thread, vector, count * MMSGHDR)?;
        if headers.chunks(MMSGHDR).all(|header| number(header, 0) == 0) {
            return Ok(Answer::Continue);
        }
        let first = headers.get(..MSGHDR).unwrap_or_default();
        let Some((address, bytes)) = Self::message(question, first)? else { return Ok(Answer::Continue) };
        match self.send(&socket, &bytes, flags, &address)? {
            Answer::Done(sent) => {
                let sent = u32::try_from(sent).unwrap_or_default().to_ne_bytes();
                write_memory(question.thread, vector + MSGHDR as u64, &sent)?;
                Ok(Answer::Done(1))
            }
            other => Ok(other),
        }
    }

    /// The destination and the bytes of a `struct msghdr`; `None` if it names no destination.
    fn message(question: &Question, header: &[u8]) -> io::Result<Option<Datagram>> {
        let name = number(header, 0);
        if name == 0 {
            return Ok(None);
        }
        let address = address_at(question, name, number(header, 1) & u64::from(u32::MAX))?;
        let pieces = length(number(header, 3)).min(PIECES);
        let vector = read_memory(question.thread, number(header, 2), pieces * 16)?;
        let mut bytes = Vec::new();
        for piece in vector.chunks(16) {
            let room = DATAGRAM - bytes.len();
            bytes.extend(read_memory(question.thread, number(piece, 0), length(number(piece, 1)).min(room))?);
        }
        Ok(Some((address, bytes)))
    }

    fn connect(&self, question: &Question, descriptor: u64, address: Address) -> io::Result<Answer> {
        let target = match address {
            Address::Internet(target) => target,
            Address::File(path) if self.is_closed(question, &path) => return Ok(Answer::Failed(libc::ECONNREFUSED)),
            Address::None => {
                connect_unspec(&self.socket(question, descriptor)?)?;
                return Ok(Answer::Done(0));
            }
            Address::File(_) | Address::Other => return Ok(Answer::Continue),
        };
        let socket = self.socket(question, descriptor)?;
        let doors = self.doors(target.ip());
        let datagram = is_datagram(&socket);
        let (leads_to, origin) = match (target.port(), datagram) {
            (53, true) => (doors.dns_udp, None),
            (53, false) => (doors.dns_tcp, None),
            _ if is_loopback(target.ip()) => (target, None),
            (_, true) => (SocketAddr::new(doors.dns_udp.ip(), NOWHERE), None),
            (_, false) => (doors.tcp, Some(target)),
        };
        if let Some(origin) = origin {
            self.out.tell_origin(own_port(&socket, doors.tcp.ip())?, origin);
        }
        connect(&socket, &fitting(&socket, leads_to)?)?;
        Ok(Answer::Done(0))
    }

    /// Sends one datagram where it may go.
    fn send(&self, socket: &OwnedFd, bytes: &[u8], flags: u64, address: &Address) -> io::Result<Answer> {
        let target = match address {
            Address::Internet(target) => *target,
            Address::File(_) | Address::None | Address::Other => return Ok(Answer::Continue),
        };
        let leads_to = match target.port() {
            53 => self.doors(target.ip()).dns_udp,
            _ if is_loopback(target.ip()) => target,
            _ => return Ok(Answer::Failed(libc::EPERM)),
        };
        let flags = SendFlags::from_bits_retain(u32::try_from(flags).unwrap_or_default()) | SendFlags::NOSIGNAL;
        let sent = sendto(socket, bytes, flags, &fitting(socket, leads_to)?)?;
        Ok(Answer::Done(i64::try_from(sent).unwrap_or_default()))
    }

    /// The doors of the family that was dialled, whatever the socket's: its own address must be of that family afterwards
    /// (getaddrinfo(3) of the GNU C library insists on it).
    fn doors(&self, dialled: IpAddr) -> Doors {
        self.six.filter(|_| dialled.is_ipv6()).unwrap_or(self.four)
    }

    /// Our own descriptor of a socket of the process that asks.
    fn socket(&self, question: &Question, descriptor: u64) -> io::Result<OwnedFd> {
        let pidfd = thread_pidfd(question.thread)?;
        let descriptor =
            i32::try_from(descriptor).map_err(|_no_descriptor| io::Error::from_raw_os_error(libc::EBADF))?;
        let socket = pidfd_getfd(&pidfd, descriptor, PidfdGetfdFlags::empty())?;
        if self.questions.is_open(question) { Ok(socket) } else { Err(io::Error::from_raw_os_error(libc::EINTR)) }
    }

    /// Whether a socket in the file system is one that leads around the mesh.
    fn is_closed(&self, question: &Question, path: &Path) -> bool {
        let base = format!("/proc/{}", question.thread);
        let seen = match path.strip_prefix("/") {
            Ok(rest) => Path::new(&base).join("root").join(rest),
            Err(_relative) => Path::new(&base).join("cwd").join(path),
        };
        let Ok(real) = seen.canonicalize() else { return false };
        self.closed.contains(&real) || self.masks.iter().any(|mask| real.starts_with(mask))
    }
}

/// A destination, and what is sent there.
type Datagram = (Address, Vec<u8>);

/// The `struct sockaddr` at a place in the memory of the process that asks.
fn address_at(question: &Question, pointer: u64, size: u64) -> io::Result<Address> {
    let bytes = read_memory(question.thread, pointer, length(size).min(128))?;
    Ok(Address::parse(&bytes))
}

/// What a `struct sockaddr` says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Address {
    Internet(SocketAddr),
    File(PathBuf),
    /// `AF_UNSPEC`: no address any more.
    None,
    Other,
}

impl Address {
    fn parse(bytes: &[u8]) -> Self {
        use std::os::unix::ffi::OsStrExt as _;
        let Some((family, rest)) = bytes.split_first_chunk::<2>() else { return Self::Other };
        let port = |rest: &[u8]| rest.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
        match i32::from(u16::from_ne_bytes(*family)) {
            libc::AF_UNSPEC => Self::None,
            libc::AF_INET => rest
                .get(2..6)
                .and_then(|ip| Some(SocketAddr::from((<[u8; 4]>::try_from(ip).ok()?, port(rest)?))))
                .map_or(Self::Other, Self::Internet),
            libc::AF_INET6 => rest
                .get(6..22)
                .and_then(|ip| Some(SocketAddr::from((<[u8; 16]>::try_from(ip).ok()?, port(rest)?))))
                .map_or(Self::Other, |address| Self::Internet(unmapped(address))),
            // An empty first byte is an abstract name, which is no file.
            libc::AF_UNIX => match rest.split(|byte| *byte == 0).next() {
                Some(path) if !path.is_empty() => Self::File(PathBuf::from(std::ffi::OsStr::from_bytes(path))),
                _ => Self::Other,
            },
            _ => Self::Other,
        }
    }
}

/// The IPv4 address that a mapped one stands for.
fn unmapped(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// The same address in the family of a socket.
fn fitting(socket: impl AsFd, address: SocketAddr) -> io::Result<SocketAddr> {
    let six = socket_domain(socket)? == AddressFamily::INET6;
    Ok(match address.ip() {
        IpAddr::V4(ip) if six => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    })
}

/// The port from which a socket will connect; it gets one if it has none.
fn own_port(socket: &OwnedFd, ip: IpAddr) -> io::Result<u16> {
    let port = || -> io::Result<u16> {
        let address = SocketAddr::try_from(getsockname(socket)?)
            .map_err(|_other| io::Error::from_raw_os_error(libc::EAFNOSUPPORT))?;
        Ok(address.port())
    };
    match port()? {
        0 => {
            bind(socket, &fitting(socket, SocketAddr::new(ip, 0))?)?;
            port()
        }
        bound => Ok(bound),
    }
}

fn is_datagram(socket: &OwnedFd) -> bool {
    let internet =
        socket_domain(socket).is_ok_and(|family| family == AddressFamily::INET || family == AddressFamily::INET6);
    internet && socket_type(socket).is_ok_and(|kind| kind != SocketType::STREAM)
}

/// This machine's loopback, and the unspecified address, which means the same to connect(2).
fn is_loopback(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified()
}

/// On a stream the address means nothing, except with `MSG_FASTOPEN`, which would connect.
fn on_stream(flags: u64) -> Answer {
    let fast_open = u64::from(libc::MSG_FASTOPEN.cast_unsigned());
    if flags & fast_open == 0 { Answer::Continue } else { Answer::Failed(libc::EOPNOTSUPP) }
}

/// The number at a place of a struct of 64-bit words.
fn number(words: &[u8], index: usize) -> u64 {
    let word = words.get(index * 8..index * 8 + 8).and_then(|word| word.try_into().ok());
    word.map(u64::from_ne_bytes).unwrap_or_default()
}

fn length(argument: u64) -> usize {
    usize::try_from(argument).unwrap_or(usize::MAX).min(DATAGRAM)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_kernel_reads_them() {
        let four = [&2_u16.to_ne_bytes()[..], &80_u16.to_be_bytes(), &[240, 0, 0, 1], &[0; 8]].concat();
        assert_eq!(Address::parse(&four), Address::Internet("240.0.0.1:80".parse().unwrap()));
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 0, 0, 1];
        let six = [&10_u16.to_ne_bytes()[..], &443_u16.to_be_bytes(), &[0; 4], &mapped, &[0; 4]].concat();
        assert_eq!(Address::parse(&six), Address::Internet("10.0.0.1:443".parse().unwrap()));
        let file = [&1_u16.to_ne_bytes()[..], b"/run/x.sock\0rest"].concat();
        assert_eq!(Address::parse(&file), Address::File("/run/x.sock".into()));
        let name = [&1_u16.to_ne_bytes()[..], b"\0/tmp/.X11-unix/X0"].concat();
        assert_eq!(Address::parse(&name), Address::Other);
        assert_eq!(Address::parse(&0_u16.to_ne_bytes()), Address::None);
        for cut in 0..four.len() {
            let _never_panics = Address::parse(&four[..cut]);
        }
    }

    #[test]
    fn fast_open_does_not_slip_through() {
        assert_eq!(on_stream(0x2000_0000), Answer::Failed(libc::EOPNOTSUPP));
        assert_eq!(on_stream(0x4000), Answer::Continue);
    }
}
