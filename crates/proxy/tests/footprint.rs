//! What a request and a connection cost: allocations, and bytes of memory.
//!
//! Every allocation of this process is counted. Callers and upstreams run on threads of their own with blocking sockets and fixed
//! buffers, and allocate nothing once they run; what is counted is the proxy's.
#![expect(clippy::unwrap_used, reason = "a figure that cannot be taken fails its test")]

#[path = "pipeline/stage.rs"]
#[expect(dead_code, reason = "the scripted upstreams are for other tests")]
mod stage;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;

use dhat::{HeapStats, Profiler};
use hms_model::message::{Authority, CanonicalPath, Fields, RequestHead};
use hms_model::policy::{Limits, TrafficPolicy};
use hms_proxy::body::Body;
use hms_proxy::transport::{Delivered, Handler as _, Reply, Request, Response};
use http::Method;
use parking_lot::Mutex;
use stage::{Stage, Upstream};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// One figure at a time: the counters are the process's.
static ALONE: Mutex<()> = Mutex::new(());

const GET: &[u8] = b"GET /sum/2/3 HTTP/1.1\r\nhost: calc-svc\r\nuser-agent: footprint/1\r\naccept: */*\r\n\r\n";
/// An application's answer with 100 bytes of content.
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ndate: Sat, 21 Nov 2026 05:00:00 GMT\r\nserver: uvicorn\r\n\
    content-type: application/json\r\ncontent-length: 100\r\n\r\n\
    0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789";

/// Allocations of one request through an outbound pipeline with every default feature (goal 8, measured 3).
const MOST_ALLOCATIONS: u64 = 4;
/// Memory of a connection without a request, in bytes, without what the kernel holds.
const IDLE_BYTES: usize = 2560;
/// Memory of a request that waits for its answer, with both of its connections.
const BUSY_BYTES: usize = 12 * 1024;
/// Size of the future of a connection.
const CONNECTION_FUTURE: usize = 640;
/// Size of the future of a request, without the future of its answer. Of it 96 bytes are what is remembered of its tries.
const REQUEST_FUTURE: usize = 3456;

/// An application that answers every request with [`ANSWER`].
fn application() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || while read_head(&mut stream) && stream.write_all(ANSWER).is_ok() {});
        }
    });
    address
}

/// An application that takes requests and never answers, and how many it took.
///
/// Its queue of connections holds all of them: with the ordinary 128, a moment in which this thread does not run makes the kernel
/// drop the next one, the proxy gives up on it after a second, and after three such the breaker is open.
fn silent() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::net::listen(&listener, 1024).unwrap();
    let (address, taken) = (listener.local_addr().unwrap(), Arc::<AtomicUsize>::default());
    let count = Arc::clone(&taken);
    thread::spawn(move || {
        let mut kept = Vec::with_capacity(1024);
        while let Ok((mut stream, _)) = listener.accept() {
            if read_head(&mut stream) {
                count.fetch_add(1, Relaxed);
            }
            kept.push(stream);
        }
    });
    (address, taken)
}

/// Reads up to the end of a head.
fn read_head(stream: &mut TcpStream) -> bool {
    let (mut buffer, mut length) = ([0; 4096], 0);
    while let Some(room) = buffer.get_mut(length..).filter(|room| !room.is_empty()) {
        let Ok(read @ 1..) = stream.read(room) else { return false };
        length += read;
        if buffer.get(..length).is_some_and(|read| read.ends_with(b"\r\n\r\n")) {
            return true;
        }
    }
    false
}

/// Asks `times` times on one connection.
fn ask(stream: &mut TcpStream, times: u64) {
    for _ in 0..times {
        stream.write_all(GET).unwrap();
        let (mut buffer, mut length) = ([0; 4096], 0);
        while !buffer.get(..length).unwrap().ends_with(b"0123456789") {
            length += stream.read(buffer.get_mut(length..).unwrap()).unwrap();
        }
        assert!(buffer.starts_with(b"HTTP/1.1 200"));
    }
}

/// What happened on the heap while `run` ran.
fn heap<T>(run: impl FnOnce() -> T) -> (HeapStats, HeapStats, T) {
    let before = HeapStats::get();
    let result = run();
    (before, HeapStats::get(), result)
}

