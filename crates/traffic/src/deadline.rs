//! How long the caller of a request will still wait: as proxies tell it each other, and as one remembers it for the calls that its
//! application makes meanwhile.
//!
//! What is under way is remembered by its trace, which applications hand on. A call that belongs to several requests of one trace
//! has the time of the most patient of them, and none is told to hurry for the sake of what cannot be remembered: a table
//! that is full, or a request without a deadline, leaves the calls of its trace as they are.

use std::sync::OnceLock;
use std::time::Duration;

use crate::cell::{AtomicU32, AtomicU64, Ordering};
use crate::clock::{Moment, micros};

/// Most digits of a time in milliseconds: more than a hundred days.
const MOST_DIGITS: usize = 10;
/// Groups of places in the table.
const GROUPS: usize = 256;
/// Places of a group.
#[cfg(not(loom))]
const PLACES: usize = 8;
#[cfg(loom)]
const PLACES: usize = 2;
/// Spreads numbers that are alike: 2^64 over the golden ratio, which is odd.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
/// What is said of a request that may take as long as it likes.
const NEVER: u64 = u64::MAX;

/// Reads what is left, in whole milliseconds; nothing that is zero or no number.
pub fn read(value: &[u8]) -> Option<Duration> {
    if value.len() > MOST_DIGITS || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = value.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    (number > 0).then(|| Duration::from_millis(number))
}

/// Text on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Written([u8; MOST_DIGITS], usize);

impl Written {
    /// The digits.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get(self.1..).unwrap_or_default()
    }
}

/// Writes what is left in whole milliseconds, rounded down: nobody must believe to have longer than there is. At least one, as
/// zero means something else to others.
pub fn write(left: Duration) -> Written {
    let mut written = Written([b'0'; MOST_DIGITS], MOST_DIGITS);
    let mut number = u64::try_from(left.as_millis()).unwrap_or(NEVER).clamp(1, 9_999_999_999);
    for place in written.0.iter_mut().rev() {
        if number == 0 {
            break;
        }
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
        written.1 -= 1;
    }
    written
}

/// The deadlines of the requests that are under way to one application; shared by all workers.
#[derive(Debug, Default)]
pub struct Deadlines {
    /// Made with the first request: a proxy without an application needs none.
    groups: OnceLock<Box<[Group]>>,
}

#[derive(Debug)]
struct Group {
    places: [Place; PLACES],
    /// Requests that found no place.
    beyond: AtomicU32,
}

/// A request under way. One that is free has no deadline, so that nobody ever sees somebody else's.
#[derive(Debug)]
struct Place {
    trace: AtomicU64,
    until: AtomicU64,
}

impl Group {
    fn new() -> Self {
        let free = |_| Place { trace: AtomicU64::new(0), until: AtomicU64::new(NEVER) };
        Self { places: std::array::from_fn(free), beyond: AtomicU32::new(0) }
    }
}

/// What stands for a trace. A collision makes a call belong to one more request.
pub fn key(trace: u128) -> u64 {
    let half = |bits: u128| u64::try_from(bits & u128::from(u64::MAX)).unwrap_or_default();
    half(trace).wrapping_add(half(trace >> 64).wrapping_mul(SPREAD)).max(1)
}

impl Deadlines {
    /// Nothing under way.
    pub fn new() -> Self {
        Self::default()
    }

    fn group(groups: &[Group], key: u64) -> Option<&Group> {
        let mixed = key.wrapping_mul(SPREAD) >> 32;
        groups.get(usize::try_from(mixed).unwrap_or_default() % groups.len().max(1))
    }

    /// Remembers a request of the trace with this [`key`] until what is returned is dropped. It has no deadline yet.
    pub fn begin(&self, key: u64) -> UnderWay<'_> {
        let groups = self.groups.get_or_init(|| (0..GROUPS).map(|_| Group::new()).collect());
        let Some(group) = Self::group(groups, key) else { return UnderWay(None) };
        let free = |place: &&Place| {
            // Free to whoever writes its trace first.
            let (held, own) = (&place.trace, key);
            held.load(Ordering::Relaxed) == 0
                && held.compare_exchange(0, own, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        };
        let place = group.places.iter().find(free);
        if place.is_none() {
            group.beyond.fetch_add(1, Ordering::Relaxed);
        }
        UnderWay(Some((group, place)))
    }

    /// When the last of a trace's requests that are under way must be answered; `None` if there is none, or one that may take as
    /// long as it likes.
    pub fn until(&self, key: u64) -> Option<Moment> {
        let group = Self::group(self.groups.get()?, key)?;
        if group.beyond.load(Ordering::Relaxed) > 0 {
            return None;
        }
        let own = group.places.iter().filter_map(|place| {
            let is_own = || place.trace.load(Ordering::Acquire) == key;
            let until = is_own().then(|| place.until.load(Ordering::Acquire))?;
            // Looked at again: it may be somebody else's by now.
            is_own().then_some(until)
        });
        own.max().filter(|until| *until != NEVER).map(Moment::from_micros)
    }
}

/// A request under way.
#[derive(Debug)]
pub struct UnderWay<'a>(Option<(&'a Group, Option<&'a Place>)>);

