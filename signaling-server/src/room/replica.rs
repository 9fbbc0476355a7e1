//! The room's own copy of a Loro document, held at arm's length.
//!
//! It is detached: it has all history and never computes what the document looks like, which takes seconds where
//! imports take microseconds, and is where most hostile updates do their harm. Some still make Loro panic, so it is
//! only asked from within [`Work`](super::document::Work).

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use loro::{ExportMode, LoroDoc, VersionVector};
use wire::sync::Status;
use wire::vetting::weigh;

use super::content::{Answer, Job, Opening, Taken};
use super::document::LIGHT;
use super::relay::{Seq, parcel};

/// A detached document.
pub(super) struct Replica {
    doc: LoroDoc,
    /// About how much memory it takes, by what it was opened from or last became as a snapshot, and what came since.
    bytes: u64,
    /// What a room may take. An update that unpacks to more than twice as much is refused, since a snapshot has
    /// everything twice; so is one that would make the document longer than four times as much.
    most: u64,
    /// Where the log is being read. `None`: in the snapshot.
    reading: Option<Seq>,
    /// Everything, for newcomers that have nothing, as long as nothing is added.
    everything: Option<Bytes>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl Replica {
    /// Of an empty document.
    pub(super) fn new(most: u64) -> Self {
        Self { doc: detached(), bytes: 0, most, reading: None, everything: None }
    }

    /// Throws the document away after a panic and starts with an empty one. Says where the log was being read.
    pub(super) fn discard(&mut self) -> Option<Seq> {
        let reading = self.reading;
        let broken = mem::replace(self, Self::new(self.most));
        // Its locks are poisoned, so that letting go of it panics too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        reading
    }

    /// Whether somebody with this version lacks so much that others would notice.
    pub(super) fn is_heavy_for(&self, version: &[u8]) -> bool {
        self.estimate(version) > LIGHT
    }

    /// About how many bytes a newcomer lacks.
    fn estimate(&self, version: &[u8]) -> u64 {
        let count = |version: &VersionVector| version.values().map(|end| (*end).max(0) as u64).sum::<u64>();
        let ours = self.doc.oplog_vv();
        let (all, known) = (count(&ours), count(&common(&ours, version)));
        all.saturating_sub(known).saturating_mul(self.bytes) / all.max(1)
    }

    /// Answers. May panic, and is then to be [discarded](Self::discard).
    pub(super) fn perform(&mut self, job: &Job) -> Answer {
        match job {
            Job::Open(opening) => match self.open(opening) {
                Ok(()) => Answer::Opened { set_aside: opening.set_aside.clone() },
                Err(reason) => Answer::Unreadable(reason),
            },
            Job::Join { version, .. } => {
                let ours = self.doc.oplog_vv();
                let updates = self.difference(&ours, version);
                Answer::Joined { version: ours.encode().into(), updates }
            }
            Job::Batch(batch) => Answer::Taken(self.take(&batch.updates)),
            Job::Snapshot => Answer::Snapshot(parcel::pack(&self.snapshot())),
        }
    }

    fn open(&mut self, opening: &Opening) -> Result<(), String> {
        self.reading = None;
        for part in opening.snapshot()? {
            self.import(&part).map_err(|_| "the stored snapshot cannot be imported".to_owned())?;
            self.count(&part);
        }
        for (seq, updates) in opening.log() {
            self.reading = Some(seq);
            for update in updates? {
                let imported = self.import(&update);
                imported.map_err(|_| format!("batch {} of the log cannot be imported", seq.0))?;
                self.count(&update);
            }
        }
        Ok(())
    }

    /// Counts what is taken without asking.
    fn count(&mut self, update: &Bytes) {
        let weight = weigh(update, u64::MAX).unwrap_or(update.len() as u64);
        self.bytes = self.bytes.saturating_add(weight);
    }

    fn take(&mut self, updates: &[Bytes]) -> Taken {
        let mut taken = Taken::all(0);
        for update in updates {
            match self.take_one(update) {
                Ok(pending) => taken.pending |= pending,
                Err(status) => {
                    taken.refused = Some(status);
                    break;
                }
            }
            taken.count += 1;
        }
        taken.news = taken.count > 0;
        taken
    }

    /// Says whether some of it waits for what it builds on.
    fn take_one(&mut self, update: &Bytes) -> Result<bool, Status> {
        let weight = self.vetted(update)?;
        let pending = self.import(update).map_err(|Malformed| Status::InvalidUpdate)?;
        self.bytes = self.bytes.saturating_add(weight);
        Ok(pending)
    }

    /// What an update weighs, if it may be given to Loro, which believes what it is told.
    fn vetted(&self, update: &Bytes) -> Result<u64, Status> {
        #[cfg(test)]
        if update == tests::POISON {
            return Ok(0);
        }
        let most = self.most.saturating_mul(2);
        let weight = weigh(update, most).map_err(|_| Status::InvalidUpdate)?;
        let all = self.bytes.saturating_add(weight);
        if weight > most || all > self.most.saturating_mul(4) {
            Err(Status::PayloadTooLarge)
        } else {
            Ok(weight)
        }
    }

    /// Says whether some of it waits for what it builds on.
    fn import(&mut self, update: &[u8]) -> Result<bool, Malformed> {
        #[cfg(test)]
        tests::panic_if_asked(&self.doc, update);
        let imported = self.doc.import(update);
        // A snapshot with its history cut may attach the document that it is the first of.
        if !self.doc.is_detached() {
            self.doc.detach();
        }
        let status = imported.map_err(|_| Malformed)?;
        self.everything = None;
        Ok(status.pending.is_some())
    }

    fn difference(&mut self, ours: &VersionVector, version: &[u8]) -> Vec<Bytes> {
        let known = common(ours, version);
        let missing = if known == *ours { None } else { Some(self.since(&known)) };
        // What waits here is in no version, so nobody can say that it has it.
        missing.into_iter().chain(self.pending()).collect()
    }

    fn since(&mut self, known: &VersionVector) -> Bytes {
        if !known.is_empty() {
            return self.export(known);
        }
        if self.everything.is_none() {
            self.everything = Some(self.export(known));
        }
        self.everything.clone().unwrap_or_default()
    }

    fn export(&self, known: &VersionVector) -> Bytes {
        #[cfg(test)]
        tests::panic_if_export_is_broken(&self.doc);
        self.doc.export(ExportMode::updates(known)).expect("updates from within the history exist").into()
    }

    fn pending(&self) -> Option<Bytes> {
        let pending = self.doc.export_pending_updates().expect("what waits has been decoded before");
        pending.map(Bytes::from)
    }

    fn snapshot(&mut self) -> Vec<Bytes> {
        let everything = self.since(&VersionVector::default());
        let parts: Vec<_> = std::iter::once(everything).chain(self.pending()).collect();
        self.bytes = 0;
        parts.iter().for_each(|part| self.count(part));
        self.everything = None;
        parts
    }
}

/// What both have, of a version that somebody claims: never more than what is here, so that nothing is looked up that
/// does not exist. A version that makes no sense is an empty one.
fn common(ours: &VersionVector, version: &[u8]) -> VersionVector {
    let theirs = VersionVector::decode(version).unwrap_or_default();
    let common = ours.iter().filter_map(|(peer, ours)| {
        let end = theirs.get(peer).copied().unwrap_or(0).min(*ours);
        (end > 0).then_some((*peer, end))
    });
    common.collect()
}

/// An update that Loro refuses.
struct Malformed;

fn detached() -> LoroDoc {
    let doc = LoroDoc::new();
    doc.detach();
    doc
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::Cell;

    use super::*;

    /// An update that makes the document panic with its locks held.
    pub(in crate::room) const POISON: &[u8] = b"poison";

    thread_local! {
        /// How many of the next exports make the document panic.
        pub(in crate::room) static BROKEN_EXPORTS: Cell<u32> = const { Cell::new(0) };
    }

    pub(super) fn panic_if_asked(doc: &LoroDoc, update: &[u8]) {
        if update == POISON {
            doc.with_oplog(|_| panic!("poisoned on purpose"));
        }
    }

    pub(super) fn panic_if_export_is_broken(doc: &LoroDoc) {
        if let Some(left) = BROKEN_EXPORTS.get().checked_sub(1) {
            BROKEN_EXPORTS.set(left);
            doc.with_oplog(|_| panic!("broken on purpose"));
        }
    }

    #[test]
    fn a_document_whose_locks_are_poisoned_can_be_thrown_away() {
        let mut replica = Replica::new(u64::MAX);
        let broken = catch_unwind(AssertUnwindSafe(|| replica.import(POISON)));
        assert!(broken.is_err());
        assert!(catch_unwind(AssertUnwindSafe(|| replica.doc.oplog_vv())).is_err());
        replica.discard();
        assert!(replica.doc.oplog_vv().is_empty());
    }

    #[test]
    fn a_document_stays_detached_whatever_it_begins_with() {
        let author = LoroDoc::new();
        author.get_text("t").insert(0, "hi").unwrap();
        author.commit();
        let frontiers = author.oplog_frontiers();
        for mode in
            [ExportMode::shallow_snapshot(&frontiers), ExportMode::state_only(None), ExportMode::Snapshot]
        {
            let mut replica = Replica::new(u64::MAX);
            // Taken or not.
            let _ = replica.import(&author.export(mode).unwrap());
            assert!(replica.doc.is_detached());
        }
    }

    #[test]
    fn a_document_is_detached_and_has_all_history_and_no_state() {
        let author = LoroDoc::new();
        author.get_text("t").insert(0, "hi").unwrap();
        let mut replica = Replica::new(u64::MAX);
        assert!(matches!(replica.import(&author.export(ExportMode::Snapshot).unwrap()), Ok(false)));
        assert!(replica.doc.is_detached());
        assert_eq!(replica.doc.oplog_vv(), author.oplog_vv());
        assert_eq!(replica.doc.get_text("t").to_string(), "");
    }
}
