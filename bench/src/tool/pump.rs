//! Bytes without meaning, in one direction, as fast as they go: sender and receiver around a proxy that only forwards.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use serde_json::json;

use super::exchange::connect;
use crate::arguments::Positional;
use crate::clock::now;
use crate::{Outcome, say};

const USAGE: &str = "usage: hms-bench pump PROXY_IP:PORT SINK_IP:PORT CONNECTIONS SECONDS";
const CHUNK: usize = 256 * 1024;

/// The tool. Answers how many bytes came out at the far end.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let proxy = arguments.address()?;
    let sink = arguments.address()?;
    let connections: usize = arguments.take("CONNECTIONS")?;
    let time = arguments.seconds()?;
    let listener = TcpListener::bind(sink).map_err(|error| format!("{sink}: {error}"))?;
    let arrived = Arc::new(AtomicU64::new(0));
    let total = Arc::clone(&arrived);
    // Ends with the process.
    thread::spawn(move || receive(&listener, &total));
    let end = now() + time;
    let senders: Vec<_> = (0..connections).map(|_| thread::spawn(move || send(proxy, end))).collect();
    for sender in senders {
        let sent = sender.join().map_err(|_panic| "a sender failed".to_owned())?;
        sent.map_err(|error| format!("{proxy}: {error}"))?;
    }
    say(&json!({"bytes": arrived.load(Ordering::Relaxed)}).to_string());
    Ok(())
}

fn send(proxy: SocketAddr, end: Instant) -> io::Result<()> {
    let mut stream = connect(proxy)?;
    let chunk = vec![b'x'; CHUNK];
    while now() < end {
        stream.write_all(&chunk)?;
    }
    Ok(())
}

fn receive(listener: &TcpListener, total: &Arc<AtomicU64>) {
    for stream in listener.incoming().filter_map(Result::ok) {
        let total = Arc::clone(total);
        thread::spawn(move || count(stream, &total));
    }
}

fn count(mut stream: TcpStream, total: &AtomicU64) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(length @ 1..) = stream.read(&mut chunk) {
        total.fetch_add(u64::try_from(length).unwrap_or_default(), Ordering::Relaxed);
    }
}
