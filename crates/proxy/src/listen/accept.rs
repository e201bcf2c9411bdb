//! The acceptor of one listener: it takes a connection only when there is a place for it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};

use super::{Accepted, Door, Threads};
use crate::drain::Cause;
use crate::overload::descriptors::is_exhaustion;
use crate::overload::places::Reserved;
use crate::worker::Shared;

/// Waits after running out of descriptors or memory: doubling from the first to the last, ended early by any connection's end.
const PAUSE: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// Connections taken from the kernel's queue when draining begins; the queue is no longer (`net.core.somaxconn`).
const QUEUED: usize = 4096;

/// Accepts until the process drains. Running out of descriptors or places pauses accepting, and nothing else.
pub async fn accept(listener: TcpListener, door: Door, threads: Threads, shared: Arc<Shared>) {
    let acceptor = Acceptor { listener, door: Arc::new(door), threads, shared };
    let mut pause = PAUSE.0;
    loop {
        let reserved = tokio::select! {
            reserved = acceptor.place() => reserved,
            () = acceptor.shared.drain.begun() => break,
        };
        let accepted = tokio::select! {
            accepted = acceptor.listener.accept() => accepted,
            () = acceptor.shared.drain.begun() => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = PAUSE.0;
                acceptor.take(reserved, stream, peer).await;
            }
            Err(error) if is_exhaustion(&error) => {
                drop(reserved);
                acceptor.exhausted(&error, pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
            Err(error) => {
                // Of one connection, as a rule: but whatever it is, it must not spin.
                acceptor.shared.overload.complain("accept failed", &error);
                tokio::task::yield_now().await;
            }
        }
    }
    acceptor.empty_queue().await;
}

struct Acceptor {
    listener: TcpListener,
    door: Arc<Door>,
    threads: Threads,
    shared: Arc<Shared>,
}

impl Acceptor {
    /// Waits until there is a place, and memory for what comes on it.
    async fn place(&self) -> Reserved {
        self.shared.overload.accepting().await;
        self.shared.overload.places().reserve().await
    }

    async fn take(&self, reserved: Reserved, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.shared.overload.places().take(reserved, peer.ip()) else {
            self.shared.overload.complain("a source has its share of connections", &peer.ip());
            return;
        };
        match stream.into_std() {
            Ok(stream) => {
                let under_way = self.shared.drain.open();
                let door = Arc::clone(&self.door);
                self.threads.hand_over(Accepted { stream, peer, door, place, under_way }).await;
            }
            Err(error) => self.shared.overload.complain("a connection could not be handed over", &error),
        }
    }

    /// Waits a little, or until a connection ends: then there may be a descriptor again.
    async fn exhausted(&self, error: &io::Error, pause: Duration) {
        self.shared.overload.complain("accepting pauses", error);
        tokio::select! {
            () = self.shared.overload.places().freed() => {}
            () = tokio::time::sleep(pause) => {}
            () = self.shared.drain.begun() => {}
        }
    }

    /// Whoever is in the kernel's queue believes to be connected, and closing the listener would reset it. A successor that has
    /// the same listener finds them there.
    async fn empty_queue(&self) {
        if self.shared.drain.cause() == Cause::HandedOver {
            return;
        }
        for _ in 0..QUEUED {
            let reserved = tokio::time::timeout(Duration::ZERO, self.shared.overload.places().reserve()).await;
            let accepted = tokio::time::timeout(Duration::ZERO, self.listener.accept()).await;
            let (Ok(reserved), Ok(Ok((stream, peer)))) = (reserved, accepted) else { return };
            self.take(reserved, stream, peer).await;
        }
    }
}
