//! Accepting connections: one socket per port, one acceptor, each connection to the thread with the fewest.

mod accept;
pub mod bind;

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use hms_model::names::ServiceName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;

pub use self::accept::accept;
use crate::capture::{self, Destination};
use crate::detect;
use crate::drain::Open;
use crate::opaque;
use crate::overload::places::Place;
use crate::peer::{self, Arrived};
use crate::pipeline::{Downstream, Entrance, Serve};
use crate::standalone::StaticDoor;
use crate::tasks;
use crate::telemetry::metrics::Party;
use crate::transport::tls_stream::{Impatient, Stream};
use crate::transport::{Protocol, http1, http2};
use crate::worker::Worker;

/// Connections handed to a thread that it has not begun to serve.
const HANDED_OVER: usize = 256;

/// What a listener is for.
#[derive(Debug, Clone)]
pub enum Door {
    /// Other proxies.
    Inbound,
    /// The application beside us; `Some` leads to one service only.
    Outbound(Option<ServiceName>),
    /// The application beside us, which dialled something else: see [`crate::capture`].
    Captured,
    /// Callers from outside.
    Gateway,
    /// Whoever a file's listener is for.
    Static(Arc<StaticDoor>),
}

/// A connection on its way to the thread that will serve it.
#[derive(Debug)]
pub struct Accepted {
    stream: std::net::TcpStream,
    peer: SocketAddr,
    door: Arc<Door>,
    /// One of the process's connections, from now until it ends.
    place: Place,
    /// What the drain waits for; counted before it is handed over, so that none is lost on the way.
    under_way: Open,
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

/// A connection counted on its thread until it ends, however that is.
struct OnThread(Arc<AtomicUsize>);

impl Drop for OnThread {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Serves what is handed over, on the thread of `worker`.
pub async fn serve(worker: Rc<Worker>, mut intake: Intake) {
    while let Some(accepted) = intake.connections.recv().await {
        let (worker, on_thread) = (Rc::clone(&worker), OnThread(Arc::clone(&intake.open)));
        tasks::spawn_local("downstream", async move {
            let _on_thread = on_thread;
            let Accepted { stream, peer, door, place, under_way } = accepted;
            let _until_the_end = (place, under_way);
            if let Err(error) = connection(&worker, stream, peer, &door).await {
                tracing::debug!(%error, "connection refused");
            }
        });
    }
}

async fn connection(worker: &Rc<Worker>, stream: std::net::TcpStream, peer: SocketAddr, door: &Door) -> io::Result<()> {
    let stream = TcpStream::from_std(stream)?;
    stream.set_nodelay(true)?;
    let drain = &worker.shared.drain;
    let entered = tokio::select! {
        // Boxed, so that a connection does not hold the size of its handshake for ever.
        entered = Box::pin(enter(worker, stream, peer, door)) => entered?,
        // Nothing was asked for on it yet.
        () = drain.idle_ends() => return Ok(()),
    };
    let (entrance, party, protocol, stream) = match entered {
        Entered::Http(entrance, party, protocol, stream) => (entrance, party, protocol, stream),
        Entered::Inbound(arrived) => {
            match arrived.outside {
                Some(_) => Box::pin(opaque::exit::leave(worker, *arrived, peer)).await,
                None => Box::pin(opaque::inbound(worker, *arrived, peer)).await,
            }
            return Ok(());
        }
        Entered::Outbound(outbound) => {
            Box::pin(opaque::outbound(worker, *outbound)).await;
            return Ok(());
        }
        Entered::Refused => return Ok(()),
    };
    let downstream = Rc::new(Downstream::new(entrance, peer, party, protocol));
    let handler = Serve { worker: Rc::clone(worker), downstream };
    let stream = Impatient::new(stream);
    let terms = match door {
        Door::Gateway | Door::Static(_) => &http1::EDGE,
        Door::Inbound => &http1::PEER,
        Door::Outbound(_) | Door::Captured => &http1::MESH,
    };
    match protocol {
        Protocol::Http1 => http1::serve(stream, handler, drain, terms).await,
        Protocol::Http2 => {
            let limits = limits(door);
            let age = limits.age(&mut worker.dice.borrow_mut());
            if let Some(breach) = Box::pin(http2::serve(stream, handler, limits, age, drain)).await {
                worker.shared.registry.breach(breach.name());
            }
        }
        // What nobody reads has gone its own way.
        Protocol::Opaque => {}
    }
    Ok(())
}

/// What a connection turned out to be.
enum Entered {
    /// Requests come on it.
    Http(Entrance, Arc<Party>, Protocol, Stream),
    /// Another proxy's, and nobody reads it.
    Inbound(Box<Arrived>),
    /// Our application's, and nobody reads it.
    Outbound(Box<opaque::Outbound>),
    /// Nothing.
    Refused,
}

/// Finds out who is at the other end and what it speaks. Each way is boxed but the plainest, on which a connection may wait for long
/// without a word: it should not hold the size of a handshake.
async fn enter(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr, door: &Door) -> io::Result<Entered> {
    Ok(match door {
        Door::Inbound => {
            let arrived = Box::pin(peer::accept(worker, stream, peer)).await?;
            if arrived.protocol == Protocol::Opaque {
                return Ok(Entered::Inbound(Box::new(arrived)));
            }
            let entrance = match &arrived.outside {
                Some(_host) => Entrance::Egress { port: arrived.port },
                None => Entrance::Inbound { peer: arrived.identity, port: arrived.port },
            };
            Entered::Http(entrance, arrived.party, arrived.protocol, arrived.stream)
        }
        Door::Outbound(None) => {
            let protocol = detect::protocol(&stream).await?;
            let entrance = Entrance::Outbound { pinned: None, port: 0, dialled: None };
            Entered::Http(entrance, worker.own_party(), protocol, Stream::Plain(stream))
        }
        Door::Outbound(Some(service)) => Box::pin(to_service(worker, stream, peer, service, 0)).await?,
        Door::Captured => Box::pin(captured(worker, stream, peer)).await?,
        Door::Gateway => {
            let (protocol, stream) = Box::pin(peer::accept_edge(worker, stream, peer)).await?;
            Entered::Http(Entrance::Gateway, worker.own_party(), protocol, stream)
        }
        Door::Static(door) => {
            let protocol = detect::protocol(&stream).await?;
            Entered::Http(Entrance::Static(Arc::clone(door)), worker.own_party(), protocol, Stream::Plain(stream))
        }
    })
}

/// A connection of a captured application: the address that it dialled decides the service and its port.
async fn captured(worker: &Rc<Worker>, stream: TcpStream, peer: SocketAddr) -> io::Result<Entered> {
    let original = worker.shared.captured.original(&stream, peer).await.ok_or(io::ErrorKind::AddrNotAvailable)?;
    Ok(match capture::destination(&worker.shared.current, original).await {
        Destination::Service(name) => to_service(worker, stream, peer, &name, original.port()).await?,
        Destination::Endpoint(name) => to_service(worker, stream, peer, &name, 0).await?,
        Destination::Elsewhere => match opaque::outside::enter(worker, stream, peer, original).await? {
            opaque::enter::Entered::Http(stream, protocol) => {
                let entrance = Entrance::Outbound { pinned: None, port: 0, dialled: Some(original) };
                Entered::Http(entrance, worker.own_party(), protocol, Stream::Plain(stream))
            }
            opaque::enter::Entered::Opaque(outbound) => Entered::Outbound(outbound),
            opaque::enter::Entered::Refused => Entered::Refused,
        },
        Destination::Nowhere => {
            opaque::enter::refuse_nowhere(worker, stream, peer, original);
            Entered::Refused
        }
    })
}

/// A connection of our application to one port of one service; 0 is its first.
async fn to_service(
    worker: &Rc<Worker>,
    stream: TcpStream,
    peer: SocketAddr,
    service: &ServiceName,
    port: u16,
) -> io::Result<Entered> {
    Ok(match opaque::enter::enter(worker, stream, peer, service, port).await? {
        opaque::enter::Entered::Http(stream, protocol) => {
            let entrance = Entrance::Outbound { pinned: Some(service.clone()), port, dialled: None };
            Entered::Http(entrance, worker.own_party(), protocol, Stream::Plain(stream))
        }
        opaque::enter::Entered::Opaque(outbound) => Entered::Outbound(outbound),
        opaque::enter::Entered::Refused => Entered::Refused,
    })
}

/// What one HTTP/2 connection may cost: strangers get less than proxies and our own application.
fn limits(door: &Door) -> &'static http2::Limits {
    match door {
        Door::Gateway | Door::Static(_) => &http2::Limits::EDGE,
        Door::Inbound | Door::Outbound(_) | Door::Captured => &http2::Limits::MESH,
    }
}
