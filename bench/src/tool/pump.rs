//! Bytes without meaning, in one direction, as fast as they go, to a sink behind a proxy that only forwards.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use super::exchange::connect;
use crate::arguments::Positional;
use crate::clock::now;
use crate::{Outcome, say};

const USAGE: &str = "usage: hms-bench pump PROXY_IP:PORT CONNECTIONS SECONDS";
const CHUNK: usize = 256 * 1024;
/// How long the far end may take to tell what it got.
const PATIENCE: Duration = Duration::from_secs(10);

/// The tool. Answers how many bytes came out at the far end.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let proxy = arguments.address()?;
    let connections: usize = arguments.take("CONNECTIONS")?;
    let time = arguments.seconds()?;
    let end = now() + time;
    let senders: Vec<_> = (0..connections).map(|_| thread::spawn(move || send(proxy, end))).collect();
    let mut arrived = 0;
    for sender in senders {
        let counted = sender.join().map_err(|_panic| "a sender failed".to_owned())?;
        arrived += counted.map_err(|error| format!("{proxy}: {error}"))?;
    }
    say(&json!({"bytes": arrived}).to_string());
    Ok(())
}

/// Sends until the end, and hears how much of it came out. Every byte must have.
fn send(proxy: SocketAddr, end: Instant) -> io::Result<u64> {
    let mut stream = connect(proxy)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let chunk = vec![b'x'; CHUNK];
    let mut sent: u64 = 0;
    while now() < end {
        stream.write_all(&chunk)?;
        sent += u64::try_from(CHUNK).unwrap_or_default();
    }
    stream.shutdown(Shutdown::Write)?;
    let mut count = [0; 8];
    stream.read_exact(&mut count)?;
    let arrived = u64::from_be_bytes(count);
    if arrived == sent { Ok(arrived) } else { Err(io::Error::other(format!("{sent} bytes in, {arrived} out"))) }
}
