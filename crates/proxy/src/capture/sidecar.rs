//! The proxy's side of a captured application: it takes the sockets that were made inside, accepts on those that listen, and reaches
//! the application through the others.
//!
//! The proxy waits at `capture.sock` in its runtime directory. Whoever shepherds the application connects, hands everything out, and
//! stays: an application that is started again has another shepherd, a proxy that is started again finds the same one.
#![expect(unsafe_code, reason = "the reactor cannot see that a descriptor stays open")]

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::{TcpListener, TcpSocket, TcpStream, UdpSocket};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::dns::{self, Names, Searched};
use super::link::{self, Message};
use super::{Mode, host};
use crate::listen::{Door, Threads, accept};
use crate::private_socket::same_user;
use crate::tasks;
use crate::worker::Shared;

/// With fewer sockets than this, more are asked for.
const LOW: usize = link::MOST / 2;
/// How long a shepherd may take to find a proxy that was just started.
const INTRODUCTION: Duration = Duration::from_secs(2);
/// The most destinations that are remembered for connections that have not arrived (notify).
const ORIGINS: usize = 4096;

/// What the data threads need of it.
#[derive(Debug, Default)]
pub struct Captured {
    /// Where the application is, if it is captured.
    mode: Option<Mode>,
    stock: Mutex<Option<Arc<Stock>>>,
    /// Whether a shepherd was ever here: a proxy that takes over waits a moment for it.
    met: watch::Sender<bool>,
    /// What was dialled, with the port from which it is connected, the latest last (notify).
    origins: Mutex<VecDeque<(u16, SocketAddr)>>,
    origin_told: Notify,
}

/// Unconnected sockets made inside.
#[derive(Debug, Default)]
struct Stock {
    sockets: Mutex<Vec<OwnedFd>>,
    /// Whether they are of IPv6, and reach IPv4 by mapped addresses.
    six: AtomicBool,
    /// More have come, or nothing will come any more.
    changed: Notify,
    /// There are few.
    low: Notify,
    closed: AtomicBool,
}

impl Captured {
    /// For an application that is captured in this way, or not at all.
    pub fn new(mode: Option<Mode>) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Whether there is a shepherd to wait for.
    pub fn is_expected(&self) -> bool {
        self.mode.is_some_and(|mode| mode != Mode::Joined)
    }

    /// Connects to the application. One in a network of its own is reached from inside it: whatever listens at the same port of the
    /// host is not our application.
    pub async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        if self.mode == Some(Mode::Joined) && address == SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())) {
            // Some programs take "localhost" for one of the two families.
            return match TcpStream::connect(address).await {
                Ok(stream) => Ok(stream),
                Err(error) => {
                    let six = SocketAddr::from((Ipv6Addr::LOCALHOST, address.port()));
                    TcpStream::connect(six).await.map_err(|_both_refused| error)
                }
            };
        }
        if self.mode != Some(Mode::Netns) {
            return TcpStream::connect(address).await;
        }
        let stock = self.stock().await.ok_or(io::ErrorKind::ConnectionRefused)?;
        match stock.connect(address).await {
            // Some programs take "localhost" for one of the two families.
            Err(error) if address.ip().is_loopback() && address.is_ipv4() && stock.six.load(Ordering::Relaxed) => {
                let six = SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port());
                stock.connect(six).await.map_err(|_both_refused| error)
            }
            result => result,
        }
    }

    /// Its sockets, if it lives.
    async fn stock(&self) -> Option<Arc<Stock>> {
        if !*self.met.borrow() {
            let mut met = self.met.subscribe();
            // Only a process that was just started does not know yet; nobody was told that its application accepts anything.
            let _late = tokio::time::timeout(INTRODUCTION, met.wait_for(|met| *met)).await.is_err();
            self.met.send_replace(true);
        }
        self.stock.lock().clone()
    }

    /// What the application dialled when it opened this connection; `None` if it dialled our own listener.
    pub async fn original(&self, stream: &TcpStream, peer: SocketAddr) -> Option<SocketAddr> {
        match self.mode? {
            Mode::Netns | Mode::Joined => redirected_from(stream),
            Mode::Notify => self.told_origin(peer.port()).await,
            Mode::None => None,
        }
    }

    async fn told_origin(&self, port: u16) -> Option<SocketAddr> {
        let told = async {
            loop {
                let told = self.origin_told.notified();
                let origin = take_latest(&mut self.origins.lock(), port);
                if let Some(origin) = origin {
                    return origin;
                }
                told.await;
            }
        };
        // It was told before the connection was opened, over another socket.
        tokio::time::timeout(Duration::from_secs(1), told).await.ok()
    }

    fn note_origin(&self, words: &str) {
        let Some((port, origin)) = words.split_once(' ') else { return };
        if let (Ok(port), Ok(origin)) = (port.parse(), origin.parse()) {
            let mut origins = self.origins.lock();
            if origins.len() >= ORIGINS {
                // A connection that never arrived, or arrived at another proxy.
                origins.pop_front();
            }
            origins.push_back((port, origin));
            drop(origins);
            self.origin_told.notify_waiters();
        }
    }
}

