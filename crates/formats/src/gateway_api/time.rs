//! Times as the Gateway API writes them (GEP-2257): `1h30m`, `500ms`, `0s`.

use std::time::Duration;

use hms_model::finding::Finding;
use hms_model::http_route::{Bound, TimeoutOverlay};

use crate::read::{Field, Keys, Reader};

const TIMEOUTS: Keys = Keys::new(&["request", "backendRequest"]);
/// The longest that travels.
const LONGEST: Duration = Duration::from_hours(7 * 24);

/// One to four numbers of at most five digits, each with its unit.
pub(crate) fn duration(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Duration> {
    const WANTS: &str = "a duration such as 10s, 500ms or 1h30m";
    let text = reader.text(field, WANTS)?;
    let Some(duration) = parse(text) else {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (why, fix) = if is_number {
            ("a bare number could be seconds or milliseconds", format!("add the unit: {text}s or {text}ms"))
        } else {
            ("it is one to four whole numbers, each with its unit: h, m, s or ms", "write for example 10s".to_owned())
        };
        reader.bad(field, WANTS, why, &fix);
        return None;
    };
    if duration > LONGEST {
        reader.bad(field, WANTS, "it is at most a week", "write a shorter time");
        return None;
    }
    Some(duration)
}

fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut sum = Duration::ZERO;
    for _ in 0..4 {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, tail) = rest.split_at_checked(digits).filter(|_| (1..=5).contains(&digits))?;
        let number: u64 = number.parse().ok()?;
        let (unit, tail) = [("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)]
            .into_iter()
            .find_map(|(unit, millis)| Some((millis, tail.strip_prefix(unit)?)))?;
        sum += Duration::from_millis(number * unit);
        if tail.is_empty() {
            return Some(sum);
        }
        rest = tail;
    }
    None
}

/// A bound that `0s` lifts.
pub(crate) fn bound(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Bound> {
    let time = duration(reader, field)?;
    Some(if time.is_zero() { Bound::Lifted } else { Bound::After(time) })
}

/// `timeouts` of a rule.
pub(super) fn timeouts(reader: &mut Reader<'_>, field: &Field<'_>) -> TimeoutOverlay {
    let Some(table) = reader.table(field.node, &field.path, TIMEOUTS) else { return TimeoutOverlay::default() };
    let request = table.field("request").cloned().and_then(|field| bound(reader, &field));
    let attempt = table.field("backendRequest").cloned();
    let attempt = attempt.and_then(|field| Some((bound(reader, &field)?, field)));
    if let (Some(Bound::After(request)), Some((Bound::After(attempt), field))) = (request, &attempt)
        && *attempt > request
    {
        let finding = Finding::error(2105, format!("`{}` is longer than `request`", field.path));
        let why = "a request that is tried several times ends with its own limit";
        reader.report(field.node.span, finding.because(why).fix("write at most the time of request"));
    }
    TimeoutOverlay { request, attempt: attempt.map(|(bound, _)| bound), idle: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_the_specification_reads_them() {
        let ms = Duration::from_millis;
        for (text, time) in [
            ("0s", ms(0)),
            ("1h", ms(3_600_000)),
            ("30m", ms(1_800_000)),
            ("10s", ms(10_000)),
            ("500ms", ms(500)),
            ("2h30m", ms(9_000_000)),
            ("150s", ms(150_000)),
            ("1h30m10s100ms", ms(5_410_100)),
        ] {
            assert_eq!(parse(text), Some(time), "{text}");
        }
        for text in ["", "1", "1d", "h30m", "10.5h", "-15m", "+15m", "123456s", "1h1m1s1ms1s", "1 s", "1s "] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
