//! What gRPC says about time (gRPC over HTTP/2, "Timeout"): up to eight digits and a unit.

use std::fmt;
use std::time::Duration;

/// Most digits of a timeout.
const MOST_DIGITS: usize = 8;
/// The largest number that has no more digits.
const LARGEST: u128 = 99_999_999;

/// A `grpc-timeout` that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("grpc-timeout takes 1 to 8 digits and one of H, M, S, m, u, n")
    }
}

impl std::error::Error for Malformed {}

/// Reads a `grpc-timeout`. Nothing that eight digits can say overflows: the longest is 11 000 years.
pub fn read_timeout(value: &[u8]) -> Result<Duration, Malformed> {
    let (unit, digits) = value.split_last().ok_or(Malformed)?;
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return Err(Malformed);
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    match unit {
        b'H' => Ok(Duration::from_secs(number * 3600)),
        b'M' => Ok(Duration::from_secs(number * 60)),
        b'S' => Ok(Duration::from_secs(number)),
        b'm' => Ok(Duration::from_millis(number)),
        b'u' => Ok(Duration::from_micros(number)),
        b'n' => Ok(Duration::from_nanos(number)),
        _ => Err(Malformed),
    }
}

/// Writes what is left of a timeout, in the finest unit that eight digits are enough for, rounded down: the next one must not
/// believe to have longer than there is.
pub fn write_timeout(left: Duration) -> String {
    let nanos = left.as_nanos();
    let units = [
        ('n', 1),
        ('u', 1_000),
        ('m', 1_000_000),
        ('S', 1_000_000_000),
        ('M', 60_000_000_000),
        ('H', 3_600_000_000_000),
    ];
    let fits = units.into_iter().find(|(_, size)| nanos / size <= LARGEST);
    fits.map_or_else(|| format!("{LARGEST}H"), |(unit, size)| format!("{}{unit}", nanos / size))
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn timeouts_are_read_by_their_unit() {
        for (text, seconds) in
            [("1S", 1.0), ("2M", 120.0), ("1H", 3600.0), ("250m", 0.25), ("1500u", 0.0015), ("0n", 0.0)]
        {
            assert!((read_timeout(text.as_bytes()).unwrap().as_secs_f64() - seconds).abs() < 1e-9, "{text}");
        }
        assert_eq!(read_timeout(b"99999999H"), Ok(Duration::from_hours(99_999_999)));
    }

    #[test]
    fn what_is_no_timeout_is_refused() {
        for text in ["", "S", "1", "123456789S", "99999999999H", "-1S", "+1S", " 1S", "1 S", "1s", "1x", "1.5S", "0x1S"]
        {
            assert_eq!(read_timeout(text.as_bytes()), Err(Malformed), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more_and_hardly_less(nanos in any::<u64>(), shift in 0..64_u32) {
            let left = Duration::from_nanos(nanos >> shift);
            let read = read_timeout(write_timeout(left).as_bytes()).unwrap();
            prop_assert!(read <= left && left.saturating_sub(read) <= left / 1000, "{left:?} became {read:?}");
        }
    }
}