/// Takes what was told last of a port, and forgets what was told of it before.
fn take_latest(origins: &mut VecDeque<(u16, SocketAddr)>, port: u16) -> Option<SocketAddr> {
    let latest = origins.iter().rev().find(|(other, _)| *other == port).map(|(_, origin)| *origin)?;
    origins.retain(|(other, _)| *other != port);
    Some(latest)
}

impl Stock {
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = self.take().await.ok_or(io::ErrorKind::ConnectionRefused)?;
        let target = match address.ip() {
            IpAddr::V4(ip) if self.six.load(Ordering::Relaxed) => {
                SocketAddr::new(ip.to_ipv6_mapped().into(), address.port())
            }
            _ => address,
        };
        TcpSocket::from_std_stream(std::net::TcpStream::from(socket)).connect(target).await
    }

    /// One socket; `None` if the application's network is gone. Who asks has a deadline.
    async fn take(&self) -> Option<OwnedFd> {
        loop {
            let changed = self.changed.notified();
            let (socket, left) = {
                let mut sockets = self.sockets.lock();
                (sockets.pop(), sockets.len())
            };
            if left < LOW {
                self.low.notify_one();
            }
            if socket.is_some() {
                return socket;
            }
            if self.closed.load(Ordering::Acquire) {
                return None;
            }
            changed.await;
        }
    }
}

/// What the rules of the application's network rewrote; works on a socket of another network, because the question is its own.
fn redirected_from(stream: &TcpStream) -> Option<SocketAddr> {
    use rustix::net::sockopt::{ip_original_dst, ipv6_original_dst};
    let four = stream.local_addr().ok()?.is_ipv4();
    let original = if four {
        ip_original_dst(stream).map(SocketAddr::from)
    } else {
        ipv6_original_dst(stream).map(SocketAddr::from)
    };
    // A connection to the listener itself was not rewritten.
    original.ok().filter(|original| Some(*original) != stream.local_addr().ok())
}

/// Who takes what arrives.
#[derive(Debug, Clone)]
pub struct Sink {
    /// What all threads share.
    pub shared: Arc<Shared>,
    /// Who serves connections.
    pub threads: Threads,
    /// Who answers for names.
    pub names: Names,
}

/// Where shepherds connect.
#[derive(Debug)]
pub struct Gate(AsyncFd<OwnedFd>);

impl Gate {
    /// Waits from now on in this directory.
    pub fn open(directory: &Path) -> io::Result<Self> {
        Ok(Self(watched(link::open(directory)?)?))
    }

