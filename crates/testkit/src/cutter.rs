//! A wire that breaks where it is told to: after so many bytes in one direction, with a reset to both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use crate::tasks;

/// Which bytes are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Towards {
    /// Those of the caller.
    Server,
    /// Those of the server.
    Caller,
}

#[derive(Debug, Default)]
struct Plan(Mutex<Option<(Towards, usize)>>);

impl Plan {
    /// How many of `length` bytes may still pass, and whether the wire breaks behind them.
    fn pass(&self, towards: Towards, length: usize) -> (usize, bool) {
        let mut plan = self.0.lock();
        match &mut *plan {
            Some((counted, left)) if *counted == towards => {
                if length < *left {
                    *left -= length;
                    return (length, false);
                }
                let passes = *left;
                *plan = None;
                (passes, true)
            }
            _ => (length, false),
        }
    }
}

/// A running wire.
#[derive(Debug)]
pub struct Cutter {
    address: SocketAddr,
    plan: Arc<Plan>,
}

impl Cutter {
    /// Leads from a free port to `server`.
    pub async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let plan = Arc::<Plan>::default();
        let shared = Arc::clone(&plan);
        let _until_the_end = tasks::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let plan = Arc::clone(&shared);
                let _until_closed = tasks::spawn(async move {
                    if let Ok(far) = TcpStream::connect(server).await {
                        join(near, far, plan).await;
                    }
                });
            }
        });
        Self { address, plan }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it break once, after so many more bytes in this direction.
    pub fn cut(&self, towards: Towards, after: usize) {
        *self.plan.0.lock() = Some((towards, after));
    }

    /// Whether it still is to break.
    pub fn is_armed(&self) -> bool {
        self.plan.0.lock().is_some()
    }

    /// Takes that back.
    pub fn disarm(&self) {
        *self.plan.0.lock() = None;
    }
}

async fn join(near: TcpStream, far: TcpStream, plan: Arc<Plan>) {
    let broken = Arc::new(Notify::new());
    for stream in [&near, &far] {
        let _without_delay = stream.set_nodelay(true).is_ok();
        // In force only if the wire breaks: both directions end in order otherwise.
        rustix::net::sockopt::set_socket_linger(stream, None::<Duration>).unwrap();
    }
    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
    let up = pass(near_in, far_out, Towards::Server, &plan, &broken);
    let down = pass(far_in, near_out, Towards::Caller, &plan, &broken);
    tokio::join!(up, down);
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, towards: Towards, plan: &Plan, broken: &Notify) {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            () = broken.notified() => break,
        };
        let Ok(length @ 1..) = read else {
            let _ended = to.shutdown().await.is_ok();
            return;
        };
        let (passes, breaks) = plan.pass(towards, length);
        if to.write_all(&buffer[..passes]).await.is_err() || breaks {
            broken.notify_one();
            break;
        }
    }
    for stream in [from.as_ref(), to.as_ref()] {
        let _reset = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO)).is_ok();
    }
}
