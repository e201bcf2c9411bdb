//! Arithmetic with figures that people read.

/// A counter as a figure. Exact up to 2^53: nine petabytes, or a hundred days in nanoseconds.
#[expect(clippy::cast_precision_loss, reason = "figures for people; no counter here comes near 2^53")]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// The smallest; `None` without any.
pub(crate) fn min(values: &[f64]) -> Option<f64> {
    values.iter().copied().min_by(f64::total_cmp)
}

/// The middle one, or the mean of both; `None` without any.
pub(crate) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *sorted.get(sorted.len() / 2 - 1)?;
    Some(f64::midpoint(lower, upper))
}

/// The value below which this many per cent of sorted values lie; 0 without any.
pub(crate) fn percentile(sorted: &[u64], percent: usize) -> u64 {
    let rank = sorted.len().saturating_sub(1) * percent / 100;
    sorted.get(rank).copied().unwrap_or_default()
}

/// Digits as far as they mean something: three, or all before the point.
pub(crate) fn shown(value: f64) -> String {
    let size = value.abs();
    if size >= 100.0 {
        format!("{value:.0}")
    } else if size >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[9.0, 1.0, 5.0]), Some(5.0));
        assert_eq!(median(&[]), None);
        assert_eq!(min(&[3.0, 1.5, 2.0]), Some(1.5));
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=100).collect();
        assert_eq!((percentile(&values, 50), percentile(&values, 99), percentile(&[], 99)), (50, 99, 0));
    }

    #[test]
    fn figures_are_shown_with_three_digits() {
        assert_eq!([shown(0.7312), shown(17.66), shown(552.4), shown(-3.2)], ["0.73", "17.7", "552", "-3.20"]);
    }
}
