//! The engine's own copy of the document.
//!
//! It is detached: it has all history and never computes what the document looks like, so that an import takes
//! microseconds where the application's may take seconds. A hostile update can still make Loro panic; then the copy is
//! thrown away and made anew of what the application and the disk have.

use std::fmt;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use loro::{Counter, ExportMode, ID, IdSpan, LoroDoc, PeerID, VersionVector};
use wire::vetting::weigh;

/// Bytes that may wait for what they build on. When there are more, all of them are let go.
const MOST_PENDING: usize = 16 << 20;

/// About how much memory an update of somebody else may take.
const MOST_UNPACKED: u64 = 1 << 30;

pub(super) struct Replica {
    doc: LoroDoc,
    version: VersionVector,
    /// Bytes of updates that were not complete when they came.
    pending: usize,
    /// The last export and what it was of, for links that are owed the same.
    last: Option<(Vec<IdSpan>, Bytes)>,
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replica").field("peers", &self.version.len()).finish_non_exhaustive()
    }
}

/// What an import did.
#[derive(Debug)]
pub(super) struct Imported {
    /// Who sends this holds so much at least.
    pub(super) covers: VersionVector,
    /// How far those got who got further by it.
    pub(super) gained: VersionVector,
    /// Something waits for what it builds on.
    pub(super) pending: bool,
}

/// Why nothing was imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no update.
    Malformed,
    /// It broke the document: nothing works any more until [`Replica::restore`].
    Broken,
}

impl Replica {
    pub(super) fn new() -> Self {
        Self { doc: detached(), version: VersionVector::default(), pending: 0, last: None }
    }

    pub(super) fn version(&self) -> &VersionVector {
        &self.version
    }

    /// What comes from somebody else is weighed before Loro reads it, which believes what it is told.
    pub(super) fn take(&mut self, update: &Bytes) -> Result<Imported, Refused> {
        match weigh(update, MOST_UNPACKED) {
            Ok(weight) if weight <= MOST_UNPACKED => self.import(update),
            _ => Err(Refused::Malformed),
        }
    }

    pub(super) fn import(&mut self, update: &[u8]) -> Result<Imported, Refused> {
        #[cfg(test)]
        let poison = tests::is_poison(update);
        let doc = &self.doc;
        // The document is outside of the closure: one that is dropped while unwinding aborts the process.
        let imported = catch_unwind(AssertUnwindSafe(|| {
            #[cfg(test)]
            assert!(!poison, "poisoned on purpose");
            let covers = LoroDoc::decode_import_blob_meta(update, false).ok()?.partial_end_vv;
            let status = doc.import(update).ok()?;
            Some((covers, status.pending.is_some(), doc.oplog_vv()))
        }));
        match imported {
            Err(_) => Err(Refused::Broken),
            Ok(None) => Err(Refused::Malformed),
            Ok(Some((covers, pending, version))) => Ok(self.imported(update.len(), covers, pending, version)),
        }
    }

    fn imported(
        &mut self,
        len: usize,
        covers: VersionVector,
        pending: bool,
        version: VersionVector,
    ) -> Imported {
        let gained: VersionVector =
            missing(&version, &self.version).iter().map(|span| (span.peer, span.counter.end)).collect();
        self.version = version;
        if !gained.is_empty() {
            self.last = None;
        }
        if pending {
            self.pending += len;
            if self.pending > MOST_PENDING {
                self.shed();
            }
        }
        Imported { covers, gained, pending }
    }

    /// Lets go of everything that waits.
    fn shed(&mut self) {
        let all = self.since(&VersionVector::default());
        let fresh = detached();
        if fresh.import(&all).is_ok() {
            self.doc = fresh;
        }
        self.pending = 0;
    }

    #[cfg(test)]
    pub(super) fn is_within_bounds(&self) -> bool {
        self.pending <= MOST_PENDING
    }

    /// Everything that somebody with this version lacks.
    pub(super) fn since(&mut self, known: &VersionVector) -> Bytes {
        let spans = missing(&self.version, known);
        self.spans(spans)
    }

    /// These changes, all of which are here.
    pub(super) fn spans(&mut self, mut spans: Vec<IdSpan>) -> Bytes {
        spans.sort_unstable_by_key(|span| (span.peer, span.counter.start));
        if let Some((same, update)) = &self.last
            && *same == spans
        {
            return update.clone();
        }
        let mode = ExportMode::updates_in_range(&spans[..]);
        let update: Bytes = self.doc.export(mode).expect("changes that are here can be exported").into();
        self.last = Some((spans, update.clone()));
        update
    }

    /// Starts over with these updates, as far as they can be read.
    pub(super) fn restore(&mut self, updates: &[Bytes]) {
        let broken = mem::replace(self, Self::new());
        // Its locks are poisoned, so that letting go of it panics too.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(broken)));
        for update in updates {
            if self.import(update) == Err(Refused::Broken) {
                return self.restore(&[]);
            }
        }
    }
}

impl PartialEq for Imported {
    fn eq(&self, other: &Self) -> bool {
        (&self.covers, &self.gained, self.pending) == (&other.covers, &other.gained, other.pending)
    }
}

fn detached() -> LoroDoc {
    let doc = LoroDoc::new();
    doc.detach();
    doc
}

/// What is in the one version and not in the other.
pub(crate) fn missing(ours: &VersionVector, known: &VersionVector) -> Vec<IdSpan> {
    let spans = ours.iter().filter_map(|(peer, end)| {
        let start = counter(known, *peer);
        (*end > start).then(|| IdSpan::new(*peer, start, *end))
    });
    spans.collect()
}

