//! One reviewer: where it is in its day, what it holds, and whom it sees.

use std::{
    collections::VecDeque,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use loro::VersionVector;
use rand::{SeedableRng, rngs::StdRng};
use wire::fragment::{FragmentLimits, Reassembly};

use super::{author::Author, holds::Holds, presence::Sight, room::Piece};

/// A plan may be that long when it comes in fragments.
const LARGEST: usize = 1 << 30;

/// A reviewer, or the newcomer who looks at a room when all is over.
pub(super) struct Person {
    /// Its room, among those of the run.
    pub(super) room: usize,
    /// Its seat there.
    pub(super) seat: u32,
    /// A newcomer has no seat of its own, shows no presence and writes nothing.
    pub(super) newcomer: bool,
    pub(super) place: Place,
    /// Whether it is to come back when it loses its connection.
    pub(super) stays: bool,
    /// Whether its day has begun.
    pub(super) begun: bool,
    /// Whether it has ever been there.
    pub(super) was_there: bool,
    /// How often it has tried to come back in vain.
    pub(super) tries: u32,
    /// When it should have begun to come, this time.
    pub(super) due: Instant,
    /// Since when it has been there, in the order of things and by the clock; the end of all things while it is not.
    pub(super) since: (u64, Instant),
    pub(super) random: StdRng,
    /// Made with the first annotation.
    pub(super) author: Option<Author>,
    /// What it sent under which batch id and has no ack for.
    pub(super) unacked: VecDeque<(u64, u32)>,
    batches: u64,
    pub(super) holds: Holds,
    pub(super) received: Vec<Piece>,
    /// The version that the server has said it has, until all of it is here.
    pub(super) owed: Option<VersionVector>,
    /// For each seat the millisecond of the latest presence: negative once it is gone, 0 when never seen.
    sees: Box<[i64]>,
    /// How often it has moved, and the millisecond of the last time.
    moved: (u32, i64),
    pub(super) fragments: Option<Box<Reassembly>>,
}

/// Where a reviewer is in its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Not there, and not on its way.
    Away,
    /// Waits for a connection.
    Connecting,
    /// Waits to be let in: into the document, and to presence.
    Joining {
        /// Whether it is in the document.
        document: bool,
        /// Whether it is in presence.
        presence: bool,
    },
    /// There.
    Present,
}

impl Person {
    /// Somebody who has not come yet, in a room of so many seats.
    pub(super) fn new(room: usize, seat: u32, seats: u32, seed: u64) -> Self {
        let now = Instant::now();
        Self {
            room,
            seat,
            newcomer: seat >= seats,
            place: Place::Away,
            stays: false,
            begun: false,
            was_there: false,
            tries: 0,
            due: now,
            since: (u64::MAX, now),
            random: StdRng::seed_from_u64(seed),
            author: None,
            unacked: VecDeque::new(),
            batches: 0,
            holds: Holds::nothing(seats),
            received: Vec::new(),
            owed: None,
            sees: vec![0; seats as usize].into(),
            moved: (0, 0),
            fragments: None,
        }
    }

    /// Whether it is there.
    pub(super) fn is_present(&self) -> bool {
        self.place == Place::Present
    }

    /// Whether what it writes can be sent: the document is open, presence need not be.
    pub(super) fn may_write(&self) -> bool {
        matches!(self.place, Place::Present | Place::Joining { document: true, .. })
    }

    /// The connection is gone, and with it what only lives as long: whom it sees, and what is half there.
    pub(super) fn gone(&mut self) {
        self.place = Place::Away;
        self.since.0 = u64::MAX;
        self.unacked.clear();
        self.owed = None;
        self.sees.fill(0);
        self.fragments = None;
    }

    /// The id of its next update.
    pub(super) fn next_batch(&mut self) -> u64 {
        self.batches += 1;
        self.batches
    }

    /// The number and the millisecond of its next move. No two have the same millisecond: of such, stores of Loro keep
    /// the first.
    pub(super) fn next_move(&mut self) -> (u32, i64) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let millisecond = i64::try_from(now.as_millis()).unwrap_or(i64::MAX).max(self.moved.1 + 1);
        self.moved = (self.moved.0 + 1, millisecond);
        self.moved
    }

    /// Takes in what it is told about somebody; whether that was news.
    pub(super) fn sees(&mut self, sight: Sight) -> bool {
        let Some(known) = self.sees.get_mut(sight.seat as usize) else { return false };
        if known.abs() >= sight.millisecond {
            return false;
        }
        *known = if sight.stamp.is_some() { sight.millisecond } else { -sight.millisecond };
        true
    }

    /// Whether it sees who sits there.
    pub(super) fn sees_seat(&self, seat: u32) -> bool {
        self.sees.get(seat as usize).is_some_and(|millisecond| *millisecond > 0)
    }

    /// Where fragments are put together.
    pub(super) fn fragments(&mut self) -> &mut Reassembly {
        self.fragments.get_or_insert_with(|| {
            let limits = FragmentLimits {
                update: LARGEST,
                pending: LARGEST,
                fragments: LARGEST / 1024,
                ..FragmentLimits::default()
            };
            Box::new(Reassembly::new(limits))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stamp::Stamp;

    fn sight(millisecond: i64, there: bool) -> Sight {
        let stamp = there.then_some(Stamp { sender: 1, sequence: 0, due: 0 });
        Sight { seat: 1, millisecond, stamp }
    }

    #[test]
    fn the_latest_word_about_somebody_holds() {
        let mut person = Person::new(0, 0, 2, 0);
        assert!(!person.sees_seat(1));
        assert!(person.sees(sight(10, true)));
        assert!(!person.sees(sight(9, false)));
        assert!(person.sees_seat(1));
        assert!(person.sees(sight(11, false)));
        assert!(!person.sees(sight(11, true)));
        assert!(!person.sees_seat(1));
        assert!(person.sees(sight(12, true)) && person.sees_seat(1));
        person.gone();
        assert!(!person.sees_seat(1));
        assert!(!person.sees(Sight { seat: 9, ..sight(1, true) }));
    }

    #[test]
    fn no_two_moves_have_the_same_millisecond() {
        let mut person = Person::new(0, 0, 1, 0);
        let moves: Vec<_> = (0..100).map(|_| person.next_move()).collect();
        assert!(moves.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0 && pair[0].1 < pair[1].1));
    }
}
