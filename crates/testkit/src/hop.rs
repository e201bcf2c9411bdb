//! A workload that answers by calling the next one, as most do: a hop of a chain. The last one answers by itself.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::client::Http;
use crate::tasks;

#[derive(Debug, Default)]
struct Inside {
    next: OnceLock<Http>,
    sick: AtomicBool,
    stuck: AtomicBool,
    stubborn: AtomicBool,
    received: AtomicU64,
    left: Mutex<Vec<Duration>>,
    answered: Mutex<Vec<Called>>,
}

/// What came of a call that a stubborn hop made.
#[derive(Debug, Clone)]
pub struct Called {
    /// The status.
    pub status: u16,
    /// The mesh's own code, if it answered.
    pub code: String,
    /// How long it took.
    pub took: Duration,
}

/// A request that is worked on. Dropped before its end, its caller has left.
struct Working {
    inside: Arc<Inside>,
    since: Instant,
    is_done: bool,
}

impl Drop for Working {
    fn drop(&mut self) {
        if !self.is_done {
            self.inside.left.lock().push(self.since.elapsed());
        }
    }
}

/// A running hop. Dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct Hop {
    address: SocketAddr,
    inside: Arc<Inside>,
    _stop: watch::Sender<bool>,
}

impl Hop {
    /// Starts it on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = listener.local_addr().unwrap();
        let inside = Arc::<Inside>::default();
        let (stop, mut stopped) = watch::channel(false);
        let own = Arc::clone(&inside);
        let _until_stopped = tasks::spawn(async move {
            loop {
                let accepted = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = stopped.changed() => return,
                };
                let Ok((stream, _)) = accepted else { continue };
                let (own, mut stopped) = (Arc::clone(&own), stopped.clone());
                let _until_closed = tasks::spawn(async move {
                    let answer = service_fn(move |request| answer(Arc::clone(&own), request));
                    let server = hyper::server::conn::http1::Builder::new();
                    tokio::select! {
                        _ended = server.serve_connection(TokioIo::new(stream), answer) => {}
                        _ = stopped.changed() => {}
                    }
                });
            }
        });
        Self { address, inside, _stop: stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Whom it calls for every request from now on.
    pub fn calls(&self, next: Http) {
        assert!(self.inside.next.set(next).is_ok(), "it calls somebody already");
    }

    /// Whether it answers 503 to everything.
    pub fn set_sick(&self, sick: bool) {
        self.inside.sick.store(sick, Ordering::Relaxed);
    }

    /// It never answers from now on.
    pub fn get_stuck(&self) {
        self.inside.stuck.store(true, Ordering::Relaxed);
    }

    /// From now on it hands the trace on, and goes on with a call when its own caller has left, as programs do that have a thread for
    /// each request.
    pub fn be_stubborn(&self) {
        self.inside.stubborn.store(true, Ordering::Relaxed);
    }

    /// For how long it had worked on each request whose caller left before the answer.
    pub fn left(&self) -> Vec<Duration> {
        self.inside.left.lock().clone()
    }

    /// What came of the calls that it made since it is stubborn.
    pub fn called(&self) -> Vec<Called> {
        self.inside.answered.lock().clone()
    }

    /// How many requests it has received.
    pub fn received(&self) -> u64 {
        self.inside.received.load(Ordering::Relaxed)
    }
}

async fn answer(inside: Arc<Inside>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    inside.received.fetch_add(1, Ordering::Relaxed);
    let path = request.uri().path().to_owned();
    let mut working = Working { inside: Arc::clone(&inside), since: Instant::now(), is_done: false };
    let trace = request.headers().get("traceparent").and_then(|value| value.to_str().ok()).map(str::to_owned);
    let _read_to_its_end = request.into_body().collect().await.is_ok();
    let status = match inside.next.get() {
        _ if inside.sick.load(Ordering::Relaxed) => StatusCode::SERVICE_UNAVAILABLE,
        None if inside.stuck.load(Ordering::Relaxed) => std::future::pending().await,
        None => StatusCode::OK,
        Some(next) if inside.stubborn.load(Ordering::Relaxed) => {
            let call = call(Arc::clone(&inside), next.clone(), path, trace.unwrap_or_default());
            tasks::spawn(call).await.unwrap_or(StatusCode::BAD_GATEWAY)
        }
        // It hands on what it is answered, as a program without a better idea does; none of the fields.
        Some(next) => {
            let answer = next.get(&path).await;
            let status = answer.ok().and_then(|answer| StatusCode::from_u16(answer.status).ok());
            status.unwrap_or(StatusCode::BAD_GATEWAY)
        }
    };
    working.is_done = true;
    let mut response = Response::new(Full::from(""));
    *response.status_mut() = status;
    Ok(response)
}

async fn call(inside: Arc<Inside>, next: Http, path: String, trace: String) -> StatusCode {
    let since = Instant::now();
    let Ok(answer) = next.send(Method::GET, &path, &[("traceparent", &trace)], Bytes::new()).await else {
        return StatusCode::BAD_GATEWAY;
    };
    let (status, code) = (answer.status, answer.header("x-hms-error").to_owned());
    inside.answered.lock().push(Called { status, code, took: since.elapsed() });
    StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY)
}
