//! Accepting connections: one socket per port, one acceptor, each connection to the thread with the fewest.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use hms_model::names::ServiceName;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::detect;
use crate::peer;
use crate::pipeline::{Downstream, Entrance, Serve};
use crate::tasks;
use crate::transport::tls_stream::{Impatient, Stream};
use crate::transport::{Protocol, http1, http2};
use crate::worker::{Shared, Worker};

/// Connections handed to a thread that it has not begun to serve.
const HANDED_OVER: usize = 256;
/// Connections one process serves at the same time.
const MOST_CONNECTIONS: usize = 10_000;

/// What a listener is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Door {
    /// Other proxies.
    Inbound,
    /// The application beside us; `Some` leads to one service only.
    Outbound(Option<ServiceName>),
    /// Callers from outside.
    Gateway,
}

/// A connection on its way to the thread that will serve it.
#[derive(Debug)]
pub struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    door: Arc<Door>,
}

/// The data threads, as the acceptor sees them.
#[derive(Debug, Clone)]
pub struct Threads(Vec<Thread>);

#[derive(Debug, Clone)]
struct Thread {
    connections: mpsc::Sender<Accepted>,
    open: Arc<AtomicUsize>,
}

/// One data thread's end.
#[derive(Debug)]
pub struct Intake {
    connections: mpsc::Receiver<Accepted>,
    open: Arc<AtomicUsize>,
}

/// Ends for `count` threads.
pub fn threads(count: usize) -> (Threads, Vec<Intake>) {
    (0..count.max(1))
        .map(|_| {
            let (sender, connections) = mpsc::channel(HANDED_OVER);
            let open = Arc::<AtomicUsize>::default();
            (Thread { connections: sender, open: Arc::clone(&open) }, Intake { connections, open })
        })
        .fold((Threads(Vec::new()), Vec::new()), |(mut threads, mut intakes), (thread, intake)| {
            threads.0.push(thread);
            intakes.push(intake);
            (threads, intakes)
        })
}

impl Threads {
    fn open(&self) -> usize {
        self.0.iter().map(|thread| thread.open.load(Relaxed)).sum()
    }

    async fn hand_over(&self, accepted: Accepted) {
        let fewest = self.0.iter().min_by_key(|thread| thread.open.load(Relaxed));
        if let Some(thread) = fewest {
            thread.open.fetch_add(1, Relaxed);
            if thread.connections.send(accepted).await.is_err() {
                thread.open.fetch_sub(1, Relaxed);
            }
        }
    }
}

/// Accepts until the process drains. Running out of descriptors or places pauses accepting, and nothing else.
pub async fn accept(listener: TcpListener, door: Door, threads: Threads, shared: Arc<Shared>) {
    let door = Arc::new(door);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.drain.begun() => return,
        };
        match accepted.and_then(|(stream, peer)| Ok((stream.into_std()?, peer))) {
            Ok((stream, peer)) => {
                threads.hand_over(Accepted { stream, peer, door: Arc::clone(&door) }).await;
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        while threads.open() >= MOST_CONNECTIONS && !shared.drain.is_draining() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// A connection's place on its thread, given back however the connection ends.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Serves what is handed over, on the thread of `worker`.
pub async fn serve(worker: Rc<Worker>, mut intake: Intake) {
    while let Some(accepted) = intake.connections.recv().await {
        let (worker, place) = (Rc::clone(&worker), Place(Arc::clone(&intake.open)));
        tasks::spawn_local("downstream", async move {
            let (_place, _under_way) = (place, worker.shared.drain.open());
            if let Err(error) = connection(&worker, accepted).await {
                tracing::debug!(%error, "connection refused");
            }
        });
    }
}

async fn connection(worker: &Rc<Worker>, accepted: Accepted) -> io::Result<()> {
    let Accepted { stream, peer, door } = accepted;
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let (entrance, party, protocol, stream) = match &*door {
        Door::Inbound => {
            let arrived = peer::accept(worker, stream).await?;
            let entrance = Entrance::Inbound { peer: arrived.identity };
            (entrance, arrived.party, arrived.protocol, arrived.stream)
        }
        Door::Outbound(pinned) => {
            let protocol = detect::protocol(&stream).await?;
            let entrance = Entrance::Outbound { pinned: pinned.clone() };
            (entrance, worker.own_party(), protocol, Stream::Plain(stream))
        }
        Door::Gateway => {
            let (protocol, stream) = peer::accept_edge(worker, stream).await?;
            (Entrance::Gateway, worker.own_party(), protocol, stream)
        }
    };
    let downstream = Rc::new(Downstream::new(entrance, peer, party, protocol));
    let handler = Serve { worker: Rc::clone(worker), downstream };
    let drain = &worker.shared.drain;
    let stream = Impatient::new(stream);
    let terms = if matches!(*door, Door::Gateway) { &http1::EDGE } else { &http1::MESH };
    match protocol {
        Protocol::Http1 => http1::serve(stream, handler, drain, terms).await,
        Protocol::Http2 => {
            let limits = limits(&door);
            let age = limits.age(&mut worker.dice.borrow_mut());
            if let Some(breach) = Box::pin(http2::serve(stream, handler, limits, age, drain)).await {
                worker.shared.registry.breach(breach.name());
            }
        }
    }
    Ok(())
}

/// What one HTTP/2 connection may cost: strangers get less than proxies and our own application.
fn limits(door: &Door) -> &'static http2::Limits {
    match door {
        Door::Gateway => &http2::Limits::EDGE,
        Door::Inbound | Door::Outbound(_) => &http2::Limits::MESH,
    }
}
