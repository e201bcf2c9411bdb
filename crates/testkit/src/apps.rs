//! A workload in this process that counts what reaches it.
//!
//! | path | what it does |
//! |---|---|
//! | `/echo…` | 200 with method, path, header fields and the length of the body as JSON |
//! | `/status/N` | answers N |
//! | `/slow/MS` | answers 200 after MS milliseconds |
//! | `/bytes/N` | 200 with N bytes |
//! | `/chunked` | 200, chunked, in three parts, with trailers |
//! | `/close` | reads the request to its end and closes the connection without an answer |

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::tasks;

/// A program for `run:` that answers GET on `$PORT`: 503 where the path ends in `/broken`, else 200.
pub const PYTHON: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.send_response(503 if self.path.endswith("/broken") else 200)
        self.send_header("content-length", "3")
        self.end_headers()
        self.wfile.write(b"ok\n")
    def log_message(self, *arguments): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"#;

type Body = BoxBody<Bytes, Infallible>;

/// What reached the workload.
#[derive(Debug, Default)]
struct Counters {
    requests: BTreeMap<String, u64>,
    connections: u64,
    under_way: u64,
    is_broken: bool,
}

/// Counts a request until it is answered or given up.
struct UnderWay(Arc<Mutex<Counters>>);

impl UnderWay {
    fn of(counters: &Arc<Mutex<Counters>>, path: &str) -> Self {
        let mut now = counters.lock();
        *now.requests.entry(path.to_owned()).or_default() += 1;
        now.under_way += 1;
        drop(now);
        Self(Arc::clone(counters))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.lock().under_way -= 1;
    }
}

/// A running workload. Dropping it closes its socket and its connections.
#[derive(Debug)]
pub struct App {
    address: SocketAddr,
    counters: Arc<Mutex<Counters>>,
    stop: watch::Sender<bool>,
}

impl App {
    /// Starts it on a free port. `name` is part of every answer.
    pub async fn start(name: &str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    /// Starts it at an address.
    pub async fn start_at(name: &str, address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counters = Arc::<Mutex<Counters>>::default();
        let (stop, stopped) = watch::channel(false);
        let _until_stopped = tasks::spawn(accept(listener, name.to_owned(), Arc::clone(&counters), stopped));
        Self { address, counters, stop }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it has read.
    pub fn hits(&self) -> u64 {
        self.counters.lock().requests.values().sum()
    }

    /// How many requests for this path it has read.
    pub fn hits_of(&self, path: &str) -> u64 {
        self.counters.lock().requests.get(path).copied().unwrap_or_default()
    }

    /// Answers every request with 500 from now on.
    pub fn break_down(&self) {
        self.counters.lock().is_broken = true;
    }

    /// How many requests it is answering.
    pub fn under_way(&self) -> u64 {
        self.counters.lock().under_way
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> u64 {
        self.counters.lock().connections
    }

    /// Stops listening and closes every connection; returns when the port is free.
    pub async fn stop(self) -> SocketAddr {
        let _told = self.stop.send(true).is_ok();
        self.stop.closed().await;
        self.address
    }
}

async fn accept(
    listener: TcpListener,
    name: String,
    counters: Arc<Mutex<Counters>>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stopped.changed() => return,
        };
        let Ok((stream, _)) = accepted else { continue };
        counters.lock().connections += 1;
        let _until_closed = tasks::spawn(serve(stream, name.clone(), Arc::clone(&counters), stopped.clone()));
    }
}

async fn serve(stream: TcpStream, name: String, counters: Arc<Mutex<Counters>>, mut stopped: watch::Receiver<bool>) {
    let answer = service_fn(move |request| answer(request, name.clone(), Arc::clone(&counters)));
    let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer);
    tokio::select! {
        _ended = connection => {}
        _ = stopped.changed() => {}
    }
}

async fn answer(
    request: Request<Incoming>,
    name: String,
    counters: Arc<Mutex<Counters>>,
) -> Result<Response<Body>, std::io::Error> {
    let (head, body) = request.into_parts();
    let path = head.uri.path().to_owned();
    let _until_answered = UnderWay::of(&counters, &path);
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let bare = path.trim_start_matches('/');
    let (verb, rest) = bare.split_once('/').unwrap_or((bare, ""));
    let number = rest.parse::<u16>();
    let response = match (verb, number) {
        _ if counters.lock().is_broken => Response::builder().status(500).body(whole("broken")),
        ("status", Ok(status)) => Response::builder().status(status).body(whole("")),
        ("slow", Ok(milliseconds)) => {
            tokio::time::sleep(Duration::from_millis(milliseconds.into())).await;
            Response::builder().body(whole("late"))
        }
        ("bytes", _) => Response::builder().body(whole(vec![b'x'; rest.parse().unwrap_or_default()])),
        ("chunked", _) => Response::builder().header("trailer", "x-sum").body(parts()),
        ("close", _) => return Err(std::io::Error::other("closed on purpose")),
        _ => Response::builder().header("content-type", "application/json").body(whole(echo(&name, &head, &body))),
    };
    response.map_err(std::io::Error::other)
}

fn echo(name: &str, head: &http::request::Parts, body: &Bytes) -> String {
    let fields: serde_json::Map<String, serde_json::Value> = head
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned().into()))
        .collect();
    let target = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    serde_json::json!({"app": name, "method": head.method.as_str(), "path": target, "headers": fields, "body": body.len()})
        .to_string()
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

fn parts() -> Body {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("6"));
    let frames = ["one", "two", "six"].map(|part| Frame::data(Bytes::from_static(part.as_bytes())));
    let frames = frames.into_iter().chain([Frame::trailers(trailers)]).map(Ok);
    StreamBody::new(Frames(frames.collect())).boxed()
}

/// Frames that are all there already.
struct Frames(std::collections::VecDeque<Result<Frame<Bytes>, Infallible>>);

impl futures_util::Stream for Frames {
    type Item = Result<Frame<Bytes>, Infallible>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.pop_front())
    }
}
