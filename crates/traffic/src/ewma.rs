//! A moving average of latency that rises at once and falls slowly.

use std::time::Duration;

use crate::cell::{AtomicU64, Ordering};
use crate::clock::{Moment, micros};

/// Memory of the average, in milliseconds: in this time a sample's weight falls to 1/e under steady traffic, to a half without.
const MEMORY_MS: u64 = 10_000;
/// An average that is confirmed by a sample is written again only when it is older than this.
const REFRESH_MS: u64 = 100;
/// The value is kept in sixteenths of a microsecond, so that small changes are not lost in rounding.
const PARTS: u64 = 16;
/// How far one worker's present may lie behind another's. A stamp further ahead than this has wrapped around.
const SKEW_MS: u32 = 60_000;

/// Peak-sensitive, time-decayed average of one endpoint's latency, in one atomic.
///
/// A sample above the average replaces it; one below pulls it down by as much as time has passed (10 s of memory), so a
/// slow answer is heeded at once and forgiven gradually. Values over 268 s count as 268 s.
#[derive(Debug)]
pub struct Ewma(AtomicU64);

/// What the atomic holds: the value in the upper half, in the lower the milliseconds of its last change, wrapping every
/// 49 days.
#[derive(Clone, Copy)]
struct Held {
    value: u32,
    stamp: u32,
}

impl Held {
    fn unpack(word: u64) -> Self {
        let low = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or_default();
        Self { value: low(word >> 32), stamp: low(word) }
    }

    fn pack(self) -> u64 {
        u64::from(self.value) << 32 | u64::from(self.stamp)
    }

    /// Milliseconds since the stamp; none if another worker's clock reading was a little ahead.
    fn age(self, stamp: u32) -> u64 {
        let age = stamp.wrapping_sub(self.stamp);
        if age > u32::MAX - SKEW_MS { 0 } else { u64::from(age) }
    }

    /// The value drawn towards `sample`, as far as `age` allows. Rounds towards the old value, so that no change is written
    /// until one has come about.
    fn drawn(self, sample: u32, age: u64) -> u32 {
        let fall = u64::from(self.value.saturating_sub(sample)).saturating_mul(age) / (MEMORY_MS + age);
        self.value.saturating_sub(u32::try_from(fall).unwrap_or(u32::MAX))
    }
}

fn stamp(now: Moment) -> u32 {
    u32::try_from((now.as_micros() / 1000) & u64::from(u32::MAX)).unwrap_or_default()
}

impl Default for Ewma {
    fn default() -> Self {
        Self::new()
    }
}

impl Ewma {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes in one answer's latency. Writes only when the average moves.
    pub fn observe(&self, sample: Duration, now: Moment) {
        // At least one part: zero means that nothing is known.
        let sample = u32::try_from(micros(sample).saturating_mul(PARTS)).unwrap_or(u32::MAX).max(1);
        let stamp = stamp(now);
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let held = Held::unpack(word);
            let age = held.age(stamp);
            let value = if sample >= held.drawn(0, age) { sample } else { held.drawn(sample, age) };
            // An unmoved value keeps its stamp for a while: the time that passed counts at the next sample.
            if value == held.value && age < REFRESH_MS {
                return;
            }
            match self.0.compare_exchange_weak(word, Held { value, stamp }.pack(), Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(changed) => word = changed,
            }
        }
    }

    /// The average now; zero when nothing is known. Without new samples it falls, so a shunned endpoint gets its chance.
    pub fn value(&self, now: Moment) -> Duration {
        let held = Held::unpack(self.0.load(Ordering::Relaxed));
        let decayed = held.drawn(0, held.age(stamp(now)));
        Duration::from_nanos(u64::from(decayed).saturating_mul(1000) / PARTS)
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Moment {
        Moment::from_micros(millis * 1000)
    }

    #[test]
    fn nothing_is_known_before_the_first_sample() {
        assert_eq!(Ewma::new().value(at(5)), Duration::ZERO);
    }

    #[test]
    fn a_peak_is_taken_at_once_and_forgiven_slowly() {
        let cell = Ewma::new();
        cell.observe(MS, at(0));
        cell.observe(100 * MS, at(1));
        assert_eq!(cell.value(at(1)), 100 * MS);
        cell.observe(MS, at(2));
        assert!(cell.value(at(2)) > 99 * MS);
        for millis in 3..10_000 {
            cell.observe(MS, at(millis));
        }
        let later = cell.value(at(10_000));
        assert!(later > 30 * MS && later < 45 * MS, "one memory on, about 1/e is left: {later:?}");
    }

    #[test]
    fn a_steady_latency_stays_what_it_is() {
        let cell = Ewma::new();
        for millis in 0..60_000 {
            cell.observe(Duration::from_micros(200), at(millis));
        }
        let value = cell.value(at(60_000));
        assert!(value >= Duration::from_micros(195) && value <= Duration::from_micros(200), "{value:?}");
    }

    #[test]
    fn an_endpoint_that_is_shunned_becomes_attractive_again() {
        let cell = Ewma::new();
        cell.observe(100 * MS, at(0));
        assert_eq!(cell.value(at(10_000)), 50 * MS);
        assert!(cell.value(at(1_000_000)) < 2 * MS);
    }

    #[test]
    fn a_clock_reading_that_is_a_little_old_changes_nothing() {
        let cell = Ewma::new();
        cell.observe(10 * MS, at(1_000));
        assert_eq!(cell.value(at(990)), 10 * MS);
    }

    #[test]
    fn a_stamp_that_wraps_around_is_read_right() {
        let cell = Ewma::new();
        let wrap = u64::from(u32::MAX);
        cell.observe(100 * MS, at(wrap - 1));
        assert_eq!(cell.value(at(wrap - 1 + MEMORY_MS)), 50 * MS);
    }

    proptest! {
        #[test]
        fn the_average_never_leaves_the_range_of_its_samples(
            samples in proptest::collection::vec((1_u64..1_000_000, 0_u64..5_000), 1..50)
        ) {
            let cell = Ewma::new();
            let mut now = 0;
            let most = samples.iter().map(|(micros, _)| *micros).max().unwrap_or_default();
            for (micros, gap) in &samples {
                now += gap;
                cell.observe(Duration::from_micros(*micros), at(now));
                let value = cell.value(at(now));
                prop_assert!(value <= Duration::from_micros(most));
                prop_assert!(value + Duration::from_micros(1) >= Duration::from_micros(*micros), "below the newest sample");
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
    fn loom_of_two_peaks_the_higher_stays() {
        loom::model(|| {
            let cell = Arc::new(Ewma::new());
            let other = Arc::clone(&cell);
            let now = Moment::from_micros(1_000);
            let thread = loom::thread::spawn(move || other.observe(Duration::from_millis(2), now));
            cell.observe(Duration::from_millis(5), now);
            thread.join().unwrap();
            assert_eq!(cell.value(now), Duration::from_millis(5));
        });
    }
}
