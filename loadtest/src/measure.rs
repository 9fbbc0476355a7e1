//! What is measured: latencies, and what a process cost meanwhile.

use std::time::Duration;

use hdrhistogram::Histogram;

pub mod process;

/// Latencies with three significant digits, from a microsecond to ten minutes; what lies outside counts as the
/// nearest end.
#[derive(Debug, Clone)]
pub struct Latencies(Histogram<u64>);

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
