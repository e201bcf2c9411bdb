//! Connections that do nothing: each makes one request and then waits until standard input ends.
//!
//! Clients are spread over 127.0.0.2, 127.0.0.3 …, as they are in life; a proxy may bound connections per client.

use std::ffi::OsString;
use std::io::{self, BufRead as _, ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rustls::client::ClientConfig;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use super::exchange::{self, exchange, patient};
use super::identity::{Identity, Offer, secured};
use crate::arguments::Positional;
use crate::{Outcome, say};

const USAGE: &str = "usage: hms-bench hold IP:PORT COUNT [IDENTITY_FOLDER]";
/// How many connections come from one address.
const PER_CLIENT: u32 = 250;
/// How many threads open them.
const THREADS: u32 = 4;
/// Most that can be asked for: this process needs a descriptor for each.
const MOST: u32 = 15_000;

/// The tool. Tells when all are there; a line on standard input asks how many still are.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let address = arguments.address()?;
    let count: u32 = arguments.take("COUNT")?;
    if count > MOST {
        return Err(format!("COUNT is at most {MOST}"));
    }
    let tls = match arguments.optional().map(PathBuf::from) {
        None => None,
        Some(folder) => {
            let identity = Identity::load(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
            Some(identity.client(Offer::Classic)?)
        }
    };
    let held = opened(address, count, tls.as_ref())?;
    for line in io::stdin().lock().lines() {
        line.map_err(|error| error.to_string())?;
        let open = held.iter().filter(|stream| is_open(stream)).count();
        say(&json!({"open": open}).to_string());
    }
    Ok(())
}

/// All connections, opened by several threads: a proxy may close the first while the last are still on their way.
fn opened(address: SocketAddr, count: u32, tls: Option<&Arc<ClientConfig>>) -> Outcome<Vec<TcpStream>> {
    let request = exchange::get("bench-svc", "/");
    let part = |thread: u32| {
        let numbers = (0..count).filter(move |number| number % THREADS == thread);
        let mine = numbers.map(|number| {
            open(address, Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + 1 + number / PER_CLIENT))
                .and_then(|stream| used(stream, tls, &request))
                .map_err(|error| format!("{address}: connection {number}: {error}"))
        });
        mine.collect::<Outcome<Vec<TcpStream>>>()
    };
    let parts: Vec<_> = thread::scope(|scope| {
        #[expect(clippy::needless_collect, reason = "all are started before the first is waited for")]
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || part(thread))).collect();
        let failed = |_panic| Err("a thread failed".to_owned());
        threads.into_iter().map(|one| one.join().unwrap_or_else(failed)).collect()
    });
    let parts = parts.into_iter().collect::<Outcome<Vec<_>>>()?;
    Ok(parts.into_iter().flatten().collect())
}

fn open(address: SocketAddr, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect(&address.into())?;
    let stream = TcpStream::from(socket);
    patient(&stream)?;
    Ok(stream)
}

/// The connection after its first request. What the client's end of TLS holds is let go: only the proxy's is of interest.
fn used(stream: TcpStream, tls: Option<&Arc<ClientConfig>>, request: &[u8]) -> io::Result<TcpStream> {
    let (stream, status) = match tls {
        None => {
            let mut stream = stream;
            let (status, _) = exchange(&mut stream, request)?;
            (stream, status)
        }
        Some(config) => {
            let mut tls = secured(config, stream)?;
            let (status, _) = exchange(&mut tls, request)?;
            (tls.sock, status)
        }
    };
    if status == 200 { Ok(stream) } else { Err(io::Error::other(format!("answered {status}"))) }
}

/// Whether the other side has neither closed it nor failed. What lies there unread, such as session tickets, is thrown away.
fn is_open(mut stream: &TcpStream) -> bool {
    let mut chunk = [0; 4096];
    if stream.set_nonblocking(true).is_err() {
        return false;
    }
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.kind() == ErrorKind::WouldBlock,
        }
    }
}
