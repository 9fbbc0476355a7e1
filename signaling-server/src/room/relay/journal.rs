//! What a room has asked the store to keep, and who waits to be told that it is kept.
//!
//! An append that fails leaves a *gap* in the log: what comes after it may build on what is missing. From then on
//! nothing is acknowledged until a snapshot of the whole room, taken after the failure, is stored.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use wire::id::BatchId;

use super::{Generation, Limits, Seq, Ticket, WriteError, Written};
use crate::room::ConnectionId;

/// Where the log of a room begins.
const FIRST: Seq = Seq(1);
/// The longest time between two attempts to close a gap.
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Journal {
    minted: u64,
    /// Batches that are not acknowledged yet, the oldest first.
    waiting: VecDeque<Waiting>,
    gap: Option<Gap>,
    snapshot: Snapshot,
    /// Writes that failed so far: a snapshot closes a gap if there were no more since it was taken.
    failures: u64,
    generation: Option<Generation>,
    /// The last place in the log that is known to be taken.
    through: Seq,
    /// Bytes stored of the room, by its last word.
    size: Size,
    /// A snapshot could not be stored: the log has to be longer than this before the next one is tried.
    postponed: u64,
}

/// A batch and its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::room) struct Receipt {
    pub(in crate::room) who: ConnectionId,
    pub(in crate::room) batch: BatchId,
    /// When it, or the first word of it, came.
    pub(in crate::room) arrived: Instant,
}

#[derive(Debug)]
struct Waiting {
    /// What the store answers under; nothing for a batch that holds no news, and waits only for those before it.
    ticket: Option<Ticket>,
    who: ConnectionId,
    /// Who is to be told; nobody, if its sender has been refused for another reason.
    receipt: Option<Receipt>,
    stored: bool,
}

