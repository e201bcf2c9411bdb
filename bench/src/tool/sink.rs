//! Where bytes without meaning end: read to their end, counted, and the count told.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;

/// As much as one read takes.
const CHUNK: usize = 256 * 1024;

/// Takes connections until the process ends.
pub(super) fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        thread::spawn(move || count(stream));
    }
}

/// Whoever closed before is not told.
fn count(mut stream: TcpStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut total: u64 = 0;
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.write_all(&total.to_be_bytes()),
            length => total += u64::try_from(length).unwrap_or_default(),
        }
    }
}
