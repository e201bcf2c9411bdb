//! The shepherd's word with the proxy: it hands out what was made inside, again to every process that becomes the proxy, and has more
//! made on demand.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use super::link::{self, Message};

/// Pauses while no proxy is there: doubling from the first to the last.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(200));

/// Connections that may wait for the next proxy; it is told again what these dialled.
const ORIGINS: usize = 1024;

/// What is handed out.
#[derive(Debug)]
pub(super) struct HandOut {
    /// Where the proxy waits.
    proxy: PathBuf,
    /// The process inside, one question at a time.
    inside: Option<Mutex<OwnedFd>>,
    sockets: Vec<Message>,
    told: Mutex<Told>,
}

/// What every proxy hears beside, and its successor again.
#[derive(Debug, Default)]
struct Told {
    /// Those that are there: one, and while it hands over two.
    proxies: Vec<Arc<OwnedFd>>,
    /// What the latest connections dialled; some of them may wait for the next proxy.
    origins: VecDeque<(u16, SocketAddr)>,
}

/// The message about one connection.
fn origin(port: u16, dialled: SocketAddr) -> String {
    format!("origin {port} {dialled}")
}

/// How a conversation ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The proxy is gone.
    Closed,
    /// It goes on, but its successor waits.
    Leaving,
}

impl HandOut {
    /// Hands out for as long as this process lives.
    pub(super) fn begin(proxy: PathBuf, inside: Option<OwnedFd>, sockets: Vec<Message>) -> Arc<Self> {
        let all = Arc::new(Self { proxy, inside: inside.map(Mutex::new), sockets, told: Mutex::default() });
        let own = Arc::clone(&all);
        std::thread::spawn(move || own.forever());
        all
    }

    /// Tells the proxy what the connection dialled that is about to come from this port.
    pub(super) fn tell_origin(&self, port: u16, dialled: SocketAddr) {
        let mut told = self.told.lock();
        if told.origins.len() >= ORIGINS {
            told.origins.pop_front();
        }
        told.origins.push_back((port, dialled));
        // One that is gone has a successor, which hears it again; of two, either may accept the connection.
        told.proxies.retain(|proxy| link::send(&**proxy, &origin(port, dialled), &[]).is_ok());
    }

    fn forever(self: Arc<Self>) {
        let mut pause = PAUSE.0;
        loop {
            let Ok(proxy) = link::reach(&self.proxy).map(Arc::new) else {
                std::thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSE.1);
                continue;
            };
            pause = PAUSE.0;
            if self.introduce(&proxy).is_ok() && self.converse(&proxy) == End::Leaving {
                let again = Arc::clone(&self);
                // It still has requests for the application, and ends before long.
                std::thread::spawn(move || {
                    while again.converse(&proxy) == End::Leaving {}
                    again.forget(&proxy);
                });
            } else {
                self.forget(&proxy);
                std::thread::park_timeout(PAUSE.0);
            }
        }
    }

    fn introduce(&self, proxy: &Arc<OwnedFd>) -> std::io::Result<()> {
        for message in &self.sockets {
            let sockets: Vec<_> = message.sockets.iter().map(|socket| socket.as_fd()).collect();
            link::send(proxy, &message.text, &sockets)?;
        }
        let mut told = self.told.lock();
        for (port, dialled) in &told.origins {
            link::send(proxy, &origin(*port, *dialled), &[])?;
        }
        told.proxies.push(Arc::clone(proxy));
        link::send(proxy, "ready", &[])
    }

    fn forget(&self, gone: &Arc<OwnedFd>) {
        self.told.lock().proxies.retain(|proxy| !Arc::ptr_eq(proxy, gone));
    }

    fn converse(&self, proxy: &OwnedFd) -> End {
        while let Ok(Some(message)) = link::receive(proxy) {
            match message.text.as_str() {
                "leaving" => return End::Leaving,
                "mint" if self.mint(proxy).is_err() => return End::Closed,
                _ => {}
            }
        }
        End::Closed
    }

    fn mint(&self, proxy: &OwnedFd) -> std::io::Result<()> {
        let Some(inside) = &self.inside else { return Ok(()) };
        let minted = {
            let inside = inside.lock();
            link::send(&*inside, "mint", &[])?;
            link::receive(&*inside)?
        };
        let Some(minted) = minted else { return Err(std::io::ErrorKind::UnexpectedEof.into()) };
        let sockets: Vec<_> = minted.sockets.iter().map(|socket| socket.as_fd()).collect();
        link::send(proxy, &minted.text, &sockets)
    }
}
