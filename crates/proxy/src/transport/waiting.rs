//! Connections to one service: how many are open, and who waits for one when that is all there may be.
//!
//! The order is [`hms_traffic::line`]'s. A line is shared by all data threads, and locked only when somebody waits or a connection
//! closes. What a thread keeps for later is let go of when somebody waits: one thread's idle connection must not be
//! another one's refusal.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use hms_traffic::clock::Moment;
use hms_traffic::limits::{Concurrency, Permit};
use hms_traffic::line::{Freed, Line};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};

use super::Protocol;
use super::connect::Connection;
use super::pool::{Key, Pool};
use crate::timer::within;

/// Rung when somebody begins to wait for what another thread may be keeping.
static BELL: Notify = Notify::const_new();

/// What a connection is good for: requests of one thread to one endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    /// The thread, by its pool.
    pub pool: usize,
    /// The endpoint, and how it is reached.
    pub key: Key,
    /// What is spoken.
    pub protocol: Protocol,
}

/// How somebody who waited is told. `None` says that a connection is ready.
pub(super) type Tell = oneshot::Sender<Option<OwnPlace>>;

/// The connections of one service.
#[derive(Default)]
pub struct Connections {
    open: Arc<Concurrency>,
    /// How many there may be, as whoever waits was told.
    most: AtomicU32,
    waiting: AtomicU32,
    line: Mutex<Line<Wanted, Tell>>,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("open", &self.open).field("waiting", &self.waiting).finish_non_exhaustive()
    }
}

/// Why nobody may wait, or waits any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InVain {
    /// As many wait as may.
    Full,
    /// It took too long.
    Late,
}

/// What waiting was good for.
#[derive(Debug)]
pub enum Got {
    /// A place for a connection.
    Place(OwnPlace),
    /// A connection that somebody has finished with.
    Connection(Connection),
    /// There is room on one that carries many requests.
    Room,
}

impl Connections {
    /// Whether nobody waits.
    fn is_quiet(&self) -> bool {
        self.waiting.load(Relaxed) == 0
    }

    /// Whether somebody has waited longer for what this one wants. Of connections that carry many requests that is who wants
    /// exactly the same: nobody else has anything of a place on one.
    pub fn is_ahead_of(&self, wanted: &Wanted) -> bool {
        !self.is_quiet() && (wanted.protocol != Protocol::Http2 || self.line.lock().is_wanted(wanted))
    }

    /// A place for one more among `most`, unless somebody has waited longer.
    pub fn place(self: &Arc<Self>, most: u32) -> Option<OwnPlace> {
        let permit = if self.is_quiet() { self.open.try_acquire(most) } else { None };
        permit.map(|permit| OwnPlace { permit: Some(permit), of: Arc::clone(self) })
    }

    /// Waits for a place or a connection, at most until `patience` is over, if fewer than `pending` do.
    pub async fn wait(
        self: &Arc<Self>,
        pool: &RefCell<Pool>,
        wanted: Wanted,
        (most, pending): (u32, u32),
        (now, patience): (Moment, Duration),
    ) -> Result<Got, InVain> {
        self.most.store(most, Relaxed);
        let (tell, told) = oneshot::channel();
        let (number, is_first) = {
            let mut line = self.line.lock();
            let number = line.join(wanted, tell, pending, now).ok_or(InVain::Full)?;
            self.count(&line);
            (number, line.len() == 1)
        };
        let mut standing = Standing { of: self, pool, wanted, number, told, is_over: false };
        // One may have closed since it was looked for.
        self.serve();
        // As long as anybody waits, nothing that becomes idle is kept.
        if is_first {
            BELL.notify_waiters();
        }
        let got = match within(patience, &mut standing.told).await {
            Some(Ok(Some(place))) => Got::Place(place),
            Some(Ok(None)) => match pool.borrow_mut().handed(wanted.key, number) {
                Some(connection) => Got::Connection(connection),
                None => Got::Room,
            },
            Some(Err(_)) | None => return Err(InVain::Late),
        };
        standing.is_over = true;
        Ok(got)
    }

    fn count(&self, line: &Line<Wanted, Tell>) {
        self.waiting.store(u32::try_from(line.len()).unwrap_or(u32::MAX), Relaxed);
    }

    /// Tells the oldest who wants exactly this that a connection has room; whether there was one.
    fn room(&self, wanted: &Wanted) -> bool {
        if self.is_quiet() {
            return false;
        }
        let next = {
            let mut line = self.line.lock();
            let next = line.oldest_of(wanted);
            self.count(&line);
            next
        };
        next.is_some_and(|(_, tell)| tell.send(None).is_ok())
    }

    /// Gives free places to the oldest.
    fn serve(self: &Arc<Self>) {
        loop {
            let (permit, tell) = {
                let mut line = self.line.lock();
                if line.is_empty() {
                    return;
                }
                let Some(permit) = self.open.try_acquire(self.most.load(Relaxed)) else { return };
                let Some((_, tell)) = line.oldest() else { return };
                self.count(&line);
                (permit, tell)
            };
            // Without the lock: a place that nobody hears of serves the next.
            drop(tell.send(Some(OwnPlace { permit: Some(permit), of: Arc::clone(self) })));
        }
    }
}

/// Somebody who waits; gives that up when dropped, and what it was given and has not taken.
struct Standing<'a> {
    of: &'a Connections,
    pool: &'a RefCell<Pool>,
    wanted: Wanted,
    number: u64,
    told: oneshot::Receiver<Option<OwnPlace>>,
    is_over: bool,
}

