//! When to look for another way, while nothing comes from the other side.

use std::time::Duration;

use tokio::time::Instant;

use super::Role;

/// How much later than the initiator the other side begins, so that not both do.
const SECOND: Duration = Duration::from_secs(2);

/// When to try once more: if the last offer was not answered, since it may not have arrived, and if it was.
const UNANSWERED: Duration = Duration::from_millis(2500);
const FRUITLESS: Duration = Duration::from_millis(5500);

/// A time in which nothing comes.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) since: Instant,
    /// When ICE was last restarted for it.
    tried: Option<Instant>,
}

impl Silence {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, tried: None }
    }

    /// Whether ICE is to be restarted now, which then counts as done.
    pub(super) fn tries(&mut self, now: Instant, role: Role, is_answered: bool) -> bool {
        let due = match (self.tried, role) {
            (Some(last), _) => last + if is_answered { FRUITLESS } else { UNANSWERED },
            (None, Role::Initiator) => self.since,
            (None, Role::Answerer) => self.since + SECOND,
        };
        if now >= due {
            self.tried = Some(now);
        }
        now >= due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds of a silence at which ICE is restarted, looking every second.
    fn tries(role: Role, is_answered: bool) -> Vec<u64> {
        let begin = Instant::now();
        let mut silence = Silence::new(begin);
        (0..15)
            .filter(|second| silence.tries(begin + Duration::from_secs(*second), role, is_answered))
            .collect()
    }

    #[test]
    fn the_initiator_tries_first_and_both_again_and_again() {
        assert_eq!(tries(Role::Initiator, false), [0, 3, 6, 9, 12]);
        assert_eq!(tries(Role::Answerer, false), [2, 5, 8, 11, 14]);
    }

    #[test]
    fn what_was_answered_has_longer_to_bear_fruit() {
        assert_eq!(tries(Role::Initiator, true), [0, 6, 12]);
    }
}
