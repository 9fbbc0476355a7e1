//! What is measured: latencies, and what a process cost meanwhile.

use std::time::Duration;

use hdrhistogram::Histogram;

pub mod process;
pub mod scrape;

/// Latencies with three significant digits, from a microsecond to ten minutes; what lies outside counts as the
/// nearest end.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

/// Evenly spread where it matters: each step halves what is left, or so.
const CURVE: [f64; 13] = [0.0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995, 0.9999, 1.0];
const LOWEST: u64 = 1_000;
const HIGHEST: u64 = 600_000_000_000;

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(LOWEST, HIGHEST, 3).expect("the bounds are in order, the digits few"))
    }
}

impl Latencies {
    /// Counts one latency.
    pub fn record(&mut self, nanoseconds: u64) {
        self.0.saturating_record(nanoseconds);
    }

    /// Counts all of another's.
    pub fn merge(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all latencies have the same bounds");
    }

    /// The latency that `quantile` (0 to 1) of all do not exceed; `None` when nothing was counted.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.value_at_quantile(quantile)))
    }

    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The quantiles that a curve is drawn through, with their latencies in milliseconds.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let at = |quantile| Some((quantile, self.at(quantile)?.as_secs_f64() * 1e3));
        CURVE.into_iter().filter_map(at).collect()
    }

    /// The largest.
    #[must_use]
    pub fn max(&self) -> Option<Duration> {
        (!self.0.is_empty()).then(|| Duration::from_nanos(self.0.max()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_what_was_recorded() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(0.5), None);
        let mut more = Latencies::default();
        for milliseconds in 1..=100 {
            let half = if milliseconds % 2 == 0 { &mut latencies } else { &mut more };
            half.record(milliseconds * 1_000_000);
        }
        latencies.merge(&more);
        let close = |quantile, expected: f64| {
            let found = latencies.at(quantile).unwrap().as_secs_f64() * 1e3;
            assert!((found / expected - 1.0).abs() < 0.002, "{found} is not {expected}");
        };
        close(0.5, 50.0);
        close(0.99, 99.0);
        close(1.0, 100.0);
    }
}
