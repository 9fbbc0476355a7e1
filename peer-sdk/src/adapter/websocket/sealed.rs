//! `%ELO`: a document through a relay that nobody has to trust.
//!
//! The engine speaks of a document in the clear. On its way out each update becomes a record: a header that says which
//! changes of whom it covers, and AES-GCM ciphertext, with the header as additional data, as the published `EloAdaptor`
//! has them. On the way in it is the other way round. What the relay sees is who changed how much and when, and the
//! room's name; it can withhold and repeat, but neither read nor forge.
//!
//! Presence has no such form: it does not go this way at all.

mod key;

use std::time::Instant;

use bytes::Bytes;
use loro::LoroDoc;
use wire::fragment::{FRAGMENT, FragmentLimits, Reassembly, Split};
use wire::id::BatchId;
use wire::sealed::{self, Record, Span};
use wire::sync::{Crdt, Frame, Message, Room};

pub use key::{BadKey, Key};

/// Between the engine's words for one connection and the relay's.
pub(super) struct Sealing {
    key: Key,
    /// The engine's updates, until they are whole.
    leaving: Reassembly,
    /// The relay's updates, until they are whole.
    coming: Reassembly,
    /// Something could not be decrypted.
    unreadable: bool,
}

/// The relay sends what makes no sense: it is left, and joined afresh.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Senseless;

impl Sealing {
    pub(super) fn new(key: Key) -> Self {
        // What the engine says is finished, however long it is.
        let unlimited = FragmentLimits {
            update: usize::MAX,
            pending: usize::MAX,
            fragments: usize::MAX,
            ..FragmentLimits::default()
        };
        Self {
            key,
            leaving: Reassembly::new(unlimited),
            coming: Reassembly::new(FragmentLimits::default()),
            unreadable: false,
        }
    }

    /// Whether anything that could not be decrypted has come by now; said once.
    pub(super) fn has_wrong_key(&mut self) -> bool {
        std::mem::take(&mut self.unreadable)
    }

    /// What to send for something that the engine says.
    pub(super) fn outgoing(&mut self, now: Instant, frame: &Bytes) -> Vec<Bytes> {
        let Ok(Frame { room, message }) = Frame::decode(frame) else { return Vec::new() };
        if room.crdt != Crdt::Loro {
            return Vec::new();
        }
        let (batch, update) = match message {
            Message::Update { batch, updates } => (batch, updates.iter().next()),
            Message::FragmentHeader(header) => {
                let batch = header.batch;
                let begun = self.leaving.header(now, &room, header, frame);
                debug_assert!(begun.is_ok(), "what the engine says is in order");
                (batch, None)
            }
            Message::Fragment(fragment) => {
                let batch = fragment.batch;
                let whole = self.leaving.fragment(now, &room, fragment, frame).ok().flatten();
                (batch, whole.map(|whole| whole.update))
            }
            message => return message.encode(&translated(room, Crdt::Sealed)).into_iter().collect(),
        };
        let container = update.and_then(|update| self.seal(&update));
        let Some(container) = container else { return Vec::new() };
        Split::new(&translated(room, Crdt::Sealed), batch, &container, FRAGMENT).collect()
    }

    /// An update of one author's changes, as the relay may see it.
    fn seal(&self, update: &[u8]) -> Option<Bytes> {
        let meta = LoroDoc::decode_import_blob_meta(update, false).ok()?;
        let mut ends = meta.partial_end_vv.iter();
        let (peer, end) = ends.next()?;
        debug_assert!(ends.next().is_none(), "the engine sends one author's changes at a time here");
        let start = meta.partial_start_vv.get(peer).copied().unwrap_or(0);
        let counter = |counter: i32| u64::try_from(counter).unwrap_or(0);
        let span = Span { peer: peer.to_string().into(), start: counter(start), end: counter(*end) };
        let record = self.key.seal(&span, update)?;
        Some(sealed::container(&[record]))
    }

    /// What to tell the engine for something that the relay says.
    pub(super) fn incoming(&mut self, now: Instant, frame: &Bytes) -> Result<Vec<Bytes>, Senseless> {
        if self.coming.expired(now).is_some() {
            return Err(Senseless);
        }
        let Frame { room, message } = Frame::decode(frame).map_err(|_| Senseless)?;
        if room.crdt != Crdt::Sealed {
            return Ok(Vec::new());
        }
        match message {
            Message::Update { batch, updates } => {
                let updates: Vec<_> = updates.iter().collect();
                Ok(updates.iter().flat_map(|container| self.open(&room, batch, container)).collect())
            }
            Message::FragmentHeader(header) => {
                self.coming.header(now, &room, header, frame).map_err(|_| Senseless)?;
                Ok(Vec::new())
            }
            Message::Fragment(fragment) => {
                let batch = fragment.batch;
                let whole = self.coming.fragment(now, &room, fragment, frame).map_err(|_| Senseless)?;
                Ok(whole.map_or_else(Vec::new, |whole| self.open(&room, batch, &whole.update)))
            }
            message => Ok(message.encode(&translated(room, Crdt::Loro)).into_iter().collect()),
        }
    }

    /// Decrypts what can be decrypted.
    fn open(&mut self, room: &Room, batch: BatchId, container: &Bytes) -> Vec<Bytes> {
        let room = translated(room.clone(), Crdt::Loro);
        let mut frames = Vec::new();
        for record in sealed::records(container) {
            // What stands behind a record that makes no sense makes none either.
            let Ok(record) = record else { break };
            match self.key.open(&record) {
                Some(update) => frames.extend(Split::new(&room, batch, &update, FRAGMENT)),
                None => self.unreadable = true,
            }
        }
        frames
    }
}

