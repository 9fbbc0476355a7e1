//! What is due when.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    time::{Duration, Instant},
};

use rand::{Rng, rngs::StdRng};

/// Something that a reviewer does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Act {
    /// Opens the plan.
    Arrive,
    /// Comes back to it.
    Return,
    /// Closes it for good.
    Depart,
    /// Moves the cursor.
    Move,
    /// Writes an annotation.
    Annotate,
    /// Loses the network.
    Lose,
    /// Everybody loses the connection.
    Storm,
}

/// What is due, the earliest first; of what is due at once, what was noted first.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BinaryHeap<Reverse<(Instant, u64, usize, Act)>>,
    noted: u64,
}

impl Agenda {
    /// Notes that someone is to do something.
    pub(super) fn note(&mut self, due: Instant, who: usize, act: Act) {
        self.noted += 1;
        self.due.push(Reverse((due, self.noted, who, act)));
    }

    /// When the next is due.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.due.peek().map(|Reverse((due, ..))| *due)
    }

    /// Whether somebody is still to come.
    pub(super) fn expects_somebody(&self) -> bool {
        self.due.iter().any(|Reverse((.., act))| matches!(act, Act::Arrive | Act::Return))
    }

    /// The next, if it is due by now.
    pub(super) fn take(&mut self, now: Instant) -> Option<(Instant, usize, Act)> {
        if self.next_at()? > now {
            return None;
        }
        self.due.pop().map(|Reverse((due, _, who, act))| (due, who, act))
    }
}

/// How long the published clients wait before they try again, the `nth` time: 0.5 s, doubled each time up to 15 s,
/// a quarter more or less.
pub(super) fn backoff(random: &mut StdRng, nth: u32) -> Duration {
    let doubled = Duration::from_millis(500) * 2_u32.pow(nth.min(5));
    doubled.min(Duration::from_secs(15)).mul_f64(random.random_range(0.75..1.25))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_earliest_comes_first_and_nothing_before_its_time() {
        let (mut agenda, now) = (Agenda::default(), Instant::now());
        let later = |ms| now + Duration::from_millis(ms);
        agenda.note(later(20), 1, Act::Move);
        agenda.note(later(10), 2, Act::Annotate);
        agenda.note(later(10), 3, Act::Arrive);
        assert_eq!(agenda.next_at(), Some(later(10)));
        assert_eq!(agenda.take(now), None);
        assert_eq!(agenda.take(later(10)), Some((later(10), 2, Act::Annotate)));
        assert_eq!(agenda.take(later(15)), Some((later(10), 3, Act::Arrive)));
        assert_eq!(agenda.take(later(15)), None);
    }

    #[test]
    fn waiting_doubles_up_to_a_limit() {
        let mut random = StdRng::seed_from_u64(3);
        assert!(backoff(&mut random, 0) <= Duration::from_millis(625));
        assert!(backoff(&mut random, 40) >= Duration::from_millis(11_250));
        assert!(backoff(&mut random, 40) <= Duration::from_millis(18_750));
    }
}
