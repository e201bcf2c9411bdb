//! A backend cheaper than any proxy: one thread, answers made beforehand, two system calls per request.
//!
//! `/` answers 100 bytes, `/16k` and `/1m` what they say. It understands requests without a body, as the bench sends them.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use super::exchange::end_of_head;
use super::grpc;
use super::poller::Poller;
use super::sink;
use crate::Outcome;
use crate::arguments::Positional;

const USAGE: &str = "usage: hms-bench backend IP:PORT [grpc|sink]";
/// The listener's own token; connections have theirs from 1 on.
const LISTENER: usize = 0;
/// A request of the bench fits many times.
const CHUNK: usize = 16 * 1024;

/// The tool.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let address = arguments.address()?;
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    let ended = match arguments.optional() {
        Some(word) if word == "grpc" => grpc::serve(listener),
        Some(word) if word == "sink" => sink::serve(&listener),
        None => Backend::new(listener).and_then(|mut backend| backend.serve()),
        Some(_) => return Err(USAGE.to_owned()),
    };
    ended.map_err(|error| format!("{address}: {error}"))
}

/// The answers, made once.
struct Answers {
    small: Vec<u8>,
    middle: Vec<u8>,
    large: Vec<u8>,
}

impl Answers {
    fn new() -> Self {
        Self { small: answer(100), middle: answer(16 * 1024), large: answer(1024 * 1024) }
    }

    /// The answer to the request with this head.
    fn of(&self, head: &[u8]) -> &[u8] {
        if head.starts_with(b"GET /16k ") {
            &self.middle
        } else if head.starts_with(b"GET /1m ") {
            &self.large
        } else {
            &self.small
        }
    }
}

fn answer(length: usize) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 200 OK\r\nserver: bench\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n");
    [head.into_bytes(), vec![b'x'; length]].concat()
}

/// One connection: what came of a request so far, and how much of its answer is written.
struct Connection {
    stream: TcpStream,
    head: Vec<u8>,
    written: usize,
}

/// The listener and its connections, by their tokens.
struct Backend {
    listener: TcpListener,
    poller: Poller,
    connections: Vec<Option<Connection>>,
    answers: Answers,
    chunk: Vec<u8>,
}

impl Backend {
    fn new(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let poller = Poller::new()?;
        poller.readable(&listener, LISTENER)?;
        Ok(Self { listener, poller, connections: vec![None], answers: Answers::new(), chunk: vec![0; CHUNK] })
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut tokens = Vec::new();
        loop {
            self.poller.wait(&mut tokens)?;
            for &token in &tokens {
                if token == LISTENER {
                    self.accept()?;
                } else if let Some(place) = self.connections.get_mut(token)
                    && let Some(connection) = place
                    && connection.advance(&self.answers, &mut self.chunk).is_err()
                {
                    *place = None;
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            let stream = match self.listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                // Gone before it was accepted; the next one may be there.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            stream.set_nonblocking(true)?;
            stream.set_nodelay(true)?;
            let free = self.connections.iter().skip(1).position(Option::is_none).map(|at| at + 1);
            let token = free.unwrap_or(self.connections.len());
            self.poller.changes(&stream, token)?;
            let connection = Some(Connection { stream, head: Vec::new(), written: 0 });
            match self.connections.get_mut(token) {
                Some(place) => *place = connection,
                None => self.connections.push(connection),
            }
        }
    }
}

impl Connection {
    /// Does what can be done now. An error, or the end, means that the connection is over.
    fn advance(&mut self, answers: &Answers, chunk: &mut [u8]) -> io::Result<()> {
        let mut drained = false;
        loop {
            while let Some(end) = end_of_head(&self.head) {
                if !self.write(answers.of(&self.head))? {
                    return Ok(());
                }
                self.head.drain(..end);
            }
            if drained {
                return Ok(());
            }
            let length = match self.stream.read(chunk) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            self.head.extend_from_slice(chunk.get(..length).unwrap_or_default());
            // Less than asked for: nothing more is there, and what comes next is told.
            drained = length < chunk.len();
        }
    }

    /// Whether the whole answer is written.
    fn write(&mut self, answer: &[u8]) -> io::Result<bool> {
        while let Some(rest) = answer.get(self.written..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest) {
                Ok(length) => self.written += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        self.written = 0;
        Ok(true)
    }
}
