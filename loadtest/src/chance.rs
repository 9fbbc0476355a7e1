//! Lengths of time that are left to chance.

use std::time::Duration;

use rand::{Rng, rngs::StdRng};

/// A pause that is as long as this on average, and at any moment as likely to end as at any other.
pub(crate) fn some_time(random: &mut StdRng, mean: Duration) -> Duration {
    let left: f64 = random.random_range(f64::EPSILON..1.0);
    mean.mul_f64(-left.ln())
}

/// About this long: half of it to half as much again.
pub(crate) fn about(random: &mut StdRng, length: Duration) -> Duration {
    length.mul_f64(random.random_range(0.5..1.5))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn pauses_are_as_long_as_they_should_be_and_the_same_for_the_same_seed() {
        let mean = Duration::from_secs(10);
        let pauses = |seed| {
            let mut random = StdRng::seed_from_u64(seed);
            (0..10_000).map(|_| some_time(&mut random, mean)).sum::<Duration>() / 10_000
        };
        assert_eq!(pauses(1), pauses(1));
        assert!((9.5..10.5).contains(&pauses(2).as_secs_f64()), "{:?}", pauses(2));
    }
}
