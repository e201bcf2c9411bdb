//! Load at a fixed rate, whatever the answers do. Latency counts from the moment a request was meant to be sent, so that a stall
//! is charged to every request it delays and not to one.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use serde_json::json;

use super::exchange::{self, Answer};
use super::poller::Poller;
use crate::arguments::Positional;
use crate::clock::{micros, now};
use crate::figure::percentile;
use crate::{Outcome, say};

const USAGE: &str = "usage: hms-bench open-loop IP:PORT PATH CONNECTIONS RATE SECONDS";
/// This part of the time is for warming up and is not counted.
const WARM_UP: u32 = 5;
/// How long answers may take after the last request.
const PATIENCE: Duration = Duration::from_secs(2);

/// The tool.
pub(crate) fn main(arguments: Vec<OsString>) -> Outcome {
    let mut arguments = Positional::new(arguments, USAGE);
    let address = arguments.address()?;
    let path: String = arguments.take("PATH")?;
    let connections: usize = arguments.take("CONNECTIONS")?;
    let rate: u32 = arguments.take("RATE")?;
    let time = arguments.seconds()?;
    if connections == 0 || rate == 0 {
        return Err(USAGE.to_owned());
    }
    // The kernel lets timers be 50 µs late by default, which is half of what is measured here.
    prctl::set_timerslack(1).map_err(|error| format!("timer slack: {error}"))?;
    let request = exchange::get("bench", &path);
    let mut load = Load::new(address, request, connections).map_err(|error| format!("{address}: {error}"))?;
    load.run(rate, time).map_err(|error| format!("{address}: {error}"))?;
    load.latencies.sort_unstable();
    let at = |percent| percentile(&load.latencies, percent);
    say(&json!({"done": load.latencies.len(), "errors": load.errors, "p50": at(50), "p90": at(90), "p99": at(99)})
        .to_string());
    Ok(())
}

/// One connection; `intended` is when its request should have been sent, while it has one.
struct Connection {
    stream: TcpStream,
    intended: Option<Instant>,
    answer: Vec<u8>,
    expected: Option<Answer>,
}

/// Everything that is under way.
struct Load {
    request: Vec<u8>,
    poller: Poller,
    /// Its token is the one after the last connection's.
    timer: TimerFd,
    connections: Vec<Connection>,
    idle: Vec<usize>,
    /// Requests that are due while every connection is busy.
    waiting: VecDeque<Instant>,
    /// Microseconds.
    latencies: Vec<u64>,
    errors: u64,
    count_from: Instant,
}

impl Load {
    fn new(address: SocketAddr, request: Vec<u8>, count: usize) -> io::Result<Self> {
        let poller = Poller::new()?;
        let mut connections = Vec::with_capacity(count);
        for token in 0..count {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            poller.readable(&stream, token)?;
            connections.push(Connection { stream, intended: None, answer: Vec::new(), expected: None });
        }
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        poller.readable(&timer, count)?;
        Ok(Self {
            request,
            poller,
            timer,
            connections,
            idle: (0..count).collect(),
            waiting: VecDeque::new(),
            latencies: Vec::new(),
            errors: 0,
            count_from: now(),
        })
    }

    fn run(&mut self, rate: u32, time: Duration) -> io::Result<()> {
        let step = Duration::from_secs(1) / rate;
        let begin = now() + Duration::from_millis(20);
        let end = begin + time;
        self.count_from = begin + time / WARM_UP;
        let mut due = begin;
        let mut armed = now();
        let mut tokens = Vec::new();
        let mut chunk = vec![0; 64 * 1024];
        loop {
            let mut instant = now();
            while due <= instant && due < end {
                self.waiting.push_back(due);
                due += step;
                self.send()?;
                instant = now();
            }
            let finished = due >= end && self.idle.len() == self.connections.len();
            if finished || instant > end + PATIENCE {
                // What never came is an error each.
                let lost = self.waiting.len() + self.connections.len() - self.idle.len();
                self.errors += u64::try_from(lost).unwrap_or(u64::MAX);
                return Ok(());
            }
            let until = if due < end { due } else { end + PATIENCE };
            if until != armed {
                self.wake_in(until.saturating_duration_since(instant))?;
                armed = until;
            }
            self.poller.wait(&mut tokens)?;
            for &token in &tokens {
                if token == self.connections.len() {
                    self.timer.wait()?;
                } else {
                    self.receive(token, &mut chunk)?;
                }
            }
        }
    }

    /// Arms the timer. `epoll` alone counts whole milliseconds, which is more than what is measured.
    fn wake_in(&self, time: Duration) -> io::Result<()> {
        // Zero would disarm it.
        let time = time.max(Duration::from_nanos(1));
        Ok(self.timer.set(Expiration::OneShot(TimeSpec::from_duration(time)), TimerSetTimeFlags::empty())?)
    }

    /// Sends what is due, oldest first, as far as there are idle connections.
    fn send(&mut self) -> io::Result<()> {
        while let (Some(&intended), Some(&token)) = (self.waiting.front(), self.idle.last()) {
            let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
            connection.stream.write_all(&self.request)?;
            connection.intended = Some(intended);
            self.waiting.pop_front();
            self.idle.pop();
        }
        Ok(())
    }

    fn receive(&mut self, token: usize, chunk: &mut [u8]) -> io::Result<()> {
        let Some(connection) = self.connections.get_mut(token) else { return Ok(()) };
        match connection.stream.read(chunk) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(length) => connection.answer.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        if connection.expected.is_none() {
            connection.expected = Answer::read(&connection.answer)?;
        }
        let Some(answer) = connection.expected.filter(|answer| connection.answer.len() >= answer.length) else {
            return Ok(());
        };
        connection.answer.clear();
        connection.expected = None;
        if let Some(intended) = connection.intended.take()
            && intended >= self.count_from
        {
            self.latencies.push(micros(now().saturating_duration_since(intended)));
            self.errors += u64::from(answer.status != 200);
        }
        self.idle.push(token);
        self.send()
    }
}