    /// Attends to every shepherd that comes, until another process has taken over.
    pub async fn attend(self, sink: Sink) {
        loop {
            let accepted = tokio::select! {
                accepted = self.accept() => accepted,
                () = sink.shared.drain.handed_over() => return,
            };
            match accepted {
                Ok(shepherd) => {
                    tasks::spawn("shepherd", Conversation::new(sink.clone()).hold(shepherd));
                }
                Err(error) => {
                    sink.shared.overload.complain("a shepherd could not be heard", &error);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn accept(&self) -> io::Result<AsyncFd<OwnedFd>> {
        use rustix::net::{SocketFlags, accept_with};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = self.0.async_io(Interest::READABLE, |gate| Ok(accept_with(gate, flags)?)).await?;
        same_user(&socket)?;
        watched(socket)
    }
}

/// With one shepherd, for as long as its application lives.
struct Conversation {
    sink: Sink,
    stock: Arc<Stock>,
    acceptors: Vec<JoinHandle<()>>,
    /// Where it asks for names, until these are answered.
    asks: dns::Sockets,
    answering: Option<dns::Serving>,
}

impl Conversation {
    fn new(sink: Sink) -> Self {
        Self { sink, stock: Arc::default(), acceptors: Vec::new(), asks: dns::Sockets::default(), answering: None }
    }

    async fn hold(mut self, shepherd: AsyncFd<OwnedFd>) {
        let drain = self.sink.shared.drain.clone();
        let stock = Arc::clone(&self.stock);
        let mut left = false;
        loop {
            let heard = tokio::select! {
                heard = shepherd.async_io(Interest::READABLE, |socket| link::receive(socket.as_fd())) => heard,
                () = stock.low.notified() => {
                    // Answered meanwhile.
                    if stock.sockets.lock().len() >= LOW {
                        continue;
                    }
                    if say(&shepherd, "mint").await.is_err() { return }
                    continue;
                }
                () = drain.handed_over(), if !left => {
                    left = true;
                    if say(&shepherd, "leaving").await.is_err() { return }
                    continue;
                }
            };
            match heard {
                Ok(Some(message)) => {
                    if let Err(error) = self.take(message) {
                        tracing::warn!(%error, "a socket of the application cannot be used");
                    }
                }
                Ok(None) => return,
                Err(error) => return tracing::warn!(%error, "the shepherd cannot be heard"),
            }
        }
    }

    fn take(&mut self, message: Message) -> io::Result<()> {
        let (kind, rest) = (message.words().0.to_owned(), message.words().1.to_owned());
        match (kind.as_str(), message.sockets.into_iter()) {
            ("door", sockets) => {
                for socket in sockets {
                    let listener = listener(socket)?;
                    let (threads, shared) = (self.sink.threads.clone(), Arc::clone(&self.sink.shared));
                    self.acceptors.push(tasks::spawn("acceptor", accept(listener, Door::Captured, threads, shared)));
                }
            }
            ("host", sockets) => {
                let port = rest.parse().map_err(io::Error::other)?;
                for socket in sockets {
                    let relay = host::serve(listener(socket)?, port, Arc::clone(&self.sink.shared));
                    self.acceptors.push(tasks::spawn("host port", relay));
                }
            }
            ("dns-tcp", sockets) => {
                for socket in sockets {
                    self.asks.tcp.push(listener(socket)?);
                }
            }
            ("dns-udp", sockets) => {
                for socket in sockets {
                    self.asks.udp.push(UdpSocket::from_std(std::net::UdpSocket::from(socket))?);
                }
            }
            ("minted", sockets) => {
                self.stock.six.store(rest == "6", Ordering::Relaxed);
                self.stock.sockets.lock().extend(sockets);
                self.stock.changed.notify_waiters();
            }
            ("origin", _) => self.sink.shared.captured.note_origin(&rest),
            ("ready", _) => self.ready(),
            (other, _) => tracing::debug!(other, "the shepherd says something that is not understood"),
        }
        Ok(())
    }

    /// From now on this is the application.
    fn ready(&mut self) {
        let captured = &self.sink.shared.captured;
        let private = captured.mode == Some(Mode::Netns);
        // Its own resolv.conf is found in a private mount table alone.
        let searched = if private { Searched::Mesh } else { Searched::Host };
        self.answering = Some(self.sink.names.serve(std::mem::take(&mut self.asks), searched));
        if private {
            *captured.stock.lock() = Some(Arc::clone(&self.stock));
            self.stock.low.notify_one();
        }
        captured.met.send_replace(true);
        self.sink.shared.app.suspect();
        tracing::info!("the application is captured");
    }
}

impl Drop for Conversation {
    /// The application is gone, and its network with it.
    fn drop(&mut self) {
        for acceptor in &self.acceptors {
            acceptor.abort();
        }
        self.stock.closed.store(true, Ordering::Release);
        self.stock.changed.notify_waiters();
        let mut current = self.sink.shared.captured.stock.lock();
        if current.as_ref().is_some_and(|stock| Arc::ptr_eq(stock, &self.stock)) {
            *current = None;
        }
    }
}

/// A socket that this runtime's reactor watches.
fn watched(socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and nobody takes it out.
    Ok(unsafe { AsyncFd::register(socket) }?)
}

async fn say(to: &AsyncFd<OwnedFd>, text: &str) -> io::Result<()> {
    to.async_io(Interest::WRITABLE, |socket| link::send(socket.as_fd(), text, &[])).await
}

fn listener(socket: OwnedFd) -> io::Result<TcpListener> {
    TcpListener::from_std(std::net::TcpListener::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_port_that_was_used_before_the_latest_origin_counts() {
        let captured = Captured::new(Some(Mode::Notify));
        for words in
            ["40001 240.0.0.1:80", "40002 240.0.0.2:80", "40001 [fd68::3]:443", "nonsense", "1 2", "70000 10.0.0.1:1"]
        {
            captured.note_origin(words);
        }
        let mut origins = captured.origins.lock();
        assert_eq!(take_latest(&mut origins, 40001), Some("[fd68::3]:443".parse().unwrap()));
        assert_eq!(take_latest(&mut origins, 40001), None, "each is for one connection");
        assert_eq!(origins.len(), 1);
    }

    #[test]
    fn origins_that_nobody_comes_for_are_bounded() {
        let captured = Captured::new(Some(Mode::Notify));
        for port in 0..=u16::MAX {
            captured.note_origin(&format!("{port} 240.0.0.1:80"));
        }
        assert_eq!(captured.origins.lock().len(), ORIGINS);
    }

    #[tokio::test]
    async fn an_application_that_is_gone_refuses_at_once_and_a_host_port_is_never_taken_for_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let captured = Captured::new(Some(Mode::Netns));
        captured.met.send_replace(true);
        let refused = captured.dial(address).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        let stock = Arc::<Stock>::default();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM.nonblocking(), None).unwrap();
        stock.sockets.lock().push(socket.into());
        *captured.stock.lock() = Some(Arc::clone(&stock));
        captured.dial(address).await.unwrap();
        stock.closed.store(true, Ordering::Release);
        assert!(captured.dial(address).await.is_err(), "the network is gone");
    }
}
