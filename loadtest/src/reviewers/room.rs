//! One plan: what was written into it, and what came of it, once for all who read it.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Instant,
};

use bytes::Bytes;
use loro::{LoroDoc, VersionVector};
use wire::sync::{Crdt, Room as Name};

use super::presence::Sight;
use crate::{relay, stamp::Stamp};

/// How many of the frames that came last are recognised without reading them again.
const REMEMBERED: usize = 32;

/// A room and its books.
pub(super) struct Room {
    /// Where the document is.
    pub(super) document: Name,
    /// Where presence is.
    pub(super) presence: Name,
    /// Where signaling is.
    pub(super) topic: String,
    /// Who is in it, by seat.
    pub(super) members: Vec<usize>,
    /// All that was written, in the order in which it was.
    pub(super) annotations: Vec<Annotation>,
    /// Which of them a seat wrote.
    written: Vec<Vec<u32>>,
    /// Those that somebody waits for.
    pub(super) awaited: Vec<u32>,
    /// Whatever else came as an update: what newcomers get, each kept once.
    blobs: Vec<Bytes>,
    known_blobs: HashMap<Bytes, u32>,
    recent: VecDeque<(Bytes, Content)>,
}

/// One annotation.
#[derive(Debug)]
pub(super) struct Annotation {
    pub(super) seat: u32,
    pub(super) sequence: u32,
    pub(super) update: Bytes,
    /// When it should have been written.
    pub(super) due: Instant,
    /// Whether it was sent when it was due: its author was there.
    pub(super) live: bool,
    /// When it was sent, in the order of things.
    pub(super) sent: u64,
    /// Readers that were there then and do not have it yet.
    pub(super) awaited: u32,
    /// Whether the server said that it is kept.
    pub(super) acked: bool,
}

/// Something that a reviewer received; so many fit into a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Piece {
    /// An annotation, by its place in the room.
    Annotation(u32),
    /// Something else, by its place in the room.
    Blob(u32),
}

/// What a frame says, as far as it is the same for everybody who gets it.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// News of the document.
    Pieces(Arc<[Piece]>),
    /// News of presence.
    Sights(Arc<[Sight]>),
}

impl Room {
    /// A room with seats for these members.
    pub(super) fn new(name: &str, members: Vec<usize>) -> Self {
        let document = relay::named(name);
        let presence = Name { crdt: Crdt::Ephemeral, id: document.id.clone() };
        let written = members.iter().map(|_| Vec::new()).collect();
        Self {
            document,
            presence,
            topic: name.to_owned(),
            members,
            annotations: Vec::new(),
            written,
            awaited: Vec::new(),
            blobs: Vec::new(),
            known_blobs: HashMap::new(),
            recent: VecDeque::new(),
        }
    }

    /// How many seats there are.
    pub(super) fn seats(&self) -> u32 {
        self.members.len() as u32
    }

    /// Books an annotation that a seat has written.
    pub(super) fn write(&mut self, seat: u32, update: Bytes, due: Instant, live: bool) -> u32 {
        let place = self.annotations.len() as u32;
        let own = &mut self.written[seat as usize];
        let sequence = own.len() as u32;
        own.push(place);
        let (sent, awaited, acked) = (0, 0, false);
        self.annotations.push(Annotation { seat, sequence, update, due, live, sent, awaited, acked });
        place
    }

    /// What a seat wrote, in order.
    pub(super) fn written_by(&self, seat: u32) -> &[u32] {
        self.written.get(seat as usize).map_or(&[], Vec::as_slice)
    }

    /// Those that nobody waits for any more are no longer awaited.
    pub(super) fn forget_what_came(&mut self) {
        self.awaited.retain(|place| self.annotations[*place as usize].awaited > 0);
    }

    /// How many of a seat's annotations everybody must have: up to the last that was acknowledged.
    pub(super) fn promised_by(&self, seat: u32) -> u32 {
        let own = self.written_by(seat);
        own.iter()
            .rposition(|place| self.annotations[*place as usize].acked)
            .map_or(0, |last| last as u32 + 1)
    }

    /// What an update is: an annotation that came as it was sent, or something else.
    pub(super) fn recognise(&mut self, update: &Bytes) -> Piece {
        let mut stamps = Stamp::all(update);
        let place = stamps.next().filter(|_| stamps.next().is_none()).and_then(|stamp| self.place_of(stamp));
        match place.filter(|place| self.annotations[*place as usize].update == update) {
            Some(place) => Piece::Annotation(place),
            None => Piece::Blob(self.keep(update)),
        }
    }

