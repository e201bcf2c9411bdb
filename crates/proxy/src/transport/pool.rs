//! Connections kept for the next request, per worker, so that no lock is shared.

use std::collections::HashMap;
use std::time::Duration;

use hms_traffic::clock::Moment;

use super::connect::Connection;
use super::{Protocol, http1, http2};

/// Idle HTTP/1 connections kept per endpoint.
const MOST_IDLE: usize = 32;

/// What tells connections apart: the endpoint, and the certificate they were opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The endpoint's own number, never reused within a process.
    pub endpoint: u64,
    /// Number of our certificate; a renewal leaves the old connections behind. 0 for plain connections.
    pub generation: u64,
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Pool {
    http1: HashMap<Key, Vec<Idle>>,
    http2: HashMap<Key, Vec<http2::Connection>>,
}

#[derive(Debug)]
struct Idle {
    connection: http1::Connection,
    since: Moment,
    keep: Duration,
}

impl Pool {
    /// A connection that can take a request now.
    pub fn take(&mut self, key: Key, protocol: Protocol, now: Moment) -> Option<Connection> {
        match protocol {
            Protocol::Http2 => {
                let connections = self.http2.get_mut(&key)?;
                connections.retain_mut(http2::Connection::is_open);
                connections.iter().find(|connection| connection.has_room()).cloned().map(Connection::Http2)
            }
            Protocol::Http1 => {
                let idle = self.http1.get_mut(&key)?;
                while let Some(candidate) = idle.pop() {
                    let fresh = now.saturating_since(candidate.since) < candidate.keep;
                    if fresh && !candidate.connection.is_closed() {
                        return Some(Connection::Http1(candidate.connection));
                    }
                }
                None
            }
        }
    }

    /// Keeps an HTTP/1 connection that finished its request for at most `keep`; it must be shorter than the other end's.
    pub fn put(&mut self, key: Key, connection: http1::Connection, now: Moment, keep: Duration) {
        let idle = self.http1.entry(key).or_default();
        if idle.len() < MOST_IDLE && !connection.is_closed() {
            idle.push(Idle { connection, since: now, keep });
        }
    }

    /// Shares an HTTP/2 connection from its first request on.
    pub fn share(&mut self, key: Key, connection: &http2::Connection) {
        self.http2.entry(key).or_default().push(connection.clone());
    }

    /// Closes what has been idle too long, was opened with an old certificate, or leads to an endpoint that is gone.
    pub fn sweep(&mut self, now: Moment, generation: u64, alive: impl Fn(u64) -> bool) {
        let current = |key: &Key| alive(key.endpoint) && (key.generation == 0 || key.generation == generation);
        self.http1.retain(|key, idle| {
            idle.retain(|i| !i.connection.is_closed() && now.saturating_since(i.since) < i.keep);
            current(key) && !idle.is_empty()
        });
        self.http2.retain(|key, connections| {
            connections.retain_mut(http2::Connection::is_open);
            current(key) && !connections.is_empty()
        });
    }
}
