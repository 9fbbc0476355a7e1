//! What the disk is known to hold.
//!
//! Nothing is queued for the disk either: what it is owed is the difference between our version and the one that it
//! holds. One write is under way at a time, and what gathers meanwhile goes into the next.

use std::time::{Duration, Instant};

use bytes::Bytes;
use loro::VersionVector;

use super::replica::{Replica, exceeds};
use super::vocabulary::{Output, Ticket};

/// The log becomes a snapshot when it is longer than this and than the last snapshot, in bytes.
const COMPACT_AFTER: usize = 256 << 10;
/// How long to wait after a failure, at first and at most.
const RETRY: Duration = Duration::from_secs(1);
const SLOWEST_RETRY: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(super) struct Journal {
    stored: VersionVector,
    writing: Option<Write>,
    minted: u64,
    log: usize,
    snapshot: usize,
    retry: Option<(Instant, Duration)>,
}

#[derive(Debug)]
struct Write {
    ticket: Ticket,
    version: VersionVector,
    len: usize,
    compacts: bool,
}

impl Journal {
    /// The disk holds this version, in a log of so many bytes.
    pub(super) fn new(stored: VersionVector, log: usize) -> Self {
        Self { stored, writing: None, minted: 0, log, snapshot: 0, retry: None }
    }

    /// What the disk holds cannot be relied upon: all of it is written again. What is under way counts for nothing.
    pub(super) fn start_over(&mut self) {
        self.stored = VersionVector::default();
        if let Some(write) = &mut self.writing {
            write.version = VersionVector::default();
        }
    }

    pub(super) fn holds(&self, version: &VersionVector) -> bool {
        !exceeds(version, &self.stored)
    }

    /// What to write now, if anything.
    pub(super) fn write(&mut self, now: Instant, replica: &mut Replica) -> Option<Output> {
        let waits = self.writing.is_some() || self.retry.is_some_and(|(at, _)| at > now);
        let compacts = self.log > COMPACT_AFTER.max(self.snapshot);
        if waits || self.holds(replica.version()) && !compacts {
            return None;
        }
        self.minted += 1;
        let ticket = Ticket(self.minted);
        let known = if compacts { &VersionVector::default() } else { &self.stored };
        let update = replica.since(known);
        self.writing =
            Some(Write { ticket, version: replica.version().clone(), len: update.len(), compacts });
        Some(match compacts {
            true => Output::Compact { ticket, snapshot: update },
            false => Output::Append { ticket, update },
        })
    }

    /// The disk has answered. Whether it keeps what it was given.
    pub(super) fn answered(&mut self, now: Instant, ticket: Ticket, kept: bool) -> bool {
        let Some(write) = self.writing.take_if(|write| write.ticket == ticket) else { return true };
        if !kept {
            let delay = self.retry.map_or(RETRY, |(_, delay)| (delay * 2).min(SLOWEST_RETRY));
            self.retry = Some((now + delay, delay));
            return false;
        }
        self.retry = None;
        self.stored = write.version;
        if write.compacts {
            (self.snapshot, self.log) = (write.len, 0);
        } else {
            self.log += write.len;
        }
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let (at, _) = self.retry?;
        self.writing.is_none().then_some(at)
    }
}

/// The size of updates, for [`Journal::new`].
pub(super) fn len(updates: &[Bytes]) -> usize {
    updates.iter().map(Bytes::len).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use loro::{ExportMode, LoroDoc};

    fn edited(replica: &mut Replica, doc: &LoroDoc, text: &str) {
        doc.get_text("t").push_str(text).unwrap();
        doc.commit();
        replica.import(&doc.export(ExportMode::updates(replica.version())).unwrap()).unwrap();
    }

    fn ticket(output: Option<Output>) -> (Ticket, Bytes) {
        match output {
            Some(Output::Append { ticket, update }) => (ticket, update),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_gathers_during_a_write_goes_into_the_next_one() {
        let (now, doc, mut replica) = (Instant::now(), LoroDoc::new(), Replica::new());
        let mut journal = Journal::new(VersionVector::default(), 0);
        assert_eq!(journal.write(now, &mut replica), None);
        edited(&mut replica, &doc, "a");
        let (first, _) = ticket(journal.write(now, &mut replica));
        edited(&mut replica, &doc, "b");
        edited(&mut replica, &doc, "c");
        assert_eq!(journal.write(now, &mut replica), None, "one at a time");
        assert!(journal.answered(now, first, true));
        assert!(!journal.holds(replica.version()));
        let (second, _) = ticket(journal.write(now, &mut replica));
        assert!(journal.answered(now, second, true));
        assert!(journal.holds(replica.version()));
        assert_eq!(journal.write(now, &mut replica), None);
    }

    #[test]
    fn what_the_disk_refused_is_written_again_after_a_while() {
        let (now, doc, mut replica) = (Instant::now(), LoroDoc::new(), Replica::new());
        let mut journal = Journal::new(VersionVector::default(), 0);
        edited(&mut replica, &doc, "a");
        let (first, update) = ticket(journal.write(now, &mut replica));
        assert!(!journal.answered(now, first, false));
        assert_eq!(journal.write(now, &mut replica), None);
        let (_, again) = ticket(journal.write(now + RETRY, &mut replica));
        assert_eq!(update, again);
    }

    #[test]
    fn what_was_under_way_when_all_is_written_again_counts_for_nothing() {
        let (now, doc, mut replica) = (Instant::now(), LoroDoc::new(), Replica::new());
        let mut journal = Journal::new(VersionVector::default(), 0);
        edited(&mut replica, &doc, "a");
        let (first, _) = ticket(journal.write(now, &mut replica));
        journal.start_over();
        assert_eq!(journal.write(now, &mut replica), None, "the disk has one thing to do at a time");
        assert!(journal.answered(now, first, true));
        assert!(!journal.holds(replica.version()));
        let (second, _) = ticket(journal.write(now, &mut replica));
        assert_ne!(first, second);
        assert!(journal.answered(now, second, true));
        assert!(journal.holds(replica.version()));
    }

    #[test]
    fn a_long_log_becomes_a_snapshot() {
        let (now, doc, mut replica) = (Instant::now(), LoroDoc::new(), Replica::new());
        edited(&mut replica, &doc, "a");
        let mut journal = Journal::new(replica.version().clone(), COMPACT_AFTER + 1);
        let Some(Output::Compact { ticket, snapshot }) = journal.write(now, &mut replica) else { panic!() };
        let again = LoroDoc::new();
        again.import(&snapshot).unwrap();
        assert_eq!(again.get_text("t").to_string(), "a");
        assert!(journal.answered(now, ticket, true));
        assert_eq!(journal.write(now, &mut replica), None);
    }
}