/// Whether the one version has anything that the other has not.
pub(super) fn exceeds(theirs: &VersionVector, ours: &VersionVector) -> bool {
    theirs.iter().any(|(peer, end)| *end > counter(ours, *peer))
}

/// Whether a version has anything that neither of two others has.
pub(super) fn exceeds_both(version: &VersionVector, one: &VersionVector, other: &VersionVector) -> bool {
    version.iter().any(|(peer, end)| *end > counter(one, *peer).max(counter(other, *peer)))
}

pub(super) fn counter(version: &VersionVector, peer: PeerID) -> Counter {
    version.get(&peer).copied().unwrap_or(0).max(0)
}

/// Makes the one version at least as far as the other.
pub(super) fn raise(version: &mut VersionVector, by: &VersionVector) {
    for (peer, end) in by.iter() {
        if *end > counter(version, *peer) {
            version.set_end(ID::new(*peer, *end));
        }
    }
}

/// A version as somebody claims it: one that makes no sense is an empty one.
pub(super) fn claimed(version: &[u8]) -> VersionVector {
    if version.is_empty() {
        return VersionVector::default();
    }
    let claimed = VersionVector::decode(version).unwrap_or_default();
    claimed.iter().filter(|(_, end)| **end > 0).map(|(peer, end)| (*peer, *end)).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::engine::tests::vectors;

    /// An update that makes the document panic.
    pub(in crate::engine) const POISON: &[u8] = b"poison";

    pub(super) fn is_poison(update: &[u8]) -> bool {
        update == POISON
    }

    fn author(peer: u64) -> LoroDoc {
        let doc = LoroDoc::new();
        doc.set_peer_id(peer).unwrap();
        doc
    }

    fn write(doc: &LoroDoc, text: &str) -> Vec<u8> {
        let before = doc.oplog_vv();
        doc.get_text("t").push_str(text).unwrap();
        doc.commit();
        doc.export(ExportMode::updates(&before)).unwrap()
    }

    /// An update that says of itself that it has 2^60 changes, under the right checksum.
    fn lying() -> Bytes {
        let mut update = write(&author(1), "hello");
        // Behind the header stands the length of the only block, and in that a peer's counter and clock, how far they
        // go, and the number of changes, each in one byte here.
        let changes = 22 + 1 + 4;
        assert_eq!(update[changes], 1);
        update.splice(changes..=changes, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x10]);
        update[22] += 8;
        let checksum = xxhash_rust::xxh32::xxh32(&update[20..], u32::from_le_bytes(*b"LORO"));
        update[16..20].copy_from_slice(&checksum.to_le_bytes());
        update.into()
    }

    #[test]
    fn an_update_that_lies_about_how_much_it_holds_is_refused_before_loro_believes_it() {
        let mut replica = Replica::new();
        assert_eq!(replica.take(&lying()).unwrap_err(), Refused::Malformed);
        assert!(replica.take(&write(&author(2), "hello").into()).is_ok());
    }

    #[test]
    fn an_import_says_what_its_sender_holds_and_whether_it_was_news() {
        let (ana, mut replica) = (author(1), Replica::new());
        let update = write(&ana, "hello");
        let first = replica.import(&update).unwrap();
        assert!(counter(&first.gained, 1) == 5 && !first.pending);
        assert_eq!(counter(&first.covers, 1), 5);
        assert!(replica.import(&update).unwrap().gained.is_empty());
    }

    #[test]
    fn what_waits_is_let_go_when_it_is_too_much() {
        let (ana, mut replica) = (author(1), Replica::new());
        let first = write(&ana, "first");
        let mut filler: u64 = 1;
        for _ in 0..20 {
            let noise: String = (0..1 << 20)
                .map(|_| {
                    filler = filler.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    char::from(b'!' + (filler >> 58) as u8)
                })
                .collect();
            let later = write(&ana, &noise);
            assert!(replica.import(&later).unwrap().pending);
        }
        assert!(replica.pending < MOST_PENDING);
        replica.import(&first).unwrap();
        assert!(counter(replica.version(), 1) < counter(&ana.oplog_vv(), 1), "the first of them are gone");
    }

    #[test]
    fn a_panic_is_caught_and_the_document_made_anew() {
        let (ana, mut replica) = (author(1), Replica::new());
        let update = Bytes::from(write(&ana, "hello"));
        assert_eq!(replica.import(POISON).unwrap_err(), Refused::Broken);
        replica.restore(&[update]);
        assert_eq!(*replica.version(), ana.oplog_vv());
    }

    #[test]
    fn every_implementation_reads_and_writes_the_same_versions() {
        for case in vectors::cases("version", "cases") {
            let entries = case["version"].as_array().unwrap();
            let version: VersionVector = entries.iter().map(vectors::counter).collect();
            let bytes = vectors::bytes(&case["bytes"]);
            assert_eq!(claimed(&bytes), version);
            // In what order the authors are written is left open.
            assert_eq!((claimed(&version.encode()), version.encode().len()), (version, bytes.len()));
        }
        for case in vectors::cases("version", "malformed") {
            assert!(claimed(&vectors::bytes(&case)).is_empty(), "{case}");
        }
    }

    #[test]
    fn versions_that_make_no_sense_are_empty() {
        assert!(claimed(&[]).is_empty());
        assert!(claimed(&[0xff; 40]).is_empty());
        let negative: VersionVector = [(7, -3)].into_iter().collect();
        assert!(claimed(&negative.encode()).is_empty());
    }
}