impl Drop for Standing<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        {
            let mut line = self.of.line.lock();
            line.leave(self.number);
            self.of.count(&line);
        }
        // A place that comes from now on, or has come and is not taken, serves the next.
        self.told.close();
        if !matches!(self.told.try_recv(), Ok(None)) || Pool::give_back(self.pool, self.wanted.key, self.number) {
            return;
        }
        // Room on a connection for many: it may be idle, and somebody may wait who wants another.
        if self.wanted.protocol == Protocol::Http2 && !self.of.room(&self.wanted) && !self.of.is_quiet() {
            BELL.notify_waiters();
        }
    }
}

/// A place among the connections of a service; the next one has it when this is dropped.
#[derive(Debug)]
pub struct OwnPlace {
    permit: Option<Permit>,
    of: Arc<Connections>,
}

impl Drop for OwnPlace {
    fn drop(&mut self) {
        self.permit = None;
        self.of.serve();
    }
}

/// A connection's place: among those of its service, and among all of the process.
#[derive(Debug)]
pub struct Place {
    own: OwnPlace,
    wanted: Wanted,
    _of_all: Permit,
}

impl Place {
    /// Both together.
    pub fn new(own: OwnPlace, wanted: Wanted, of_all: Permit) -> Self {
        Self { own, wanted, _of_all: of_all }
    }

    /// Those who may want what a connection at this place can do.
    pub fn demand(&self) -> Demand {
        Demand { of: Arc::clone(&self.own.of), wanted: self.wanted }
    }

    /// Whether somebody waits for a connection to the same service.
    pub fn is_wanted(&self) -> bool {
        !self.own.of.is_quiet()
    }

    /// What becomes of the connection, which is free now.
    pub(super) fn freed(&self, now: Moment) -> Freed<Tell> {
        if !self.is_wanted() {
            return Freed::Keep;
        }
        let mut line = self.own.of.line.lock();
        let freed = line.freed(&self.wanted, now);
        self.own.of.count(&line);
        freed
    }
}

/// Those who wait for one of a service's connections, as a connection for many requests knows them.
#[derive(Debug)]
pub struct Demand {
    of: Arc<Connections>,
    wanted: Wanted,
}

impl Demand {
    /// There is room for one more request; whether somebody wanted that.
    pub fn room(&self) -> bool {
        self.of.room(&self.wanted)
    }

    /// No request is left on the connection: it is closed if somebody else waits.
    pub fn idle(&self) {
        if self.is_waited_for() {
            BELL.notify_waiters();
        }
    }

    /// Whether anybody waits for a connection to the same service.
    pub fn is_waited_for(&self) -> bool {
        !self.of.is_quiet()
    }
}

/// Resolves when somebody begins to wait, from the call on.
pub fn bell() -> impl Future<Output = ()> {
    BELL.notified()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::Clock;

    const LONG: Duration = Duration::from_secs(20);

    fn wanted(pool: &RefCell<Pool>) -> Wanted {
        let key = Key { endpoint: 1, generation: 0, port: 0 };
        Wanted { pool: std::ptr::from_ref(pool).addr(), key, protocol: Protocol::Http1 }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn places_go_from_thread_to_thread_and_never_more_than_there_are() {
        const MOST: u32 = 3;
        let (connections, clock) = (Arc::<Connections>::default(), Clock::start());
        let many = || {
            let pool = RefCell::new(Pool::new(clock));
            block_on(async {
                for _ in 0..500 {
                    let place = match connections.place(MOST) {
                        Some(place) => place,
                        None => match connections.wait(&pool, wanted(&pool), (MOST, 100), (clock.now(), LONG)).await {
                            Ok(Got::Place(place)) => place,
                            other => panic!("{other:?}"),
                        },
                    };
                    assert!(connections.open.in_flight() <= MOST);
                    tokio::task::yield_now().await;
                    drop(place);
                }
            });
        };
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(many);
            }
        });
        assert_eq!((connections.open.in_flight(), connections.line.lock().len()), (0, 0));
        assert!(connections.is_quiet());
    }

    #[test]
    fn who_leaves_with_a_place_that_was_given_gives_it_to_the_next() {
        let (connections, clock) = (Arc::<Connections>::default(), Clock::start());
        let held = connections.place(1).expect("the only one");
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let pool = RefCell::new(Pool::new(clock));
                block_on(async {
                    let first = connections.wait(&pool, wanted(&pool), (1, 3), (clock.now(), LONG));
                    let mut first = Box::pin(first);
                    assert!(first.as_mut().now_or_never().is_none());
                    let second = connections.wait(&pool, wanted(&pool), (1, 3), (clock.now(), LONG));
                    let mut second = Box::pin(second);
                    assert!(second.as_mut().now_or_never().is_none());
                    let third = connections.wait(&pool, wanted(&pool), (1, 3), (clock.now(), LONG));
                    let mut third = Box::pin(third);
                    assert!(third.as_mut().now_or_never().is_none());
                    let fourth = connections.wait(&pool, wanted(&pool), (1, 3), (clock.now(), LONG)).await;
                    assert_eq!(fourth.err(), Some(InVain::Full));
                    drop(held);
                    // It was told, and does not come to hear of it.
                    drop(first);
                    let got = second.await;
                    assert!(matches!(got, Ok(Got::Place(_))), "{got:?}");
                    assert!(third.as_mut().now_or_never().is_none(), "nobody else was told of it");
                    drop(got);
                    assert!(matches!(third.await, Ok(Got::Place(_))));
                    tell.send(()).expect("somebody listens");
                });
            });
        });
        assert!(told.recv().is_ok());
        assert!(connections.place(1).is_some(), "and nothing is lost");
    }
}
