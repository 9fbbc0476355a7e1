//! How a load grows and shrinks over a run.

use std::{str::FromStr, time::Duration};

use thiserror::Error;

/// One stretch of a run: within this time, evenly to that level.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Leg {
    /// How long it takes.
    pub length: Duration,
    /// The level at its end.
    pub level: f64,
}

/// Why a text is no stage.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no stage, expected a time and a level such as 30s:300")]
pub struct LegError(String);

impl FromStr for Leg {
    type Err = LegError;

    fn from_str(text: &str) -> Result<Self, LegError> {
        let error = || LegError(text.to_owned());
        let (length, level) = text.split_once(':').ok_or_else(error)?;
        let length = humantime::parse_duration(length.trim()).map_err(|_| error())?;
        let level: f64 = level.trim().parse().map_err(|_| error())?;
        if (0.0..=1e7).contains(&level) { Ok(Self { length, level }) } else { Err(error()) }
    }
}

/// A level over time: from where it starts, one leg after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Ramp {
    from: f64,
    legs: Vec<Leg>,
}

impl Ramp {
    /// Starts at nothing.
    #[must_use]
    pub fn new(legs: Vec<Leg>) -> Self {
        Self { from: 0.0, legs }
    }

    /// The same level all the time.
    #[must_use]
    pub fn flat(level: f64, length: Duration) -> Self {
        Self { from: level, legs: vec![Leg { length, level }] }
    }

    /// How long all legs take.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.legs.iter().map(|leg| leg.length).sum()
    }

    /// The highest level.
    #[must_use]
    pub fn top(&self) -> f64 {
        self.legs.iter().fold(self.from, |top, leg| top.max(leg.level))
    }

    /// When something that happens at these many times a second happens next after it has happened at `last`.
    /// `None` when it does not until the end.
    #[must_use]
    pub fn next(&self, last: Duration) -> Option<Duration> {
        let mut owed = 1.0;
        let (mut start, mut from) = (Duration::ZERO, self.from);
        for leg in &self.legs {
            let end = start + leg.length;
            if end > last {
                let begun = last.max(start);
                let left = end.saturating_sub(begun).as_secs_f64();
                let slope = (leg.level - from) / leg.length.as_secs_f64();
                let rate = from + slope * (begun - start).as_secs_f64();
                let until_end = (rate + leg.level) / 2.0 * left;
                // What falls on the very end is no longer part of it, and a rounding error does not bring it in.
                if until_end > owed + 1e-6 {
                    return Some(begun + Duration::from_secs_f64(time_for(owed, rate, slope).min(left)));
                }
                owed -= until_end;
            }
            (start, from) = (end, leg.level);
        }
        None
    }

    /// When something happens that happens these many times a second: at once if the level starts above nothing,
    /// and then as [`Ramp::next`] says.
    pub fn times(&self) -> impl Iterator<Item = Duration> + '_ {
        let first = if self.from > 0.0 { Some(Duration::ZERO) } else { self.next(Duration::ZERO) };
        std::iter::successors(first, |last| self.next(*last))
    }

    /// When the level rises to `level` (true) or falls below it (false), in turn.
    #[must_use]
    pub fn crossings(&self, level: f64) -> Vec<(Duration, bool)> {
        let mut crossings = Vec::new();
        let (mut start, mut from) = (Duration::ZERO, self.from);
        let mut above = from >= level;
        if above {
            crossings.push((start, true));
        }
        for leg in &self.legs {
            if (leg.level >= level) != above {
                above = !above;
                let share = if leg.level == from { 0.0 } else { (level - from) / (leg.level - from) };
                crossings.push((start + leg.length.mul_f64(share.clamp(0.0, 1.0)), above));
            }
            (start, from) = (start + leg.length, leg.level);
        }
        crossings
    }
}

/// How long it takes until so much is done at `rate`, which changes by `slope` a second.
fn time_for(owed: f64, rate: f64, slope: f64) -> f64 {
    // What a rounding error left over from the leg before is due at once.
    if owed <= 0.0 {
        return 0.0;
    }
    if slope.abs() < 1e-9 {
        return owed / rate;
    }
    // From owed = rate t + slope t^2 / 2, in the form that does not cancel.
    2.0 * owed / (rate + (rate * rate + 2.0 * slope * owed).max(0.0).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn ramp(text: &str) -> Ramp {
        Ramp::new(text.split(' ').map(|leg| leg.parse().unwrap()).collect())
    }

    fn happenings(ramp: &Ramp) -> Vec<Duration> {
        ramp.times().collect()
    }

    #[test]
    fn a_flat_rate_is_evenly_spaced() {
        let all = happenings(&Ramp::flat(10.0, secs(2)));
        assert_eq!(all.len(), 20);
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).as_secs_f64() - 0.1 < 1e-6));
    }

    #[test]
    fn a_growing_rate_happens_as_often_as_its_area_says() {
        // Half of 10 s x 100/s, 10 s x 100/s, then half of 4 s x 100/s.
        let all = happenings(&ramp("10s:100 10s:100 4s:0"));
        assert!((1695..=1700).contains(&all.len()), "{}", all.len());
        let early = all.iter().filter(|at| **at < secs(5)).count();
        assert!((120..=126).contains(&early), "{early}");
        assert_eq!(ramp("1s:0").next(Duration::ZERO), None);
    }

    #[test]
    fn legs_that_end_on_a_whole_number_lose_nothing() {
        for legs in ["500ms:100 500ms:100", "500ms:100 500ms:0", "1s:2 1s:2 1s:4", "300ms:7 700ms:7 100ms:70"]
        {
            let all = happenings(&ramp(legs));
            assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{legs}");
        }
        assert!((73..=75).contains(&happenings(&ramp("500ms:100 500ms:100")).len()));
    }

    #[test]
    fn each_level_is_crossed_when_the_ramp_is_there() {
        let ramp = ramp("10s:100 5s:100 10s:0");
        assert_eq!(ramp.crossings(50.0), [(secs(5), true), (secs(20), false)]);
        assert_eq!(ramp.crossings(101.0), []);
        assert_eq!((ramp.length(), ramp.top()), (secs(25), 100.0));
        assert_eq!(Ramp::flat(3.0, secs(1)).crossings(3.0), [(Duration::ZERO, true)]);
    }

    #[test]
    fn what_is_no_stage_is_refused() {
        for text in ["30s", "x:3", "30s:-1", "30s:many", "30s:1e9", "30s:NaN"] {
            assert!(text.parse::<Leg>().is_err(), "{text}");
        }
    }
}
