//! Connections kept for the next request, per worker, so that no lock is shared.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use hms_traffic::clock::Moment;
use hms_traffic::line::Freed;
use rustc_hash::FxHashMap;

use super::connect::Connection;
use super::waiting::Place;
use super::{Protocol, http1, http2};
use crate::clock::Clock;

/// Idle HTTP/1 connections kept per endpoint.
const MOST_IDLE: usize = 32;

/// What tells connections apart (numbers of our own, so that a hash without a secret is enough): the endpoint, and the certificate they were opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Key {
    /// The endpoint's own number, never reused within a process.
    pub endpoint: u64,
    /// Number of our certificate; a renewal leaves the old connections behind. 0 for plain connections.
    pub generation: u64,
    /// The port of the service that the connection was opened for: between proxies it is said once, in the greeting.
    pub port: u16,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    clock: Clock,
    http1: FxHashMap<Key, Vec<Idle>>,
    http2: FxHashMap<Key, Vec<http2::Connection>>,
    /// Connections that are handed to somebody who waits, by that one's number; each for a moment.
    handed: Vec<(u64, Key, Idle)>,
}

#[derive(Debug)]
struct Idle {
    connection: http1::Connection,
    since: Moment,
    keep: Duration,
}

/// Where an HTTP/1 connection goes when its answer was read to the end.
#[derive(Debug)]
pub struct Home {
    /// The pool of this thread.
    pub pool: Rc<RefCell<Pool>>,
    /// Its place there.
    pub key: Key,
    /// How long it may be idle; shorter than the other end's patience.
    pub keep: Duration,
}

impl Home {
    pub(super) fn put(self, connection: http1::Connection) {
        self.pool.borrow_mut().put(self.key, connection, self.keep);
    }
}

impl Pool {
    /// Without a connection.
    pub fn new(clock: Clock) -> Self {
        Self { clock, http1: FxHashMap::default(), http2: FxHashMap::default(), handed: Vec::new() }
    }

    /// A connection that can take a request now. The one used last comes first, so that superfluous ones grow old.
    pub fn take(&mut self, key: Key, protocol: Protocol) -> Option<Connection> {
        match protocol {
            Protocol::Http2 => {
                let connections = self.http2.get_mut(&key)?;
                connections.retain_mut(http2::Connection::is_open);
                connections.iter().find(|connection| connection.has_room()).cloned().map(Connection::Http2)
            }
            Protocol::Http1 => {
                let now = self.clock.now();
                let idle = self.http1.get_mut(&key)?;
                while let Some(mut candidate) = idle.pop() {
                    let fresh = now.saturating_since(candidate.since) < candidate.keep;
                    if fresh && !candidate.connection.is_stale() {
                        return Some(Connection::Http1(candidate.connection));
                    }
                }
                None
            }
            Protocol::Opaque => None,
        }
    }

    fn put(&mut self, key: Key, connection: http1::Connection, keep: Duration) {
        let own = Idle { connection, since: self.clock.now(), keep };
        self.keep(key, own);
    }

    /// Hands a connection to whoever waits for it, or keeps it.
    fn keep(&mut self, key: Key, mut own: Idle) {
        loop {
            match own.connection.place().map_or(Freed::Keep, |place| place.freed(own.since)) {
                Freed::Close => return,
                Freed::Use(number, tell) => {
                    if tell.send(None).is_ok() {
                        return self.handed.push((number, key, own));
                    }
                    // That one has just left; perhaps there is another.
                    own.since = self.clock.now();
                }
                Freed::Keep => break,
            }
        }
        let idle = self.http1.entry(key).or_default();
        if idle.len() < MOST_IDLE {
            idle.push(own);
        }
    }

    /// The connection that was handed to the one with this number.
    pub fn handed(&mut self, key: Key, number: u64) -> Option<Connection> {
        let place = self.handed.iter().position(|own| (own.0, own.1) == (number, key))?;
        Some(Connection::Http1(self.handed.swap_remove(place).2.connection))
    }

    /// Takes back what was handed to somebody who left; whether anything was.
    pub fn give_back(pool: &RefCell<Self>, key: Key, number: u64) -> bool {
        let mut pool = pool.borrow_mut();
        let place = pool.handed.iter().position(|own| (own.0, own.1) == (number, key));
        let own = place.map(|place| pool.handed.swap_remove(place).2);
        let was_handed = own.is_some();
        if let Some(own) = own {
            pool.keep(key, own);
        }
        was_handed
    }

    /// Closes idle connections to services for which somebody waits elsewhere, as many as are waited for.
    pub fn let_go(&mut self) {
        self.http1.retain(|_, idle| {
            idle.retain(|own| !own.connection.place().is_some_and(Place::is_wanted));
            !idle.is_empty()
        });
        self.http2.retain(|_, connections| {
            connections.retain(|own| !own.is_in_the_way());
            !connections.is_empty()
        });
    }

    /// Shares an HTTP/2 connection from its first request on.
    pub fn share(&mut self, key: Key, connection: &http2::Connection) {
        self.http2.entry(key).or_default().push(connection.clone());
        connection.offer_room();
    }

    /// Closes what has been idle too long, was opened with an old certificate, or leads to an endpoint that is gone.
    pub fn sweep(&mut self, generation: u64, alive: impl Fn(u64) -> bool) {
        let now = self.clock.now();
        let current = |key: &Key| alive(key.endpoint) && (key.generation == 0 || key.generation == generation);
        self.http1.retain(|key, idle| {
            idle.retain_mut(|i| now.saturating_since(i.since) < i.keep && !i.connection.is_stale());
            current(key) && !idle.is_empty()
        });
        self.http2.retain(|key, connections| {
            connections.retain_mut(http2::Connection::is_open);
            current(key) && !connections.is_empty()
        });
    }
}
