//! How many handshakes may be in progress: a bound for one data thread, and a smaller one for each other end.
//!
//! A half-open handshake costs memory and a place, and whoever opens it pays nothing. So each source has places of its own: one
//! that opens a thousand waits for itself. Who is over its bound waits in the order of arrival, within the handshake's deadline.

use std::cell::RefCell;
use std::collections::HashMap;
use std::hash::Hash;
use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// A gate of one data thread; `K` tells the other ends apart. Clones are the same gate.
#[derive(Debug, Clone)]
pub struct Gate<K>(Rc<Inner<K>>);

#[derive(Debug)]
struct Inner<K> {
    each: usize,
    all: Arc<Semaphore>,
    ends: RefCell<HashMap<K, Arc<Semaphore>>>,
}

/// A handshake in progress; dropping it lets the next one in.
#[derive(Debug)]
pub struct Turn<K: Hash + Eq> {
    // In this order: the places are given back before it is asked whether anybody else wants one.
    of_all: Option<OwnedSemaphorePermit>,
    own: Option<OwnedSemaphorePermit>,
    end: End<K>,
}

/// Forgets an end that nobody has to do with any more.
#[derive(Debug)]
struct End<K: Hash + Eq> {
    gate: Rc<Inner<K>>,
    key: K,
    places: Arc<Semaphore>,
}

impl<K: Hash + Eq> Drop for End<K> {
    fn drop(&mut self) {
        // Ours and the map's.
        if Arc::strong_count(&self.places) == 2 {
            self.gate.ends.borrow_mut().remove(&self.key);
        }
    }
}

impl<K: Hash + Eq + Copy> Gate<K> {
    /// `each` in progress with one end, `all` altogether; at least one of both.
    pub fn new(each: usize, all: usize) -> Self {
        let all = Arc::new(Semaphore::new(all.max(1)));
        Self(Rc::new(Inner { each: each.max(1), all, ends: RefCell::default() }))
    }

    /// Waits for a place, first among those of the same end.
    pub async fn enter(&self, key: K) -> Turn<K> {
        let places = {
            let mut ends = self.0.ends.borrow_mut();
            Arc::clone(ends.entry(key).or_insert_with(|| Arc::new(Semaphore::new(self.0.each))))
        };
        let mut turn = Turn { of_all: None, own: None, end: End { gate: Rc::clone(&self.0), key, places } };
        // Neither semaphore is ever closed.
        turn.own = Arc::clone(&turn.end.places).acquire_owned().await.ok();
        turn.of_all = Arc::clone(&self.0.all).acquire_owned().await.ok();
        turn
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[tokio::test]
    async fn one_end_waits_for_itself_and_not_the_others() {
        let gate = Gate::new(2, 10);
        let first = gate.enter('a').await;
        let _second = gate.enter('a').await;
        let mut third = Box::pin(gate.enter('a'));
        assert!(third.as_mut().now_or_never().is_none());
        assert!(gate.enter('b').now_or_never().is_some());
        drop(first);
        assert!(third.now_or_never().is_some());
    }

    #[tokio::test]
    async fn all_together_are_bounded() {
        let gate = Gate::new(2, 3);
        let one = gate.enter('a').await;
        let _others = (gate.enter('a').await, gate.enter('b').await);
        let mut late = Box::pin(gate.enter('b'));
        assert!(late.as_mut().now_or_never().is_none());
        drop(one);
        assert!(late.now_or_never().is_some());
    }

    #[tokio::test]
    async fn who_gave_up_waiting_leaves_nothing_behind() {
        let gate = Gate::new(1, 10);
        let held = gate.enter('a').await;
        let mut waiting = Box::pin(gate.enter('a'));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        drop(held);
        assert!(gate.0.ends.borrow().is_empty());
    }
}