impl UnderWay<'_> {
    /// It must be answered `left` from now.
    pub fn until(&self, now: Moment, left: Duration) {
        if let Some((_, Some(place))) = self.0 {
            let until = now.as_micros().saturating_add(micros(left)).min(NEVER - 1);
            place.until.store(until, Ordering::Release);
        }
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        match self.0 {
            Some((_, Some(place))) => {
                place.until.store(NEVER, Ordering::Release);
                place.trace.store(0, Ordering::Release);
            }
            Some((group, None)) => {
                group.beyond.fetch_sub(1, Ordering::Relaxed);
            }
            None => {}
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn what_is_left_is_rounded_down_and_never_zero() {
        for (micros, text) in [(0, "1"), (999, "1"), (1_999, "1"), (300_000, "300"), (15_000_000, "15000")] {
            assert_eq!(write(Duration::from_micros(micros)).as_bytes(), text.as_bytes());
        }
        assert_eq!(write(Duration::MAX).as_bytes(), b"9999999999");
    }

    #[test]
    fn what_is_no_time_is_as_none() {
        for text in ["", "0", "000", "-1", "+1", "1.5", "1s", " 1", "12345678901"] {
            assert_eq!(read(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(read(b"300"), Some(300 * MS));
    }

    #[test]
    fn a_call_has_the_time_of_the_most_patient_request_of_its_trace() {
        let (deadlines, now) = (Deadlines::new(), Moment::from_micros(5));
        assert_eq!(deadlines.until(7), None);
        let first = deadlines.begin(7);
        assert_eq!(deadlines.until(7), None, "not known yet");
        first.until(now, 300 * MS);
        assert_eq!(deadlines.until(7), Some(now.plus(300 * MS)));
        let second = deadlines.begin(7);
        assert_eq!(deadlines.until(7), None, "that one may take as long as it likes");
        second.until(now, 500 * MS);
        assert_eq!(deadlines.until(7), Some(now.plus(500 * MS)));
        drop(second);
        assert_eq!(deadlines.until(7), Some(now.plus(300 * MS)));
        assert_eq!(deadlines.until(8), None);
        drop(first);
        assert_eq!(deadlines.until(7), None);
    }

    #[test]
    fn traces_are_told_apart_by_both_halves() {
        let keys = [1_u128, 2, 1 << 64, 2 << 64, (1 << 64) | 1, u128::MAX].map(key);
        assert!(
            keys.iter()
                .enumerate()
                .all(|(place, own)| *own != 0 && !keys.iter().skip(place + 1).any(|other| other == own))
        );
    }

    #[test]
    fn a_full_group_hurries_nobody() {
        let (deadlines, now) = (Deadlines::new(), Moment::ZERO);
        let held: Vec<_> = (0..PLACES).map(|_| deadlines.begin(7)).collect();
        for own in &held {
            own.until(now, MS);
        }
        assert_eq!(deadlines.until(7), Some(now.plus(MS)));
        let beyond = deadlines.begin(7);
        assert_eq!(deadlines.until(7), None);
        drop(beyond);
        assert_eq!(deadlines.until(7), Some(now.plus(MS)));
    }

    /// A request under way, and its deadline.
    type Held<'a> = (UnderWay<'a>, u64);

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more_and_hardly_less(micros in 1_000..9_999_999_999_000_u64) {
            let left = Duration::from_micros(micros);
            let read = read(write(left).as_bytes()).unwrap();
            prop_assert!(read <= left && left.saturating_sub(read) < MS);
        }

        /// Never less time than the most patient request has that is under way.
        #[test]
        fn nobody_is_hurried_beyond_the_most_patient(steps in prop::collection::vec((1..12_u64, 0..3_u8, 1..99_u64), 1..200)) {
            let deadlines = Deadlines::new();
            let mut held = BTreeMap::<u64, Vec<Held<'_>>>::new();
            for (trace, step, millis) in steps {
                let own = held.entry(trace).or_default();
                match step {
                    0 => own.push((deadlines.begin(trace), NEVER)),
                    1 => if let Some((under_way, until)) = own.last_mut() {
                        under_way.until(Moment::ZERO, Duration::from_millis(millis));
                        *until = millis * 1000;
                    },
                    _ => drop(own.pop()),
                }
                let longest = own.iter().map(|own| own.1).max();
                let told = deadlines.until(trace).map_or(NEVER, Moment::as_micros);
                prop_assert!(longest.is_none_or(|longest| told >= longest), "{told} {longest:?}");
                prop_assert!(longest.is_some() || told == NEVER);
                // As long as there is a place for each, exactly that.
                if let Some(longest) = longest.filter(|_| held.values().map(Vec::len).sum::<usize>() <= PLACES) {
                    prop_assert_eq!(told, longest);
                }
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
    fn loom_nobody_sees_the_deadline_of_another_trace() {
        loom::model(|| {
            let one: Box<[Group]> = std::iter::once_with(Group::new).collect();
            let deadlines = Arc::new(Deadlines { groups: OnceLock::from(one) });
            let other = Arc::clone(&deadlines);
            let thread = loom::thread::spawn(move || {
                let short = other.begin(1);
                short.until(Moment::ZERO, Duration::from_micros(5));
                drop(short);
                let _patient = other.begin(2);
            });
            assert_eq!(deadlines.until(2), None);
            thread.join().unwrap();
        });
    }
}