#[derive(Debug)]
struct Gap {
    retry_at: Instant,
    delay: Duration,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Snapshot {
    #[default]
    None,
    /// Asked of the room.
    Wanted,
    /// Given to the store, with so many failures before.
    Given(Ticket, u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Size {
    snapshot: u64,
    log: u64,
}

/// What the answer to an append means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Settled {
    /// As expected; see [`Journal::acknowledged`].
    Kept,
    /// This batch is not stored, and the store said why.
    Lost { who: ConnectionId, receipt: Option<Receipt>, error: WriteError },
    /// Somebody else has changed what is stored: the room has to load again.
    Changed,
}

impl Journal {
    pub(super) fn new() -> Self {
        Self {
            minted: 0,
            waiting: VecDeque::new(),
            gap: None,
            snapshot: Snapshot::None,
            failures: 0,
            generation: None,
            through: Seq(0),
            size: Size::default(),
            postponed: 0,
        }
    }

    /// Which life of the room is known to be stored.
    pub(super) fn generation(&self) -> Option<Generation> {
        self.generation
    }

    /// Everything in the store is known, and the room is what is in the store.
    /// `sizes` are bytes of the snapshot and of the log.
    pub(super) fn loaded(&mut self, generation: Option<Generation>, through: Seq, sizes: (u64, u64)) {
        let (snapshot, log) = sizes;
        self.generation = generation;
        self.through = through;
        self.size = Size { snapshot, log };
        self.gap = None;
        self.snapshot = Snapshot::None;
    }

    /// A batch is given to the store under this ticket.
    pub(super) fn append(&mut self, who: ConnectionId, receipt: Option<Receipt>) -> Ticket {
        let ticket = self.mint();
        self.waiting.push_back(Waiting { ticket: Some(ticket), who, receipt, stored: false });
        ticket
    }

    /// A batch holds nothing new: it is as safe as what was appended before it.
    pub(super) fn follow(&mut self, receipt: Receipt) {
        let waiting = Waiting { ticket: None, who: receipt.who, receipt: Some(receipt), stored: true };
        self.waiting.push_back(waiting);
    }

    fn mint(&mut self) -> Ticket {
        self.minted += 1;
        Ticket(self.minted)
    }

    /// The store has answered an append.
    pub(super) fn appended(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Written, WriteError>,
        limits: &Limits,
    ) -> Settled {
        let place = self.waiting.iter().position(|waiting| waiting.ticket == Some(ticket));
        match result {
            Ok(written) => {
                if let Some(waiting) = place.and_then(|place| self.waiting.get_mut(place)) {
                    waiting.stored = true;
                }
                let began = written.seq == FIRST && written.snapshot == 0;
                // Nothing was stored when the room was loaded, and by now it is more than this batch.
                let other = place.is_some() && self.generation.is_none() && !began;
                let settled = self.note(written);
                if other { Settled::Changed } else { settled }
            }
            Err(error) => {
                self.fail(now, limits);
                let lost = place.and_then(|place| self.waiting.remove(place));
                lost.map_or(Settled::Kept, |lost| Settled::Lost {
                    who: lost.who,
                    receipt: lost.receipt,
                    error,
                })
            }
        }
    }

    fn fail(&mut self, now: Instant, limits: &Limits) {
        self.failures += 1;
        let delay = limits.retry;
        self.gap.get_or_insert(Gap { retry_at: now + delay, delay });
    }

    fn note(&mut self, written: Written) -> Settled {
        self.size = Size { snapshot: written.snapshot, log: written.log };
        self.through = self.through.max(written.seq);
        match self.generation.replace(written.generation) {
            Some(generation) if generation != written.generation => Settled::Changed,
            _ => Settled::Kept,
        }
    }

    /// The next batch that may be acknowledged. To be asked until it says `None`.
    pub(super) fn acknowledged(&mut self) -> Option<Receipt> {
        while self.gap.is_none() && self.waiting.front()?.stored {
            let waiting = self.waiting.pop_front()?;
            if waiting.receipt.is_some() {
                return waiting.receipt;
            }
        }
        None
    }

    /// Whether something that was taken is not stored, so that nothing more should be taken.
    pub(super) fn has_gap(&self) -> bool {
        self.gap.is_some()
    }

    /// Whether the room should be asked for a snapshot now: to close a gap, or because the log has grown long.
    pub(super) fn wants_snapshot(&mut self, now: Instant, compacts: bool, limits: &Limits) -> bool {
        let Size { snapshot, log } = self.size;
        // A room that is about to be full is made shorter before it has to refuse anything.
        let crowded = snapshot + log > limits.room - limits.room / 8;
        let enough = if crowded { limits.compact_after } else { limits.compact_after.max(snapshot) };
        let long = compacts && log > enough.max(self.postponed);
        let due = self.gap.as_ref().map_or(long, |gap| gap.retry_at <= now);
        let wanted = due && self.snapshot == Snapshot::None;
        if wanted {
            self.snapshot = Snapshot::Wanted;
        }
        wanted
    }

    /// The room has made a snapshot. The ticket to store it under, the life of the room that it is of, and the last
    /// place in the log that it covers for certain.
    pub(super) fn snapshot(&mut self) -> (Ticket, Option<Generation>, Seq) {
        let ticket = self.mint();
        self.snapshot = Snapshot::Given(ticket, self.failures);
        (ticket, self.generation, self.through)
    }

    /// The store has answered a snapshot.
    pub(super) fn compacted(
        &mut self,
        now: Instant,
        ticket: Ticket,
        result: Result<Written, WriteError>,
    ) -> Settled {
        let Snapshot::Given(expected, failures) = self.snapshot else { return Settled::Kept };
        if expected != ticket {
            return Settled::Kept;
        }
        self.snapshot = Snapshot::None;
        match result {
            Ok(written) => {
                self.postponed = 0;
                if failures == self.failures {
                    self.gap = None;
                } else if let Some(gap) = &mut self.gap {
                    gap.retry_at = now;
                }
                self.note(written)
            }
            Err(_) => {
                if let Some(gap) = &mut self.gap {
                    gap.delay = (gap.delay * 2).min(SLOWEST_RETRY);
                    gap.retry_at = now + gap.delay;
                } else {
                    self.postponed = 2 * self.size.log;
                }
                Settled::Kept
            }
        }
    }

    /// What has been taken is forgotten, to be loaded again. Those whose batches are not known to be in the log
    /// before everything that they build on.
    pub(super) fn forget(&mut self) -> Vec<Receipt> {
        self.gap = None;
        self.snapshot = Snapshot::None;
        self.generation = None;
        self.waiting.drain(..).filter_map(|waiting| waiting.receipt).collect()
    }

    /// Whether the store still owes an answer to an append.
    pub(super) fn is_writing(&self) -> bool {
        self.waiting.iter().any(|waiting| !waiting.stored)
    }

    /// Whether somebody still waits for something. In a gap nobody does once the store has answered: what it lacks
    /// has been acknowledged to nobody, and those who have it bring it again.
    pub(super) fn is_idle(&self) -> bool {
        let answered = if self.has_gap() { !self.is_writing() } else { self.waiting.is_empty() };
        answered && self.snapshot == Snapshot::None
    }

    /// Whether so many bytes more are too many.
    pub(super) fn is_full(&self, more: usize, limits: &Limits) -> bool {
        self.stored() + more as u64 > limits.room
    }

    /// Bytes stored of the room, by the store's last word.
    pub(super) fn stored(&self) -> u64 {
        self.size.snapshot + self.size.log
    }

    /// When a snapshot is to be tried again.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.gap.as_ref().filter(|_| self.snapshot == Snapshot::None).map(|gap| gap.retry_at)
    }
}
