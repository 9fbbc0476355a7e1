//! What a reviewer writes: annotations in a document that holds nothing else of its own.

use bytes::Bytes;
use loro::{ExportMode, LoroDoc, PeerID, VersionVector};

use crate::stamp::Stamp;

/// The map that annotations go to.
const MAP: &str = "annotations";
/// Who wrote the plan.
pub(super) const PLANNER: PeerID = 1;

/// The Loro peer of a seat. A reviewer keeps it when it comes back, as an open page does.
pub(super) fn peer(seat: u32) -> PeerID {
    PeerID::from(seat) + PLANNER + 1
}

/// The seat of a Loro peer; `None` for the one who wrote the plan.
pub(super) fn seat(peer: PeerID) -> Option<u32> {
    peer.checked_sub(PLANNER + 1).and_then(|seat| u32::try_from(seat).ok())
}

/// The key of an annotation.
fn key(seat: u32, sequence: u32) -> String {
    format!("{seat}-{sequence}")
}

/// Whether a document shows an annotation.
pub(super) fn shows(document: &LoroDoc, seat: u32, sequence: u32) -> bool {
    document.get_map(MAP).get(&key(seat, sequence)).is_some()
}

/// A reviewer's own document, made when it first annotates.
#[derive(Debug)]
pub(super) struct Author {
    doc: LoroDoc,
    seat: u32,
    version: VersionVector,
}

impl Author {
    /// Who sits there.
    pub(super) fn new(seat: u32) -> Self {
        let doc = LoroDoc::new();
        doc.set_peer_id(peer(seat)).expect("a new document takes any id but the reserved one");
        let version = doc.oplog_vv();
        Self { doc, seat, version }
    }

    /// Writes an annotation of `len` bytes; the update that says so. Each is one operation.
    pub(super) fn annotate(&mut self, stamp: Stamp, len: usize) -> Bytes {
        self.doc
            .get_map(MAP)
            .insert(&key(self.seat, stamp.sequence), stamp.text(len))
            .expect("a map of an attached document takes a text");
        self.doc.commit();
        let update = self.doc.export(ExportMode::updates(&self.version));
        self.version = self.doc.oplog_vv();
        update.expect("what was just written can be exported").into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_is_one_operation_and_shows_under_its_key() {
        let (mut author, reader) = (Author::new(5), LoroDoc::new());
        for sequence in 0..3 {
            let update = author.annotate(Stamp { sender: 5, sequence, due: 0 }, 160);
            assert!(!shows(&reader, 5, sequence));
            reader.import(&update).unwrap();
            assert!(shows(&reader, 5, sequence));
            assert_eq!(reader.oplog_vv().get(&peer(5)).copied(), Some(sequence as i32 + 1));
        }
        assert_eq!((seat(peer(5)), seat(PLANNER)), (Some(5), None));
    }
}
