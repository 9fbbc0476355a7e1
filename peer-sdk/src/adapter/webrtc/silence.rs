//! When to look for another way, while nothing comes from the other side or goes there.

use std::time::Duration;

use tokio::time::Instant;

use super::Role;

/// How much later than the initiator the other side begins, so that not both do.
const SECOND: Duration = Duration::from_secs(2);

/// When to try once more: if the last offer was not answered, since it may not have arrived, and if it was.
const UNANSWERED: Duration = Duration::from_millis(2500);
const FRUITLESS: Duration = Duration::from_millis(5500);

/// How long it takes to find out whether it is the other side that is silent, or we who were busy.
const DOUBT: Duration = Duration::from_millis(700);

/// A time in which nothing comes, or nothing can.
#[derive(Debug)]
pub(super) struct Silence {
    pub(super) since: Instant,
    /// When the application is to be told; `None` once it was.
    tell_at: Option<Instant>,
    /// It is for us to begin, whatever our role.
    ours: bool,
    /// When ICE was last restarted for it.
    tried: Option<Instant>,
}

impl Silence {
    /// The other side was asked in vain.
    pub(super) fn sure(now: Instant) -> Self {
        Self { since: now, tell_at: Some(now), ours: false, tried: None }
    }

    /// Nothing has come, but we have hardly asked: a machine with too much to do may not have let us.
    pub(super) fn doubtful(now: Instant) -> Self {
        Self::sure(now + DOUBT)
    }

    /// Nothing can come, which may be over before the application need know.
    pub(super) fn unnoticed(now: Instant, patience: Duration) -> Self {
        Self { tell_at: Some(now + patience), ..Self::sure(now) }
    }

    /// It is we who were cut off: what was tried may have reached nobody, and the other side need not know.
    pub(super) fn starts_over(&mut self) {
        (self.ours, self.tried) = (true, None);
    }

    /// Whether the application was told.
    pub(super) fn is_told(&self) -> bool {
        self.tell_at.is_none()
    }

    /// Whether the application is to be told now, which then counts as done.
    pub(super) fn tells(&mut self, now: Instant) -> bool {
        self.tell_at.take_if(|at| *at <= now).is_some()
    }

    /// When the next is to be done about it.
    pub(super) fn next(&self, role: Role, is_answered: bool) -> Instant {
        self.tell_at.into_iter().fold(self.due(role, is_answered), Instant::min)
    }

    /// When ICE is to be restarted.
    pub(super) fn due(&self, role: Role, is_answered: bool) -> Instant {
        match (self.tried, role) {
            (Some(last), _) => last + if is_answered { FRUITLESS } else { UNANSWERED },
            (None, Role::Answerer) if !self.ours => self.since + SECOND,
            (None, _) => self.since,
        }
    }

    pub(super) fn tries(&mut self, now: Instant) {
        self.tried = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The milliseconds of a silence at which ICE is restarted.
    fn tries(mut silence: Silence, role: Role, is_answered: bool) -> Vec<u128> {
        let begin = silence.since;
        let mut tries = Vec::new();
        loop {
            let due = silence.due(role, is_answered);
            if due >= begin + Duration::from_secs(10) {
                return tries;
            }
            silence.tries(due);
            tries.push((due - begin).as_millis());
        }
    }

    fn silence() -> Silence {
        Silence::sure(Instant::now())
    }

    #[test]
    fn the_initiator_tries_first_and_both_again_and_again() {
        assert_eq!(tries(silence(), Role::Initiator, false), [0, 2500, 5000, 7500]);
        assert_eq!(tries(silence(), Role::Answerer, false), [2000, 4500, 7000, 9500]);
    }

    #[test]
    fn what_was_answered_has_longer_to_bear_fruit() {
        assert_eq!(tries(silence(), Role::Initiator, true), [0, 5500]);
    }

    #[test]
    fn who_knows_why_begins_at_once() {
        let mut silence = silence();
        silence.tries(silence.since + SECOND);
        silence.starts_over();
        assert_eq!(tries(silence, Role::Answerer, true), [0, 5500]);
    }

    #[test]
    fn the_application_is_told_once_and_only_when_it_is_sure() {
        let now = Instant::now();
        let mut silence = Silence::sure(now);
        assert!(silence.tells(now) && silence.is_told() && !silence.tells(now));
        let mut silence = Silence::doubtful(now);
        assert!(!silence.tells(now) && silence.next(Role::Initiator, true) == now + DOUBT);
        assert!(silence.tells(now + DOUBT));
        let mut silence = Silence::unnoticed(now, SECOND);
        assert_eq!(silence.next(Role::Initiator, true), now, "looks for a way at once");
        silence.tries(now);
        assert_eq!(silence.next(Role::Initiator, true), now + SECOND);
        assert!(silence.tells(now + SECOND));
    }
}
