//! Numbers out of runs: medians, spreads, and HDR histograms of latencies in microseconds.

use std::time::Duration;

use hdrhistogram::Histogram;

/// Latencies in microseconds, to three significant digits, up to ten minutes.
pub type Latencies = Histogram<u64>;

/// The longest latency that is told apart.
const LONGEST: u64 = 600_000_000;

/// An empty histogram.
pub fn latencies() -> Latencies {
    let mut histogram =
        Histogram::new_with_bounds(1, LONGEST, 3).unwrap_or_else(|_| unreachable!("the bounds are valid"));
    histogram.auto(false);
    histogram
}

/// Counts a latency.
pub fn record(histogram: &mut Latencies, latency: Duration) {
    histogram.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(LONGEST));
}

/// The latency below which this share (0 to 1) lies, in milliseconds.
pub fn quantile_ms(histogram: &Latencies, share: f64) -> f64 {
    float(histogram.value_at_quantile(share)) / 1000.0
}

/// A count as a number to calculate with.
#[expect(clippy::cast_precision_loss, reason = "counts here are far below 2^52")]
pub const fn float(count: u64) -> f64 {
    count as f64
}

/// A length as a number to calculate with.
pub fn size(length: usize) -> f64 {
    float(u64::try_from(length).unwrap_or(u64::MAX))
}

/// The middle value; of an even number of values, the mean of the two in the middle. Zero if there are none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// How far the values lie apart: highest less lowest, as a share of the median.
pub fn spread(values: &[f64]) -> f64 {
    let highest = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lowest = values.iter().copied().fold(f64::INFINITY, f64::min);
    let middle = median(values);
    if values.is_empty() || middle == 0.0 { 0.0 } else { (highest - lowest) / middle }
}

#[cfg(test)]
mod tests {
    use super::{median, spread};

    #[test]
    fn the_median_of_an_even_number_of_values_is_the_mean_of_the_middle_two() {
        assert!((median(&[4.0, 1.0, 3.0, 2.0]) - 2.5).abs() < 1e-9);
        assert!((median(&[9.0, 1.0, 5.0]) - 5.0).abs() < 1e-9);
        assert!(median(&[]).abs() < 1e-9);
    }

    #[test]
    fn the_spread_is_the_whole_range_relative_to_the_median() {
        assert!((spread(&[90.0, 100.0, 120.0]) - 0.3).abs() < 1e-9);
        assert!(spread(&[]).abs() < 1e-9);
    }
}
