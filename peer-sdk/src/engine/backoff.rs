//! Delays between attempts, and the dice that they are drawn with.

use std::time::{Duration, Instant};

/// Randomness from a seed: enough to spread peers in time, no secret.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, by splitmix64.
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least 0, less than 1.
    pub(super) fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Less than `end`; 0 if that is 0.
    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.unit() * end as f64) as usize
    }

    /// A time between the two.
    pub(super) fn between(&mut self, least: Duration, most: Duration) -> Duration {
        least + most.saturating_sub(least).mul_f64(self.unit())
    }
}

/// The longest delay is this at first, and doubles up to [`MOST`].
const LEAST: Duration = Duration::from_millis(500);
/// The longest delay of all.
const MOST: Duration = Duration::from_secs(30);
/// A connection that held so long counts as a good one.
const STABLE: Duration = Duration::from_secs(60);

/// When to try again: after a time drawn from between nothing and a limit that doubles, for ever. The limit falls back
/// only when a connection has held for a minute, since one that is closed at once has cured nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
    up_since: Option<Instant>,
}

impl Backoff {
    pub(super) fn up(&mut self, now: Instant) {
        self.up_since = Some(now);
    }

    /// It failed or ended: how long to wait.
    pub(super) fn down(&mut self, now: Instant, dice: &mut Dice) -> Duration {
        self.delay(now, dice.unit())
    }

    fn delay(&mut self, now: Instant, unit: f64) -> Duration {
        if self.up_since.take().is_some_and(|since| now.duration_since(since) >= STABLE) {
            self.failures = 0;
        }
        let limit = LEAST.saturating_mul(1 << self.failures.min(6)).min(MOST);
        self.failures = self.failures.saturating_add(1);
        limit.mul_f64(unit)
    }

    pub(super) fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::tests::vectors;

    #[test]
    fn every_implementation_throws_the_same_dice() {
        for case in vectors::cases("dice", "cases") {
            let seed = case["seed"].as_str().unwrap().parse().unwrap();
            let mut dice = Dice::new(seed);
            for roll in case["rolls"].as_array().unwrap() {
                assert_eq!(format!("{:x}", dice.roll()), roll.as_str().unwrap(), "{seed}");
            }
            assert_eq!(Dice::new(seed).unit(), case["unit"].as_f64().unwrap());
        }
    }

    #[test]
    fn every_implementation_waits_as_long_after_as_many_failures() {
        let start = Instant::now();
        let delay = |case: &serde_json::Value, up_since: Option<Instant>, now: Instant| {
            let number = |name: &str| case[name].as_u64().unwrap();
            let mut backoff = Backoff { failures: number("failures") as u32, up_since };
            let delay = backoff.delay(now, case["unit"].as_f64().unwrap());
            assert_eq!(delay, Duration::from_millis(number("delay_ms")), "{case}");
        };
        vectors::cases("backoff", "cases").iter().for_each(|case| delay(case, None, start));
        for case in vectors::cases("backoff", "stable") {
            let held = Duration::from_millis(case["held_ms"].as_u64().unwrap());
            delay(&case, Some(start), start + held);
        }
    }

    #[test]
    fn delays_are_spread_over_a_limit_that_doubles_to_half_a_minute() {
        let (now, mut dice) = (Instant::now(), Dice::new(1));
        for (failures, limit) in [(0, 500), (1, 1000), (5, 16_000), (6, 30_000), (40, 30_000)] {
            let mut longest = Duration::ZERO;
            let mut shortest = MOST;
            for _ in 0..500 {
                let delay = Backoff { failures, up_since: None }.down(now, &mut dice);
                longest = longest.max(delay);
                shortest = shortest.min(delay);
            }
            let limit = Duration::from_millis(limit);
            assert!(longest <= limit && longest > limit.mul_f64(0.9), "{failures}: {longest:?}");
            assert!(shortest < limit.mul_f64(0.1), "{failures}: {shortest:?}");
        }
    }

    #[test]
    fn only_a_connection_that_held_starts_afresh() {
        let (start, mut dice) = (Instant::now(), Dice::new(1));
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.up(start);
            backoff.down(start + STABLE / 2, &mut dice);
        }
        assert_eq!(backoff.failures, 5);
        backoff.up(start);
        backoff.down(start + STABLE, &mut dice);
        assert_eq!(backoff.failures, 1);
    }

    #[test]
    fn a_seed_decides_every_throw() {
        let (mut a, mut b) = (Dice::new(7), Dice::new(7));
        assert!((0..100).all(|_| a.roll() == b.roll()));
        assert!((0..1000).all(|_| a.below(3) < 3));
        assert_eq!(a.below(0), 0);
    }
}
