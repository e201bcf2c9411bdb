//! Bounds on how much is under way at the same time.

use std::sync::Arc;

use crate::cell::{AtomicU32, Ordering};

/// Counts what is under way: requests of a service, or connections.
#[derive(Debug)]
pub struct Concurrency {
    in_flight: AtomicU32,
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::new()
    }
}

impl Concurrency {
    /// Nothing under way.
    pub fn new() -> Self {
        Self { in_flight: AtomicU32::new(0) }
    }

    /// A place among `limit`, given back when the permit is dropped; `None` when all are taken. The limit is an argument so
    /// that a change of it holds at once; a lowered one lets those who are inside finish.
    pub fn try_acquire(self: &Arc<Self>, limit: u32) -> Option<Permit> {
        let mut taken = self.in_flight.load(Ordering::Relaxed);
        while taken < limit {
            match self.in_flight.compare_exchange_weak(taken, taken + 1, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return Some(Permit { place: Arc::clone(self), outer: None }),
                Err(now_taken) => taken = now_taken,
            }
        }
        None
    }

    /// How many are under way.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A place that was taken; dropping it gives it back.
#[derive(Debug)]
#[must_use = "a dropped permit frees its place"]
pub struct Permit {
    place: Arc<Concurrency>,
    outer: Option<Box<Self>>,
}

impl Permit {
    /// The same place, which holds `outer` as long: a connection counts for its service and for the process.
    pub fn within(mut self, outer: Self) -> Self {
        self.outer = Some(Box::new(outer));
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        // Every permit added exactly one, so this cannot go below zero.
        self.place.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_permit_frees_its_place() {
        let cell = Arc::new(Concurrency::new());
        let first = cell.try_acquire(1);
        assert!(first.is_some());
        assert!(cell.try_acquire(1).is_none());
        drop(first);
        assert!(cell.try_acquire(1).is_some());
        assert_eq!(cell.in_flight(), 0);
    }

    #[test]
    fn a_place_within_another_gives_both_back() {
        let (inner, outer) = (Arc::new(Concurrency::new()), Arc::new(Concurrency::new()));
        let both = inner.try_acquire(1).unwrap().within(outer.try_acquire(1).unwrap());
        assert_eq!((inner.in_flight(), outer.in_flight()), (1, 1));
        drop(both);
        assert_eq!((inner.in_flight(), outer.in_flight()), (0, 0));
    }

    #[test]
    fn a_limit_of_zero_lets_nobody_in() {
        assert!(Arc::new(Concurrency::new()).try_acquire(0).is_none());
    }

    #[test]
    fn a_lowered_limit_holds_at_once_and_throws_nobody_out() {
        let cell = Arc::new(Concurrency::new());
        let inside: Vec<_> = (0..3).filter_map(|_| cell.try_acquire(3)).collect();
        assert!(cell.try_acquire(2).is_none());
        assert_eq!(cell.in_flight(), 3);
        drop(inside);
        assert!(cell.try_acquire(2).is_some());
    }

    #[test]
    fn four_workers_never_exceed_the_limit() {
        let cell = Arc::new(Concurrency::new());
        let enter_and_leave = || {
            for _ in 0..10_000 {
                let permit = cell.try_acquire(3);
                assert!(permit.is_none() || cell.in_flight() <= 3);
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(enter_and_leave);
            }
        });
        assert_eq!(cell.in_flight(), 0);
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use super::*;

    #[test]
    fn loom_two_workers_share_one_place() {
        loom::model(|| {
            let cell = Arc::new(Concurrency::new());
            let other = Arc::clone(&cell);
            let thread = loom::thread::spawn(move || other.try_acquire(1));
            let mine = cell.try_acquire(1);
            let theirs = thread.join().unwrap();
            assert_ne!(mine.is_some(), theirs.is_some());
            drop((mine, theirs));
            assert_eq!(cell.in_flight(), 0);
        });
    }
}
