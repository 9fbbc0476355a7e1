//! Who is without a network, and when: drawn before the run, so that a seed repeats it.

use std::time::Duration;

use rand::{SeedableRng, rngs::StdRng};

use super::Settings;
use crate::chance::{about, some_time};

/// A time without a network, counted from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Absence {
    pub(super) who: usize,
    pub(super) from: Duration,
    pub(super) until: Duration,
}

/// All of a run, in the order in which they begin. Those of one peer do not overlap, and none outlasts the run.
#[derive(Debug, Clone, Default)]
pub(super) struct Absences(Vec<Absence>);

impl Absences {
    /// As often and as long as the settings say, on average.
    pub(super) fn draw(settings: &Settings) -> Self {
        let Some(every) = settings.lose_every else { return Self::default() };
        let length = settings.rate.length();
        let mut all = Vec::new();
        for who in 0..settings.count as usize {
            let seed = settings.seed.wrapping_mul(1_000_003).wrapping_add(who as u64);
            let mut random = StdRng::seed_from_u64(seed);
            let mut from = some_time(&mut random, every);
            while from < length {
                let until = from + about(&mut random, settings.away);
                all.push(Absence { who, from, until: until.min(length) });
                from = until + some_time(&mut random, every);
            }
        }
        all.sort_by_key(|absence| absence.from);
        Self(all)
    }

    /// Those that begin by `now`, without the first `known` of all.
    pub(super) fn begun(&self, known: usize, now: Duration) -> impl Iterator<Item = Absence> + '_ {
        self.0.iter().skip(known).take_while(move |absence| absence.from <= now).copied()
    }

    /// When the next begins behind the first `known`.
    pub(super) fn next(&self, known: usize) -> Option<Duration> {
        self.0.get(known).map(|absence| absence.from)
    }

    /// When the last of the first `known` is over.
    pub(super) fn back_by(&self, known: usize) -> Duration {
        self.0.iter().take(known).map(|absence| absence.until).max().unwrap_or_default()
    }

    /// How many are away at a moment, and how many times somebody has come back by then.
    pub(super) fn at(&self, now: Duration) -> (u64, u64) {
        let begun = self.0.iter().take_while(|absence| absence.from <= now);
        begun.fold(
            (0, 0),
            |(away, back), absence| {
                if absence.until > now { (away + 1, back) } else { (away, back + 1) }
            },
        )
    }

    /// When the last of these two came back, if one of them was away at any time from `from` to `to`.
    pub(super) fn between(&self, pair: [usize; 2], from: Duration, to: Duration) -> Option<Duration> {
        let begun = self.0.iter().take_while(|absence| absence.from <= to);
        let theirs = begun.filter(|absence| pair.contains(&absence.who) && absence.until >= from);
        theirs.map(|absence| absence.until).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn what_was_written_or_heard_around_an_absence_is_told_from_what_was_not() {
        let away = |who, from, until| Absence { who, from: ms(from), until: ms(until) };
        let absences = Absences(vec![away(0, 100, 200), away(1, 150, 400), away(0, 500, 600)]);
        assert_eq!(absences.between([0, 2], ms(90), ms(95)), None);
        assert_eq!(absences.between([0, 2], ms(90), ms(205)), Some(ms(200)));
        assert_eq!(absences.between([0, 1], ms(160), ms(450)), Some(ms(400)));
        assert_eq!(absences.between([2, 3], ms(0), ms(900)), None);
        assert_eq!(absences.between([0, 2], ms(201), ms(499)), None);
        assert_eq!(absences.at(ms(160)), (2, 0));
        assert_eq!(absences.at(ms(700)), (0, 3));
        assert_eq!(absences.begun(1, ms(150)).collect::<Vec<_>>(), [away(1, 150, 400)]);
        assert_eq!((absences.back_by(0), absences.back_by(2)), (ms(0), ms(400)));
        assert_eq!((absences.next(2), absences.next(3)), (Some(ms(500)), None));
    }
}