fn translated(room: Room, crdt: Crdt) -> Room {
    Room { crdt, ..room }
}

impl Key {
    /// The record of an update that covers this span. `None` if it is beyond the cipher's limit of 64 GiB.
    fn seal(&self, span: &Span, update: &[u8]) -> Option<Bytes> {
        let iv = key::fresh_iv();
        let header = sealed::span_header(span, self.id(), iv).ok()?;
        let ciphertext = self.encrypt(iv, &header, update)?;
        Some(Record::encode(&header, &ciphertext))
    }

    /// The update of a record; `None` if it was encrypted with another key, or damaged.
    fn open(&self, record: &Record) -> Option<Bytes> {
        self.decrypt(record.iv, &record.header, &record.ciphertext).map(Bytes::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use loro::ExportMode;
    use wire::id::RoomId;
    use wire::sealed::Covers;
    use wire::sync;

    fn room(crdt: Crdt) -> Room {
        Room { crdt, id: RoomId::try_from("plan").unwrap() }
    }

    fn sealing(byte: u8) -> Sealing {
        Sealing::new(Key::new("first", &[byte; 32]).unwrap())
    }

    fn update(len: usize) -> Vec<u8> {
        let doc = LoroDoc::new();
        doc.set_peer_id(77).unwrap();
        let noise: Vec<u8> = (0..len as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        doc.get_map("m").insert("secret", noise).unwrap();
        doc.commit();
        doc.export(ExportMode::all_updates()).unwrap()
    }

    fn updates(frames: &[Bytes]) -> Vec<Bytes> {
        let mut whole = Reassembly::new(FragmentLimits::default());
        let mut found = Vec::new();
        for frame in frames {
            let Frame { room, message } = Frame::decode(frame).unwrap();
            match message {
                Message::Update { updates, .. } => found.extend(updates.iter()),
                Message::FragmentHeader(header) => {
                    whole.header(Instant::now(), &room, header, frame).unwrap();
                }
                Message::Fragment(part) => {
                    let done = whole.fragment(Instant::now(), &room, part, frame).unwrap();
                    found.extend(done.map(|done| done.update));
                }
                other => panic!("{other:?}"),
            }
        }
        found
    }

    #[test]
    fn what_goes_out_cannot_be_read_and_comes_in_as_it_was() {
        let now = Instant::now();
        for len in [10, 200_000, 2_000_000] {
            let plain = update(len);
            let mut sender = sealing(1);
            let room = room(Crdt::Loro);
            let said = Split::new(&room, BatchId::from(3), &plain, FRAGMENT);
            let sent: Vec<_> = said.flat_map(|frame| sender.outgoing(now, &frame)).collect();
            let secret = &plain[plain.len() - 8..];
            for frame in &sent {
                assert_eq!(Frame::decode(frame).unwrap().room.crdt, Crdt::Sealed);
                assert!(!frame.windows(8).any(|bytes| bytes == secret));
            }
            let mut reader = sealing(1);
            let heard: Vec<_> = sent.iter().flat_map(|frame| reader.incoming(now, frame).unwrap()).collect();
            assert_eq!(updates(&heard), [plain], "{len}");
            assert!(!reader.has_wrong_key());
        }
    }

    #[test]
    fn a_header_says_whose_changes_they_are() {
        let plain = update(10);
        let frame = sync::update(&room(Crdt::Loro), BatchId::from(3), &[&plain]).unwrap();
        let sent = sealing(1).outgoing(Instant::now(), &frame);
        let record = sealed::records(&updates(&sent)[0]).next().unwrap().unwrap();
        assert_eq!(record.covers, Covers::Span(Span { peer: "77".into(), start: 0, end: 1 }));
        assert_eq!(record.key_id, "first");
    }

    #[test]
    fn another_key_and_damage_are_noticed_and_nothing_is_imported() {
        let now = Instant::now();
        let frame = sync::update(&room(Crdt::Loro), BatchId::from(3), &[update(10)]).unwrap();
        let sent = sealing(1).outgoing(now, &frame);
        let mut reader = sealing(2);
        assert_eq!(reader.incoming(now, &sent[0]).unwrap(), [] as [Bytes; 0]);
        assert!(reader.has_wrong_key() && !reader.has_wrong_key());
        let mut reader = sealing(1);
        for at in 0..sent[0].len() {
            let mut damaged = sent[0].to_vec();
            damaged[at] ^= 1;
            if let Ok(heard) = reader.incoming(now, &damaged.into()) {
                assert!(updates_or_nothing(&heard), "byte {at}");
            }
        }
    }

    /// A batch's own number is in the clear, and says nothing.
    fn updates_or_nothing(heard: &[Bytes]) -> bool {
        heard.iter().all(|frame| match Frame::decode(frame).unwrap().message {
            Message::Update { updates, .. } => updates.iter().all(|bytes| bytes == update(10)),
            _ => true,
        })
    }

    #[test]
    fn presence_does_not_go_through_a_relay_that_is_not_trusted() {
        let presence = sync::update(&room(Crdt::Ephemeral), BatchId::from(3), &[b"who"]).unwrap();
        assert!(sealing(1).outgoing(Instant::now(), &presence).is_empty());
    }

    #[test]
    fn a_relay_that_makes_no_sense_is_left() {
        let mut reader = sealing(1);
        assert_eq!(reader.incoming(Instant::now(), &Bytes::from_static(b"%ELO")), Err(Senseless));
        let part =
            Message::Fragment(sync::Fragment { batch: BatchId::from(1), index: 0, bytes: Bytes::new() });
        let part = part.encode(&room(Crdt::Sealed)).unwrap();
        assert_eq!(reader.incoming(Instant::now(), &part), Err(Senseless));
    }
}
