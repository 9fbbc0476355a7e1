//! The documents that clients write.

use bytes::Bytes;
use loro::{ExportMode, LoroDoc, PeerID, VersionVector};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::stamp::Stamp;

/// The map that edits go to.
const MAP: &str = "cells";
/// The text of documents that start large.
const TEXT: &str = "text";
/// How many keys of the map one author uses in turn: a document's state stays small, its history grows.
const KEYS: u32 = 16;
/// A large document is typed in pieces of that many letters, all over the place.
const PIECE: usize = 64;
/// And exported in updates of that much text, so that none exceeds what a relay takes at once.
const UPDATE: usize = 2 << 20;

/// A client's own document, with nothing in it but its own edits.
#[derive(Debug)]
pub(super) struct Author {
    doc: LoroDoc,
    peer: PeerID,
    version: VersionVector,
}

impl Author {
    /// The author that is known by this number.
    pub(super) fn new(number: u32) -> Self {
        let (doc, peer) = (LoroDoc::new(), peer(number));
        doc.set_peer_id(peer).expect("a new document takes any id but the reserved one");
        let version = doc.oplog_vv();
        Self { doc, peer, version }
    }

    /// Sets a value of `len` bytes with `stamp` in it; the update that says so.
    pub(super) fn edit(&mut self, stamp: Stamp, len: usize) -> Bytes {
        let key = format!("{}-{}", stamp.sender, stamp.sequence % KEYS);
        self.doc
            .get_map(MAP)
            .insert(&key, stamp.text(len))
            .expect("a map of an attached document takes a text");
        self.doc.commit();
        let update = self.doc.export(ExportMode::updates(&self.version));
        self.version = self.doc.oplog_vv();
        update.expect("what was just written can be exported").into()
    }

    /// All edits so far, in one update.
    pub(super) fn everything(&self) -> Vec<u8> {
        self.doc.export(ExportMode::all_updates()).expect("a document can be exported")
    }

    /// The document, to import what others wrote.
    pub(super) fn document(&self) -> &LoroDoc {
        &self.doc
    }

    /// Its id in versions. It has made as many operations as it made edits.
    pub(super) fn peer(&self) -> PeerID {
        self.peer
    }
}

/// What the author with this number is called in versions.
fn peer(number: u32) -> PeerID {
    PeerID::from(number) + 1
}

/// A document with much text in it, as somebody wrote it who jumped about.
#[derive(Debug)]
pub(super) struct Grown {
    /// The document.
    pub(super) doc: LoroDoc,
    /// The updates that make it, one after the other.
    pub(super) updates: Vec<Vec<u8>>,
}

impl Grown {
    /// A document with `bytes` of text; the same for the same seed.
    pub(super) fn new(bytes: usize, seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let doc = LoroDoc::new();
        doc.set_peer_id(1).expect("a new document takes any id but the reserved one");
        let (text, mut updates) = (doc.get_text(TEXT), Vec::new());
        let (mut len, mut exported, mut version) = (0, 0, doc.oplog_vv());
        while len < bytes {
            let piece = letters(&mut random, PIECE.min(bytes - len));
            text.insert(random.random_range(0..=len), &piece).expect("the place is within the text");
            len += piece.len();
            if len == bytes || len - exported >= UPDATE {
                doc.commit();
                updates.push(doc.export(ExportMode::updates(&version)).expect("a document can be exported"));
                (version, exported) = (doc.oplog_vv(), len);
            }
        }
        Self { doc, updates }
    }

    /// Types one letter at `place`; the update that says so.
    pub(super) fn keystroke(&self, place: usize) -> Vec<u8> {
        let before = self.doc.oplog_vv();
        let text = self.doc.get_text(TEXT);
        let place = place.min(text.len_unicode());
        text.insert(place, "k").expect("the place is within the text");
        self.doc.commit();
        self.doc.export(ExportMode::updates(&before)).expect("what was just written can be exported")
    }
}

fn letters(random: &mut StdRng, count: usize) -> String {
    (0..count).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}

/// Whether two documents hold the same edits and say the same.
pub(super) fn equal(one: &LoroDoc, other: &LoroDoc) -> bool {
    one.oplog_vv() == other.oplog_vv() && one.get_deep_value() == other.get_deep_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_carries_its_stamp_where_it_can_be_found_and_counts_as_one_operation() {
        let mut author = Author::new(3);
        let reader = LoroDoc::new();
        for sequence in 0..40 {
            let stamp = Stamp { sender: 3, sequence, due: 5_000_000_000 };
            let update = author.edit(stamp, 120);
            assert_eq!(Stamp::all(&update).collect::<Vec<_>>(), [stamp]);
            assert!((120..300).contains(&update.len()), "{} bytes", update.len());
            reader.import(&update).unwrap();
        }
        assert!(equal(author.document(), &reader));
        assert_eq!(reader.oplog_vv().get(&author.peer()), Some(&40));
    }

    #[test]
    fn a_grown_document_is_the_same_for_the_same_seed_and_its_updates_make_it() {
        let grown = Grown::new(UPDATE + 1000, 7);
        assert_eq!(grown.updates.len(), 2);
        let read = LoroDoc::new();
        for update in &grown.updates {
            read.import(update).unwrap();
        }
        assert!(equal(&grown.doc, &read));
        assert!(equal(&Grown::new(UPDATE + 1000, 7).doc, &read));
        assert!(!equal(&Grown::new(UPDATE + 1000, 8).doc, &read));
        read.import(&grown.keystroke(500)).unwrap();
        assert!(equal(&grown.doc, &read));
        assert_eq!(read.get_text(TEXT).len_unicode(), UPDATE + 1001);
    }
}
