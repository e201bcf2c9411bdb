//! Counts over the last ten ticks of a clock.

use crate::cell::{AtomicU64, Ordering};

/// How many ticks a window remembers, the running one included.
const TICKS: u64 = 10;
/// One cell for each.
const CELLS: usize = 10;

const TICK_MASK: u64 = (1 << 24) - 1;
const COUNT_BITS: u32 = 20;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// What was counted: all, and those of them that were marked (as failed; as a retry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) all: u64,
    pub(crate) marked: u64,
}

/// A ring of ten cells, one per tick. A cell is one atomic that holds its tick (24 bits) and two counts (20 bits each), so
/// whoever finds the cell of a past tick starts it anew in the same step that counts. Counts stop at 1 048 575 per tick.
#[derive(Debug)]
pub(crate) struct Window([AtomicU64; CELLS]);

#[derive(Clone, Copy)]
struct Cell {
    tick: u64,
    tally: Tally,
}

impl Cell {
    fn unpack(word: u64) -> Self {
        let tally = Tally { all: (word >> COUNT_BITS) & COUNT_MASK, marked: word & COUNT_MASK };
        Self { tick: word >> (2 * COUNT_BITS), tally }
    }

    fn pack(self) -> u64 {
        let Tally { all, marked } = self.tally;
        self.tick << (2 * COUNT_BITS) | all.min(COUNT_MASK) << COUNT_BITS | marked.min(COUNT_MASK)
    }

    /// Whether it belongs to the window that ends at `tick`, or to one that a faster worker has already begun.
    fn is_recent(self, tick: u64) -> bool {
        let age = tick.wrapping_sub(self.tick) & TICK_MASK;
        !(TICKS..=TICK_MASK - TICKS).contains(&age)
    }
}

impl Window {
    /// Nothing counted.
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// Counts into the cell of `tick`; says what that cell holds then.
    pub(crate) fn add(&self, tick: u64, all: u32, marked: u32) -> Tally {
        self.change(tick, |held| Tally { all: held.all + u64::from(all), marked: held.marked + u64::from(marked) })
    }

    /// Takes one mark back that was made in `tick`.
    pub(crate) fn unmark(&self, tick: u64) {
        self.change(tick, |held| Tally { marked: held.marked.saturating_sub(1), ..held });
    }

    /// Everything counted in the ten ticks that end with `tick`.
    pub(crate) fn sum(&self, tick: u64) -> Tally {
        self.0.iter().map(|cell| Cell::unpack(cell.load(Ordering::SeqCst))).filter(|cell| cell.is_recent(tick)).fold(
            Tally::default(),
            |sum, cell| Tally { all: sum.all + cell.tally.all, marked: sum.marked + cell.tally.marked },
        )
    }

    /// What was counted in `tick` itself.
    pub(crate) fn at(&self, tick: u64) -> Tally {
        let cell = self.cell(tick).map(|cell| Cell::unpack(cell.load(Ordering::Relaxed)));
        cell.filter(|cell| cell.tick == tick & TICK_MASK).map(|cell| cell.tally).unwrap_or_default()
    }

    /// Starts over.
    pub(crate) fn forget(&self) {
        for cell in &self.0 {
            cell.store(0, Ordering::Relaxed);
        }
    }

    fn cell(&self, tick: u64) -> Option<&AtomicU64> {
        self.0.get(usize::try_from(tick % TICKS).unwrap_or_default())
    }

    fn change(&self, tick: u64, count: impl Fn(Tally) -> Tally) -> Tally {
        let Some(cell) = self.cell(tick) else { return Tally::default() };
        let mut word = cell.load(Ordering::Relaxed);
        loop {
            let held = Cell::unpack(word);
            // A cell that is a lap ahead belongs to a worker whose present is later; its count is not thrown away.
            let ahead = held.is_recent(tick) && held.tick != tick & TICK_MASK && held.tally != Tally::default();
            let (tick, tally) = if held.tick == tick & TICK_MASK || ahead {
                (held.tick, held.tally)
            } else {
                (tick & TICK_MASK, Tally::default())
            };
            let next = Cell { tick, tally: count(tally) };
            // Sequentially consistent, so that of two workers at the edge of a tick each sees what the other added first.
            match cell.compare_exchange_weak(word, next.pack(), Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return next.tally,
                Err(changed) => word = changed,
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_ten_ticks_old_is_forgotten() {
        let window = Window::new();
        window.add(3, 5, 2);
        assert_eq!(window.sum(12), Tally { all: 5, marked: 2 });
        assert_eq!(window.sum(13), Tally::default());
        assert_eq!(window.add(13, 1, 0), Tally { all: 1, marked: 0 });
    }

    #[test]
    fn a_worker_whose_clock_is_behind_throws_nothing_away() {
        let window = Window::new();
        window.add(100, 7, 0);
        window.add(90, 1, 0);
        assert_eq!(window.sum(100).all, 8);
    }

    #[test]
    fn counts_stop_at_their_bound_without_touching_their_neighbours() {
        let window = Window::new();
        for _ in 0..3 {
            window.add(7, u32::MAX, u32::MAX);
        }
        assert_eq!(window.at(7), Tally { all: COUNT_MASK, marked: COUNT_MASK });
        window.forget();
        window.unmark(7);
        assert_eq!(window.sum(7), Tally::default());
    }

    proptest! {
        #[test]
        fn a_window_counts_what_a_list_of_events_does(
            start in 0_u64..1 << 40, events in proptest::collection::vec((0_u64..4, 0_u32..5), 1..200)
        ) {
            // A lap of the 24-bit tick may lose a cell; that is once in 194 days.
            prop_assume!(start & TICK_MASK < TICK_MASK - 1000);
            let (window, mut seen, mut tick) = (Window::new(), Vec::new(), start);
            for (gap, marked) in events {
                tick += gap;
                window.add(tick, 1, marked);
                seen.push((tick, marked));
                let recent = || seen.iter().filter(|(then, _)| tick - then < TICKS);
                let expected =
                    Tally { all: recent().count() as u64, marked: recent().map(|(_, marked)| u64::from(*marked)).sum() };
                prop_assert_eq!(window.sum(tick), expected);
            }
        }
    }
}

#[cfg(test)]
#[cfg(loom)]
mod loom_tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn loom_two_workers_that_turn_the_same_cell_over_lose_no_count() {
        loom::model(|| {
            let window = Arc::new(Window::new());
            window.add(1, 9, 0);
            let other = Arc::clone(&window);
            let thread = loom::thread::spawn(move || other.add(11, 1, 0));
            window.add(11, 1, 0);
            thread.join().unwrap();
            assert_eq!(window.at(11), Tally { all: 2, marked: 0 });
        });
    }
}
