//! Who waits for a connection when all that there may be are open, and who is next.
//!
//! The oldest is. But a connection that has become free leads to one endpoint, and belongs to one worker: for whoever wants another
//! one it would have to be closed, and theirs to be opened. So it goes to the oldest who can use it as it is, unless the
//! oldest of all has waited for half of its time: then it is closed for the sake of that one, and nobody waits in vain for
//! a place that others hand to each other.

use std::collections::VecDeque;
use std::time::Duration;

use crate::clock::Moment;

/// How long a request waits for a connection.
pub const PATIENCE: Duration = Duration::from_secs(1);
/// Who has waited so long gets the next place, whatever becomes of the connection that had it.
const FAIR: Duration = Duration::from_millis(500);

/// Those who wait, the oldest first. `W` is what they want, `T` how they are told.
#[derive(Debug)]
pub struct Line<W, T> {
    waiting: VecDeque<Waiter<W, T>>,
    next: u64,
}

#[derive(Debug)]
struct Waiter<W, T> {
    number: u64,
    wants: W,
    since: Moment,
    tell: T,
}

/// What becomes of a connection that is free.
#[derive(Debug, PartialEq, Eq)]
pub enum Freed<T> {
    /// It is handed to this one, the oldest who can use it.
    Use(u64, T),
    /// It is closed: the oldest of all wants another.
    Close,
    /// Nobody waits.
    Keep,
}

impl<W, T> Default for Line<W, T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next: 0 }
    }
}

impl<W: PartialEq, T> Line<W, T> {
    /// Stands at the end, if fewer than `most` wait; the number is the place's name. The bound is an argument so that a change of
    /// it holds at once.
    pub fn join(&mut self, wants: W, tell: T, most: u32, now: Moment) -> Option<u64> {
        if self.waiting.len() >= usize::try_from(most).unwrap_or(usize::MAX) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        self.waiting.push_back(Waiter { number, wants, since: now, tell });
        Some(number)
    }

    /// Gives a place up; `false` if it was served before.
    pub fn leave(&mut self, number: u64) -> bool {
        let place = self.waiting.binary_search_by_key(&number, |own| own.number);
        place.ok().and_then(|place| self.waiting.remove(place)).is_some()
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether anybody wants the same.
    pub fn is_wanted(&self, wants: &W) -> bool {
        self.waiting.iter().any(|own| own.wants == *wants)
    }

    /// The oldest of all, for a place that is free.
    pub fn oldest(&mut self) -> Option<(u64, T)> {
        self.waiting.pop_front().map(|own| (own.number, own.tell))
    }

    /// The oldest who wants exactly this.
    pub fn oldest_of(&mut self, wants: &W) -> Option<(u64, T)> {
        let place = self.waiting.iter().position(|own| own.wants == *wants)?;
        self.waiting.remove(place).map(|own| (own.number, own.tell))
    }

    /// What becomes of a connection that is free and of use only to whoever wants exactly this.
    pub fn freed(&mut self, wants: &W, now: Moment) -> Freed<T> {
        let Some(oldest) = self.waiting.front() else { return Freed::Keep };
        if oldest.wants != *wants && now.saturating_since(oldest.since) >= FAIR {
            return Freed::Close;
        }
        match self.oldest_of(wants) {
            Some((number, tell)) => Freed::Use(number, tell),
            None => Freed::Close,
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    #[test]
    fn the_oldest_is_next_and_no_more_than_the_bound_wait() {
        let mut line = Line::default();
        let numbers: Vec<_> = (0..4).map(|number| line.join('a', number, 3, at(number))).collect();
        assert_eq!(numbers, [Some(0), Some(1), Some(2), None]);
        assert!(line.leave(1), "its caller left");
        assert!(!line.leave(1));
        assert_eq!(line.join('a', 9, 3, at(9)), Some(3), "whose place is free again");
        assert_eq!(
            [line.oldest(), line.oldest(), line.oldest(), line.oldest()].map(|own| own.map(|own| own.1)),
            [Some(0), Some(2), Some(9), None]
        );
    }

    #[test]
    fn a_bound_of_zero_lets_nobody_wait() {
        assert_eq!(Line::default().join('a', (), 0, at(0)), None);
    }

    #[test]
    fn a_connection_goes_to_the_oldest_who_can_use_it() {
        let mut line = Line::default();
        for (wants, number) in [('a', 0), ('b', 1), ('b', 2)] {
            assert_eq!(line.join(wants, number, 9, at(0)), Some(number));
        }
        assert_eq!(line.freed(&'b', at(499)), Freed::Use(1, 1));
        assert_eq!(line.freed(&'c', at(499)), Freed::Close, "of use to nobody");
        assert_eq!(line.freed(&'b', at(500)), Freed::Close, "the oldest has waited for half of its time");
        assert_eq!(line.freed(&'a', at(500)), Freed::Use(0, 0));
        assert_eq!(line.freed(&'b', at(900)), Freed::Use(2, 2));
        assert_eq!(line.freed(&'b', at(900)), Freed::Keep);
    }

    proptest! {
        /// Whatever happens: never more than the bound, each is told or leaves once, and among those who want the same nobody overtakes.
        #[test]
        fn nobody_overtakes_who_wants_the_same(steps in prop::collection::vec((0..5_u8, 0..3_u8, 0..300_u64), 1..200)) {
            const MOST: u32 = 8;
            let (mut line, mut now) = (Line::default(), 0);
            let mut inside = BTreeMap::new();
            for (step, wants, pause) in steps {
                now += pause;
                let served = match step {
                    0 | 1 => {
                        let full = inside.len() >= 8;
                        let number = line.join(wants, (), MOST, at(now));
                        prop_assert_eq!(number.is_none(), full);
                        inside.extend(number.map(|number| (number, wants)));
                        None
                    }
                    2 => {
                        let first = inside.keys().nth(usize::from(wants)).copied();
                        if let Some(number) = first {
                            prop_assert!(line.leave(number));
                            inside.remove(&number);
                        }
                        None
                    }
                    3 => {
                        let served = line.oldest().map(|own| own.0);
                        prop_assert_eq!(served, inside.keys().next().copied());
                        served
                    }
                    _ => match line.freed(&wants, at(now)) {
                        Freed::Use(number, ()) => {
                            prop_assert_eq!(inside.get(&number), Some(&wants));
                            Some(number)
                        }
                        Freed::Close => {
                            prop_assert!(!inside.is_empty());
                            None
                        }
                        Freed::Keep => {
                            prop_assert!(inside.is_empty());
                            None
                        }
                    },
                };
                if let Some(wants) = served.and_then(|number| inside.remove(&number).map(|wants| (number, wants))) {
                    prop_assert!(inside.iter().all(|(number, own)| *own != wants.1 || *number > wants.0));
                }
                prop_assert_eq!(line.len(), inside.len());
            }
        }
    }
}