fn policy() -> TrafficPolicy {
    TrafficPolicy { limits: Limits { requests: 2000, connections: 2000, pending: 0 }, ..TrafficPolicy::default() }
}

/// A pair of connected sockets: the caller's end and the proxy's.
async fn pair() -> (TcpStream, tokio::net::TcpStream, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (theirs, peer) = listener.accept().await.unwrap();
    (ours, theirs, peer)
}

/// Runs something that blocks while the stage goes on.
async fn aside<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(run).await.unwrap()
}

#[test]
fn a_request_costs_few_allocations() {
    const REQUESTS: u64 = 1000;
    let _alone = ALONE.lock();
    // Without `testing()` a file is written that says where each allocation comes from.
    let profiler = Profiler::builder().testing().build();
    stage::run(async {
        let upstream = Upstream::at(application());
        let stage = Stage::new().service("calc-svc", policy(), &[&upstream]).build();
        let (mut caller, theirs, peer) = pair().await;
        tokio::task::spawn_local(stage.serve(theirs, peer));
        let (before, after) = aside(move || {
            ask(&mut caller, 100);
            let (before, after, ()) = heap(|| ask(&mut caller, REQUESTS));
            (before, after)
        })
        .await;
        let allocations = after.total_blocks - before.total_blocks;
        let bytes = (after.total_bytes - before.total_bytes) / REQUESTS;
        println!(
            "allocations per request: {}.{:02}, {bytes} bytes",
            allocations / REQUESTS,
            allocations % REQUESTS / 10
        );
        // What happens once a second is not a request's.
        assert!(allocations <= MOST_ALLOCATIONS * REQUESTS + REQUESTS / 10, "{allocations} for {REQUESTS} requests");
        assert!(after.curr_bytes < before.curr_bytes + 64 * 1024, "nothing piles up");
    });
    drop(profiler);
}

#[test]
fn an_idle_connection_holds_little_and_a_busy_one_not_much_more() {
    const CONNECTIONS: usize = 200;
    let _alone = ALONE.lock();
    let _profiler = Profiler::builder().testing().build();
    stage::run(async {
        let (address, taken) = silent();
        let upstream = Upstream::at(address);
        let stage = Stage::new().service("calc-svc", policy(), &[&upstream]).build();
        let mut callers = Vec::with_capacity(CONNECTIONS);
        let before = HeapStats::get();
        for _ in 0..CONNECTIONS {
            let (caller, theirs, peer) = pair().await;
            tokio::task::spawn_local(stage.serve(theirs, peer));
            callers.push(caller);
        }
        let idle = HeapStats::get();
        for caller in &mut callers {
            caller.write_all(GET).unwrap();
        }
        stage.until("all are under way", || taken.load(Relaxed) == CONNECTIONS).await;
        let busy = HeapStats::get();
        let each = (idle.curr_bytes - before.curr_bytes) / CONNECTIONS;
        println!("heap per idle connection: {each} bytes");
        assert!(each <= IDLE_BYTES, "{each}");
        let each = (busy.curr_bytes - idle.curr_bytes) / CONNECTIONS;
        println!("heap per request under way, with its upstream connection: {each} bytes");
        assert!(each <= BUSY_BYTES, "{each}");
    });
}

/// A way back of no size.
struct Nowhere;

impl Reply for Nowhere {
    async fn send(self, _response: Response) -> Delivered {
        Delivered::default()
    }
}

#[test]
fn futures_stay_small() {
    stage::run(async {
        let stage = Stage::new().build();
        let (_caller, theirs, peer) = pair().await;
        let connection = size_of_val(&stage.serve(theirs, peer));
        println!("future of a connection: {connection} bytes");
        assert!(connection <= CONNECTION_FUTURE, "{connection}");
        let head = RequestHead {
            method: Method::GET,
            authority: Authority::parse("calc-svc").unwrap(),
            path: CanonicalPath::parse("/").unwrap(),
            query: None,
            fields: Fields::new(),
        };
        let handler = stage.handler(peer);
        let request = size_of_val(&handler.handle(Ok(Request { head, body: Body::empty() }), Nowhere));
        println!("future of a request: {request} bytes");
        assert!(request <= REQUEST_FUTURE, "{request}");
    });
}
