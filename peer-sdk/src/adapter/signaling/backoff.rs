//! How long to wait before the next try.

use std::time::{Duration, Instant};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// How long a connection must hold until its server counts as well again. At once would be too soon: a server that
/// accepts and closes would be called hundreds of times a second.
const STABLE: Duration = Duration::from_secs(60);

/// Delays that double from half a second to thirty, each drawn evenly from zero to that.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The delay after a failure. `drawn` is random, from 0 to 1.
    pub(super) fn delay(&mut self, drawn: f64) -> Duration {
        let doubled = FIRST.saturating_mul(1 << self.failures.min(16));
        self.failures = self.failures.saturating_add(1);
        doubled.min(LONGEST).mul_f64(drawn.clamp(0.0, 1.0))
    }

    /// A connection that was there since `since` is not there any more.
    pub(super) fn lost(&mut self, since: Instant, now: Instant) {
        if now.saturating_duration_since(since) >= STABLE {
            self.failures = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_thirty_seconds_and_are_spread() {
        let mut backoff = Backoff::default();
        let delays: Vec<_> = (0..40).map(|_| backoff.delay(1.0).as_millis()).collect();
        assert_eq!(delays[..8], [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
        assert_eq!(delays[39], 30000);
        assert_eq!(backoff.delay(0.0), Duration::ZERO);
        assert_eq!(backoff.delay(0.5), Duration::from_secs(15));
    }

    #[test]
    fn only_a_minute_of_connection_makes_the_delays_short_again() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        (0..10).for_each(|_| {
            backoff.delay(1.0);
        });
        backoff.lost(now, now + Duration::from_secs(59));
        assert_eq!(backoff.delay(1.0), LONGEST);
        backoff.lost(now, now + Duration::from_secs(60));
        assert_eq!(backoff.delay(1.0), FIRST);
    }
}
