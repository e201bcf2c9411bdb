//! A gRPC application on bare HTTP/2, which counts what it executes.
//!
//! | path | what it does |
//! |---|---|
//! | `/echo/Unary` | reads the request to its end, counts one execution, answers with the same bytes and status 0 |
//! | `/echo/Stream` | answers at once, sends back each piece as it comes, ends with status 0 |
//! | `/echo/Mute` | answers with the same bytes and trailers without a status |
//! | `/echo/None` | answers with the same bytes and no trailers |
//! | `/echo/Hang` | answers its head and one byte, then nothing |
//! | `/echo/Never` | never answers |
//! | `/echo/Busy` | trailers-only, status 14 |
//!
//! Every answer tells the `grpc-timeout` that came, as `x-timeout`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::tasks;

/// A running application. Dropping it closes its socket and breaks its connections off.
#[derive(Debug)]
pub struct GrpcApp {
    address: SocketAddr,
    executed: Arc<AtomicUsize>,
    open: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
}

impl GrpcApp {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (executed, open) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let (stop, mut stopped) = watch::channel(false);
        let counts = (Arc::clone(&executed), Arc::clone(&open));
        let until = stopped.clone();
        let _until_stopped = tasks::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stopped.changed() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (counts, mut until) = (counts.clone(), until.clone());
                let _until_closed = tasks::spawn(async move {
                    tokio::select! {
                        () = serve(stream, counts) => {}
                        _ = until.changed() => {}
                    }
                });
            }
        });
        Self { address, executed, open, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many unary calls it has executed.
    pub fn executed(&self) -> usize {
        self.executed.load(Ordering::Relaxed)
    }

    /// How many streams are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Breaks everything off at once.
    pub fn break_off(&self) {
        let _told = self.stop.send(true).is_ok();
    }
}

type Counts = (Arc<AtomicUsize>, Arc<AtomicUsize>);

async fn serve(stream: TcpStream, (executed, open): Counts) {
    let _without_delay = stream.set_nodelay(true).is_ok();
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(20_000);
    let Ok(mut connection) = builder.handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (executed, open) = (Arc::clone(&executed), Arc::clone(&open));
        let _until_answered = tasks::spawn(async move {
            open.fetch_add(1, Ordering::Relaxed);
            let _whatever_came_of_it = answer(request, respond, &executed).await.is_some();
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

async fn answer(request: Request<RecvStream>, mut respond: SendResponse<Bytes>, executed: &AtomicUsize) -> Option<()> {
    let (head, mut body) = request.into_parts();
    let builder = Response::builder().header("content-type", "application/grpc");
    let timeout = head.headers.get("grpc-timeout").cloned().unwrap_or(HeaderValue::from_static("none"));
    let builder = builder.header("x-timeout", timeout);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    match head.uri.path() {
        "/echo/Busy" => {
            respond.send_response(builder.header("grpc-status", "14").body(()).ok()?, true).ok()?;
        }
        "/echo/Never" => std::future::pending().await,
        "/echo/Stream" => {
            let mut stream = respond.send_response(builder.body(()).ok()?, false).ok()?;
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).ok()?;
                send(&mut stream, piece).await?;
            }
            stream.send_trailers(trailers).ok()?;
        }
        path => {
            let mut whole = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece.ok()?;
                body.flow_control().release_capacity(piece.len()).ok()?;
                whole.extend_from_slice(&piece);
            }
            executed.fetch_add(1, Ordering::Relaxed);
            let mut stream = respond.send_response(builder.body(()).ok()?, false).ok()?;
            match path {
                "/echo/Hang" => {
                    stream.send_data(Bytes::from_static(b"x"), false).ok()?;
                    std::future::poll_fn(|context| stream.poll_reset(context)).await.ok()?;
                }
                "/echo/None" => stream.send_data(whole.into(), true).ok()?,
                "/echo/Mute" => {
                    stream.send_data(whole.into(), false).ok()?;
                    let mut other = HeaderMap::new();
                    other.insert("x-other", HeaderValue::from_static("1"));
                    stream.send_trailers(other).ok()?;
                }
                _ => {
                    send(&mut stream, whole.into()).await?;
                    stream.send_trailers(trailers).ok()?;
                }
            }
        }
    }
    Some(())
}

async fn send(stream: &mut h2::SendStream<Bytes>, mut piece: Bytes) -> Option<()> {
    while !piece.is_empty() {
        stream.reserve_capacity(piece.len());
        let room = std::future::poll_fn(|context| stream.poll_capacity(context)).await?.ok()?;
        let part = piece.split_to(room.min(piece.len()));
        stream.send_data(part, false).ok()?;
    }
    Some(())
}

/// A connection for calls that the test drives piece by piece.
pub async fn sender(address: SocketAddr) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(address).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let _until_closed = tasks::spawn(connection);
    sender
}

/// What a `grpc-timeout` in one of the finer units says.
pub fn timeout(text: &str) -> Option<std::time::Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number = digits.parse().ok()?;
    match unit {
        "n" => Some(std::time::Duration::from_nanos(number)),
        "u" => Some(std::time::Duration::from_micros(number)),
        "m" => Some(std::time::Duration::from_millis(number)),
        _ => None,
    }
}
