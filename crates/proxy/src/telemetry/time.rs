//! Times as text, without a calendar library on the way of a request.

use std::time::{Duration, SystemTime};

/// A short text on the stack.
#[derive(Debug, Clone, Copy)]
pub struct Text<const N: usize>([u8; N]);

impl<const N: usize> Text<N> {
    /// Bytes that are ASCII by how they were made.
    pub(super) fn new(bytes: [u8; N]) -> Self {
        Self(bytes)
    }

    /// The text's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// RFC 3339 in UTC with milliseconds, from the civil calendar (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub fn rfc3339(time: SystemTime) -> Text<24> {
    let since_epoch = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let [year, month, day] = date(since_epoch);
    let second = since_epoch.as_secs() % 86_400;
    let mut bytes = *b"0000-00-00T00:00:00.000Z";
    put(&mut bytes, 0, 4, year);
    put(&mut bytes, 5, 2, month);
    put(&mut bytes, 8, 2, day);
    put(&mut bytes, 11, 2, second / 3600);
    put(&mut bytes, 14, 2, second / 60 % 60);
    put(&mut bytes, 17, 2, second % 60);
    put(&mut bytes, 20, 3, u64::from(since_epoch.subsec_millis()));
    Text(bytes)
}

/// Year, month and day.
fn date(since_epoch: Duration) -> [u64; 3] {
    let shifted = since_epoch.as_secs() / 86_400 + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    [year_of_era + era * 400 + u64::from(month <= 2), month, day]
}

/// Writes `digits` decimal digits of `number` from `start` on.
fn put(bytes: &mut [u8], start: usize, digits: usize, mut number: u64) {
    for place in bytes.iter_mut().skip(start).take(digits).rev() {
        *place = b'0' + u8::try_from(number % 10).unwrap_or_default();
        number /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_221_000, "2026-11-21T00:30:00.000Z"),
        ] {
            assert_eq!(rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).as_str(), text);
        }
        let late = SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_221_000_999 + 86_399_000);
        assert_eq!(rfc3339(late).as_str(), "2026-11-22T00:29:59.999Z");
    }
}