    /// Where the annotation with this stamp is. The sender in a stamp is a seat.
    fn place_of(&self, stamp: Stamp) -> Option<u32> {
        self.written_by(stamp.sender).get(stamp.sequence as usize).copied()
    }

    fn keep(&mut self, update: &Bytes) -> u32 {
        if let Some(place) = self.known_blobs.get(update) {
            return *place;
        }
        let (place, update) = (self.blobs.len() as u32, Bytes::copy_from_slice(update));
        self.blobs.push(update.clone());
        self.known_blobs.insert(update, place);
        place
    }

    /// The bytes of a piece.
    pub(super) fn bytes(&self, piece: Piece) -> &Bytes {
        match piece {
            Piece::Annotation(place) => &self.annotations[place as usize].update,
            Piece::Blob(place) => &self.blobs[place as usize],
        }
    }

    /// All that came or was written, annotations that the server did not acknowledge apart.
    pub(super) fn all_pieces(&self) -> impl Iterator<Item = Piece> + '_ {
        let annotations = (0..).zip(&self.annotations).filter(|(_, annotation)| annotation.acked);
        let blobs = (0..self.blobs.len() as u32).map(Piece::Blob);
        annotations.map(|(place, _)| Piece::Annotation(place)).chain(blobs)
    }

    /// From which version to which a piece leads that is no annotation; `None` if it is no update of Loro.
    pub(super) fn range(&self, blob: u32) -> Option<(VersionVector, VersionVector)> {
        let meta = LoroDoc::decode_import_blob_meta(&self.blobs[blob as usize], true).ok()?;
        Some((meta.partial_start_vv, meta.partial_end_vv))
    }

    /// What a frame says that came to somebody else just now.
    pub(super) fn remembered(&self, frame: &[u8]) -> Option<Content> {
        let known = self.recent.iter().rev().find(|(known, _)| known == frame);
        known.map(|(_, content)| content.clone())
    }

    /// Remembers what a frame says, for those who get the same.
    pub(super) fn remember(&mut self, frame: Bytes, content: Content) {
        if self.recent.len() == REMEMBERED {
            self.recent.pop_front();
        }
        self.recent.push_back((frame, content));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reviewers::author::Author;

    #[test]
    fn an_annotation_is_recognised_by_its_bytes_and_everything_else_is_kept_once() {
        let mut room = Room::new("r", vec![0, 1]);
        let mut author = Author::new(1);
        let now = Instant::now();
        let mut write = |sequence| author.annotate(Stamp { sender: 1, sequence, due: 0 }, 100);
        let (first, second) = (write(0), write(1));
        assert_eq!(room.write(1, first.clone(), now, true), 0);
        assert_eq!(room.recognise(&first), Piece::Annotation(0));
        assert_eq!(room.recognise(&second), Piece::Blob(0));
        let mut garbled = first.to_vec();
        *garbled.last_mut().unwrap() ^= 1;
        assert_eq!(room.recognise(&garbled.into()), Piece::Blob(1));
        assert_eq!(room.recognise(&second), Piece::Blob(0));
        assert_eq!(room.bytes(Piece::Blob(0)), &second);
        let (from, to) = room.range(0).unwrap();
        assert_eq!((from.get(&3).copied(), to.get(&3).copied()), (Some(1), Some(2)));
        assert_eq!(room.range(1), None);
    }

    #[test]
    fn what_is_promised_reaches_up_to_the_last_ack() {
        let mut room = Room::new("r", vec![0]);
        for _ in 0..3 {
            room.write(0, Bytes::new(), Instant::now(), true);
        }
        assert_eq!(room.promised_by(0), 0);
        room.annotations[1].acked = true;
        assert_eq!((room.promised_by(0), room.promised_by(7)), (2, 0));
    }

    #[test]
    fn only_the_latest_frames_are_remembered() {
        let mut room = Room::new("r", vec![0]);
        for nth in 0..=REMEMBERED as u8 {
            room.remember(vec![nth].into(), Content::Pieces([Piece::Blob(nth.into())].into()));
        }
        assert!(room.remembered(&[0]).is_none());
        assert!(matches!(room.remembered(&[1]), Some(Content::Pieces(_))));
    }
}
