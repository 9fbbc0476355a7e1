//! Which version of its room's document a reviewer holds.

use std::collections::BTreeSet;

use loro::VersionVector;

use super::author::{PLANNER, peer, seat};

/// How far a reviewer has everybody's annotations, without a hole, and what came before its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holds {
    /// How much of the plan.
    plan: i32,
    /// How many annotations of each seat.
    next: Box<[u32]>,
    early: BTreeSet<(u32, u32)>,
}

/// How an annotation comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Came {
    /// As the next of its author.
    InOrder,
    /// Before an earlier one of the same author.
    Early,
    /// For the second time.
    Again,
}

impl Holds {
    /// Nothing, in a room of so many seats.
    pub(super) fn nothing(seats: u32) -> Self {
        Self { plan: 0, next: vec![0; seats as usize].into(), early: BTreeSet::new() }
    }

    /// An annotation has come; the seat is one of the room's.
    pub(super) fn take(&mut self, seat: u32, sequence: u32) -> Came {
        let place = &mut self.next[seat as usize];
        if sequence < *place || self.early.contains(&(seat, sequence)) {
            return Came::Again;
        }
        if sequence > *place {
            self.early.insert((seat, sequence));
            return Came::Early;
        }
        *place += 1;
        self.close_up(seat);
        Came::InOrder
    }

    /// An update has come that leads from one version to another; whether all of it follows on what is held. What
    /// does not is not taken for held, and what nobody in the room wrote is none of ours.
    pub(super) fn take_range(&mut self, from: &VersionVector, to: &VersionVector) -> bool {
        let mut follows = true;
        for (peer, end) in to.iter() {
            let start = from.get(peer).copied().unwrap_or(0);
            if *peer == PLANNER {
                follows &= start <= self.plan;
                self.plan = self.plan.max(*end);
            } else if let Some(place) = seat(*peer).and_then(|seat| self.next.get_mut(seat as usize)) {
                if unsigned(start) > *place {
                    follows = false;
                    continue;
                }
                *place = (*place).max(unsigned(*end));
            }
        }
        for seat in 0..self.next.len() {
            self.close_up(seat as u32);
        }
        follows
    }

    /// Takes in what came early and is next now.
    fn close_up(&mut self, seat: u32) {
        if self.early.is_empty() {
            return;
        }
        let mut next = self.of(seat);
        while self.early.remove(&(seat, next)) {
            next += 1;
        }
        self.next[seat as usize] = next;
        self.early.retain(|(other, sequence)| *other != seat || *sequence >= next);
    }

    /// How many annotations of a seat are held without a hole.
    pub(super) fn of(&self, seat: u32) -> u32 {
        self.next.get(seat as usize).copied().unwrap_or(0)
    }

    /// Whether one annotation is held.
    pub(super) fn has(&self, seat: u32, sequence: u32) -> bool {
        sequence < self.of(seat) || self.early.contains(&(seat, sequence))
    }

    /// Whether all of a version is held.
    pub(super) fn includes(&self, version: &VersionVector) -> bool {
        version.iter().all(|(peer, end)| match seat(*peer) {
            Some(seat) => self.of(seat) >= unsigned(*end),
            None => *peer != PLANNER || self.plan >= *end,
        })
    }

    /// The same as Loro says it.
    pub(super) fn version(&self) -> VersionVector {
        let seats = (0..).zip(self.next.iter()).filter(|(_, next)| **next > 0);
        let annotations = seats.map(|(seat, next)| (peer(seat), i32::try_from(*next).unwrap_or(i32::MAX)));
        let plan = (self.plan > 0).then_some((PLANNER, self.plan));
        plan.into_iter().chain(annotations).collect()
    }
}

fn unsigned(counter: i32) -> u32 {
    u32::try_from(counter).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(of: &[(u64, i32)]) -> VersionVector {
        of.iter().copied().collect()
    }

    #[test]
    fn annotations_come_in_order_early_or_again_and_holes_close() {
        let mut holds = Holds::nothing(4);
        assert_eq!(holds.take(3, 0), Came::InOrder);
        assert_eq!(holds.take(3, 2), Came::Early);
        assert_eq!((holds.of(3), holds.has(3, 1), holds.has(3, 2)), (1, false, true));
        assert_eq!(holds.take(3, 2), Came::Again);
        assert_eq!(holds.take(3, 1), Came::InOrder);
        assert_eq!((holds.of(3), holds.take(3, 0)), (3, Came::Again));
    }

    #[test]
    fn a_range_fills_in_and_what_does_not_follow_is_told() {
        let mut holds = Holds::nothing(4);
        assert!(holds.take_range(&version(&[]), &version(&[(PLANNER, 900), (peer(0), 4)])));
        assert_eq!(holds.version(), version(&[(PLANNER, 900), (peer(0), 4)]));
        assert!(!holds.take_range(&version(&[(peer(0), 6)]), &version(&[(peer(0), 8)])));
        assert_eq!((holds.of(0), holds.has(0, 7)), (4, false));
        assert_eq!(holds.take(0, 6), Came::Early);
        assert!(holds.take_range(&version(&[(peer(0), 3)]), &version(&[(peer(0), 6), (peer(9), 5)])));
        assert_eq!(holds.of(0), 7);
    }

    #[test]
    fn a_version_is_included_when_nothing_of_it_is_missing() {
        let mut holds = Holds::nothing(4);
        holds.take_range(&version(&[]), &version(&[(PLANNER, 10), (peer(2), 2)]));
        assert!(holds.includes(&version(&[(PLANNER, 10), (peer(2), 1)])));
        assert!(!holds.includes(&version(&[(PLANNER, 11)])));
        assert!(!holds.includes(&version(&[(peer(0), 1)])));
    }
}
