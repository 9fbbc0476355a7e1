//! A run second by second: what clients saw, and what the server used meanwhile.

use serde_json::{Value, json};

/// One second of a run, or so.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Moment {
    /// Seconds since the start, at its end.
    pub seconds: f64,
    /// Deliveries a second.
    pub delivered: f64,
    /// What was sent a second.
    pub published: f64,
    /// Latencies of what came in it, in milliseconds; `None` when nothing came.
    pub p50_ms: Option<f64>,
    /// The same.
    pub p99_ms: Option<f64>,
    /// Clients that were connected.
    pub present: Option<u64>,
    /// Connections that failed since the start.
    pub errors: u64,
    /// Connections that were made again since the start.
    pub reconnects: u64,
    /// The server's memory in bytes.
    pub server_rss: Option<f64>,
    /// The share of a core that the server used, in percent.
    pub server_cpu: Option<f64>,
    /// The share of a core that the tester used, in percent.
    pub tester_cpu: Option<f64>,
    /// The most bytes that waited in the server for one connection.
    pub queue: Option<f64>,
}

/// All of a run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline(pub Vec<Moment>);

/// The beginning of a run, of which no slope is taken: the server fills its pools.
const SETTLING: f64 = 0.2;

impl Timeline {
    /// By how many bytes an hour the server's memory grows: the slope of the line that fits best, without the first
    /// fifth of the run. `None` for less than ten looks at it.
    #[must_use]
    pub fn rss_slope(&self) -> Option<f64> {
        let from = self.0.last()?.seconds * SETTLING;
        let looks = self.0.iter().filter(|moment| moment.seconds >= from);
        let points: Vec<_> =
            looks.filter_map(|moment| Some((moment.seconds / 3600.0, moment.server_rss?))).collect();
        if points.len() < 10 {
            return None;
        }
        let count = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let spread: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        let together: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        (spread > 0.0).then(|| together / spread)
    }

    /// One object a moment.
    #[must_use]
    pub fn to_json(&self) -> Value {
        self.0.iter().copied().map(Moment::to_json).collect()
    }
}

impl Moment {
    fn to_json(self) -> Value {
        json!({
            "seconds": self.seconds,
            "deliveries_per_second": self.delivered,
            "published_per_second": self.published,
            "latency_p50_ms": self.p50_ms,
            "latency_p99_ms": self.p99_ms,
            "present": self.present,
            "errors": self.errors,
            "reconnects": self.reconnects,
            "server_rss_bytes": self.server_rss,
            "server_cpu_percent": self.server_cpu,
            "tester_cpu_percent": self.tester_cpu,
            "server_queue_high_water_bytes": self.queue,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(seconds: u32, bytes: impl Fn(f64) -> f64) -> Timeline {
        let moment = |second| {
            let seconds = f64::from(second);
            Moment { seconds, server_rss: Some(bytes(seconds)), ..Moment::default() }
        };
        Timeline((1..=seconds).map(moment).collect())
    }

    #[test]
    fn the_slope_of_memory_is_found_and_the_beginning_does_not_count() {
        let slope = growing(100, |seconds| 5e6 + seconds * 1000.0).rss_slope().unwrap();
        assert!((slope - 3.6e6).abs() < 1.0, "{slope}");
        let level = growing(100, |seconds| if seconds < 15.0 { seconds * 1e6 } else { 20e6 }).rss_slope();
        assert!(level.unwrap().abs() < 1.0);
        assert_eq!(growing(9, |_| 1.0).rss_slope(), None);
        assert_eq!(Timeline::default().rss_slope(), None);
    }
}
